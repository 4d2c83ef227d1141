import dataclasses
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from llic_jax.bitstream.file import LlicFile
from llic_jax.bitstream.sections import sections_of
from llic_jax.bitstream.tags import ALPHA, EXIF, ICC, MAX_METADATA, RESOLUTION, XMP
from llic_jax.codec.decoder import Decoder
from llic_jax.errors import CorruptError
from llic_jax.images.photograph import Photograph


@pytest.fixture(scope="module")
def whole(photograph) -> Photograph:
    """A photograph with everything that a file can hold."""
    rgb = photograph[:40, :50]
    alpha = np.arange(2000, dtype=np.uint32).reshape(40, 50).astype(np.uint8)
    return Photograph(
        rgb,
        False,
        alpha,
        icc=b"profile " * 50,
        exif=b"Exif\0\0 metadata",
        xmp=b"<x:xmpmeta/>",
        dpi=(300.0, 72.5),
    )


def test_all_sections_come_back(tiny_codec, whole):
    data = tiny_codec.encode([whole.rgb], sections=[sections_of(whole, keep_exif=True)])[0].data
    decoded = tiny_codec.decode_photographs([data])[0]
    np.testing.assert_array_equal(decoded.rgb, tiny_codec.decompress(data))
    np.testing.assert_array_equal(decoded.alpha, whole.alpha)
    assert (decoded.icc, decoded.exif, decoded.grey) == (whole.icc, whole.exif, False)
    assert (decoded.xmp, decoded.dpi) == (whole.xmp, whole.dpi)


def test_metadata_is_kept_only_where_asked_for(whole):
    assert not {EXIF, XMP, RESOLUTION} & set(sections_of(whole))


def test_a_plain_photograph_has_no_sections(tiny_codec, photograph):
    plain = Photograph(photograph[:40, :50])
    assert sections_of(plain) == {}
    data = tiny_codec.compress(plain.rgb)
    decoded = tiny_codec.decode_photographs([data])[0]
    assert (decoded.alpha, decoded.icc, decoded.exif, decoded.grey) == (None, None, None, False)
    assert LlicFile.from_bytes(data).sections == {}


def test_a_reader_passes_over_what_it_does_not_know(tiny_codec, whole):
    data = tiny_codec.encode([whole.rgb], sections=[{250: b"from the future"}])[0].data
    assert tiny_codec.decode_photographs([data])[0].icc is None


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (ICC, b"not deflated"),
        (ICC, zlib.compress(b"cut short" * 100)[:-6]),
        (EXIF, zlib.compress(bytes(MAX_METADATA + 1))),
        (ICC, b""),
        (XMP, b"not deflated"),
        (RESOLUTION, bytes(7)),
        (RESOLUTION, bytes(8)),
        (RESOLUTION, b"\xff" * 8),
        (ALPHA, b"no image"),
        (ALPHA, png(np.zeros((40, 51), np.uint8))),
        (ALPHA, png(np.zeros((40, 50, 3), np.uint8))),
        (ALPHA, png(np.arange(2000, dtype=np.uint8).reshape(40, 50))[:-40]),
    ],
)
def test_damaged_sections_are_corrupt(tiny_codec, whole, tag, content, monkeypatch):
    file = LlicFile.from_bytes(tiny_codec.compress(whole.rgb))
    data = dataclasses.replace(file, sections={tag: content}).to_bytes()
    # Found before the image is decoded.
    monkeypatch.setattr(Decoder, "decode", None)
    with pytest.raises(CorruptError) as error:
        tiny_codec.decode_photographs([data])[0]
    assert ("is the most that is read" in str(error.value)) == (len(content) > 0 and tag == EXIF)
