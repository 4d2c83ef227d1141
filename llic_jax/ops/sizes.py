"""Sizes of images: the multiples that the networks need, and padding to them."""

import numpy as np
from jaxtyping import Shaped

LATENT_STRIDE = 16  # pixels of an image for each position of `y` (paper)
HYPER_STRIDE = 64  # pixels for each position of `z` (paper); images are padded to multiples of it


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `length`."""
    return -(-length // multiple) * multiple


def pad_to_multiple(
    x: Shaped[np.ndarray, "b h w c"], multiple: int = HYPER_STRIDE
) -> Shaped[np.ndarray, "b padded_h padded_w c"]:
    """Pads the bottom and the right by edge replication (our choice).

    Args:
        x: Images.
        multiple: Of which the sides become multiples.
    """
    _, height, width, _ = x.shape
    return np.pad(x, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")
