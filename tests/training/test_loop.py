import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from llic_jax.errors import CheckpointError, ConfigError, DataError, ReleaseError, TrainingError
from llic_jax.models.build import build_model, initialize
from llic_jax.training import loop, trainer
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.export import export_run
from llic_jax.training.log import read_metrics
from llic_jax.training.step import make_step
from llic_jax.training.validation import Validation
from llic_jax.zoo.folder import save_release, training_history
from llic_jax.zoo.weights import load_weights, mean_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Smooth images: there is something to learn within a few steps."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def config(tiny_config, folder):
    config = tiny_config.copy_and_resolve_references()
    config.data.source = str(folder)
    config.data.held_back = 1
    config.data.threads = 1
    config.train.batch_size = 2
    config.train.steps = 4
    config.train.warmup_steps = 0
    config.train.log_every = 1
    config.train.eval_every = 4
    config.train.checkpoint_every = 2
    return config


def lines(workdir, kind):
    entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == kind]


@pytest.mark.slow
def test_interrupted_equals_uninterrupted_bit_for_bit(config, tmp_path):
    whole = loop.train(config, tmp_path / "whole")
    config.train.steps = 2
    loop.train(config, tmp_path / "parts")
    config.train.steps = 4
    resumed = loop.train(config, tmp_path / "parts")
    assert int(whole.step) == int(resumed.step) == 4
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [[e["loss"] for e in lines(tmp_path / n, "train")] for n in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    (validation,) = lines(tmp_path / "whole", "validation")
    assert validation["step"] == 4 and np.isfinite(validation["loss"])
    assert {"loss_1", "bpp_2", "psnr_1"} <= set(validation)
    assert Checkpoints(tmp_path / "whole" / "checkpoint_best").steps() == [4]
    assert list((tmp_path / "whole" / "tensorboard").glob("events*"))
    starts = [json.loads(line) for line in (tmp_path / "parts" / "runs.jsonl").open()]
    assert len(starts) == 2 and starts[0]["versions"]["jax"] == jax.__version__

    # A damaged checkpoint is named; the one before it is used when the user says so.
    parts = tmp_path / "parts"
    for path in (parts / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoints/4 cannot be restored.*--from_step 2"):
        loop.train(config, parts)
    with pytest.raises(CheckpointError, match=r"No checkpoint of step 3.*\[2, 4\]"):
        loop.train(config, parts, from_step=3)
    again = loop.train(config, parts, from_step=2)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [path.name[:2] for path in (parts / "checkpoints_set_aside").iterdir()] == ["4_"]
    assert Checkpoints(parts / "checkpoints").steps() == [2, 4]
    assert [entry["step"] for entry in read_metrics(parts, "train")] == [1, 2, 3, 4]

    # The same run goes on with the same model, computed in another way, but not with another one.
    config.model.dtype = "bfloat16"
    assert int(loop.train(config, parts).step) == 4
    config.model.groups = (8, 8)
    with pytest.raises(CheckpointError, match="another model"):
        loop.train(config, parts)


@pytest.mark.slow
def test_the_host_looks_at_figures_only_when_it_logs(config, tmp_path, monkeypatch):
    """Between logs nothing waits for the device, and nothing is compiled after the first log."""
    config.train.steps, config.train.log_every = 18, 6
    config.train.eval_every = config.train.checkpoint_every = 1000
    config.data.held_back = 0
    looks, compiled, at_step = [], [], [0]
    local, make = trainer._local, make_step

    def counting_local(value):
        looks.append(at_step[0])
        return local(value)

    def counting_make(*args, **kwargs):
        step = make(*args, **kwargs)

        def counted(*args):
            at_step[0] += 1
            return step(*args)

        return counted

    def on_event(name, seconds, **_):
        if "backend_compile" in name:
            compiled.append(at_step[0])

    monkeypatch.setattr(trainer, "_local", counting_local)
    monkeypatch.setattr(trainer, "make_step", counting_make)
    jax.monitoring.register_event_duration_secs_listener(on_event)
    loop.train(config, tmp_path)
    assert set(looks) == {6, 12, 18}
    # The last step also saves a checkpoint, with small programs of orbax's own.
    assert compiled and not [step for step in compiled if 6 < step < 18]


@pytest.mark.slow
def test_the_decoder_s_steps_begin_with_the_average(config, tmp_path):
    """Which is what is released, and what the analysis stays at, also when a run goes on there."""
    config.train.steps, config.train.decoder_steps = 4, 2
    config.train.decoder_learning_rate, config.train.ema_decay = 0.0, 0.5
    config.train.checkpoint_every, config.train.tensorboard = 1, False
    config.data.held_back = 0
    end = loop.train(config, tmp_path / "whole")
    before = Checkpoints(tmp_path / "whole" / "checkpoints", 9).restore(end, 2)
    assert not np.array_equal(before.params, before.ema)
    np.testing.assert_array_equal(end.params, before.ema)
    again = loop.train(config, tmp_path / "whole", from_step=2)
    np.testing.assert_array_equal(again.params, end.params)
    config.train.transforms_from = 3
    with pytest.raises(ConfigError, match=r"train\.decoder_steps"):
        loop.train(config, tmp_path / "other")


@pytest.mark.slow
def test_going_on_from_released_weights(config, tiny_release, tmp_path):
    config.train.start, config.train.learning_rate = str(tiny_release), 0.0
    config.train.steps, config.data.held_back, config.train.tensorboard = 1, 0, False
    state = loop.train(config, tmp_path)
    # What is stored of them, to the bit; how near that is to them: tests/zoo/test_folder.py.
    released = jax.flatten_util.ravel_pytree(load_weights(tiny_release))[0]
    np.testing.assert_array_equal(state.params, released)
    assert not (tmp_path / "tensorboard").exists()
    loop.train(config, tmp_path)  # a second start knows it still
    started_from = json.loads((tmp_path / "config.json").read_text())["started_from"]
    assert started_from == training_history(tiny_release)


@pytest.mark.slow
def test_going_on_from_the_mean_of_two_released_folders(
    config, tiny_release, tiny_params, tmp_path
):
    released = json.loads((tiny_release / "config.json").read_text())
    other = jax.tree.map(lambda p: 1.2 * p, tiny_params)
    save_release(tmp_path / "longer", {**released, "trained_steps": 500}, other)
    config.train.start = f"{tiny_release},{tmp_path / 'longer'}"
    config.train.learning_rate = 0.0
    config.train.steps, config.data.held_back, config.train.tensorboard = 1, 0, False
    state = loop.train(config, tmp_path / "run")
    folders = tiny_release, tmp_path / "longer"
    flat = [jax.flatten_util.ravel_pytree(load_weights(f))[0] for f in folders]
    np.testing.assert_allclose(state.params, (flat[0] + flat[1]) / 2, rtol=1e-6, atol=1e-9)
    assert np.linalg.norm(state.params - 1.1 * flat[0]) < 0.01 * np.linalg.norm(flat[0])
    started_from = json.loads((tmp_path / "run" / "config.json").read_text())["started_from"]
    assert started_from["trained_steps"] == 500
    export_run(tmp_path / "run", tmp_path / "released", None)
    made = json.loads((tmp_path / "released" / "config.json").read_text())
    assert made["train"]["start"] == f"{tiny_release.name},longer" and made["trained_steps"] == 501


def test_a_folder_named_twice_counts_twice(tiny_config, tiny_release, tiny_params, tmp_path):
    other = jax.tree.map(lambda p: 4 * p, tiny_params)
    save_release(tmp_path / "other", tiny_config.to_dict(), other)
    mean = mean_weights(tiny_release, tmp_path / "other", tiny_release)
    for found, p in zip(jax.tree.leaves(mean), jax.tree.leaves(tiny_params), strict=True):
        np.testing.assert_allclose(found, 2 * p, atol=0.02 * float(np.abs(p).max() + 1e-3))


def test_weights_of_two_models_have_no_mean(tiny_config, tiny_release, tmp_path):
    config = tiny_config.to_dict()
    config["model"]["hyper_channels"] += 4
    save_release(tmp_path / "other", config, initialize(build_model(config["model"])))
    with pytest.raises(ReleaseError, match="other are of another model than those in"):
        mean_weights(tiny_release, tmp_path / "other")
    with pytest.raises(ReleaseError, match="No weights can be read"):
        mean_weights(tiny_release, tmp_path / "nowhere")


@pytest.mark.slow
def test_the_loss_falls(config, tmp_path):
    config.train.steps = 60
    config.train.learning_rate = 3e-3
    config.train.eval_every = config.train.checkpoint_every = 1000
    loop.train(config, tmp_path)
    losses = [entry["loss"] for entry in lines(tmp_path, "train")]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


@pytest.mark.slow
def test_time_limit_saves_and_ends(config, tmp_path, caplog):
    config.train.steps = 1000
    with caplog.at_level("INFO"):
        state = loop.train(config, tmp_path, max_minutes=0.0)
    assert int(state.step) == 1
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 1
    # A validation would compile, and go through all held-back photographs, for minutes perhaps.
    assert not lines(tmp_path, "validation")
    assert "left out, as it has not been done before" in caplog.text


@pytest.mark.slow
def test_a_quick_validation_is_made_after_the_time_limit(config, tmp_path, monkeypatch):
    """Where an earlier one has shown that it takes little."""
    config.train.update(steps=1000, eval_every=1)
    asked = []

    def late(stop, step: int, together: bool) -> str | None:
        asked.append(step)
        stop.is_late = len(asked) == 3
        return "late" if stop.is_late else None

    monkeypatch.setattr(loop.Stop, "due", late)
    monkeypatch.setattr(loop, "LATE_SECONDS", 1000.0)
    loop.train(config, tmp_path)
    assert [entry["step"] for entry in lines(tmp_path, "validation")] == [1, 2, 3]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_keeps_the_state(config, tmp_path):
    config.train.learning_rate = 1e30
    with pytest.raises(TrainingError, match=r"Step 2: .*bpp_y.* not finite"):
        loop.train(config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints_failed").latest_step() == 1


def test_configs_that_do_not_go_together_are_refused(config, tmp_path):
    config.train.lmbdas = (0.01,)
    with pytest.raises(ConfigError, match=r"lmbdas has 1 entries and model.levels is 2"):
        loop.train(config, tmp_path)
    config.train.lmbdas = (0.01, 0.02)
    config.coding.back_projection = (0.5,)
    with pytest.raises(ConfigError, match="1 factors and the model 2 quality levels"):
        loop.train(config, tmp_path)
    config.coding.back_projection = ()
    config.data.crops = (64, 100)
    with pytest.raises(ConfigError, match="needs 1 boundaries"):
        loop.train(config, tmp_path)
    config.data.crop_boundaries = (10,)
    with pytest.raises(ConfigError, match=r"\[100\] are not multiples of 64"):
        loop.train(config, tmp_path)
    config.data.crops, config.data.crop_boundaries = (64,), ()
    config.train.accumulate = 4
    with pytest.raises(ConfigError, match="use a multiple of 4"):
        loop.train(config, tmp_path)
    config.train.accumulate = 1
    config.train.frozen = ("g_s", "up_7")
    with pytest.raises(ConfigError, match=r"up_7 is no part .* h_s"):
        loop.train(config, tmp_path)
    config.train.frozen = ()
    config.data.drawings = 20.0
    with pytest.raises(ConfigError, match=r"data\.drawings is 20"):
        loop.train(config, tmp_path)
    config.data.drawings = 0.0
    config.train.distortion = "ms_ssim"
    with pytest.raises(ConfigError, match=r"data\.crops is \(64,\).*161 pixels"):
        loop.train(config, tmp_path)
    config.train.distortion = "mse"
    config.train.schedule = "linear"
    with pytest.raises(ConfigError, match="known are steps, cosine, constant"):
        loop.train(config, tmp_path)


def test_photographs_too_small_for_validation_are_found_out_first(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "Trainer", None)  # nothing is made or compiled before
    config.data.crops = (128,)
    with pytest.raises(DataError, match=r"None of the 1 held-back images has 128 pixels"):
        loop.train(config, tmp_path)
    config.data.validation = config.data.source
    with pytest.raises(DataError, match=r"None of the 6 validation images has 128 pixels"):
        loop.train(config, tmp_path)


@pytest.mark.slow
def test_validation_with_photographs_of_its_own_and_the_gap(config, tmp_path, folder):
    """All of the source is trained on; a run knows what it holds back after the folder has grown;
    an error of validation comes after the checkpoint."""
    config.train.steps, config.train.eval_every, config.train.tensorboard = 2, 2, False
    config.data.validation, config.data.gap_images = str(folder), 6
    loop.train(config, tmp_path / "own")
    (found,) = lines(tmp_path / "own", "validation")
    assert found["gap"] == pytest.approx(0, abs=1e-6)  # they are the same photographs
    assert found["loss_training"] == pytest.approx(found["loss"])
    assert not (tmp_path / "own" / "held_back.json").exists()

    config.data.validation, config.data.gap_images = "", 0
    loop.train(config, tmp_path / "held")
    (held,) = json.loads((tmp_path / "held" / "held_back.json").read_text())
    assert (folder / held).exists() and "gap" not in lines(tmp_path / "held", "validation")[0]


@pytest.mark.slow
def test_the_checkpoint_comes_before_validation(config, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("a broken figure")

    monkeypatch.setattr(Validation, "measure", broken)
    config.train.steps, config.train.eval_every, config.train.checkpoint_every = 4, 2, 2
    with pytest.raises(RuntimeError, match="a broken figure"):
        loop.train(config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 2


@pytest.mark.slow
def test_a_kill_at_a_checkpoint_loses_no_figures(config, tmp_path, monkeypatch):
    """The run goes on from the checkpoint and never trains its step again."""

    def killed(*args, **kwargs):
        raise SystemExit

    monkeypatch.setattr(Checkpoints, "save", killed)
    config.train.steps, config.train.log_every, config.train.tensorboard = 2, 2, False
    with pytest.raises(SystemExit):
        loop.train(config, tmp_path)
    assert [entry["step"] for entry in lines(tmp_path, "train")] == [2]


def start(config, workdir, *flags, devices=1):
    """`train.py` as a process of its own, with this config."""
    module = workdir.parent / f"{workdir.name}_config.py"
    module.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({config.to_json()!r}))\n"
    )
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "train.py", "--config", str(module), "--workdir", str(workdir)]
    return subprocess.Popen(
        [*command, *flags], env=environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )


@pytest.mark.slow
def test_sigterm_saves_and_a_later_run_ends_as_if_nothing_had_happened(config, tmp_path):
    config.train.steps = 400
    config.train.eval_every = config.train.checkpoint_every = 1000
    config.train.log_every = 20
    process = start(config, tmp_path / "parts")
    metrics = tmp_path / "parts" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and b"stopped by SIGTERM" in output, output
    stopped = Checkpoints(tmp_path / "parts" / "checkpoints").latest_step()
    assert 40 <= stopped < 400

    config.train.steps = stopped + 20
    final = []
    for name in ("parts", "whole"):
        process = start(config, tmp_path / name)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        metrics = read_metrics(tmp_path / name, "train")
        final.append((metrics[-1]["step"], metrics[-1]["loss"], metrics[-1]["gradient_norm"]))
    assert final[0] == final[1] and final[0][0] == stopped + 20


@pytest.mark.slow
def test_two_processes_train_together_and_go_on(config, tmp_path):
    """Over jax.distributed: their update is that of one process with two devices; both resume."""
    config.train.steps, config.train.tensorboard = 2, False
    process = start(config, tmp_path / "one", devices=2)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    for steps in (1, 2):
        config.train.steps = steps
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        both = [
            start(config, tmp_path / "two", "--coordinator", address, "--processes=2",
                  f"--process={i}")
            for i in range(2)
        ]  # fmt: skip
        outputs = [process.communicate(timeout=600)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
    one, two = (read_metrics(tmp_path / name, "train") for name in ("one", "two"))
    assert [e["step"] for e in two] == [1, 2]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    assert read_metrics(tmp_path / "two", "validation")[-1]["step"] == 2

    # A checkpoint does not know how many devices wrote it.
    config.train.steps = 3
    process = start(config, tmp_path / "two")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and b"going on from step 2" in output, output


@pytest.mark.slow
def test_ten_seconds_of_grace_are_enough(config, tmp_path):
    """Validation, whose program is not compiled yet, does not come before the checkpoint."""
    config.train.steps = config.train.eval_every = config.train.checkpoint_every = 100_000
    process = start(config, tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=10)
    process.kill()
    process.communicate()
    assert Checkpoints(tmp_path / "run" / "checkpoints").latest_step() >= 2


def test_flags_that_cannot_be_are_told_in_one_line(tmp_path):
    """Before anything is loaded; a field by its old name is accepted."""
    for arguments, message in (
        (["--config.train.batchsize=2"], "train.batchsize is no field of a config. Did you mean"),
        (["--config.train.batch_size=many"], "invalid literal for int"),
        (["--nonsense=1"], "Unknown command line flag 'nonsense'"),
        (["--config.train.level_balance=none"], "train.level_balance is train.rate_weighting now"),
    ):
        command = [sys.executable, "train.py", "--config", "configs/smoke.py", "--workdir"]
        done = subprocess.run(
            [*command, str(tmp_path / "run"), *arguments], capture_output=True, text=True
        )
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 2
    assert not (tmp_path / "run").exists()
