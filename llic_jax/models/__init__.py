"""The complete model: transforms, entropy model and gains."""
