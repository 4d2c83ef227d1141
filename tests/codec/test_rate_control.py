import numpy as np
import pytest

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.rate_control import Quality, target
from llic_jax.errors import InputError
from llic_jax.metrics import distortion


def test_targets_are_met_as_closely_as_quality_allows(tiny_codec, photograph):
    image = photograph[:64, :64]

    def encode_to_target(image, **targets):
        return tiny_codec.encode([image], target(**targets))[0]

    ends = [len(tiny_codec.compress(image, quality)) * 8 / 64**2 for quality in (1.0, 2.0)]
    wanted = sum(ends) / 2
    encoded = encode_to_target(image, bpp=wanted)
    assert len(encoded.data) * 8 / 64**2 <= wanted
    quality = LlicFile.from_bytes(encoded.data).quality
    assert 1 < quality < 2
    assert len(tiny_codec.compress(image, quality + 4 / 256)) * 8 / 64**2 > wanted

    # The ends of the range, and beyond.
    everything = encode_to_target(image, bpp=2 * ends[1])
    assert LlicFile.from_bytes(everything.data).quality == 2
    with pytest.raises(InputError, match=r"out of reach: quality 1 takes"):
        encode_to_target(image, bpp=ends[0] / 2)

    def psnr(compressed):
        return distortion.image_psnr(image, tiny_codec.reconstruct(compressed))

    low, high = sorted(
        psnr(tiny_codec.encode([image], Quality(quality))[0]) for quality in (1.0, 2.0)
    )
    assert psnr(encode_to_target(image, psnr=low - 1)) >= low - 1
    with pytest.raises(InputError, match="dB is out of reach: quality 2 gives"):
        encode_to_target(image, psnr=high + 1)
    for targets in ({}, {"bpp": 1.0, "psnr": 30.0}):
        with pytest.raises(InputError, match="Name one target"):
            encode_to_target(np.array(image), **targets)
