import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax import release
from llic_jax.release import ReleaseError, load_codec


@pytest.fixture
def copy(tiny_release, tmp_path):
    return shutil.copytree(tiny_release, tmp_path / "copy")


def test_weights_are_the_rounded_parameters(tiny_codec, tiny_params):
    rounded = jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(jnp.float32), tiny_params)
    jax.tree.map(np.testing.assert_array_equal, tiny_codec.params, rounded)


def test_fingerprint_stands_for_weights_tables_and_config(
    tiny_release, tiny_codec, tiny_config, tiny_params, tmp_path
):
    assert load_codec(tiny_release).fingerprint == tiny_codec.fingerprint
    again = release.save_release(tmp_path / "again", tiny_config.to_dict(), tiny_params)
    assert again.fingerprint == tiny_codec.fingerprint
    for name in ("weights.safetensors", "tables.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tiny_release / name).read_bytes()

    changed = jax.tree.map(lambda p: p, tiny_params)
    changed["g_s"]["up_0"]["expand"]["conv"]["bias"] += 1.0
    other = release.save_release(tmp_path / "other", tiny_config.to_dict(), changed)
    assert other.fingerprint != tiny_codec.fingerprint


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "tables.safetensors"])
def test_incomplete_and_damaged_folders_are_told_apart(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ReleaseError, match="damaged"):
        load_codec(copy)
    (copy / name).unlink()
    with pytest.raises(ReleaseError, match=f"{name} not found"):
        load_codec(copy)


def test_weights_of_another_model_are_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["model"]["hyper_channels"] = 24
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ReleaseError, match="do not belong"):
        load_codec(copy)
