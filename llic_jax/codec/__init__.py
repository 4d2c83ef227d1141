"""The codec: images to files and back."""
