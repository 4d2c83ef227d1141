"""Layers that all networks are made of."""
