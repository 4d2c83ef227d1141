"""What a codec must offer to be measured, and what a measurement holds."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "_ _ 3"]  # any size: two images need not be of one size
Quality = float | None


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One image, coded into a real file and decoded from it.

    Attributes:
      bytes: Size of the file.
      image: Decoded from that file, uint8 `(H, W, 3)`.
      encode_seconds: With compiled programs.
      decode_seconds: With compiled programs.
      encode_network_seconds: The part of `encode_seconds` spent in networks; the rest is entropy
        coding. None: the codec has no networks.
      decode_network_seconds: Likewise of `decode_seconds`.
      bits: The model's own estimate of the file's size. None: it makes none.
      identical: Whether the decoded image equals the encoder's reconstruction. None: not checked.
      peak_memory: In bytes (see `peak_memory`).
    """

    bytes: int
    image: Image
    encode_seconds: float
    decode_seconds: float
    encode_network_seconds: float | None = None
    decode_network_seconds: float | None = None
    bits: float | None = None
    identical: bool | None = None
    peak_memory: int | None = None


@runtime_checkable
class CodecUnderTest(Protocol):
    """A codec that is measured. It is sent to worker processes, so it pickles small.

    Attributes:
      name: The name of its curve.
      version: Everything that its figures depend on, as one line.
      separate: Measured in a process of its own, so that its memory is not that of JAX.
    """

    @property
    def name(self) -> str:
        """The name of its curve."""

    @property
    def separate(self) -> bool:
        """Whether it is measured in a process of its own."""

    @property
    def version(self) -> str:
        """Everything that its figures depend on, as one line."""

    def setting(self, quality: Quality) -> str:
        """Returns the complete settings at a quality, in words."""

    def code(self, image: Image, quality: Quality) -> Measurement:
        """Compresses an image into a real file and decodes that.

        Args:
          image: uint8 `(H, W, 3)`.
          quality: Of the codec's own scale; None where it has one setting.
        """


Task = tuple[Quality, Image]
