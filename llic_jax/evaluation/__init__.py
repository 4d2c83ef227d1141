"""Measurements of codecs on sets of images."""
