import dataclasses

import numpy as np
import pytest

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.model import Limits
from llic_jax.codec.validation import least_bits, least_bytes
from llic_jax.errors import CorruptError, ImageSizeError, InputError
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.zoo.folder import load_codec
from tests.codec import fuzz


@pytest.mark.slow
def test_no_damage_makes_a_wrong_image_or_another_error():
    found, _ = fuzz.run(fuzz.open_codecs("elic"), 1200, seed=1)
    assert found["CorruptError"] > 200 and found["TruncatedError"] > 50
    assert {"ImageSizeError", "WrongModelError", "UnknownCoderError"} <= set(found)


def test_a_small_file_of_a_huge_image_is_refused_before_work(tiny_codec):
    file = LlicFile.from_bytes(tiny_codec.compress(np.zeros((8, 8, 3), np.uint8), strict_llic=True))
    huge = dataclasses.replace(file, width=1 << 14, height=1 << 14)
    with pytest.raises(CorruptError, match=r"at least \d+ were expected"):
        tiny_codec.decompress(huge.to_bytes())


def test_the_least_size_is_a_lower_bound(tiny_codec):
    """Not even an image of one colour takes less."""
    data = tiny_codec.compress(np.full((256, 320, 3), 90, np.uint8), 1.0, strict_llic=True)
    bits = least_bits(tiny_codec.model.tables, tiny_codec.network.latent_channels)
    assert 0 < least_bytes(320, 256, bits) <= len(LlicFile.from_bytes(data).payload)


def test_limits_count_padded_pixels(tiny_release):
    codec = load_codec(tiny_release, limits=Limits(max_pixels=64 * 64))
    codec.compress(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ImageSizeError, match="8192 when padded"):
        codec.compress(np.zeros((1, 65, 3), np.uint8))


@pytest.mark.parametrize("units", [1, 255])
def test_too_few_units_are_refused(tiny_codec, units):
    file = LlicFile.from_bytes(tiny_codec.compress(np.zeros((8, 8, 3), np.uint8), strict_llic=True))
    with pytest.raises(CorruptError, match="units"):
        tiny_codec.decompress(dataclasses.replace(file, shift_resolution=units).to_bytes())
    with pytest.raises(InputError, match="256 and more"):
        type(tiny_codec)(tiny_codec.model, EncoderOptions(shift_resolution=units))


def test_a_payload_of_zeros_is_refused_before_all_is_decoded(tiny_release, coder):
    """A few bytes would be decoded to the symbols of any image."""
    codec = load_codec(tiny_release, coder)
    file = LlicFile.from_bytes(codec.compress(np.zeros((8, 8, 3), np.uint8), strict_llic=True))
    zeros = dataclasses.replace(file, width=512, height=512, payload=bytes(4_000))
    with pytest.raises(CorruptError, match="before its symbols do"):
        codec.decompress(zeros.to_bytes())
