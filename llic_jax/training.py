"""The training loop: data, steps, validation, checkpoints, and how a run ends.

photographs -> batches -> step (train_step.py) -> state -> checkpoints
                               every so often: log, validation on held-back images
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import jax_utils
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree

from llic_jax import data, metrics, provenance, release, sources
from llic_jax.augmentation import RandomCrop
from llic_jax.carried_programs import CarriedPrograms
from llic_jax.checkpoint import CheckpointError, Checkpoints
from llic_jax.config import Config, as_dict
from llic_jax.device_crops import DevicePhotographs, refuse_unknown
from llic_jax.encoder_options import PLAIN, EncoderOptions
from llic_jax.errors import ConfigError, LlicError
from llic_jax.growth import grow
from llic_jax.images import whole_file
from llic_jax.loss import rate_distortion
from llic_jax.model import LLIC, build_model
from llic_jax.optimization import learning_rate_schedule
from llic_jax.pca import start_from_components
from llic_jax.time_schedule import Clock, TimeSchedule, minutes_used, note_minutes
from llic_jax.train_step import (
    CAUSES,
    Stage,
    Step,
    TrainState,
    create_state,
    fresh_state,
    make_train_step,
)
from llic_jax.upgrade import upgrade_model
from llic_jax.watching import TrainingLog

_HELD_BACK = "held_back.json"
_RUNNING = 4  # steps that the host may be ahead of the device, when the clock counts


class TrainingError(LlicError, RuntimeError):
    """Training cannot go on."""


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What a caller adds to a run (`accelerate.py`); nothing of it changes what a step learns.

    Args:
      deadline: with `train.schedule "time"`: `time.monotonic()` by which `train` has returned, in
        place of `train.minutes` from the first step on.
      export: is called with the state, as NumPy arrays, before the first step, every
        `export_minutes`, and at the end.
      wrap_step: from who learns and the step function to the one that is used, for instance a
        program that was compiled elsewhere.
      tolerant: an error of validation or export is logged, and training goes on.
    """

    deadline: float | None = None
    export: Callable[[TrainState], object] | None = None
    export_minutes: float = 2.0
    wrap_step: Callable[[Stage, Step], Step] | None = None
    tolerant: bool = False


NO_HOOKS = Hooks()


def train(
    config: Config,
    workdir: str | Path,
    max_minutes: float | None = None,
    from_step: int | None = None,
    programs: str | Path | None = None,
    hooks: Hooks = NO_HOOKS,
) -> TrainState:
    """Trains from the last checkpoint in `workdir`, or from scratch, to `config.train.steps`; with
    `train.schedule "time"` until the time is over.

    Ends earlier, with a checkpoint, after `max_minutes` or on SIGTERM. Writes `config.json`,
    `runs.jsonl` (versions, commit and machine of each start), `metrics.jsonl`, `tensorboard/`,
    `checkpoints/` (the last ones), `checkpoint_best/` (lowest validation loss) and
    `held_back.json` (names of the images held back). With `from_step` goes on from that checkpoint;
    later ones are set aside in `checkpoints_set_aside/`. programs: a folder of compiled steps
    (`carried_programs.py`); what does not match is compiled as ever. Returns the state (of one
    device).

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
    # What is wrong with the data is found out before anything is compiled.
    pictures = _open_pictures(config, workdir, main)

    model = build_model(config["model"])
    state, optimizer, unravel = create_state(model, settings, config["seed"])
    _check_frozen(unravel(state.params), settings["frozen"])

    checkpoints = Checkpoints(workdir / "checkpoints", settings["keep_checkpoints"])
    best = Checkpoints(workdir / "checkpoint_best", 1, by_loss=True)
    if from_step is not None:
        checkpoints.set_aside_after(from_step, workdir / "checkpoints_set_aside")
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state)
        logging.info("going on from step %d", int(state.step))
    else:
        state = _start(config, state, unravel, partial(_host_batches, pictures, 0), optimizer)

    first = step = int(state.step)
    by_time = settings["schedule"] == "time"
    used = minutes_used(workdir, first) if by_time else 0.0
    timed = None
    if by_time:
        timed = _ByTime(config, Clock(float(settings["minutes"]), used, hooks.deadline))
    course = timed or _BySteps(settings)
    make_step = partial(
        make_train_step, model, optimizer, unravel, settings, config["seed"],
        options=options,
    )  # fmt: skip

    @lru_cache
    def step_of(stage: Stage) -> Step:
        made = make_step(stage=stage)
        made = carried.step(stage, made) if carried else made
        return hooks.wrap_step(stage, made) if hooks.wrap_step else made

    devices = jax.local_device_count()
    replicated = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * devices), state)
    carried = CarriedPrograms(Path(programs), config) if programs else None
    log = TrainingLog(
        workdir, first, course.last, settings["batch_size"], settings["tensorboard"], main
    )
    reason = "nothing left to do" if course.is_over(step) else None
    before = course.stage_before(first)
    with (
        contextlib.closing(checkpoints),
        contextlib.closing(best),
        log,
        _Stop(max_minutes) as stop,
    ):

        def save() -> None:
            best.wait()
            checkpoints.save(step, _host(replicated))
            if timed is not None and main:
                note_minutes(workdir, step, timed.clock.minutes())

        def validate_now() -> None:
            params = unravel(_local(replicated.ema))
            if (found := _validation(model, options, pictures, config, params, stop)) is None:
                return
            log.validation(*found)
            checkpoints.wait()
            best.save(step, _host(replicated), loss=found[0]["loss"])

        def compile_validation() -> None:
            one = dataclasses.replace(pictures, held_back=pictures.held_back[:1], gap=[])
            _validation(model, options, one, config, unravel(_local(replicated.ema)), stop)

        def export() -> None:
            if hooks.export is not None:
                hooks.export(_host(replicated))

        def attempt(work: Callable[[], None]) -> None:
            try:
                work()
            except Exception:
                if not hooks.tolerant:
                    raise
                logging.exception("%s failed; training goes on", work.__name__)

        every = _Events(settings, hooks, by_time)
        if timed is not None and reason is None:
            # Everything is compiled, and what has to follow the last step is timed, before the
            # clock starts.
            for stage, crops in timed.schedule.kinds():
                batch = _Feed(pictures, step).batch(step, crops)
                _try_out(step_of(stage), replicated, batch)
            attempt(compile_validation)
            started = time.monotonic()
            save()
            checkpoints.wait()
            attempt(validate_now)
            attempt(export)
            reserve = 1.5 * (time.monotonic() - started) + 2
            timed.clock.start(reserve)
            left = timed.clock.total / 60 - timed.clock.minutes()
            logging.info("%.2f minutes of steps, then %.0f seconds for the end", left, reserve)
        feed = _Feed(pictures, step)
        running: deque[Any] = deque()
        while reason is None:
            moment = course.at(step)
            if moment.stage is Stage.DECODER and before is not Stage.DECODER:
                # The analysis moves no more: the decoder is to learn with the one to be released.
                replicated = dataclasses.replace(replicated, params=jnp.copy(replicated.ema))
            before = moment.stage
            rates = () if moment.rate is None else (np.full(devices, moment.rate, np.float32),)
            batch = feed.batch(step, moment.crops)
            replicated, figures = step_of(moment.stage)(replicated, batch, *rates)
            step += 1
            log.tick()
            if timed is not None:  # the clock is to tell the time of steps, not of their waiting
                running.append(figures)
                if len(running) > _RUNNING:
                    jax.block_until_ready(running.popleft())
            if moment.is_last:
                reason = "done"
            else:
                reason = stop.due(step, together=step % settings["log_every"] == 0)
            last = reason is not None
            if every.due("log", step) or last:
                values = {name: float(_local(value)) for name, value in figures.items()}
                if failed := int(_local(replicated.failed)):
                    _fail(workdir, _host(replicated), failed)
                log.train(values | course.figures(step, moment))
            # The checkpoint comes first: whatever happens after it, the work is kept.
            if every.due("checkpoint", step) or last:
                save()
            if last:
                checkpoints.wait()
            if (every.due("eval", step) or last) and stop.signal is None:
                attempt(validate_now)
            if every.due("export", step) or last:
                attempt(export)
        log.summary(reason, checkpoints.folder)
    _report(pictures.source)
    return _host(replicated)


def validate(
    model: LLIC,
    params: Any,
    images: data.Photographs | Sequence[np.ndarray],
    train: Config,
    crop: int,
    pairs: int = 0,
    options: EncoderOptions = PLAIN,
    levels: Collection[int] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Rate-distortion of central crops with real quantization, averaged; per level if several.

    options: of the encoder. levels: only these (default: all). stopping: asked before each image
    whether to leave out the rest.

    Also the first `pairs` crops beside what is decoded of them (at the middle level), uint8
    `(crop, 2 crop, 3)`.
    """
    lmbdas = tuple(train["lmbdas"])
    apply = _jitted_apply(model, options)
    totals: dict[str, list[float]] = {}
    shown: list[np.ndarray] = []
    for i in range(len(images)):
        if stopping():
            break
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


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """The photographs of a run.

    source: all of training's. seen: those that are trained on. held_back, gap: central crops of
    those for validation, and of a few of training. on_device: those seen, in the device's memory.
    """

    config: Config
    source: data.Photographs
    seen: data.Photographs
    held_back: list[np.ndarray]
    gap: list[np.ndarray]
    on_device: DevicePhotographs | None


def _open_pictures(config: Config, workdir: Path, main: bool) -> _Pictures:
    section, size = config["data"], config["data"]["crops"][-1]
    source: Any = sources.open_source(section["source"])
    if section["validation"]:
        others = sources.open_source(section["validation"])
        seen: data.Photographs = source
        held_back = data.central_crops(others, size, "validation")
    else:
        names = _held_back_names(workdir)
        seen, others = data.split_held_back(source, section["held_back"], names)
        if names is None and main:
            names = [others.name(i) for i in range(len(others))]
            with whole_file(workdir / _HELD_BACK) as temporary:
                temporary.write_text(json.dumps(names, indent=1) + "\n")
        if missing := len(names or ()) - len(others):
            logging.warning(
                "%d of the %d images that this run holds back are no longer in %s.",
                missing, len(names or ()), section["source"],
            )  # fmt: skip
        held_back = data.central_crops(others, size, "held-back")
    seen = data.Cached(seen, section["cache_gb"])
    chosen = np.linspace(0, len(seen) - 1, min(section["gap_images"], len(seen))).astype(int)
    gap: list[np.ndarray] = []
    if held_back and len(chosen):
        with contextlib.suppress(data.DataError):  # too small: then there is no gap to tell
            gap = data.central_crops(data.Subset(seen, chosen.tolist()), size, "training")
    on_device = None
    if section["on_device"]:
        refuse_unknown(_crop(section, size), float(section["drawings"]))
        on_device = DevicePhotographs(seen, float(section["device_gb"]), section["threads"])
        logging.info(
            "%d photographs, %.2f GiB, in the device's memory",
            len(on_device), on_device.bytes / 2**30,
        )  # fmt: skip
    return _Pictures(config, source, seen, held_back, gap, on_device)


def _held_back_names(workdir: Path) -> list[str] | None:
    """The images that this run holds back since its start: what is added to the folder later must
    not move them."""
    path = workdir / _HELD_BACK
    return json.loads(path.read_text()) if path.exists() else None


def _validation(
    model: LLIC,
    options: EncoderOptions,
    pictures: _Pictures,
    config: Config,
    params: Any,
    stop: "_Stop",
) -> tuple[dict[str, float], list[np.ndarray]] | None:
    """Figures of the images held back, and the gap between them and those of training: by how much
    their loss is larger, as a fraction. None when there are none, or when the run is to end now.

    The two are different images: what tells of overfitting is how the gap grows.
    """
    # The last stage's: what is learned from small crops may fail in the middle of a large image.
    crop = config["data"]["crops"][-1]
    train, stopping = config["train"], lambda: stop.signal is not None
    if not pictures.held_back:
        return None
    run = partial(validate, model, params, train=train, crop=crop, options=options)
    found, pairs = run(pictures.held_back, pairs=2, stopping=stopping)
    if pictures.gap:
        trained, _ = run(pictures.gap, stopping=stopping)
        if trained:
            found |= {f"{name}_training": trained[name] for name in ("loss", "bpp", "psnr")}
            found["gap"] = found["loss"] / trained["loss"] - 1
    return None if stopping() else (found, pairs)


def _crop(section: Config, size: int) -> RandomCrop:
    return RandomCrop(
        size,
        flip=section["flip"],
        downsample=section["downsample"],
        symmetries=section["symmetries"],
        gain=float(section["channel_gain"]),
        exchange=float(section["channel_exchange"]),
    )


def _stages(config: Config, crops: int | None) -> list[tuple[int, RandomCrop]]:
    """From which step on which crops: all stages, or only the one of this number."""
    section = config["data"]
    if crops is not None:
        return [(0, _crop(section, section["crops"][crops]))]
    boundaries = (0, *section["crop_boundaries"])
    return [
        (begin, _crop(section, size))
        for begin, size in zip(boundaries, section["crops"], strict=True)
    ]


def _host_batches(
    pictures: _Pictures, first_step: int, crops: int | None = None
) -> Iterator[np.ndarray]:
    """This process's share of each batch, from `first_step` on; crops: the number of their stage,
    None for what the steps say."""
    config, section = pictures.config, pictures.config["data"]
    if crops is None and config["train"]["schedule"] == "time":
        crops = 0
    return data.training_batches(
        pictures.seen,
        stages=_stages(config, crops),
        batch_size=config["train"]["batch_size"],
        seed=config["seed"],
        first_step=first_step,
        threads=section["threads"],
        drawings=float(section["drawings"]),
        pasted=float(section["pasted"]),
        share=(jax.process_index(), jax.process_count()),
    )


class _Feed:
    """The batches of a run, `(devices, batch / devices, S, S, 3)` uint8, on the devices."""

    def __init__(self, pictures: _Pictures, first_step: int):
        self.pictures = pictures
        self.crops: int | None = -1  # of no stage
        self.batches: Iterator[Any] = iter(())

    def batch(self, step: int, crops: int | None) -> Any:
        """The batch of a step; crops: the number of their stage, None for what the steps say."""
        if crops != self.crops:
            self.batches, self.crops = self._from(step, crops), crops
        return next(self.batches)

    def _from(self, step: int, crops: int | None) -> Iterator[Any]:
        config, photographs = self.pictures.config, self.pictures.on_device
        if photographs is not None:
            sampler = data.Sampler(
                len(photographs),
                _stages(config, crops),
                config["train"]["batch_size"],
                config["seed"],
                float(config["data"]["pasted"]),
            )
            share = jax.process_index(), jax.process_count()
            return photographs.batches(sampler, step, share)
        devices = jax.local_device_count()
        batches = _host_batches(self.pictures, step, crops)
        return jax_utils.prefetch_to_device(
            (b.reshape(devices, -1, *b.shape[1:]) for b in batches), 2
        )


class _Moment(NamedTuple):
    """What holds in a step: who learns; the number of the crops' stage, None for what the steps
    say; the learning rate, None for what the optimizer knows; whether it is the last one."""

    stage: Stage
    crops: int | None
    rate: float | None
    is_last: bool


class _BySteps:
    """The course of a run that is counted in steps."""

    def __init__(self, settings: Config):
        self.settings, self.last = settings, settings["steps"]
        self.rate = learning_rate_schedule(settings)

    def is_over(self, step: int) -> bool:
        return step >= self.last

    def at(self, step: int) -> _Moment:
        return _Moment(Stage.at(step, self.settings), None, None, step + 1 == self.last)

    def stage_before(self, step: int) -> Stage | None:
        """Who learned in the step before."""
        return Stage.at(step - 1, self.settings) if step else None

    def figures(self, step: int, moment: _Moment) -> dict[str, float]:
        return {"learning_rate": float(self.rate(step - 1))}


class _ByTime:
    """The course of a run that goes by the clock (`time_schedule.py`)."""

    last = None

    def __init__(self, config: Config, clock: Clock):
        if jax.process_count() > 1:
            raise ConfigError(
                "train.schedule 'time' takes one process: several have no common clock. Use steps."
            )
        self.schedule, self.clock = TimeSchedule.of(config), clock

    def is_over(self, step: int) -> bool:
        return self.clock.deadline is None and self.clock.fraction() >= 1

    def at(self, step: int) -> _Moment:
        fraction = self.clock.fraction()
        return _Moment(*self.schedule.at(fraction), is_last=fraction >= 1)

    def stage_before(self, step: int) -> Stage | None:
        return self.schedule.at(self.clock.fraction()).stage if self.clock.used else None

    def figures(self, step: int, moment: _Moment) -> dict[str, float]:
        assert moment.rate is not None
        minutes, fraction = self.clock.minutes(), self.clock.fraction()
        return {"learning_rate": moment.rate, "minutes": minutes, "time_fraction": fraction}


class _Events:
    """When something is due that happens every so often, in steps or in minutes."""

    def __init__(self, settings: Config, hooks: Hooks, by_time: bool):
        names = ("log", "eval", "checkpoint")
        self.steps = {name: settings[f"{name}_every"] for name in names}
        self.minutes: dict[str, float] = {}
        if by_time:
            self.minutes = {
                name: settings[f"{name}_minutes"]
                for name in ("eval", "checkpoint")
                if settings[f"{name}_minutes"]
            }
        if hooks.export is not None:
            self.minutes["export"] = hooks.export_minutes
        self.since = dict.fromkeys(self.minutes, time.monotonic())

    def due(self, name: str, step: int) -> bool:
        """Whether it is; then it will be again after its time."""
        if name not in self.minutes:
            return name in self.steps and step % self.steps[name] == 0
        now = time.monotonic()
        if now - self.since[name] < 60 * self.minutes[name]:
            return False
        self.since[name] = now
        return True


def _try_out(step: Step, replicated: TrainState, batch: Any) -> None:
    """Compiles a step with the rate as an argument, by two steps from a copy of the state: as it
    comes from the host, and as it comes from a step."""
    state = jax.tree.map(jnp.copy, replicated)
    rates = np.zeros(len(batch), np.float32)
    for _ in range(2):
        state, figures = step(state, batch, rates)
        jax.block_until_ready(figures)


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
    by_time = settings["schedule"] == "time"
    if by_time:
        TimeSchedule.of(config)
    last = 0 if by_time else settings["decoder_steps"]
    if last and settings["transforms_from"] + last > settings["steps"]:
        raise ConfigError(
            f"train.steps {settings['steps']} is less than train.transforms_from and "
            f"train.decoder_steps together, {settings['transforms_from']} and {last}; take fewer "
            "of these, or more in all."
        )
    if not by_time and len(section["crops"]) != len(section["crop_boundaries"]) + 1:
        raise ConfigError(
            f"data.crops {section['crops']} needs {len(section['crops']) - 1} boundaries between "
            f"its stages; data.crop_boundaries is {section['crop_boundaries']}."
        )
    if bad := [crop for crop in section["crops"] if crop % 64 or crop < 64]:
        raise ConfigError(f"data.crops: {bad} are not multiples of 64.")
    for name in ("drawings", "pasted", "channel_exchange"):
        if not 0 <= section[name] <= 1:
            raise ConfigError(f"data.{name} is {section[name]}; a share is from 0 to 1.")
    if section["channel_gain"] < 0 or section["gap_images"] < 0:
        raise ConfigError("data.channel_gain and data.gap_images are not negative.")


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
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n")
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": provenance.versions(),
        "commit": provenance.git_commit(),
        "devices": [d.device_kind for d in jax.devices()],
        "config": config,
    }
    with (workdir / "runs.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
