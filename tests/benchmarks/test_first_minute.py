"""The script of a GPU's first minute, run on a CPU with a tiny model: all facts are kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "first_minute.py"


def run(out, *arguments):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), "--seconds", "900", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "first_minute.json").read_text())


@pytest.mark.slow
def test_device_and_carried_programs(carried, tmp_path):
    """Steps are timed and profiled with the carried program; nothing is compiled for it."""
    found = run(
        tmp_path, "--parts", "device", "programs", "--programs", carried.folder,
        "--steps", 2, "--profile",
    )  # fmt: skip
    assert found["device"]["status"] == "done" and found["device"]["platform"] == "cpu"
    assert found["device"]["versions"]["jax"]
    assert "not_told" in found["device"] or "target_config" in found["device"]
    row = found["programs"]["all-64"]
    assert row["loaded"] and row["log"] == [] and "fails" not in row
    assert row["ms"] > 0 and row["first_step_s"] > 0 and row["crops_per_second"] > 0
    assert row["loss"] > 0 and len(row["kernels"]) > 10
    name, count, ms = row["kernels"][0]
    assert name and count >= 1 and ms > 0


@pytest.mark.slow
def test_a_program_that_does_not_fit_is_told_and_not_compiled(carried, tmp_path):
    manifest = json.loads((carried.folder / "manifest.json").read_text())
    manifest["requires"]["jaxlib"] = "0.0.1"
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "manifest.json").write_text(json.dumps(manifest))
    found = run(tmp_path, "--parts", "programs", "--programs", tmp_path / "programs")
    row = found["programs"]["all-64"]
    assert not row["loaded"] and "ms" not in row


@pytest.mark.slow
def test_the_fused_gate_beside_xla_s_way(tmp_path):
    """Interpreted, so their times mean nothing; how far each is from float32 does."""
    found = run(tmp_path, "--parts", "fused", "--config", "smoke_eighth", "--steps", 1)["fused"]
    assert found["status"] == "done", found
    gate = found["gate"]
    assert gate["right"] and gate["shape"][-1] == 48
    for way in ("xla", "fused"):
        assert gate[way]["ms"] > 0 and len(gate[way]["distances"]) == 7
        assert all(0 < distance < 0.02 for distance in gate[way]["distances"].values())


@pytest.mark.slow
def test_files_go_both_ways(tiny_release, photograph, tmp_path):
    """What one run keeps, another decodes, to the same pixels; a damaged one is named."""
    (tmp_path / "images").mkdir()
    Image.fromarray(photograph[:64, :64]).save(tmp_path / "images" / "eye.png")
    there, here = tmp_path / "there", tmp_path / "here"
    files = ("--parts", "files", "--checkpoint", tiny_release)
    found = run(there, *files, "--images", tmp_path / "images")
    kept = there / "files" / "eye.llic"
    assert found["files"]["ours/eye.llic"]["bytes"] == kept.stat().st_size
    (there / "files" / "spoiled.llic").write_bytes(kept.read_bytes()[:-3])
    found = run(here, *files, "--files", there / "files")["files"]
    assert found["theirs/eye.llic"]["decoded"] and found["theirs/eye.llic"]["pixels_apart"] == 0
    assert not found["theirs/spoiled.llic"]["decoded"] and found["theirs/spoiled.llic"]["error"]


@pytest.mark.slow
def test_failing_tests_are_named_and_the_time_limit_holds(tmp_path):
    given = tmp_path / "test_given.py"
    given.write_text(
        "import time\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_endless(): time.sleep(1000)\n"
    )
    found = run(tmp_path, "--parts", "tests", "--tests", given, "--seconds", "45")
    assert found["tests"]["status"] == "ended after 20 s"
    assert [name.split("::")[1] for name in found["tests"]["failed"]] == ["test_bad"]
    assert found["tests"]["passed"] == 1


@pytest.mark.parametrize("python", [None, "/nowhere/python"])
def test_without_pytorch(tmp_path, python):
    arguments = ["--torch_python", python] if python else []
    found = run(tmp_path, "--parts", "torch", *arguments)["torch"]
    assert "skipped" in found or "FileNotFoundError" in found["status"] or "ms" in found
