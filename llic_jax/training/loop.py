"""The training loop: data, steps, validation, checkpoints, and how a run ends.

photographs -> batches -> step (step.py) -> state -> checkpoints
                               every so often: log, validation on held-back images
"""

import contextlib
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llic_jax.configs.config import Config, as_dict
from llic_jax.data.image_files import Notes
from llic_jax.data.photographs import Photographs
from llic_jax.errors import TrainingError
from llic_jax.models.build import build_model
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.training.carried_programs import CarriedPrograms
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.course import NO_HOOKS, BySteps, ByTime, Events, Hooks
from llic_jax.training.initial_weights import initial_state
from llic_jax.training.log import TrainingLog
from llic_jax.training.phases import Stage
from llic_jax.training.pictures import Feed, host_batches, open_pictures
from llic_jax.training.run_folder import keep_config
from llic_jax.training.settings import check_config, check_frozen
from llic_jax.training.state import CAUSES, TrainState, create_state
from llic_jax.training.step import Step, make_train_step
from llic_jax.training.stopping import Stop
from llic_jax.training.time_schedule import Clock, minutes_used, note_minutes
from llic_jax.training.validation import validate_held_back

_RUNNING = 4  # steps that the host may be ahead of the device, when the clock counts


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
    check_config(config)
    options = EncoderOptions.of(config["coding"], config["model"]["levels"])
    main = jax.process_index() == 0
    workdir.mkdir(parents=True, exist_ok=True)
    if main:
        keep_config(config, workdir)
    # What is wrong with the data is found out before anything is compiled.
    pictures = open_pictures(config, workdir, main)

    model = build_model(config["model"])
    state, optimizer, unravel = create_state(model, settings, config["seed"])
    check_frozen(unravel(state.params), settings["frozen"])

    checkpoints = Checkpoints(workdir / "checkpoints", settings["keep_checkpoints"])
    best = Checkpoints(workdir / "checkpoint_best", 1, by_loss=True)
    if from_step is not None:
        checkpoints.set_aside_after(from_step, workdir / "checkpoints_set_aside")
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state)
        logging.info("going on from step %d", int(state.step))
    else:
        state = initial_state(config, state, unravel, partial(host_batches, pictures, 0), optimizer)

    first = step = int(state.step)
    by_time = settings["schedule"] == "time"
    used = minutes_used(workdir, first) if by_time else 0.0
    timed = None
    if by_time:
        timed = ByTime(config, Clock(float(settings["minutes"]), used, hooks.deadline))
    course = timed or BySteps(settings)
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
        Stop(max_minutes) as stop,
    ):

        def save() -> None:
            best.wait()
            checkpoints.save(step, _host(replicated))
            if timed is not None and main:
                note_minutes(workdir, step, timed.clock.minutes())

        def validate_now() -> None:
            params = unravel(_local(replicated.ema))
            if (
                found := validate_held_back(model, options, pictures, config, params, stop)
            ) is None:
                return
            log.validation(*found)
            checkpoints.wait()
            best.save(step, _host(replicated), loss=found[0]["loss"])

        def compile_validation() -> None:
            one = dataclasses.replace(pictures, held_back=pictures.held_back[:1], gap=[])
            validate_held_back(model, options, one, config, unravel(_local(replicated.ema)), stop)

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

        every = Events(settings, hooks, by_time)
        if timed is not None and reason is None:
            # Everything is compiled, and what has to follow the last step is timed, before the
            # clock starts.
            for stage, crops in timed.schedule.kinds():
                batch = Feed(pictures, step).batch(step, crops)
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
        feed = Feed(pictures, step)
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


def _try_out(step: Step, replicated: TrainState, batch: Any) -> None:
    """Compiles a step with the rate as an argument, by two steps from a copy of the state: as it
    comes from the host, and as it comes from a step."""
    state = jax.tree.map(jnp.copy, replicated)
    rates = np.zeros(len(batch), np.float32)
    for _ in range(2):
        state, figures = step(state, batch, rates)
        jax.block_until_ready(figures)


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


def _report(images: Photographs) -> None:
    """How many images could not be used, or only after conversion."""
    notes = getattr(images, "notes", Notes())
    counts = {"not used": notes.unusable, "converted to RGB": notes.converted}
    for what, names in counts.items():
        if names:
            logging.warning("%d of %d images were %s", len(names), len(images), what)
