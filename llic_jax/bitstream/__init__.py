"""The bytes of a .llic file: the header, the sections and the payload."""
