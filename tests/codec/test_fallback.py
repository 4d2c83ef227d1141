"""Pictures that are coded another way than by the networks."""

import dataclasses
import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

import llic_jax
from llic_jax.bitstream.file import JPEG, LOSSLESS, PICTURE_VERSION, WEBP, LlicFile
from llic_jax.codec import fallback
from llic_jax.codec.codec import Codec
from llic_jax.codec.rate_control import Quality, TargetBpp
from llic_jax.errors import CorruptError, LatentError
from llic_jax.metrics.distortion import image_psnr

SIZE = 48, 56


def stripes(width: int) -> np.ndarray:
    columns = 255 * (np.arange(SIZE[1]) // width % 2)
    return np.broadcast_to(columns[None, :, None], (*SIZE, 3)).astype(np.uint8).copy()


def noise(levels: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, levels, (*SIZE, 3))
    return (255 * values // (levels - 1)).astype(np.uint8)


PICTURES = {
    "stripes of 1": stripes(1),
    "stripes of 8": stripes(8),
    "checks": stripes(2) ^ (255 * (np.arange(48) // 2 % 2)).astype(np.uint8)[:, None, None],
    "black and white noise": np.repeat(noise(2)[..., :1], 3, -1),
    "one colour": np.full((*SIZE, 3), (9, 200, 30), np.uint8),
    "a single pixel": np.full((1, 1, 3), 7, np.uint8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_patterns_come_back_as_they_were(tiny_codec, name):
    """Networks of random weights spoil everything."""
    image = PICTURES[name]
    data = tiny_codec.compress(image, 1.0)
    file = LlicFile.from_bytes(data)
    assert set(file.sections) == {LOSSLESS} and file.version == PICTURE_VERSION
    np.testing.assert_array_equal(tiny_codec.decompress(data), image)
    assert LlicFile.from_bytes(tiny_codec.compress(image, 1.0, strict_llic=True)).payload


def test_a_lossless_picture_is_smaller_than_its_webp(tiny_codec):
    for image in (stripes(4), noise(2), PICTURES["one colour"], PICTURES["a single pixel"]):
        assert len(tiny_codec.compress(image, 1.0)) < len(webp(image))


@pytest.fixture
def networks(tiny_codec):
    """The networks' file of an image, with a payload of so many bytes."""

    def file(image, size):
        whole = LlicFile.from_bytes(tiny_codec.compress(image, 1.0, strict_llic=True))
        return dataclasses.replace(whole, payload=bytes(size))

    return file


def test_whole_files_are_compared(networks):
    """A picture that no network spoils is in the smaller of the two files, to the byte."""
    image, sections = noise(2), {128: b"a section of another program"}
    lossless = fallback.choose(image, sections, None, lambda: image, 20.0, 25.0)
    assert LlicFile.from_bytes(lossless).sections.keys() == {LOSSLESS, 128}
    large = dataclasses.replace(networks(image, 5000), sections=sections)
    beyond = len(large.to_bytes()) - len(lossless)
    for apart in (-1, 0, 1):
        file = dataclasses.replace(large, payload=bytes(5000 - beyond + apart))
        assert len(file.to_bytes()) == len(lossless) + apart
        found = fallback.choose(image, sections, file, lambda: image, 20.0, 25.0)
        assert found == (lossless if apart > 0 else None)


def test_photographs_are_the_networks(photograph, networks):
    """Not even looked at: no time is lost on them."""
    for image in (photograph, photograph[:64, :64]):
        file = networks(image, image[..., 0].size // 16)  # half a bit per pixel

        def decoded():
            raise AssertionError("compared")

        assert fallback.choose(image, {}, file, decoded, 20.0, 30.0) is None


def test_the_smallest_that_is_good_enough_takes_the_place_of_a_spoilt_picture(networks):
    image = noise(256)
    large, small = networks(image, 10**6), networks(image, 100)
    found = fallback.choose(image, {}, large, lambda: 255 - image, 20.0, 25.0)
    assert LOSSLESS in LlicFile.from_bytes(found).sections or len(found) < image.size
    found = fallback.choose(image, {}, small, lambda: 255 - image, 20.0, 25.0)
    file = LlicFile.from_bytes(found)
    assert file.sections.keys() <= {WEBP, JPEG}
    assert image_psnr(image, fallback.decode(file)) >= 25.0
    assert fallback.choose(image, {}, small, lambda: image, 20.0, 25.0) is None  # not spoilt


def test_what_the_networks_cannot_code_is_no_error(tiny_codec, photograph, monkeypatch):
    monkeypatch.setattr("llic_jax.codec.validation.MAX_LATENT", 0)
    image = photograph[:48, :56]
    with pytest.raises(LatentError):
        tiny_codec.compress(image, strict_llic=True)
    others = tiny_codec.encode([image, stripes(2)], Quality(1.0), fall_back=True)
    psnr = fallback.expected_psnr(1.0, tiny_codec.model.lambdas)
    for compressed, original in zip(others, (image, stripes(2)), strict=True):
        decoded = tiny_codec.decompress(compressed.data)
        assert image_psnr(original, decoded) >= psnr
        np.testing.assert_array_equal(tiny_codec.reconstruct(compressed), decoded)


def test_files_of_both_kinds_are_decoded_together(tiny_codec, photograph):
    images = [stripes(3), photograph[:48, :56], noise(2)]
    data = [tiny_codec.compress(images[i], 1.0, strict_llic=i == 1) for i in range(3)]
    decoded = tiny_codec.decode(data)
    for i in (0, 2):
        np.testing.assert_array_equal(decoded[i].image, images[i])
    np.testing.assert_array_equal(decoded[1].image, tiny_codec.decompress(data[1]))


def test_a_target_rate_is_kept(tiny_codec):
    limit = 24.0
    found = tiny_codec.encode([noise(256)], TargetBpp(limit), fall_back=True)[0]
    assert 8 * len(found.data) <= limit * noise(256)[..., 0].size


def webp(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"height": 1 << 15},
        {"sections": {}},
        {"sections": {LOSSLESS: b""}},
        {"sections": {LOSSLESS: b"no image"}},
        {"sections": {WEBP: b"no image"}},
        {"sections": {JPEG: b"no image"}},
        {"sections": {WEBP: webp(stripes(4)[:47])}},
        {"sections": {LOSSLESS: b"a", JPEG: b"b"}},
    ],
)
def test_damaged_pictures_are_corrupt(tiny_codec, change):
    file = LlicFile.from_bytes(tiny_codec.compress(stripes(4), 1.0))
    with pytest.raises(CorruptError, match="damaged"):
        tiny_codec.decompress(dataclasses.replace(file, **change).to_bytes())


def in_version_3(codec: Codec, file: LlicFile, **changes: Any) -> bytes:
    """As they were written from 2026-11-26 to 27: with all fields of the networks' files."""
    fields = {"fingerprint": codec.fingerprint, "coder": 1, "quality": 1.0, "version": 3}
    file = dataclasses.replace(file, **fields)
    crc = zlib.crc32(file.checksummed_header)
    return dataclasses.replace(file, **({"symbols_crc": crc} | changes)).to_bytes()


def test_pictures_in_files_of_version_3_are_read(tiny_codec):
    file = LlicFile.from_bytes(tiny_codec.compress(stripes(4), 1.0))
    np.testing.assert_array_equal(tiny_codec.decompress(in_version_3(tiny_codec, file)), stripes(4))
    for change in ({"payload": b"more"}, {"symbols_crc": 1}):
        with pytest.raises(CorruptError, match="damaged"):
            tiny_codec.decompress(in_version_3(tiny_codec, file, **change))


def test_a_picture_needs_no_model(tiny_codec):
    data = tiny_codec.compress(stripes(4), 1.0)
    assert LlicFile.from_bytes(data).fingerprint == b""
    np.testing.assert_array_equal(llic_jax.decompress(data), stripes(4))  # by the released one


def test_expected_psnr_rises_with_quality():
    lambdas = (0.0004, 0.0009, 0.0483)
    found = [fallback.expected_psnr(quality, lambdas) for quality in (1.0, 1.5, 2.0, 3.0)]
    assert found == sorted(found) and 23 < found[0] < 25 and 35 < found[-1] < 37
    assert fallback.expected_psnr(None, lambdas[2:]) == found[-1]
    assert fallback.expected_psnr(None, ()) > 15 + fallback.SPOILT
