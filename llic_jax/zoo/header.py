"""What a `.llic` file says, with its model's name. Loads neither JAX nor NumPy."""

from typing import Any, NamedTuple

from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.tags import ICC, inflated
from llic_jax.zoo.registry import name_of


class Header(NamedTuple):
    """What a file says.

    Attributes:
        width: Of the image, pixels.
        height: Of the image, pixels.
        fingerprint: Of the model that wrote the file, hexadecimal digits; empty in version 4.
        model: Its name; empty if it was never released, and in version 4.
        quality: 1 to the model's number of levels; None for a model of one rate, and in version 4.
        profile: ICC profile; None: sRGB.
        version: Of the format.
        coder: Name of the range coder; its number if it is not known; empty in version 4.
    """

    width: int
    height: int
    fingerprint: str
    model: str
    quality: float | None
    profile: bytes | None
    version: int
    coder: str


def read_header(data: Any) -> Header:
    """Reads what a `.llic` file says; nothing is decoded and no model is loaded.

    Args:
        data: The bytes of the whole file.

    Raises:
        BitstreamError: As `LlicFile.from_bytes`, or a profile that cannot be read.
        ArgumentTypeError: Not bytes.
    """
    return header_of(LlicFile.from_bytes(data))


def header_of(file: LlicFile) -> Header:
    """What a file that is parsed already says.

    Raises:
        CorruptError: A profile that cannot be read.
    """
    fingerprint = file.fingerprint.hex()
    return Header(
        file.width,
        file.height,
        fingerprint,
        name_of(fingerprint),
        file.quality or None,
        inflated(file.sections, ICC),
        file.version,
        file.coder_name,
    )
