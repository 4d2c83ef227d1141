"""A model whose transforms work at 1/8 of the image's size, from weights to files and back."""

from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.codec.model import Limits
from llic_jax.configs import smoke_eighth
from llic_jax.evaluation import inspection
from llic_jax.execution import bands
from llic_jax.execution.bands import GIB, RESERVED_GIB
from llic_jax.models.build import build_model, initialize
from llic_jax.zoo.folder import load_codec, save_release


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A released folder with random weights, and latents large enough to be coded."""
    config = smoke_eighth.get_config()
    config.model.channels, config.model.groups, config.model.depths = (12, 16), (4, 12), (1, 0)
    params = initialize(build_model(config.model), seed=1)
    params["gain_y"]["log_gain"] += 3.0
    params["gain_y"]["log_inverse"] -= 3.0
    params["gain_z"]["log_gain"] += 2.0
    params["gain_z"]["log_inverse"] -= 2.0
    folder = tmp_path_factory.mktemp("eighth")
    save_release(folder, config.to_dict(), params)
    return folder


@pytest.mark.slow
def test_files_decode_exactly_in_bands_too(folder, photograph, tmp_path):
    image, file = photograph[:140, :70], tmp_path / "image.llic"
    writer, reader = load_codec(folder), load_codec(folder)
    small = load_codec(folder, limits=Limits(memory_gb=RESERVED_GIB + 1e5 / GIB))
    encoded = writer.encode([image])[0]
    file.write_bytes(encoded.data)
    decoded = reader.decompress(file.read_bytes())
    np.testing.assert_array_equal(decoded, writer.reconstruct(encoded))
    assert len(encoded.data) > 1000 and decoded.std() > 1

    with mock.patch.object(bands, "compute", wraps=bands.compute) as compute:
        in_bands = small.decompress(file.read_bytes())
        assert compute.call_count == 1
        encoded_in_bands = small.encode([image])[0]
        assert compute.call_count == 4  # analysis, and synthesis and analysis of its correction
        again = small.decode([encoded_in_bands.data])[0].image
    difference = np.abs(in_bands.astype(int) - decoded)
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-3
    np.testing.assert_array_equal(again, small.reconstruct(encoded_in_bands))
    assert abs(len(encoded_in_bands.data) - len(encoded.data)) <= 2


@pytest.mark.slow
def test_it_can_be_looked_into(folder, photograph):
    codec = load_codec(folder)
    inspector = inspection.Inspector(codec.network, codec.model.params)
    found = inspector.inspect(photograph[:60, :60], 4.0)
    assert {name: k.shape for name, k in found.kernels.items()} == {"block_0_0": (5, 5, 12)}
    assert found.bits_y.shape == (4, 4, 16) and found.bits_z.shape[:2] == (1, 1)
    probe = inspection.ReceptiveFieldProbe(codec.network.g_a)
    field = probe.measure("eighth", codec.model.params["g_a"], [photograph], 192, jnp.full(1, 4.0))
    # Before training, 5 x 5 patches of 8 x 8 pixels and next to nothing else.
    assert np.all(field.energy[80:120, 80:120] > 0)
    assert field.energy[80:120, 80:120].sum() > 0.95


def test_patches_see_nothing_of_each_other_before_the_first_block(folder):
    codec = load_codec(folder)
    first, *_ = codec.network.g_a.layers()
    params = {"params": codec.model.params["g_a"]["down_0"]}
    x = jnp.asarray(np.random.default_rng(0).random((1, 32, 24, 3), np.float32))
    base = first.apply(params, x)
    assert base.shape == (1, 4, 3, 12)
    other = first.apply(params, x.at[:, 8:16, 16:24].add(1.0))
    changed = np.any(np.abs(other - base) > 1e-4, axis=-1)[0]
    assert [tuple(place) for place in np.argwhere(changed)] == [(1, 2)]
