"""A run's folder: one owner, the best checkpoint, and files that are whole."""

import json
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from llic_jax.errors import CheckpointError, DataError, OutputError
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.run_folder import RunFolder
from llic_jax.training.settings import RunSettings

OWNER = """
import sys, time
from llic_jax.training.run_folder import RunFolder
with RunFolder(sys.argv[1]):
    print("owned", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE)
    try:
        assert owner.stdout.readline() == b"owned\n"
        with pytest.raises(OutputError, match=r"is in use by another training run\. .*--workdir"):
            RunFolder(tmp_path).__enter__()
    finally:
        owner.kill()
        owner.wait()
    with RunFolder(tmp_path), pytest.raises(OutputError, match="in use"):
        RunFolder(tmp_path).__enter__()
    with RunFolder(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/run cannot be a run's folder: Not a directory"):
        RunFolder(tmp_path / "file" / "run").__enter__()


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with RunFolder("~/runs/first") as folder:
        assert folder.path == tmp_path / "runs" / "first" and folder.path.is_dir()


def test_the_config_is_kept_and_an_unreadable_one_named(tiny_config, tmp_path):
    settings = RunSettings.of(tiny_config)
    with RunFolder(tmp_path) as folder:
        folder.keep_config(tiny_config, settings)
        (tmp_path / "runs.jsonl").open("a").write('{"started": "20')  # killed
        folder.keep_config(tiny_config, settings)
        runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").open()]
        assert len(runs) == 2 and runs[1]["config"]["train"]["steps"] == tiny_config.train.steps
        (tmp_path / "config.json").write_text('{"model": ')
        with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
            folder.keep_config(tiny_config, settings)


@pytest.mark.parametrize(
    ("saved", "kept"),
    [
        ([(100, 1.0), (200, 0.7), (300, 0.9)], (200, 0.7)),
        ([(200, 1.0), (150, 0.5)], (150, 0.5)),  # went back to an earlier step
        ([(100, 0.7), (200, float("nan")), (300, 0.9)], (100, 0.7)),
        ([(100, float("inf")), (50, 0.9)], (50, 0.9)),
        ([(100, 0.9), (100, 0.8), (100, 0.85)], (100, 0.8)),  # went back and came again
    ],
)
def test_the_lowest_finite_loss_is_the_best(tmp_path, saved, kept):
    best = Checkpoints(tmp_path, 1, by_loss=True)
    for step, loss in saved:
        best.save(step, {"x": np.full(3, loss)}, loss=loss)
        best.wait()
    assert best.steps() == [kept[0]]
    np.testing.assert_array_equal(best.restore({"x": np.zeros(3)})["x"], np.full(3, kept[1]))
    best.close()


def test_a_run_that_went_back_writes_earlier_steps(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", 3)
    for step in (10, 20, 30):
        checkpoints.save(step, {"x": np.zeros(1)})
    checkpoints.wait()
    checkpoints.set_aside_after(10, tmp_path / "aside")
    checkpoints.save(15, {"x": np.ones(1)})
    checkpoints.wait()
    assert checkpoints.steps() == [10, 15] and checkpoints.latest_step() == 15
    checkpoints.close()


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_ones_before_stay(tmp_path):
    """The disk is full: files that are too long fail as they would on one."""
    like = {"x": np.zeros(1)}
    with pytest.raises(OSError, match="what ends the run"), RunFolder(tmp_path) as folder:
        checkpoints = folder.checkpoints("checkpoints", 3)
        checkpoints.save(1, {"x": np.ones(1)})
        checkpoints.wait()
        noise = np.random.default_rng(0).integers(0, 256, 100_000)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(CheckpointError, match=r"cannot be written.*full.*of step 1"):
                checkpoints.save(2, {"x": noise})
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        raise OSError("what ends the run")
    with RunFolder(tmp_path) as folder:
        checkpoints = folder.checkpoints("checkpoints", 3)
        assert checkpoints.steps() == [1] and checkpoints.restore(like)["x"] == 1


def test_names_of_what_is_held_out_are_whole_or_named(tmp_path):
    with RunFolder(tmp_path) as folder:
        assert folder.held_out_names() is None
        folder.keep_held_out_names(["a.png"])
        assert folder.held_out_names() == ["a.png"]
        (tmp_path / "held_back.json").write_text('["a.png"')
        with pytest.raises(DataError, match=r"held_back\.json cannot be read"):
            folder.held_out_names()
