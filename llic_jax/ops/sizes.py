"""Sizes of images: the multiples that the networks need, and padding to them."""

import numpy as np
from jaxtyping import Shaped

DOWNSAMPLING = 64  # image side to `z` side: images are padded to multiples of it
LATENT_STRIDE = 16  # image side to `y` side


def pad_to_multiple(
    x: Shaped[np.ndarray, "b h w c"], multiple: int = 64
) -> Shaped[np.ndarray, "b padded_h padded_w c"]:
    """Pads the bottom and the right by edge replication to multiples of `multiple` (our choice)."""
    _, height, width, _ = x.shape
    return np.pad(x, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
