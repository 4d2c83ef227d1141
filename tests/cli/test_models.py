"""`llic models`, and `llic decompress` of files by several models."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from llic_jax.bitstream.file import LlicFile
from llic_jax.cli.main import main
from llic_jax.zoo.folder import DEFAULT_FOLDER
from llic_jax.zoo.installed import InstalledModel, describe_folder
from llic_jax.zoo.manifest import read_manifest
from llic_jax.zoo.registry import registry


@pytest.fixture(autouse=True)
def user_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("LLIC_MODELS", raising=False)


def test_all_models_are_listed(capsys):
    assert main(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    for model in registry().models:
        assert model.fingerprint in lines[model.name]
    assert lines["llic-elic-small-11"].endswith("yes, default")
    assert "17.3 M" in lines["llic-elic-small-11"] and "+26.1 %" in lines["llic-elic-small-11"]
    assert "0.049 to 1.008" in lines["llic-elic-small-11"]
    assert lines["llic-elic-small-10"].endswith("decodes")
    assert lines["llic-elic-small-1"].endswith("no")


def test_a_whole_model_takes_the_place_of_its_half(tmp_path, monkeypatch, capsys):
    half = DEFAULT_FOLDER.with_name("llic-elic-small-10")
    whole = InstalledModel(half.name, read_manifest(half).fingerprint, tmp_path, False)
    monkeypatch.setattr(
        "llic_jax.cli.models.installed_models", lambda: ([describe_folder(half), whole], [])
    )
    assert main(["models"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(half.name)]
    assert len(lines) == 1 and lines[0].endswith("yes")


def test_a_damaged_model_is_named_beside_the_others(tmp_path, monkeypatch, capsys):
    (tmp_path / "models" / "broken").mkdir(parents=True)
    (tmp_path / "models" / "broken" / "config.json").write_text("{")
    monkeypatch.setenv("LLIC_MODELS", str(tmp_path / "models"))
    assert main(["models"]) == 1
    printed = capsys.readouterr()
    assert "llic-elic-small-11" in printed.out and "broken is damaged" in printed.err


@pytest.mark.slow
def test_a_folder_of_mixed_files_decompresses(
    tmp_path, tiny_release, tiny_codec, photograph, capsys
):
    assert main(["models", "add", str(tiny_release), "--name", "tiny"]) == 0
    assert f"tiny ({tiny_codec.fingerprint.hex()}) is installed" in capsys.readouterr().out
    files, out = tmp_path / "files", tmp_path / "out"
    files.mkdir()
    data = tiny_codec.compress(photograph[:40, :50], 1.5)
    (files / "tiny.llic").write_bytes(data)
    (files / "released.llic").write_bytes((DEFAULT_FOLDER / "golden.llic").read_bytes())
    before = DEFAULT_FOLDER.with_name("llic-elic-small-10") / "golden.llic"
    (files / "before.llic").write_bytes(before.read_bytes())
    old = registry().models[4]
    foreign = dataclasses.replace(
        LlicFile.from_bytes(data), fingerprint=bytes.fromhex(old.fingerprint)
    )
    (files / "old.llic").write_bytes(foreign.to_bytes())
    assert main(["decompress", str(files), f"{out}/"]) == 1
    assert {path.name for path in out.iterdir()} == {"tiny.png", "released.png", "before.png"}
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / "tiny.png")), tiny_codec.decompress(data)
    )
    printed = capsys.readouterr()
    assert "3 of 4 files done" in printed.out
    assert f"the model {old.name} ({old.fingerprint}), which is not installed" in printed.err
    assert f"llic models restore {old.name} --from CLONE" in printed.err


def test_encoding_with_a_decoder_s_half(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments = ["compress", "--checkpoint", "llic-elic-small-10", "--strict_llic"]
    assert main([*arguments, str(tmp_path / "a.png"), str(tmp_path / "a.llic")]) == 1
    assert "Only the decoder's half of the model b72a36083a7aba63" in capsys.readouterr().err


def test_names_and_clones_that_cannot_be(tmp_path, capsys):
    assert main(["models", "restore", "llic-elic-small-0", "--from", str(tmp_path)]) == 1
    assert "was ever released" in capsys.readouterr().err
    assert main(["models", "restore", "llic-elic-small-3", "--from", str(tmp_path)]) == 1
    assert "has no commit c46c610" in capsys.readouterr().err
    assert main(["models", "add", str(tmp_path)]) == 1
    assert "is no released model" in capsys.readouterr().err
