"""Files, memory and software of the machine."""
