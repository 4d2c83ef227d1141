"""The training loop: data, steps, validation, checkpoints, and how a run ends.

photographs -> batches -> step (train_step.py) -> state -> checkpoints
                               every so often: log, validation on held-back images
"""

import dataclasses
import itertools
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import jax_utils
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree

from llic_jax import data, metrics, provenance, release, sources
from llic_jax.carried_programs import CarriedPrograms
from llic_jax.checkpoint import CheckpointError, Checkpoints
from llic_jax.config import Config, as_dict
from llic_jax.encoder_options import PLAIN, EncoderOptions
from llic_jax.errors import ConfigError, LlicError
from llic_jax.growth import grow
from llic_jax.loss import rate_distortion
from llic_jax.model import LLIC, build_model
from llic_jax.optimization import learning_rate_schedule
from llic_jax.pca import start_from_components
from llic_jax.train_step import (
    CAUSES,
    Stage,
    TrainState,
    create_state,
    fresh_state,
    make_train_step,
)
from llic_jax.upgrade import upgrade_model
from llic_jax.watching import TrainingLog


class TrainingError(LlicError, RuntimeError):
    """Training cannot go on."""


def train(
    config: Config,
    workdir: str | Path,
    max_minutes: float | None = None,
    from_step: int | None = None,
    programs: str | Path | None = None,
) -> TrainState:
    """Trains from the last checkpoint in `workdir`, or from scratch, to `config.train.steps`.

    Ends earlier, with a checkpoint, after `max_minutes` or on SIGTERM. Writes `config.json`,
    `runs.jsonl` (versions, commit and machine of each start), `metrics.jsonl`, `tensorboard/`,
    `checkpoints/` (the last ones) and `checkpoint_best/` (lowest validation loss). With `from_step`
    goes on from that checkpoint; later ones are set aside in `checkpoints_set_aside/`. programs: a
    folder of compiled steps (`carried_programs.py`); what does not match is compiled as ever.
    Returns the state (of one device).

    Raises:
      DataError: no usable data. CheckpointError: a checkpoint that does not fit or is damaged.
      ConfigError: settings that do not go together.
      TrainingError: the loss is not finite; the state before is in `checkpoints_failed/`.
    """
    config = as_dict(config)
    settings, workdir = config["train"], Path(workdir)
    _check(config)
    options = EncoderOptions.of(config["coding"], config["model"]["levels"])
    main = jax.process_index() == 0
    workdir.mkdir(parents=True, exist_ok=True)
    if main:
        _keep_config(config, workdir)

    model = build_model(config["model"])
    state, optimizer, unravel = create_state(model, settings, config["seed"])
    _check_frozen(unravel(state.params), settings["frozen"])
    photographs = sources.open_source(config["data"]["source"])
    seen, held_back = data.split_held_back(photographs, config["data"]["held_back"])
    batches_from = partial(_batches, data.Cached(seen, config["data"]["cache_gb"]), config)

    checkpoints = Checkpoints(workdir / "checkpoints", settings["keep_checkpoints"])
    best = Checkpoints(workdir / "checkpoint_best", 1, by_loss=True)
    if from_step is not None:
        checkpoints.set_aside_after(from_step, workdir / "checkpoints_set_aside")
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state)
        logging.info("going on from step %d", int(state.step))
    else:
        state = _start(config, state, unravel, partial(batches_from, first_step=0), optimizer)

    validation = partial(_validation, model, options, held_back, config)
    make_step = partial(
        make_train_step, model, optimizer, unravel, settings, config["seed"],
        options=options,
    )  # fmt: skip
    schedule = learning_rate_schedule(settings)
    first = step = int(state.step)
    every = {name: settings[f"{name}_every"] for name in ("log", "eval", "checkpoint")}
    devices = jax.local_device_count()
    replicated = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * devices), state)
    batches = jax_utils.prefetch_to_device(
        (b.reshape(devices, -1, *b.shape[1:]) for b in batches_from(first_step=first)), 2
    )
    carried = CarriedPrograms(Path(programs), config) if programs else None
    stage = None
    reason = None if step < settings["steps"] else "nothing left to do"
    log = TrainingLog(
        workdir, first, settings["steps"], settings["batch_size"], settings["tensorboard"], main
    )
    with log, _Stop(max_minutes) as stop:
        while reason is None:
            if stage is not (stage := Stage.at(step, settings)):
                step_fn = make_step(stage=stage)
                step_fn = carried.step(stage, step_fn) if carried else step_fn
            if step == settings["steps"] - settings["decoder_steps"]:
                # The analysis moves no more: the decoder is to learn with the one to be released.
                replicated = dataclasses.replace(replicated, params=jnp.copy(replicated.ema))
            replicated, figures = step_fn(replicated, next(batches))
            step += 1
            log.tick()
            if step == settings["steps"]:
                reason = "done"
            else:
                reason = stop.due(step, together=step % every["log"] == 0)
            last = reason is not None
            if step % every["log"] == 0 or last:
                values = {name: float(_local(value)) for name, value in figures.items()}
                if failed := int(_local(replicated.failed)):
                    _fail(workdir, _host(replicated), failed)
                log.train({**values, "learning_rate": float(schedule(step - 1))})
            if (step % every["eval"] == 0 or last) and len(held_back):
                found, pairs = validation(unravel(_local(replicated.ema)))
                log.validation(found, pairs)
                checkpoints.wait()
                best.save(step, _host(replicated), loss=found["loss"])
            if step % every["checkpoint"] == 0 or last:
                best.wait()
                checkpoints.save(step, _host(replicated))
        log.summary(reason, checkpoints.folder)
    _report(photographs)
    best.close()
    checkpoints.close()
    return _host(replicated)


def validate(
    model: LLIC,
    params: Any,
    images: data.Photographs,
    train: Config,
    crop: int,
    pairs: int = 0,
    options: EncoderOptions = PLAIN,
    levels: Collection[int] | None = None,
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Rate-distortion of central crops with real quantization, averaged; per level if several.

    options: of the encoder. levels: only these (default: all).

    Also the first `pairs` crops beside what is decoded of them (at the middle level), uint8
    `(crop, 2 crop, 3)`.
    """
    lmbdas = tuple(train["lmbdas"])
    apply = _jitted_apply(model, options)
    totals: dict[str, list[float]] = {}
    shown: list[np.ndarray] = []
    for i in range(len(images)):
        image = images[i]
        if image is None or min(image.shape[:2]) < crop:
            continue
        top, left = ((side - crop) // 2 for side in image.shape[:2])
        image = image[top : top + crop, left : left + crop]
        x = jnp.asarray(image[None], jnp.float32) / 255
        for level, lmbda in enumerate(lmbdas, start=1):
            if levels is not None and level not in levels:
                continue
            quality = jnp.full(1, float(level)) if len(lmbdas) > 1 else None
            out = apply({"params": params}, x, quality)
            out = out._replace(x_hat=jnp.clip(out.x_hat, 0, 1))
            _, figures = rate_distortion(out, x, jnp.full(1, lmbda), train["distortion"])
            for name in ("loss", "bpp", "psnr"):
                totals.setdefault(name, []).append(float(figures[name]))
                if len(lmbdas) > 1:
                    totals.setdefault(f"{name}_{level}", []).append(float(figures[name]))
            if level == (len(lmbdas) + 1) // 2 and len(shown) < pairs:
                decoded = np.asarray(metrics.to_uint8(out.x_hat))[0]
                shown.append(np.concatenate([image, decoded], axis=1))
    return {name: float(np.mean(values)) for name, values in totals.items()}, shown


@lru_cache(maxsize=8)
def _jitted_apply(model: LLIC, options: EncoderOptions) -> Callable:
    return jax.jit(partial(model.apply, options=options))


def _validation(
    model: LLIC,
    options: EncoderOptions,
    held_back: data.Photographs,
    config: Config,
    params: Any,
) -> tuple[dict[str, float], list[np.ndarray]]:
    # The last stage's: what is learned from small crops may fail in the middle of a large image.
    crop = config["data"]["crops"][-1]
    found, pairs = validate(model, params, held_back, config["train"], crop, 2, options)
    if not found:
        raise data.DataError(
            f"None of the {len(held_back)} held-back images has {crop} pixels on both sides; "
            "set data.held_back to 0, or use larger images."
        )
    return found, pairs


def _batches(images: data.Photographs, config: Config, *, first_step: int) -> Iterator[np.ndarray]:
    """This process's share of each batch, from `first_step` on, through the stages of crops."""
    section = config["data"]
    boundaries = (0, *section["crop_boundaries"])
    stages = [
        (begin, data.RandomCrop(size, section["flip"], section["downsample"]))
        for begin, size in zip(boundaries, section["crops"], strict=True)
    ]
    return data.training_batches(
        images,
        stages=stages,
        batch_size=config["train"]["batch_size"],
        seed=config["seed"],
        first_step=first_step,
        threads=section["threads"],
        drawings=section["drawings"],
        share=(jax.process_index(), jax.process_count()),
    )


def _start(
    config: Config,
    state: TrainState,
    unravel: Callable[[Any], Any],
    batches: Callable[[], Iterator[np.ndarray]],
    optimizer: Any,
) -> TrainState:
    """The state before the first step, as `train.start` says."""
    start = config["train"]["start"]
    if start == "random":
        return state
    if start == "pca":
        # From the whole batches, whatever the number of processes: all must start alike.
        sample = itertools.islice(batches(), 256 // config["train"]["batch_size"] + 1)
        crops = [np.asarray(multihost_utils.process_allgather(b, tiled=True)) for b in sample]
        section = upgrade_model(config["model"])
        params = start_from_components(
            unravel(state.params),
            crops,
            section["channels"],
            section["strides"],
            config["train"]["lmbdas"],
        )
    else:
        params = grow(unravel(state.params), release.mean_weights(*start.split(",")))
    return fresh_state(ravel_pytree(params)[0], optimizer)


def _check(config: Config) -> None:
    settings, section = config["train"], config["data"]
    if len(settings["lmbdas"]) != config["model"]["levels"]:
        raise ConfigError(
            f"train.lmbdas has {len(settings['lmbdas'])} entries and model.levels is "
            f"{config['model']['levels']}; a level needs one lambda."
        )
    parts = jax.device_count() * settings["accumulate"]
    if settings["batch_size"] % parts:
        raise ConfigError(
            f"train.batch_size {settings['batch_size']} does not divide among {jax.device_count()} "
            f"devices with {settings['accumulate']} parts each; use a multiple of {parts}."
        )
    last = settings["decoder_steps"]
    if last and settings["transforms_from"] + last > settings["steps"]:
        raise ConfigError(
            f"train.steps {settings['steps']} is less than train.transforms_from and "
            f"train.decoder_steps together, {settings['transforms_from']} and {last}; take fewer "
            "of these, or more in all."
        )
    if len(section["crops"]) != len(section["crop_boundaries"]) + 1:
        raise ConfigError(
            f"data.crops {section['crops']} needs {len(section['crops']) - 1} boundaries between "
            f"its stages; data.crop_boundaries is {section['crop_boundaries']}."
        )
    if bad := [crop for crop in section["crops"] if crop % 64 or crop < 64]:
        raise ConfigError(f"data.crops: {bad} are not multiples of 64.")
    if not 0 <= section["drawings"] <= 1:
        raise ConfigError(f"data.drawings is {section['drawings']}; a share is from 0 to 1.")


def _check_frozen(params: Any, frozen: Sequence[str]) -> None:
    names = {name for path in flatten_dict(params) for name in path}
    if odd := [name for name in frozen if name not in names]:
        raise ConfigError(
            f"train.frozen: {', '.join(odd)} is no part or layer of this model; it has "
            f"{', '.join(sorted(names))}."
        )


def _local(value: Any) -> Any:
    """A replicated array's value, from the first device of this process."""
    return value.addressable_data(0)[0]


def _host(replicated: TrainState) -> TrainState:
    """The state as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(_local(x)), replicated)


def _fail(workdir: Path, state: TrainState, failed: int) -> None:
    folder = workdir / "checkpoints_failed"
    step = int(state.step)
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(step, dataclasses.replace(state, failed=np.zeros_like(state.failed)))
    checkpoints.close()
    causes = [name for i, name in enumerate(CAUSES) if failed >> i & 1]
    raise TrainingError(
        f"Step {step + 1}: {', '.join(causes)} not finite. The state before that step is in "
        f"{folder / str(step)}. Lower the learning rate, or go on from a checkpoint."
    )


def _report(images: data.Photographs) -> None:
    """How many images could not be used, or only after conversion."""
    notes = getattr(images, "notes", sources.Notes())
    counts = {"not used": notes.unusable, "converted to RGB": notes.converted}
    for what, names in counts.items():
        if names:
            logging.warning("%d of %d images were %s", len(names), len(images), what)


@dataclasses.dataclass
class _Stop:
    """Knows when a run has to end early: on SIGTERM or Ctrl-C, or when its time is up."""

    max_minutes: float | None

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.signal: str | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        # Several processes hear of a SIGTERM through jax.distributed, which has its own handler.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.signal = signal.Signals(number).name

    def due(self, step: int, together: bool) -> str | None:
        """Why the run should end after `step`, or None. `together`: all processes ask at this step,
        and have the time to agree."""
        minutes = (time.monotonic() - self.started) / 60
        late = self.max_minutes is not None and minutes > self.max_minutes
        if jax.process_count() > 1:
            if multihost_utils.reached_preemption_sync_point(step):
                return "stopped by SIGTERM"
            late = together and bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
        if self.signal is not None:
            return f"stopped by {self.signal}"
        return f"stopped after {self.max_minutes:g} minutes" if late else None


def _keep_config(config: Config, workdir: Path) -> None:
    """Writes the config beside the run; a run keeps the model that it was started with. How the
    model is computed may change, since parameters are float32 either way. What the weights had
    seen that a run started from stands there too, as `started_from`."""
    config, path = json.loads(json.dumps(as_dict(config))), workdir / "config.json"

    if path.exists():
        before, computed = json.loads(path.read_text()), {"dtype": None, "remat": None}
        if before["model"] | computed != config["model"] | computed:
            raise CheckpointError(
                f"{path} describes another model than this config. Use another --workdir, or the "
                "config that this run was started with."
            )
        started_from = before.get("started_from")
    else:
        started_from = release.effort(*config["train"]["start"].split(","))
    if started_from:
        config["started_from"] = started_from
    path.write_text(json.dumps(config, indent=2) + "\n")
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": provenance.versions(),
        "commit": provenance.git_commit(),
        "devices": [d.device_kind for d in jax.devices()],
        "config": config,
    }
    with (workdir / "runs.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
