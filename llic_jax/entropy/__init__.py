"""Entropy models: the distributions of the latents, and the order in which they are coded."""
