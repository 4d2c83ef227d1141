import dataclasses
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from llic_jax.coding import bitstream, container
from llic_jax.coding.bitstream import CorruptError
from llic_jax.images import Photograph


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
    data = tiny_codec.encode(whole.rgb, 1.5, container.sections(whole, keep_exif=True)).data
    decoded = container.decompress(tiny_codec, data)
    np.testing.assert_array_equal(decoded.rgb, tiny_codec.decompress(data))
    np.testing.assert_array_equal(decoded.alpha, whole.alpha)
    assert (decoded.icc, decoded.exif, decoded.grey) == (whole.icc, whole.exif, False)
    assert (decoded.xmp, decoded.dpi) == (whole.xmp, whole.dpi)


def test_metadata_is_kept_only_where_asked_for(whole):
    assert not {container.EXIF, container.XMP, container.RESOLUTION} & set(
        container.sections(whole)
    )


def test_a_plain_photograph_has_no_sections(tiny_codec, photograph):
    plain = Photograph(photograph[:40, :50])
    assert container.sections(plain) == {}
    data = tiny_codec.compress(plain.rgb)
    decoded = container.decompress(tiny_codec, data)
    assert (decoded.alpha, decoded.icc, decoded.exif, decoded.grey) == (None, None, None, False)
    assert bitstream.parse(data).sections == {}


def test_a_reader_passes_over_what_it_does_not_know(tiny_codec, whole):
    data = tiny_codec.encode(whole.rgb, 1.5, {250: b"from the future"}).data
    assert container.decompress(tiny_codec, data).icc is None


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (container.ICC, b"not deflated"),
        (container.ICC, zlib.compress(b"cut short" * 100)[:-6]),
        (container.EXIF, zlib.compress(bytes(container.MAX_METADATA + 1))),
        (container.ICC, b""),
        (container.XMP, b"not deflated"),
        (container.RESOLUTION, bytes(7)),
        (container.RESOLUTION, bytes(8)),
        (container.RESOLUTION, b"\xff" * 8),
        (container.ALPHA, b"no image"),
        (container.ALPHA, png(np.zeros((40, 51), np.uint8))),
        (container.ALPHA, png(np.zeros((40, 50, 3), np.uint8))),
        (container.ALPHA, png(np.arange(2000, dtype=np.uint8).reshape(40, 50))[:-40]),
    ],
)
def test_damaged_sections_are_corrupt(tiny_codec, whole, tag, content, monkeypatch):
    file = bitstream.parse(tiny_codec.compress(whole.rgb))
    data = dataclasses.replace(file, sections={tag: content}).to_bytes()
    # Found before the image is decoded.
    monkeypatch.setattr(type(tiny_codec), "decode_batch", None)
    with pytest.raises(CorruptError) as error:
        container.decompress(tiny_codec, data)
    assert ("is the most that is read" in str(error.value)) == (
        len(content) > 0 and tag == container.EXIF
    )
