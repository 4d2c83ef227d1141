"""The configurations: one file each, their common defaults, and what a configuration is."""
