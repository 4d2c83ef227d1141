"""The training loop: state, the pmap-sharded step, logging, validation, checkpoints.

One code path for one device and for many: the state is replicated, each device takes its share of
the batch, gradients are averaged over devices.
"""

import itertools
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, UInt8

from llic_jax import data
from llic_jax.checkpoint import CheckpointError, Checkpoints
from llic_jax.config import Config, as_dict
from llic_jax.errors import LlicError
from llic_jax.loss import rate_distortion
from llic_jax.model import LLIC, ConfigError, build_model, initialize
from llic_jax.ops import fold_in
from llic_jax.pca import start_from_components

AXIS = "batch"
TRANSFORMS = ("g_a", "g_s", "gain_y")  # what stands still while the entropy model trains alone


class TrainingError(LlicError, RuntimeError):
    """Training cannot go on."""


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes; replicated, every leaf has a leading axis of devices.

    step: number of steps done. params, ema: the parameters and their exponential moving average,
    `(n,)`. opt_state: the optimizer's. All parameters are one vector: an update is then one fused
    loop and one all-reduce, not hundreds, which also halves the time to compile. `unravel` makes
    the tree.
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any


def learning_rate_schedule(train: Config) -> optax.Schedule:
    """The schedule that the config names (configs/default.py).

    Raises:
      ConfigError: a schedule that is not known.
    """
    peak, warmup, steps = train["learning_rate"], train["warmup_steps"], train["steps"]
    if train["schedule"] == "steps":
        factors = (1.0, *train["schedule_factors"])
        ratios = {
            boundary: factors[i + 1] / factors[i]
            for i, boundary in enumerate(train["schedule_boundaries"])
        }
        main = optax.piecewise_constant_schedule(peak, ratios)
    elif train["schedule"] == "cosine":
        main = optax.cosine_decay_schedule(peak, max(1, steps - warmup), train["final_factor"])
    elif train["schedule"] == "constant":
        main = optax.constant_schedule(peak)
    else:
        raise ConfigError(
            f"train.schedule is {train['schedule']!r}; known are steps, cosine, constant."
        )
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, peak, warmup)
    if train["schedule"] == "steps":  # its boundaries count from the first step
        return lambda step: jnp.minimum(ramp(step), main(step))
    return optax.join_schedules([ramp, main], [warmup])


def build_optimizer(train: Config) -> optax.GradientTransformation:
    """Adam with clipping by the global norm (paper: Adam; our choice: the clipping)."""
    return optax.chain(
        optax.clip_by_global_norm(train["clip_norm"]), optax.adam(learning_rate_schedule(train))
    )


def draw_qualities(
    keys: Key[Array, "b"], lmbdas: tuple[float, ...]
) -> tuple[Float[Array, "b"] | None, Float[Array, "b"]]:
    """A quality for each sample and its lambda.

    With one lambda there is no quality. With several, quality is uniform in [1, levels] and lambda
    is interpolated geometrically, like the gains.
    """
    if len(lmbdas) == 1:
        return None, jnp.full(len(keys), lmbdas[0])
    draw = partial(jax.random.uniform, minval=1.0, maxval=float(len(lmbdas)))
    quality = jax.vmap(draw)(keys)
    return quality, lmbda_of_quality(quality, lmbdas)


def lmbda_of_quality(quality: Float[Array, "b"], lmbdas: tuple[float, ...]) -> Float[Array, "b"]:
    """Geometric interpolation of the levels' lambdas; quality 1 is the first."""
    levels = jnp.arange(1, len(lmbdas) + 1, dtype=jnp.float32)
    return jnp.exp(jnp.interp(quality, levels, jnp.log(jnp.asarray(lmbdas))))


def create_state(
    model: LLIC, optimizer: optax.GradientTransformation, seed: int
) -> tuple[TrainState, Callable[[Array], Any]]:
    """A state with fresh parameters, and `unravel`: from a vector of parameters to their tree."""
    params, unravel = ravel_pytree(initialize(model, seed))
    state = TrainState(jnp.zeros((), jnp.int32), params, params, optimizer.init(params))
    return state, unravel


def make_train_step(
    model: LLIC,
    optimizer: optax.GradientTransformation,
    unravel: Callable[[Array], Any],
    train: Config,
    seed: int,
    rate_only: bool = False,
) -> Callable[[TrainState, UInt8[np.ndarray, "..."]], tuple[TrainState, dict[str, Array]]]:
    """The step, `pmap`ped: `(state, images)` with a leading device axis on both, to the new state
    and the metrics. `images` is uint8 `(devices, B / devices, H, W, 3)`. The state is donated.

    With `rate_only` the loss is the rate, and only hyperprior and entropy model learn: a third of
    the work, as there is nothing to synthesize and nothing to differentiate in the transforms."""
    lmbdas = tuple(train["lmbdas"])
    apply: Any = model.apply

    @partial(jax.pmap, axis_name=AXIS, donate_argnums=0)
    def step(state: TrainState, images: Array) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        samples = jax.lax.axis_index(AXIS) * len(images) + jnp.arange(len(images))
        keys = jax.vmap(partial(jax.random.fold_in, key))(samples)
        quality, lmbda = draw_qualities(fold_in(keys, 0), lmbdas)
        x = images.astype(jnp.float32) / 255

        def loss_fn(params):
            if rate_only:
                frozen = {name: jax.lax.stop_gradient(params[name]) for name in params}
                params = {n: frozen[n] if n in TRANSFORMS else params[n] for n in params}
            out = apply({"params": params}, x, quality, fold_in(keys, 1))
            loss, figures = rate_distortion(out, x, lmbda, train["distortion"])
            if rate_only:  # what is not asked for is not computed: XLA drops the synthesis
                figures = {name: figures[name] for name in ("bpp_y", "bpp_z", "bpp")}
                loss = figures["loss"] = figures["bpp"]
            return loss, figures

        grads, figures = jax.grad(loss_fn, has_aux=True)(unravel(state.params))
        grads, _ = ravel_pytree(grads)
        grads, figures = jax.lax.pmean((grads, figures), AXIS)
        figures["gradient_norm"] = optax.global_norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # A young average follows faster: it must not remember the initialization.
        decay = jnp.minimum(train["ema_decay"], (1 + state.step) / (10 + state.step))
        ema = decay * state.ema + (1 - decay) * params
        return TrainState(state.step + 1, params, ema, opt_state), figures

    return step


def validate(
    model: LLIC, params: Any, images: data.Photographs, train: Config, crop: int
) -> dict[str, float]:
    """Rate-distortion of central crops with real quantization, averaged; per level if several."""
    lmbdas = tuple(train["lmbdas"])
    apply = _jitted_apply(model)
    totals: dict[str, list[float]] = {}
    for i in range(len(images)):
        image = images[i]
        if image is None or min(image.shape[:2]) < crop:
            continue
        top, left = ((side - crop) // 2 for side in image.shape[:2])
        x = jnp.asarray(image[None, top : top + crop, left : left + crop], jnp.float32) / 255
        for level, lmbda in enumerate(lmbdas, start=1):
            quality = jnp.full(1, float(level)) if len(lmbdas) > 1 else None
            out = apply({"params": params}, x, quality)
            out = out._replace(x_hat=jnp.clip(out.x_hat, 0, 1))
            _, figures = rate_distortion(out, x, jnp.full(1, lmbda), train["distortion"])
            for name in ("loss", "bpp", "psnr"):
                totals.setdefault(name, []).append(float(figures[name]))
                if len(lmbdas) > 1:
                    totals.setdefault(f"{name}_{level}", []).append(float(figures[name]))
    return {name: float(np.mean(values)) for name, values in totals.items()}


_APPLY: dict[LLIC, Callable] = {}


def _jitted_apply(model: LLIC) -> Callable:
    if model not in _APPLY:
        _APPLY[model] = jax.jit(model.apply)
    return _APPLY[model]


def train(config: Config, workdir: str | Path, max_minutes: float | None = None) -> TrainState:
    """Trains from the last checkpoint in `workdir`, or from scratch, to `config.train.steps`.

    Ends earlier, with a checkpoint, after `max_minutes`. Writes `config.json`, `metrics.jsonl` and
    `checkpoints/`. Returns the state.

    Raises:
      DataError: no usable data. CheckpointError: a checkpoint that does not fit.
      TrainingError: the loss is not finite; the state is in `checkpoints_failed/`.
    """
    started = time.monotonic()
    config = as_dict(config)
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    settings = config["train"]
    if len(settings["lmbdas"]) != config["model"]["levels"]:
        raise ConfigError(
            f"train.lmbdas has {len(settings['lmbdas'])} entries and model.levels is "
            f"{config['model']['levels']}; a level needs one lambda."
        )
    devices = jax.local_device_count()
    if settings["batch_size"] % devices:
        raise ConfigError(
            f"train.batch_size {settings['batch_size']} does not divide among {devices} devices."
        )
    _keep_config(config, workdir)

    model = build_model(config["model"])
    optimizer = build_optimizer(settings)
    state, unravel = create_state(model, optimizer, config["seed"])
    photographs, held_back = data.split_held_back(
        data.open_source(config["data"]["source"]), config["data"]["held_back"]
    )
    training = data.Cached(photographs, config["data"]["cache_gb"])
    crop = data.RandomCrop(
        config["data"]["crop"], config["data"]["flip"], config["data"]["downsample"]
    )
    batches_from = partial(
        data.training_batches,
        training,
        crop=crop,
        batch_size=settings["batch_size"],
        seed=config["seed"],
        threads=config["data"]["threads"],
    )
    checkpoints = Checkpoints(workdir, settings["keep_checkpoints"])
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state)
        logging.info("going on from step %d", int(state.step))
    elif settings["start"] == "pca":
        sample = itertools.islice(batches_from(first_step=0), 256 // settings["batch_size"] + 1)
        params = start_from_components(
            unravel(state.params), sample, config["model"]["channels"], settings["lmbdas"]
        )
        vector, _ = ravel_pytree(params)
        state = TrainState(state.step, vector, vector, optimizer.init(vector))
    first = int(state.step)

    batches = batches_from(first_step=first)
    make_step = partial(make_train_step, model, optimizer, unravel, settings, config["seed"])
    step_fn = make_step(rate_only=first < settings["transforms_from"])
    replicated = jax.tree.map(lambda x: jnp.stack([x] * devices), state)
    schedule = learning_rate_schedule(settings)
    since, since_step = time.monotonic(), first

    with (workdir / "metrics.jsonl").open("a") as log:

        def record(**entries: Any) -> None:
            log.write(json.dumps(entries) + "\n")
            log.flush()
            logging.info(" ".join(f"{k} {v:.5g}" for k, v in entries.items() if k != "kind"))

        step = first
        while step < settings["steps"]:
            if step == settings["transforms_from"] > first:
                step_fn = make_step()
            images = next(batches)
            replicated, figures = step_fn(
                replicated, images.reshape(devices, -1, *images.shape[1:])
            )
            step += 1
            out_of_time = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
            last = step == settings["steps"] or out_of_time
            if step % settings["log_every"] == 0 or last:
                values = {name: float(value[0]) for name, value in figures.items()}
                now = time.monotonic()
                speed = (step - since_step) * settings["batch_size"] / (now - since)
                since, since_step = now, step
                record(
                    kind="train",
                    step=step,
                    **values,
                    learning_rate=float(schedule(step - 1)),
                    images_per_second=speed,
                )
                if not np.isfinite(values["loss"]):
                    _keep_failed(workdir, step, replicated)
                    bad = [name for name, value in values.items() if not np.isfinite(value)]
                    raise TrainingError(
                        f"Step {step}: {', '.join(bad)} not finite. The state is kept in "
                        f"{workdir / 'checkpoints_failed'}. Lower the learning rate, or go on "
                        "from the last checkpoint."
                    )
            if (step % settings["eval_every"] == 0 or last) and len(held_back):
                ema = unravel(replicated.ema[0])
                crop_side = config["data"]["crop"]
                record(
                    kind="validation",
                    step=step,
                    **validate(model, ema, held_back, settings, crop_side),
                )
                since, since_step = time.monotonic(), step
            if step % settings["checkpoint_every"] == 0 or last:
                checkpoints.save(step, jax.tree.map(lambda x: x[0], replicated))
            if last:
                break
    checkpoints.close()
    return jax.tree.map(lambda x: x[0], replicated)


def _keep_failed(workdir: Path, step: int, replicated: TrainState) -> None:
    failed = Checkpoints(workdir / "checkpoints_failed", keep=1)
    failed.save(step, jax.tree.map(lambda x: x[0], replicated))
    failed.close()


def _keep_config(config: Config, workdir: Path) -> None:
    """Writes the config beside the run; a run keeps the model that it was started with."""
    text = json.dumps(as_dict(config), indent=2)
    path = workdir / "config.json"
    if path.exists() and json.loads(path.read_text())["model"] != json.loads(text)["model"]:
        raise CheckpointError(
            f"{path} describes another model than this config. Use another --workdir, or the "
            "config that this run was started with."
        )
    path.write_text(text + "\n")
