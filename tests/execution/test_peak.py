import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.model import Limits
from llic_jax.errors import ImageSizeError
from llic_jax.execution.bands import LIVE_BUFFERS, RESERVED_GIB
from llic_jax.execution.peak import peak_bytes
from llic_jax.zoo.folder import load_codec

X = jax.ShapeDtypeStruct((250,), jnp.float32)  # 1,000 bytes


def test_results_live_until_their_last_use():
    twice = jax.jit(lambda x: jnp.concatenate([x, x]))

    def chain(x):
        for _ in range(3):
            x = twice(x)  # of 2,000, 4,000 and 8,000 bytes; one is kept beside the next
        return x

    assert peak_bytes(chain, X) == 4_000 + 8_000 + LIVE_BUFFERS * 8_000


def test_images_whose_walk_exceeds_the_memory_are_refused_before_anything_is_computed(tiny_release):
    codec = load_codec(tiny_release, limits=Limits(memory_gb=RESERVED_GIB + 0.01))
    side = 2048 + 64
    image = np.broadcast_to(np.uint8(9), (side, side, 3))
    with pytest.raises(ImageSizeError, match=r"takes about .* GiB.*memory_gb"):
        codec.compress(image, strict_llic=True)
    file = LlicFile.from_bytes(load_codec(tiny_release).compress(image[:8, :8], strict_llic=True))
    larger = dataclasses.replace(file, width=side, height=side, payload=bytes(100_000))
    with pytest.raises(ImageSizeError, match=r"takes about .* GiB.*memory_gb"):
        codec.decompress(larger.to_bytes())
    assert not any(program.count() for program in codec.networks.programs.values())
    codec.networks.canvas_for([(2048, 2048)])  # the reserve is enough
    with pytest.raises(ImageSizeError, match="2 of them together"):
        codec.networks.canvas_for([(2048, 2048)] * 2)
