import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from llic_jax import optimization, train_step, training
from llic_jax.checkpoint import CheckpointError, Checkpoints
from llic_jax.errors import ConfigError
from llic_jax.loss import rate_distortion
from llic_jax.model import LatentRate


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


def test_interrupted_equals_uninterrupted_bit_for_bit(config, tmp_path):
    whole = training.train(config, tmp_path / "whole")
    config.train.steps = 2
    training.train(config, tmp_path / "parts")
    config.train.steps = 4
    resumed = training.train(config, tmp_path / "parts")
    assert int(whole.step) == int(resumed.step) == 4
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [[e["loss"] for e in lines(tmp_path / n, "train")] for n in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    (validation,) = lines(tmp_path / "whole", "validation")
    assert validation["step"] == 4 and np.isfinite(validation["loss"])
    assert {"loss_1", "bpp_2", "psnr_1"} <= set(validation)

    # The same run does not go on with another model, nor from a damaged checkpoint.
    config.model.groups = (8, 8)
    with pytest.raises(CheckpointError, match="another model"):
        training.train(config, tmp_path / "parts")
    config.model.groups = (4, 12)
    for path in (tmp_path / "parts" / "checkpoints" / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoints/4 cannot be restored"):
        training.train(config, tmp_path / "parts")


@pytest.mark.slow
def test_the_loss_falls(config, tmp_path):
    config.train.steps = 60
    config.train.learning_rate = 3e-3
    config.train.eval_every = config.train.checkpoint_every = 1000
    training.train(config, tmp_path)
    losses = [entry["loss"] for entry in lines(tmp_path, "train")]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


@pytest.mark.slow
def test_time_limit_saves_and_ends(config, tmp_path):
    config.train.steps = 1000
    state = training.train(config, tmp_path, max_minutes=0.0)
    assert int(state.step) == 1
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 1


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state(config, tmp_path):
    config.train.learning_rate = float("nan")
    with pytest.raises(training.TrainingError, match=r"Step 2: .*bpp_y.* not finite"):
        training.train(config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints_failed").latest_step() == 1


def test_configs_that_do_not_go_together_are_refused(config, tmp_path):
    config.train.lmbdas = (0.01,)
    with pytest.raises(ConfigError, match=r"lmbdas has 1 entries and model.levels is 2"):
        training.train(config, tmp_path)
    config.train.lmbdas = (0.01, 0.02)
    config.train.schedule = "linear"
    with pytest.raises(ConfigError, match="known are steps, cosine, constant"):
        training.train(config, tmp_path)


def test_schedules(tiny_config):
    train = tiny_config.train.copy_and_resolve_references()
    train.learning_rate, train.steps, train.warmup_steps = 1e-4, 100, 0
    train.schedule = "steps"
    train.schedule_boundaries, train.schedule_factors = (50, 80), (0.3, 0.1)
    schedule = optimization.learning_rate_schedule(train)
    np.testing.assert_allclose(
        [schedule(s) for s in (0, 49, 51, 79, 81)], [1e-4, 1e-4, 3e-5, 3e-5, 1e-5], rtol=1e-5
    )
    train.warmup_steps = 10
    schedule = optimization.learning_rate_schedule(train)
    np.testing.assert_allclose(
        [schedule(s) for s in (0, 5, 10, 51)], [0, 5e-5, 1e-4, 3e-5], rtol=1e-5
    )
    train.schedule, train.final_factor = "cosine", 0.1
    schedule = optimization.learning_rate_schedule(train)
    np.testing.assert_allclose([schedule(s) for s in (5, 10, 100)], [5e-5, 1e-4, 1e-5], rtol=1e-5)


def test_qualities_and_their_lambdas():
    quality, lmbda = train_step.draw_qualities(
        jax.random.split(jax.random.key(0), 1000), (0.01, 0.04, 0.16)
    )
    assert quality.min() >= 1 and quality.max() <= 3 and quality.std() > 0.5
    np.testing.assert_allclose(lmbda, 0.01 * 4 ** (quality - 1), rtol=1e-4)
    assert train_step.draw_qualities(jax.random.split(jax.random.key(0), 3), (0.02,))[0] is None


def test_loss_is_rate_plus_weighted_distortion():
    x = jnp.full((2, 8, 8, 3), 0.5)
    out = LatentRate(
        x + jnp.array([0.1, 0.2])[:, None, None, None],
        jnp.array([64.0, 128.0]),
        jnp.array([32.0, 0.0]),
    )
    loss, figures = rate_distortion(out, x, jnp.array([0.01, 0.02]))
    expected = np.mean([1.5 + 0.01 * 255**2 * 0.01, 2.0 + 0.02 * 255**2 * 0.04])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(figures["bpp"], 1.75, rtol=1e-6)
    np.testing.assert_allclose(figures["psnr"], np.mean([20, 20 - 20 * np.log10(2)]), rtol=1e-4)
    with pytest.raises(ValueError, match="known are mse, ms_ssim"):
        rate_distortion(out, x, jnp.ones(2), "vmaf")


@pytest.mark.slow
def test_four_devices_give_the_single_device_update():
    """In a process of its own: the number of simulated devices is fixed when JAX starts."""
    code = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.flatten_util import ravel_pytree
from configs import smoke
from llic_jax import train_step
from llic_jax.model import build_model

config = smoke.get_config()
config.model.channels, config.model.groups, config.model.levels = (4, 4, 4, 8), (2, 6), 1
config.model.kernel_sizes, config.model.hyper_channels = (3, 3, 3, 3), 4
config.model.context_widths = (4, 4)
config.train.lmbdas, config.train.schedule = (0.01,), "constant"
model = build_model(config.model)
optimizer = optax.sgd(1e-3)  # linear in the gradient: it is the gradients that are compared
images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
state, unravel = train_step.create_state(model, optimizer, 0)
params = {}
for devices in (1, 4):
    step = train_step.make_train_step(model, optimizer, unravel, config.train, 0)
    replicated = jax.tree.map(lambda x: jnp.stack([x] * devices), state)
    new, _ = step(replicated, images.reshape(devices, 4 // devices, 64, 64, 3))
    params[devices] = np.asarray(new.params)
    assert (params[devices] == params[devices][:1]).all(), "replicas drifted apart"
change = np.abs(params[1][0] - np.asarray(state.params)).max()
np.testing.assert_allclose(params[4][0], params[1][0], rtol=1e-5, atol=1e-5 * change)
assert change > 0
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
