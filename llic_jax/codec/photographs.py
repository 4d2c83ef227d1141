"""Files decoded to photographs: the image, and the sections that belong to it."""

from collections.abc import Sequence

from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.sections import photograph_fields
from llic_jax.codec.codec import Codec
from llic_jax.images.photograph import Photograph


def decode_photograph(codec: Codec, data: bytes) -> Photograph:
    """The photograph in these `.llic` bytes.

    Raises:
      BitstreamError: one of its subclasses, as `Codec.decode`; a section that cannot be read counts
        as damage.
    """
    return decode_photographs(codec, [data])[0]


def decode_photographs(codec: Codec, data: Sequence[bytes]) -> list[Photograph]:
    """The photographs in several files, decoded together (`Codec.decode_batch`).

    Raises:
      BitstreamError: as `decode_photograph`, for the first file with which something is wrong.
      InputError: as `Codec.decode_batch`.
    """
    files = [LlicFile.from_bytes(of_image) for of_image in data]
    # Before any image is decoded: damage here is found at once.
    belongings = [photograph_fields(file) for file in files]
    images = [decoded.image for decoded in codec.decode_batch(data)]
    return [
        Photograph(image, **of_image) for image, of_image in zip(images, belongings, strict=True)
    ]
