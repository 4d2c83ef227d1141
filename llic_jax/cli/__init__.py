"""The command `llic`."""
