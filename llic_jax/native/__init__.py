"""Code that is compiled when the package is installed, and how it is loaded."""
