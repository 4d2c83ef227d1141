"""What encoding and decoding return."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float, UInt8

from llic_jax.coding.step_checks import Verified


@dataclasses.dataclass(frozen=True)
class Effort:
    """What refinement (`refinement.py`) made of a file.

    Attributes:
        bytes_before: Of the file without it.
        psnr_before: Of that file's image, dB, over RGB and what counts of the image.
        psnr: Of the file's own.
    """

    bytes_before: int
    psnr_before: float
    psnr: float


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A compressed image.

    Attributes:
        data: The file's bytes.
        quality: That it was compressed with; None for a model of one rate.
        height: Of the image, pixels.
        width: Of the image, pixels.
        y_hat: The decoded latent, from which `Codec.reconstruct` makes the very image that the
            decoder will make; None for an image that is coded another way (`fallback.py`). Of JAX
            if the image was, on its device; of NumPy otherwise, and after refinement.
        bits: The file's size as estimated: the model's own estimate for y and z, and the header.
        network_seconds: Spent in the networks.
        coder_seconds: Spent in the range coder while no network was at work.
        effort: What refinement gained; None without it.
    """

    data: bytes
    quality: float | None
    height: int
    width: int
    y_hat: Float[Array | np.ndarray, "1 h16 w16 m"] | None
    bits: float
    network_seconds: float
    coder_seconds: float
    effort: Effort | None = None

    @property
    def bpp(self) -> float:
        """Bits per pixel of the file."""
        return 8 * len(self.data) / (self.height * self.width)

    @property
    def seconds(self) -> float:
        """All the time that it took."""
        return self.network_seconds + self.coder_seconds


@dataclasses.dataclass(frozen=True)
class Decompressed:
    """A decompressed image.

    Attributes:
        image: `(H, W, 3)`.
        network_seconds: Spent in the networks.
        coder_seconds: Spent in the range coder.
        share: How much of the file's payload was there; below 1 for a preview.
        verified: What the checks of a progressive file's steps say; None for a file without them.
    """

    image: UInt8[np.ndarray, "h w 3"]
    network_seconds: float
    coder_seconds: float
    share: float = 1.0
    verified: Verified | None = None

    @property
    def seconds(self) -> float:
        """All the time that it took."""
        return self.network_seconds + self.coder_seconds
