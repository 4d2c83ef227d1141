"""What encoding and decoding return."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float, UInt8


@dataclasses.dataclass(frozen=True)
class Compressed:
    """What compressing an image yields.

    data: the file's bytes. y_hat: the decoded latent, from which `Codec.reconstruct` makes the very
    image that the decoder will make. bits: the file's size as estimated: the model's own estimate
    for y and z, and the header. network_seconds, coder_seconds: time spent in the networks, and
    in the range coder while no network was at work.
    """

    data: bytes
    y_hat: Float[Array | np.ndarray, "1 h16 w16 m"]
    bits: float
    network_seconds: float
    coder_seconds: float


@dataclasses.dataclass(frozen=True)
class Decompressed:
    """What decompressing a file yields: image `(H, W, 3)` uint8, and the time spent."""

    image: UInt8[np.ndarray, "h w 3"]
    network_seconds: float
    coder_seconds: float
