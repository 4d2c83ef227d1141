"""Distortion of an image, and rates of two curves compared."""
