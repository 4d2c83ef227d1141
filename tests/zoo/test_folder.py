import json
import shutil

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from llic_jax import release as _release
from llic_jax.errors import ReleaseError
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.optimizer import build_optimizer
from llic_jax.training.settings import TrainSettings
from llic_jax.training.state import new_state
from llic_jax.zoo import folder as release
from llic_jax.zoo import golden
from llic_jax.zoo.card import model_card
from llic_jax.zoo.folder import load_codec
from llic_jax.zoo.weights import load_weights, restored_weights, stored_arrays


@pytest.fixture
def copy(tiny_release, tmp_path):
    return shutil.copytree(tiny_release, tmp_path / "copy")


def test_weights_are_the_parameters_the_large_ones_rounded(tiny_release, tiny_codec, tiny_params):
    stored = load_file(tiny_release / "weights.safetensors")
    found = traverse_util.flatten_dict(tiny_codec.model.params, sep=".")
    expected = traverse_util.flatten_dict(tiny_params, sep=".")
    assert found.keys() == expected.keys()
    kinds = {name: str(array.dtype) for name, array in stored.items()}
    types = {(name.split(".")[0], kind) for name, kind in kinds.items()}
    for name, p in expected.items():
        kind = stored[name].dtype
        if kind == np.int8:
            # Within half a step, and the largest input of each feature is 127 steps.
            step = np.abs(p).max(-2, keepdims=True) / 127
            assert np.all(np.abs(found[name] - p) <= 0.501 * step)
            np.testing.assert_array_equal(np.abs(stored[name]).max(-2), 127)
            assert p.size >= 4096
        else:
            rounded = p if p.size < 4096 else p.astype(jnp.bfloat16).astype(jnp.float32)
            np.testing.assert_array_equal(found[name], rounded)
    assert {("entropy_model", "int8"), ("g_a", "int8")} <= types
    assert {("g_s", "bfloat16"), ("gain_y", "float32")} <= types
    assert all(kind != "int8" for name, kind in kinds.items() if name.startswith("g_s.up_"))


def test_a_feature_of_zeros_is_stored_and_read_as_it_is():
    value = np.zeros((64, 100), np.float32)
    value[:, 1:] = np.random.default_rng(0).normal(size=(64, 99))
    value[3, 5] = -9.0
    stored = stored_arrays("h_s.layer.kernel", value)
    found = restored_weights(stored)["h_s"]["layer"]["kernel"]
    assert not found[:, 0].any() and found[3, 5] == -9.0
    np.testing.assert_allclose(found, value, atol=9.0 / 254 * 1.001)


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


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_config, tiny_params):
    """What a training run leaves behind: a checkpoint after two logged steps."""
    workdir = tmp_path_factory.mktemp("run")
    config = tiny_config.copy_and_resolve_references()
    config.data.source = "/some/where/photographs"
    (workdir / "config.json").write_text(config.to_json())
    log = [
        {"kind": "train", "step": step, "step_seconds": 900.0, "images_per_second": batch / 900}
        for step, batch in ((1, 8), (2, 3))
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    params, unravel = jax.flatten_util.ravel_pytree(tiny_params)
    optimizer = build_optimizer(TrainSettings.of(config), unravel)
    state = new_state(params, optimizer).replace(step=np.int32(2))
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(2, jax.tree.map(np.asarray, state))
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def released(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    assert _release.main([str(run), str(folder)]) == 0
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_becomes_a_complete_folder_the_same_each_time(run, released, tiny_codec, tmp_path):
    assert sorted(contents(released)) == sorted([*release.FILES, "README.md", "golden.llic"])
    golden.check(released, tiny_codec)
    assert _release.main([str(run), str(tmp_path / "again")]) == 0
    assert contents(tmp_path / "again") == contents(released)
    (tmp_path / "new").touch()
    mode = (tmp_path / "new").stat().st_mode
    assert all(path.stat().st_mode == mode for path in released.iterdir())


@pytest.mark.slow
def test_the_mean_with_other_folders(run, released, tiny_params, tiny_release, tmp_path, capsys):
    other = release.save_release(
        tmp_path / "other",
        json.loads((released / "config.json").read_text()),
        jax.tree.map(lambda p: 1.1 * p, tiny_params),
    )
    assert other.fingerprint != release.load_codec(released).fingerprint
    folder = tmp_path / "mean"
    assert _release.main([str(run), str(folder), "--mean", str(tmp_path / "other")]) == 0
    found, own = load_weights(folder), load_weights(released)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(a, 1.05 * b, atol=0.02 * float(np.abs(b).max() + 1e-3))
    assert "in the mean with those of 1 more folder, stored" in (folder / "README.md").read_text()
    assert _release.main([str(run), str(folder), "--mean", str(tmp_path / "nowhere")]) == 1
    assert "No weights can be read" in capsys.readouterr().err


def test_the_card_says_what_the_config_says(released, tiny_codec):
    card = (released / "README.md").read_text()
    config = json.loads((released / "config.json").read_text())
    assert tiny_codec.fingerprint.hex() in card
    assert "2 steps in 0.5 hours" in card and config["trained_hours"] == 0.5
    assert "on\n  11 crops of" in card and config["trained_crops"] == 11
    assert "`photographs`" in card and "/some/where" not in card + json.dumps(config)
    assert "0.0067, 0.025 " in card and "2 quality levels" in card
    assert "the quality scales their branches" in card
    assert "corrects latents by back-projection" in card
    assert "it has only seen photographs" in card
    drawn = {**config, "data": {**config["data"], "drawings": 0.3}}
    assert "made at random by code" in model_card(drawn, 1, tiny_codec.fingerprint)
    assert "Apache-2.0" in card and "## What it is not for" in card and "## Figures" not in card


@pytest.mark.slow
def test_a_run_from_released_weights_counts_theirs_too(run, released, tmp_path):
    further = shutil.copytree(run, tmp_path / "further")
    config = json.loads((further / "config.json").read_text())
    config["train"]["start"] = "/some/where/released"
    config["started_from"] = release.training_history(released) | {"trained_sizes": [512]}
    (further / "config.json").write_text(json.dumps(config))
    assert _release.main([str(further), str(tmp_path / "folder")]) == 0
    assert release.training_history(tmp_path / "folder") == {
        "trained_steps": 4,
        "trained_hours": 1.0,
        "trained_crops": 22,
        "trained_sizes": sorted({*config["data"]["crops"], 512}),
    }
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "4 steps in 1 hours" in card and "512 pixels" in card
    assert "/some/where" not in (tmp_path / "folder" / "config.json").read_text()
    del config["started_from"]["trained_hours"]  # not known of the whole then
    (further / "config.json").write_text(json.dumps(config))
    assert _release.main([str(further), str(tmp_path / "folder")]) == 0
    assert "trained_hours" not in release.training_history(tmp_path / "folder")


def test_measured_figures_stand_in_the_card(released, tiny_codec, tmp_path, capsys):
    means = {"codec": "tiny", "quality": 1.5, "bpp": 0.25, "psnr": 31.5, "ms_ssim": None}
    means |= {"encode_seconds": 1.5, "decode_seconds": 2.25}
    means["version"] = f"model {tiny_codec.fingerprint.hex()}, jax 1"
    summary = {
        "images": {"set": "kodak", "count": 24},
        "machine": {"device": "cpu", "cores": 2},
        "codecs": {"tiny": [means], "JPEG": [{**means, "version": "libjpeg", "bpp": 9.0}]},
    }
    path, folder = tmp_path / "summary.json", shutil.copytree(released, tmp_path / "copy")
    path.write_text(json.dumps(summary))
    assert _release.main([str(folder), "--summary", str(path)]) == 0
    card = (folder / "README.md").read_text()
    assert "24 images (kodak)" in card and "JPEG" not in card
    assert "| tiny | 1.5 | 0.2500 | 31.50 | - | 1.50 | 2.25 |" in card
    assert contents(folder) | {"README.md": b""} == contents(released) | {"README.md": b""}

    path.write_text(json.dumps({**summary, "codecs": {"JPEG": summary["codecs"]["JPEG"]}}))
    assert _release.main([str(folder), "--summary", str(path)]) == 1
    assert "no figures of model" in capsys.readouterr().err


def damaged_golden(folder):
    path = folder / "golden.llic"
    path.write_bytes(path.read_bytes()[:-1])


def foreign_card(folder):
    (folder / "README.md").write_text("The card of another model.")


def foreign_tables(folder):
    path = folder / "tables.safetensors"
    arrays = load_file(path)
    arrays["offsets"] = arrays["offsets"] + 3
    save_file(arrays, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "golden.llic").unlink(), "has no golden.llic"),
        (damaged_golden, "golden.llic cannot be decoded"),
        (foreign_card, "does not name model"),
        (foreign_tables, "not those of its weights"),
    ],
)
def test_parts_that_do_not_go_together_are_found(released, tmp_path, change, message):
    folder = shutil.copytree(released, tmp_path / "copy")
    change(folder)
    with pytest.raises(ReleaseError, match=message):
        golden.check(folder, load_codec(folder))
