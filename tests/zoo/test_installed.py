import json
import shutil
import subprocess

import numpy as np
import pytest

from llic_jax.conformance import SUITES, Suite
from llic_jax.errors import (
    DecoderOnlyError,
    RegistryError,
    ReleaseError,
    UnknownModelError,
)
from llic_jax.execution import program_cache
from llic_jax.zoo import install
from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec, save_release
from llic_jax.zoo.golden import check_golden
from llic_jax.zoo.installed import folder_of, installed_models, model_of_file
from llic_jax.zoo.library import ModelLibrary
from llic_jax.zoo.manifest import read_fingerprint
from llic_jax.zoo.registry import PACKAGED, Registry, ReleasedModel, registry

OLD = registry().models[4]  # not packaged


@pytest.fixture(scope="module")
def whole(tiny_release, tiny_codec, tmp_path_factory):
    """The tiny model with a golden file."""
    from llic_jax.zoo.golden import golden_image

    folder = shutil.copytree(tiny_release, tmp_path_factory.mktemp("whole") / "tiny")
    (folder / "golden.llic").write_bytes(tiny_codec.compress(golden_image()))
    return folder


@pytest.fixture(scope="module")
def half(whole, tmp_path_factory):
    """The decoder's half of the tiny model."""
    folder = tmp_path_factory.mktemp("half") / "half"
    install.write_decoder_half(whole, folder)
    return folder


@pytest.fixture(scope="module")
def other(tiny_config, tiny_params, tmp_path_factory):
    """Another model in a folder of the same name."""
    import jax

    folder = tmp_path_factory.mktemp("other") / "tiny"
    save_release(folder, tiny_config.to_dict(), jax.tree.map(lambda p: 1.01 * p, tiny_params))
    return folder


def test_a_fingerprint_is_read_without_loading_the_model(tiny_release, tiny_codec):
    assert read_fingerprint(tiny_release) == tiny_codec.fingerprint.hex()


def test_a_model_is_added_and_found_by_name_and_by_its_files(
    whole, tiny_codec, user_data, photograph
):
    model = install.add_model(whole)
    assert model.folder == user_data / "llic_jax" / "models" / "tiny"
    assert [path.name for path in model.folder.parent.iterdir()] == ["tiny"]
    assert folder_of("tiny") == model.folder
    assert load_codec("tiny").fingerprint == tiny_codec.fingerprint
    assert install.add_model(whole) == model._replace()  # once more: nothing happens
    data = tiny_codec.compress(photograph[:40, :50])
    loaded = []

    def load(folder):
        loaded.append(folder)
        return load_codec(folder)

    library = ModelLibrary(load)
    golden = (DEFAULT_FOLDER / "golden.llic").read_bytes()
    mixed = library.decode_photographs([data, golden, data])
    np.testing.assert_array_equal(mixed[0].rgb, tiny_codec.decompress(data))
    np.testing.assert_array_equal(mixed[2].rgb, mixed[0].rgb)
    assert mixed[1].rgb.shape == (48, 60, 3)
    assert sorted(loaded) == sorted([model.folder, DEFAULT_FOLDER])


def test_models_of_a_path_list_are_found(whole, other, user_data, monkeypatch, tmp_path):
    monkeypatch.setenv("LLIC_MODELS", f"{tmp_path / 'nowhere'}:{whole.parent}")
    assert folder_of("tiny") == whole
    monkeypatch.setenv("LLIC_MODELS", f"{whole}:{other}")
    with pytest.raises(RegistryError, match="Two installed models are named tiny"):
        folder_of("tiny")
    assert model_of_file(read_fingerprint(other)).folder == other


def test_a_name_stands_for_one_model(whole, other, user_data):
    install.add_model(whole)
    with pytest.raises(RegistryError, match=r"A model tiny .* is installed"):
        install.add_model(other)
    assert install.add_model(other, "tiny-2").folder.name == "tiny-2"
    with pytest.raises(RegistryError, match="is the name of the released model"):
        install.add_model(shutil.copytree(other, user_data / "x"), "llic-elic-small-11")
    with pytest.raises(RegistryError, match="cannot be a model's name"):
        install._check_name(installed_models()[0][-1]._replace(name="../up"))


def test_damaged_models_are_not_added(whole, user_data, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "damaged")
    golden = (folder / "golden.llic").read_bytes()
    (folder / "golden.llic").write_bytes(golden[:-1])
    with pytest.raises(ReleaseError, match=r"golden\.llic cannot be decoded"):
        install.add_model(folder)
    assert not list((user_data / "llic_jax").rglob("*.llic"))


def test_an_installed_model_that_has_changed_is_damaged(whole, user_data):
    model = install.add_model(whole)
    config = json.loads((model.folder / "config.json").read_text())
    config["model"]["remat"] = True
    (model.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ReleaseError, match="is damaged: its files make model"):
        load_codec("tiny")
    (model.folder / "model.json").write_text("{")
    models, problems = installed_models()
    assert "tiny" not in [model.name for model in models]
    assert len(problems) == 1 and "model.json is damaged" in problems[0]


def test_names_that_nothing_has(user_data):
    with pytest.raises(RegistryError, match="No model is named 'no-such'"):
        load_codec("no-such")
    with pytest.raises(RegistryError, match=f"llic models restore {OLD.name} --from CLONE"):
        load_codec(OLD.name)


def test_unknown_fingerprints_say_where_the_model_is(user_data):
    with pytest.raises(UnknownModelError, match=f"llic models restore {OLD.name} --from CLONE"):
        model_of_file(OLD.fingerprint)
    with pytest.raises(UnknownModelError, match="llic models add FOLDER"):
        model_of_file("00" * 8)


def test_the_decoder_half_decodes_and_keeps_the_fingerprint(
    whole, half, tiny_codec, user_data, tmp_path, photograph
):
    codec = load_codec(half)
    assert codec.fingerprint == tiny_codec.fingerprint and "g_a" not in codec.model.params
    data = tiny_codec.compress(photograph[:40, :50], 1.5)
    np.testing.assert_array_equal(codec.decompress(data), tiny_codec.decompress(data))
    with pytest.raises(DecoderOnlyError, match="Only the decoder's half"):
        codec.compress(photograph[:40, :50])
    assert (half / "weights.safetensors").stat().st_size < 0.8 * (
        whole / "weights.safetensors"
    ).stat().st_size

    installed = install.add_model(half, "tiny")
    assert installed.decoder_only and folder_of("tiny") == installed.folder
    assert not install.add_model(whole).decoder_only  # takes its place
    assert "g_a" in load_codec("tiny").model.params

    damaged = shutil.copytree(half, tmp_path / "damaged")
    weights = bytearray((half / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "weights.safetensors").write_bytes(weights)
    with pytest.raises(ReleaseError, match="damaged: its SHA-256"):
        load_codec(damaged)


def test_the_half_does_not_run_programs_that_the_whole_model_stored(
    whole, half, tmp_path, monkeypatch
):
    monkeypatch.setattr(program_cache, "_folder", tmp_path / "programs")
    y_hat, quality = np.ones((1, 4, 4, 16), np.float32), np.ones(1, np.float32)
    networks = [load_codec(folder).networks for folder in (whole, half)]
    first, second = (n.programs["unscale"](n.params, y_hat, quality) for n in networks)
    np.testing.assert_array_equal(first, second)
    assert len(list((tmp_path / "programs").iterdir())) == 2


def git(folder, *arguments):
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_a_model_is_restored_from_the_history(whole, other, user_data, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    shutil.copytree(whole, clone / "released" / "small")
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "released")
    commit = git(clone, "rev-parse", "HEAD")
    shutil.rmtree(clone / "released")
    git(clone, "commit", "-qam", "removed")
    entry = ReleasedModel(
        **{**OLD._asdict(), "name": "tiny-7", "commit": commit, "folder": "released/small"}
    )
    entry = entry._replace(fingerprint=read_fingerprint(whole))
    wrong = entry._replace(name="tiny-8", fingerprint=read_fingerprint(other))
    fake = Registry((*registry().models, entry, wrong), registry().recommended)
    for module in ("registry", "install", "installed"):
        monkeypatch.setattr(f"llic_jax.zoo.{module}.registry", lambda: fake)
    model = install.restore_model("tiny-7", clone)
    assert model.name == model.folder.name == "tiny-7"
    assert model_of_file(entry.fingerprint).folder == model.folder
    with pytest.raises(ReleaseError, match=r"holds the model .* expected"):
        install.restore_model("tiny-8", clone)
    with pytest.raises(ReleaseError, match="has no commit"):
        install.restore_model(OLD.name, clone)
    with pytest.raises(RegistryError, match="was ever released"):
        install.restore_model("llic-elic-small-0", clone)


@pytest.mark.parametrize("folder", sorted(PACKAGED.iterdir()), ids=lambda folder: folder.name)
def test_golden_files_of_all_packaged_models_decode(folder):
    """And those of its suite whose canvas is the golden file's; the command decodes all."""
    codec = load_codec(folder)
    check_golden(folder, codec)
    suite = Suite(SUITES / folder.name)
    suite.cases = [case for case in suite.cases if case.file.startswith(("1x1_", "60x48_"))]
    outcomes = list(suite.run({codec.fingerprint.hex(): codec}))
    assert len(outcomes) == 12 and not [found for found in outcomes if found[1].error]


def test_weights_that_are_missing_or_of_other_shapes_are_named(tiny_release, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(tiny_release, tmp_path / "copy")
    weights = load_file(folder / "weights.safetensors")
    without = {name: value for name, value in weights.items() if not name.startswith("g_a")}
    save_file(without, folder / "weights.safetensors")
    with pytest.raises(ReleaseError, match=r"do not belong .* g_a\.\S+ is missing and \d+ more"):
        load_codec(folder)
    name = "g_s.up_0.expand.conv.bias"
    save_file({**weights, name: weights[name][1:]}, folder / "weights.safetensors")
    with pytest.raises(ReleaseError, match=rf"{name} is \(\d+,\), expected"):
        load_codec(folder)


def test_errors_of_loading_keep_their_own_words(tiny_release, tmp_path, monkeypatch):
    from llic_jax.errors import ConfigError
    from llic_jax.zoo import folder as zoo_folder

    folder = shutil.copytree(tiny_release, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["entropy_model"] = "none"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="known are"):
        load_codec(folder)

    def too_large(path):
        raise MemoryError("8 GiB")

    monkeypatch.setattr(zoo_folder, "load_file", too_large)
    config["model"]["entropy_model"] = "elic"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MemoryError, match="8 GiB"):
        load_codec(folder)
