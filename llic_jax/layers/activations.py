"""Activations: `leaky_relu`, with the slope 0.01 (our choice)."""

from functools import partial

import flax.linen as nn

leaky_relu = partial(nn.leaky_relu, negative_slope=0.01)  # slope: our choice
