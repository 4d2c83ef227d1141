"""Compiled steps that are carried: the same numbers in another process, and nothing that can go
wrong with one keeps a run from its step."""

import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from llic_jax.configs import default
from llic_jax.training import carried_programs
from llic_jax.training.carried_programs import CarriedPrograms, PlannedStep, planned_steps
from llic_jax.training.loop import train
from llic_jax.training.phases import Phase
from llic_jax.training.settings import RunSettings
from llic_jax.training.state import TrainState
from llic_jax.training.step import step_arguments


@pytest.fixture
def folder(carried, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(carried.folder, tmp_path / "programs")


@pytest.fixture
def config(carried):
    return carried.config


@pytest.mark.slow
def test_another_process_computes_the_same(carried, config):
    folder = carried.folder
    assert carried.run("load") == carried.expected
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["programs"]) == ["all-64"] and manifest["config"] == config


@pytest.mark.slow
def test_a_run_trains_with_them(carried, tmp_path, caplog):
    """One step, of a run that ends at once; with a folder of nothing it takes the same one."""
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), np.uint8)).save(images / f"{i}.png")
    data = {**carried.config["data"], "source": str(images), "held_back": 0, "threads": 1}
    config = {**carried.config, "data": data}
    states = []
    with caplog.at_level(logging.INFO):
        for name, programs in (("carried", carried.folder), ("ordinary", tmp_path)):
            states.append(train(config, tmp_path / name, 0.0, programs=programs))
    assert caplog.text.count("carried program all-64: first step in") == 1
    assert caplog.text.count("are not used") == 1
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert int(states[0].step) == 1


@pytest.mark.slow
def test_host_settings_may_differ(folder, config):
    other = {**config, "train": {**config["train"], "log_every": 7, "start": "pca"}}
    assert CarriedPrograms(folder, RunSettings.of(other)).load("all-64") is not None


@pytest.mark.parametrize(
    ("names", "value", "reason"),
    [
        (["jax"], "0.0.1", f"compiled for jax 0.0.1, here it is {jax.__version__}"),
        (["jaxlib"], "0.0.1", "compiled for jaxlib 0.0.1"),
        (["device"], "NVIDIA H200", "compiled for device NVIDIA H200, here it is"),
        (["compute_capability"], "9.0", "compiled for compute_capability 9.0"),
        (["devices"], 8, "compiled for devices 8, here it is"),
        (["sources"], "0123456789abcdef", "compiled for sources 0123456789ab, here it is"),
        (["train", "batch_size"], 64, "compiled for train.batch_size 64, here it is 2"),
        (["model", "levels"], 5, "compiled for model.levels 5, here it is 2"),
    ],
)
def test_what_was_compiled_for_something_else_is_not_used(
    folder, config, caplog, names, value, reason
):
    manifest = json.loads((folder / "manifest.json").read_text())
    part = manifest["requires"]
    for name in names[:-1]:
        part = part[name]
    part[names[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert falls_back(CarriedPrograms(folder, RunSettings.of(config)))
    (message,) = [record.getMessage() for record in caplog.records]
    assert reason in message and "\n" not in message


def falls_back(programs, side=64):
    """Whether the ordinary step is used, from the first call on, with the state as it was."""
    calls = []

    def ordinary(state, images):
        calls.append(float(state["a"][0]))
        return state, {"loss": jnp.ones(1)}

    step = programs.step(Phase.ALL, ordinary)
    state = {"a": jnp.full((1,), 3.0)}
    for _ in range(2):
        state, _ = step(state, np.zeros((1, 2, side, side, 3), np.uint8))
    return calls == [3.0, 3.0]


def test_a_folder_without_a_manifest(tmp_path, config, caplog):
    assert falls_back(CarriedPrograms(tmp_path / "none", RunSettings.of(config)))
    (tmp_path / "manifest.json").write_text("{}")
    assert falls_back(CarriedPrograms(tmp_path, RunSettings.of(config)))
    assert [r.getMessage().count("cannot be read") for r in caplog.records] == [1, 1]


def test_programs_that_are_missing_damaged_or_do_not_load(folder, config, caplog):
    assert falls_back(CarriedPrograms(folder, RunSettings.of(config)), side=128)
    assert "all-128 is not used: LookupError: only all-64 were compiled" in caplog.text
    path = folder / "all-64.program"
    path.write_bytes(path.read_bytes()[:-1])
    assert falls_back(CarriedPrograms(folder, RunSettings.of(config)))
    assert "the file is damaged" in caplog.text
    path.unlink()
    assert falls_back(CarriedPrograms(folder, RunSettings.of(config)))
    assert "FileNotFoundError" in caplog.text

    path.write_bytes(b"no program")
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = carried_programs.hashlib.sha256(b"no program").hexdigest()
    manifest["programs"]["all-64"]["sha256"] = digest
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert falls_back(CarriedPrograms(folder, RunSettings.of(config)))
    assert "UnpicklingError" in caplog.text
    assert len(caplog.records) == 4


@pytest.mark.parametrize("failure", ["raises", "not finite"])
def test_a_program_that_fails_on_its_first_step(folder, config, caplog, monkeypatch, failure):
    """The step is done again, from the state as it was, although a program's state is donated."""

    def program(state, images):
        for leaf in jax.tree.leaves(state):
            leaf.delete()
        if failure == "raises":
            raise RuntimeError("an instruction that this device has not")
        return {"a": jnp.zeros(1)}, {"loss": jnp.full(1, jnp.nan)}

    monkeypatch.setattr(CarriedPrograms, "load", lambda self, name: program)
    assert falls_back(CarriedPrograms(folder, RunSettings.of(config)))
    assert ("an instruction" if failure == "raises" else "not finite") in caplog.text


def test_a_program_that_works_is_used_from_then_on(folder, config, caplog, monkeypatch):
    def program(state, images):
        return jax.tree.map(lambda x: x + 1, state), {"loss": jnp.ones(1)}

    def ordinary(state, images):
        raise AssertionError("not the carried program")

    monkeypatch.setattr(CarriedPrograms, "load", lambda self, name: program)
    with caplog.at_level(logging.INFO):
        step = CarriedPrograms(folder, RunSettings.of(config)).step(Phase.ALL, ordinary)
        state = {"a": jnp.zeros(1)}
        for _ in range(3):
            state, _ = step(state, np.zeros((1, 2, 64, 64, 3), np.uint8))
    assert float(state["a"][0]) == 3
    assert caplog.text.count("carried program all-64: first step in") == 1


def test_planned_steps_are_those_that_the_run_comes_to():
    config = default.get_config()
    config.data.crops, config.data.crop_boundaries = (128, 256), (50,)
    config.train.steps, config.train.transforms_from, config.train.decoder_steps = 100, 10, 20
    everything = [
        PlannedStep(Phase.ENTROPY_MODEL, 128),
        PlannedStep(Phase.ALL, 128),
        PlannedStep(Phase.ALL, 256),
        PlannedStep(Phase.DECODER, 256),
    ]
    assert planned_steps(RunSettings.of(config)) == everything
    assert [planned.name for planned in everything][:2] == ["entropy_model-128", "all-128"]
    config.train.transforms_from = config.train.decoder_steps = 0
    config.train.steps = 50  # ends before the second size
    assert planned_steps(RunSettings.of(config)) == [PlannedStep(Phase.ALL, 128)]
    # By time: the phases and crops that the fractions name.
    config.train.schedule, config.train.minutes = "time", 12.0
    config.data.crop_fractions, config.train.transforms_from_fraction = (0.6,), 0.1
    config.train.decoder_fraction = 0.2
    assert planned_steps(RunSettings.of(config)) == everything


def test_the_learning_rate_is_an_argument_by_time_and_nothing_to_compile_anew(config):
    by_time = {**config["train"], "schedule": "time", "minutes": 2.0}
    config = {**config, "train": by_time}
    settings = RunSettings.of(config)
    state = TrainState(0, jnp.zeros(3), jnp.zeros(3), (), 0)
    _, images, rate = step_arguments(state, settings.train, 64, 2)
    assert images.shape == (2, 1, 64, 64, 3) and rate.shape == (2,)
    assert (
        len(step_arguments(state, dataclasses.replace(settings.train, schedule="steps"), 64, 1))
        == 2
    )
    needed = carried_programs.requirements(settings, jax.devices())
    slower = {**config, "train": {**by_time, "learning_rate": 1e-5, "minutes": 3.0}}
    other = carried_programs.requirements(RunSettings.of(slower), jax.devices())
    assert carried_programs.difference(needed, other) is None
    clipped = {**config, "train": {**by_time, "clip_norm": 2.0}}
    other = carried_programs.requirements(RunSettings.of(clipped), jax.devices())
    assert "train.clip_norm 1.0" in carried_programs.difference(needed, other)
