import importlib.metadata
import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from llic_jax import accelerate
from llic_jax.data.package import Encoding, write_package
from llic_jax.data.sources import open_source
from llic_jax.errors import ConfigError, OutOfTimeError, TrainingError
from llic_jax.release import main as release
from llic_jax.training import loop, transfer
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.course import Moment
from llic_jax.training.log import read_metrics
from llic_jax.training.phases import Phase
from llic_jax.training.trainer import Preparation, Trainer
from llic_jax.training.validation import Validation
from llic_jax.zoo.golden import complete


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    root = tmp_path_factory.mktemp("accelerate")
    rng = np.random.default_rng(0)
    for part, count in (("training", 4), ("validation", 1)):
        (root / part).mkdir()
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            image = coarse.resize((96, 80), Image.Resampling.BICUBIC)
            image.save(root / part / f"{part}{i}.png")
    encoding = Encoding("webp", 95, least=64)
    parts = str(root / "training"), str(root / "validation")
    write_package(*parts, root / "package", 10**6, 10**6, encoding)
    return root / "package"


@pytest.fixture
def config(tiny_config):
    config = tiny_config.to_dict()
    config["train"] |= {"batch_size": 2, "tensorboard": False, "log_every": 1}
    config["train"] |= {"learning_rate": 1e-3, "warmup_fraction": 0.1}
    config["data"] |= {"threads": 1, "on_device": True, "symmetries": True, "gap_images": 1}
    return json.loads(json.dumps(config))


@pytest.fixture
def patient(monkeypatch):
    """Compiling takes the time that it takes: a test's minutes are fewer than that."""
    wait = Preparation.wait
    monkeypatch.setattr(
        Preparation, "wait", lambda self, name, until, stopping: wait(self, name, None, stopping)
    )
    monkeypatch.setattr(loop._Run, "in_time", lambda *_: True)


@pytest.mark.slow
def test_from_a_package_to_a_file_that_is_coded(package, config, tmp_path, photograph, patient):
    """The whole way, in seconds: ends by itself with a rate of zero; what it left makes a codec."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps(config))
    output, workdir = tmp_path / "output", tmp_path / "work"
    command = ["run", package, path, output, "train.seed_is_no_field=1"]
    options = ["--minutes", "0.02", "--workdir", workdir, "--piece_mib", "0.1"]
    assert accelerate.main([*map(str, command), *map(str, options)]) == 1  # and says which
    assert not (output / "manifest.json").exists()
    command[-1] = "train.ema_decay=0.5"
    assert accelerate.main([*map(str, command), *map(str, options)]) == 0
    entries = read_metrics(workdir, "train")
    assert entries[-1]["learning_rate"] == 0 and entries[-1]["time_fraction"] == 1
    assert all(entry["learning_rate"] <= 1e-3 for entry in entries)
    validation = read_metrics(workdir, "validation")
    assert validation[0]["step"] == 0 and validation[-1]["step"] == entries[-1]["step"]
    assert np.isfinite(validation[-1]["gap"]) and validation[-1]["loss_training"] > 0
    names = {file.name for file in output.iterdir()}
    assert {"manifest.json", "metrics.jsonl", "runs.jsonl", "log.txt"} <= names
    assert len(names) <= 8 and all(f.stat().st_size < 105_000 for f in output.glob("state.*"))

    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["step"] == entries[-1]["step"] and manifest["form"] == "average"
    assert accelerate.main(["unpack", str(output), str(tmp_path / "run")]) == 0
    assert release([str(tmp_path / "run"), str(tmp_path / "released")]) == 0
    codec = complete(tmp_path / "released")
    decoded = codec.decompress(codec.compress(photograph))
    assert decoded.shape == photograph.shape
    # The next machine goes on from there.
    path.write_text(json.dumps(config | {"seed": 1}))
    command = ["run", package, path, tmp_path / "next", "--start_from", output]
    options = ["--minutes", "0.02", "--workdir", tmp_path / "again"]
    assert accelerate.main([*map(str, command), *map(str, options)]) == 0
    further = json.loads((tmp_path / "next" / "manifest.json").read_text())
    assert further["step"] > manifest["step"] and further["form"] == "full"


def test_a_loss_that_is_not_finite_goes_back_with_a_lower_rate(
    package, config, tmp_path, monkeypatch
):
    rates = []

    def train(config, workdir, programs, hooks):
        rates.append(config["train"]["learning_rate"])
        if len(rates) < 3:
            raise TrainingError("Step 7: loss not finite.")
        return jax.tree.map(lambda x: x, transfer._like(config))

    monkeypatch.setattr(loop, "train", train)
    arguments = {"started": time.monotonic(), "workdir": tmp_path / "work"}
    accelerate.run(package, config, tmp_path / "output", 1.0, **arguments)
    assert rates == pytest.approx([1e-3, 5e-4, 2e-4])
    rates.clear()
    monkeypatch.setattr(
        loop, "train", lambda *a, **k: (_ for _ in ()).throw(TrainingError("again"))
    )
    with pytest.raises(TrainingError, match="again"):
        accelerate.run(package, config, tmp_path / "output", 1.0, **arguments)


@pytest.mark.slow
def test_a_validation_that_fails_costs_nothing_else(
    package, config, tmp_path, monkeypatch, caplog, patient
):
    def broken(*args, **kwargs):
        raise RuntimeError("a broken figure")

    monkeypatch.setattr(Validation, "measure", broken)
    arguments = {"started": time.monotonic(), "workdir": tmp_path / "work"}
    with caplog.at_level(logging.ERROR):
        step = accelerate.run(package, config, tmp_path / "output", 0.02, **arguments)
    assert "a broken figure" in caplog.text
    assert step == Checkpoints(tmp_path / "work" / "checkpoints").latest_step() > 0
    assert json.loads((tmp_path / "output" / "manifest.json").read_text())["step"] == step


@pytest.mark.slow
def test_a_run_on_two_packages_without_validation_that_is_too_slow_ends_early(
    package, config, tmp_path, patient, monkeypatch
):
    """What is left of the time serves for something else."""
    monkeypatch.setattr(loop, "SLOW_SECONDS", 0)
    config["data"]["held_back"] = 0
    both = f"{package},{package}"
    assert accelerate.carried_config(both, config, 1.0)["data"]["validation"] == ""
    arguments = {"started": time.monotonic(), "workdir": tmp_path / "work"}
    with pytest.raises(OutOfTimeError, match=r"crops a second in the first .* expected 1e\+09"):
        accelerate.run(both, config, tmp_path / "output", 5.0, least_crops=1e9, **arguments)
    assert not (tmp_path / "work" / "metrics.jsonl").exists()  # else there was a validation
    source = accelerate.carried_config(both, config, 1.0)["data"]["source"]
    assert len(open_source(source)) == 2 * 4


def test_a_run_needs_few_packages():
    """docs/training.md names them: a machine that is lent for minutes has what it has."""
    code = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # as if it were not installed
import llic_jax.accelerate, llic_jax.training.loop, llic_jax.training.transfer
import llic_jax.data.package, llic_jax.execution.program_cache
llic_jax.execution.program_cache.enable()
"""
    needed = {"jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxtyping", "pillow"}
    needed |= {"safetensors", "scipy", "tqdm", "numpy"}
    declared = {Requirement(text).name for text in importlib.metadata.requires("llic_jax")}
    missing = {name.replace("-", "_") for name in declared - needed}
    assert {"ml_collections", "platformdirs", "constriction"} <= missing
    subprocess.run([sys.executable, "-c", code, *missing], check=True)


def test_fields_are_set_by_name(config, tmp_path):
    changed = accelerate.overridden(
        config, ["train.batch_size=8", "model.dtype=bfloat16", "seed=3"]
    )
    assert changed["train"]["batch_size"] == 8 and changed["model"]["dtype"] == "bfloat16"
    assert changed["seed"] == 3 and config["train"]["batch_size"] == 2
    for wrong in ("train.batch=8", "batch_size=8", "train.batch_size", "train.batch_size.x=1"):
        with pytest.raises(ConfigError, match="sets no field"):
            accelerate.overridden(config, [wrong])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match=r"broken\.json is no config"):
        accelerate.resolve_config(tmp_path / "broken.json", [])
    resolved = accelerate.resolve_config("configs/smoke.py", ["train.minutes=2.5"])
    assert resolved["train"]["minutes"] == 2.5 and resolved["model"]["entropy_model"] == "elic"


def test_compiling_that_outlasts_the_minutes_leaves_the_weights_at_the_start(
    package, config, tmp_path, monkeypatch
):
    over = threading.Event()  # else this test would not end
    monkeypatch.setattr(Trainer, "try_out", lambda *_: over.wait())
    arguments = {"started": time.monotonic(), "workdir": tmp_path / "work"}
    try:
        with pytest.raises(OutOfTimeError, match=r"weights that the run started with \(step 0\)"):
            accelerate.run(package, config, tmp_path / "output", 0.1, **arguments)
    finally:
        over.set()
    manifest = json.loads((tmp_path / "output" / "manifest.json").read_text())
    assert manifest["step"] == 0
    assert transfer.unpack(tmp_path / "output", tmp_path / "run") == 0


def test_a_phase_whose_program_comes_too_late_is_left_out():
    """A run then goes on with the last program before it that is compiled."""
    over, done = threading.Event(), threading.Event()
    programs = [(Phase.ALL, 0), (Phase.ALL, 1), (Phase.DECODER, 1)]
    works = (lambda: None, over.wait, done.set)
    run = SimpleNamespace(
        course=SimpleNamespace(at=lambda step: Moment(*programs[step], 1e-3, False)),
        trainer=SimpleNamespace(step=2),
        programs=programs,
        preparation=Preparation(list(zip(programs, works, strict=True))),
    )
    assert run.preparation.wait(programs[0], None, lambda: False)
    assert not run.preparation.wait(programs[2], time.monotonic() + 0.1, lambda: False)
    assert loop._Run.moment(run)[:3] == (Phase.ALL, 0, 1e-3)
    over.set()
    assert run.preparation.wait(programs[2], None, lambda: False) and done.is_set()
    assert loop._Run.moment(run)[:2] == (Phase.DECODER, 1)

    failing = Preparation([("fails", lambda: 1 / 0), ("works", lambda: None)])
    assert failing.wait("works", None, lambda: False) and not failing.is_ready("fails")
    with pytest.raises(ZeroDivisionError):
        failing.wait("fails", None, lambda: False)
    late = threading.Event()
    assert not Preparation([(1, late.wait)]).wait(1, time.monotonic() - 1, lambda: False)
    late.set()


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "llic_jax.accelerate", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_programs_are_carried_in_the_package_and_sigterm_leaves_an_export(
    package, config, tmp_path
):
    carried, path, output = tmp_path / "package", tmp_path / "run.json", tmp_path / "output"
    shutil.copytree(package, carried)
    path.write_text(json.dumps(config))
    compiling = start("compile", carried, path)
    text, _ = compiling.communicate(timeout=400)
    assert compiling.returncode == 0 and (carried / "programs" / "manifest.json").exists(), text

    running = start("run", carried, path, output, "--minutes", 10, "--workdir", tmp_path / "work")
    metrics = tmp_path / "work" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count('"train"') > 2):
        assert running.poll() is None, running.stdout.read()
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    text, _ = running.communicate(timeout=60)
    assert running.returncode == 0 and "stopped by SIGTERM" in text, text
    assert "carried program all-64: first step in" in text, text
    step = json.loads((output / "manifest.json").read_text())["step"]
    assert step == read_metrics(tmp_path / "work", "train")[-1]["step"] > 0
    assert transfer.unpack(output, tmp_path / "again") == step
