"""The range coders, one file for each library."""
