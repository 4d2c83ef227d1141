"""The training loop: data, steps, validation, checkpoints, and how a run ends.

photographs -> batches -> Trainer.advance -> state -> checkpoints
                          every so often: log, validation on held-out images
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from llic_jax.configs.config import Config
from llic_jax.data.image_files import Notes
from llic_jax.data.photographs import Photographs
from llic_jax.errors import OutOfTimeError
from llic_jax.training.course import (
    LATE_SECONDS,
    NO_HOOKS,
    SLOW_SECONDS,
    BySteps,
    ByTime,
    Events,
    Hooks,
    Moment,
)
from llic_jax.training.log import TrainingLog
from llic_jax.training.phases import Phase
from llic_jax.training.pictures import Feed, Pictures, open_pictures
from llic_jax.training.run_folder import RunFolder
from llic_jax.training.settings import RunSettings
from llic_jax.training.state import TrainState
from llic_jax.training.stopping import Stop
from llic_jax.training.time_schedule import Clock, minutes_used, note_minutes
from llic_jax.training.trainer import Preparation, Trainer, fail
from llic_jax.training.validation import Validation

_COMPILING_SHARE = 0.15  # of the time that is left: what is not compiled by then comes later
_VALIDATION = "validation"


def train(
    config: Config,
    workdir: str | Path,
    max_minutes: float | None = None,
    from_step: int | None = None,
    programs: str | Path | None = None,
    hooks: Hooks = NO_HOOKS,
) -> TrainState:
    """Trains a model in a folder, from its last checkpoint or from scratch.

    To `config.train.steps`; with `train.schedule "time"` until the time is over. Ends earlier, with
    a checkpoint, after `max_minutes` or on SIGTERM. What it writes: `RunFolder`.

    Args:
        config: A whole config.
        workdir: Folder of the run, made if need be.
        max_minutes: Ends then.
        from_step: Goes on from this checkpoint; later ones are set aside.
        programs: A folder of compiled steps (`carried_programs.py`). What does not match is
            compiled as ever.
        hooks: What a caller adds.

    Returns:
        The state, of one device, as NumPy arrays.

    Raises:
        ConfigError: Settings that cannot be, or do not go together.
        DataError: No usable data.
        OutputError: Another run writes into `workdir`, or it cannot be made.
        CheckpointError: A checkpoint that does not fit or is damaged.
        TrainingError: The loss is not finite; the state before is in `checkpoints_failed/`.
    """
    settings = RunSettings.of(config)
    with RunFolder(workdir) as folder, Stop(max_minutes) as stop:
        folder.keep_config(config, settings)
        # What is wrong with the data is found out before anything is compiled.
        pictures = open_pictures(settings, folder)
        run = _Run(settings, folder, pictures, stop, hooks, from_step, programs)
        with run.log, contextlib.closing(run):
            reason = run.prepare()
            feed = Feed(pictures)
            while reason is None:
                moment = run.moment()
                batch = feed.batch(run.trainer.step, moment.crops)
                figures = run.trainer.advance(batch, moment)
                run.log.step_started()
                reason = "done" if moment.is_last else run.reason_to_stop()
                run.attend(figures, moment, last=reason is not None)
            run.log.summary(reason, run.checkpoints.folder)
        _report(pictures.source)
        return run.trainer.host_state()


class _Run:
    """What a run does beside its steps: log, checkpoints, validation, export."""

    def __init__(
        self,
        settings: RunSettings,
        folder: RunFolder,
        pictures: Pictures,
        stop: Stop,
        hooks: Hooks,
        from_step: int | None,
        programs: str | Path | None,
    ):
        self.settings, self.folder, self.pictures = settings, folder, pictures
        self.stop, self.hooks, train = stop, hooks, settings.train
        self.checkpoints = folder.checkpoints("checkpoints", train.keep_checkpoints)
        self.best = folder.checkpoints("checkpoint_best", 1, by_loss=True)
        if from_step is not None:
            self.checkpoints.set_aside_after(from_step, folder.path / "checkpoints_set_aside")
        carried = Path(programs).expanduser() if programs else None
        self.trainer = Trainer(settings, pictures, self.checkpoints, hooks, carried)
        first = self.trainer.step
        self.course: BySteps | ByTime
        if train.by_time:
            used = minutes_used(folder.path, first)
            self.course = ByTime(settings, Clock(train.minutes, used, hooks.deadline))
        else:
            self.course = BySteps(train)
        self.trainer.phase = self.course.phase_before(first)
        self.validation = Validation(self.trainer.model, train, settings.options)
        self.events = Events(train, hooks)
        self.preparation: Preparation | None = None
        self._first, self._quick_enough = first, False
        self.seconds: dict[str, float] = {}  # that validation and export took the last time
        self.log = TrainingLog(
            folder.path,
            first,
            self.course.last,
            train.batch_size,
            train.tensorboard,
            folder.is_main,
        )

    def prepare(self) -> str | None:
        """Prepares the first step of a run by time.

        It compiles, measures what follows the last step, and starts the clock.

        Returns:
            Why there is nothing to do; None if there is.

        Raises:
            OutOfTimeError: The time was over before the first step was compiled.
        """
        if self.course.is_over(self.trainer.step):
            return "nothing left to do"
        if self.course.clock is None:
            return None
        clock, deadline = self.course.clock, self.course.clock.deadline
        self._attempt(self.export)  # so that there is something to take home, whatever happens
        state, self.programs = self.trainer.host_state(), self.course.programs()
        tasks: list[tuple[Any, Callable[[], object]]] = [
            (program, partial(self._try_out, state, *program)) for program in self.programs
        ]
        if self.pictures.held_out:
            tasks.insert(1, (_VALIDATION, partial(self._try_validation, self.trainer.average())))
        self.preparation = Preparation(tasks)
        now, stopping = time.monotonic(), self._stopping
        if not self.preparation.wait(self.programs[0], deadline and deadline - 1, stopping):
            if self.stop.signal is not None:
                return f"stopped by {self.stop.signal}"
            raise OutOfTimeError(
                "The time was over before the first step was compiled. What was exported are the "
                f"weights that the run started with (step {self.trainer.step}). Give it more "
                "minutes, or carry compiled programs (docs/ahead_of_time.md)."
            )
        share = deadline and now + _COMPILING_SHARE * (deadline - now)
        for name, _ in tasks[1:]:
            self._attempt(
                partial(self.preparation.wait, name, share, stopping), f"compiling {name}"
            )
        started = time.monotonic()
        self.save()
        self.checkpoints.wait()
        self.validate()
        self._attempt(self.export)
        reserve = 1.5 * (time.monotonic() - started) + 2
        clock.start(reserve)
        self.events.start()
        left = clock.total / 60 - clock.minutes()
        logging.info("%.2f minutes of steps, then %.0f seconds for the end", left, reserve)
        return None

    def close(self) -> None:
        """Compiles nothing more."""
        if self.preparation is not None:
            self.preparation.close()

    def moment(self) -> Moment:
        """What holds in the next step.

        In a run by time: as far as its program is compiled, else by the last program before it that
        is.
        """
        moment = self.course.at(self.trainer.step)
        if self.preparation is None or moment.crops is None:
            return moment
        position = self.programs.index((moment.phase, moment.crops))
        while position and not self.preparation.is_ready(self.programs[position]):
            position -= 1
        phase, crops = self.programs[position]
        return moment._replace(phase=phase, crops=crops)

    def reason_to_stop(self) -> str | None:
        """Why the run has to end now, before its last step."""
        step = self.trainer.step
        return self.stop.due(step, together=step % self.settings.train.log_every == 0)

    def attend(self, figures: dict[str, Any], moment: Moment, last: bool) -> None:
        """What is due after a step.

        Args:
            figures: Of the step, on the devices.
            moment: Of the step.
            last: The run ends now, so that everything is due.

        Raises:
            TrainingError: Something was not finite.
        """
        self._refuse_slowness()
        step, names = self.trainer.step, ("log", "checkpoint", "eval", "export")
        due = {name for name in names if self.events.due(name, step) or last}
        if not due:
            return
        if causes := self.trainer.failure():
            state = self.trainer.host_state()
            raise fail(int(state.step) + 1, causes, self.folder.save_failed(state))
        # A line of figures takes no time. Behind the checkpoint a kill could lose it for good, for
        # the run goes on from there; before it, a step that is trained again has its line again.
        if "log" in due:
            self.log.train(self.trainer.look(figures) | self.course.figures(step, moment))
        # Then the checkpoint: whatever happens after it, the work is kept.
        if due & {"checkpoint", "eval"}:
            self.save()
        if "eval" in due:
            self.checkpoints.wait()
            if self.stop.signal is None and self._may_validate():
                self.validate()
        if "export" in due:
            self._attempt(self.export)

    def _refuse_slowness(self) -> None:
        """Ends a run that is too slow to be worth its time (`Hooks.least_crops`)."""
        clock, least = self.course.clock, self.hooks.least_crops
        if not least or clock is None or self._quick_enough:
            return
        seconds = 60 * clock.minutes() - clock.used
        if seconds < SLOW_SECONDS:
            return
        self._quick_enough = True
        done = (self.trainer.step - self._first) * self.settings.train.batch_size / seconds
        if done < least:
            raise OutOfTimeError(
                f"{done:.0f} crops a second in the first {seconds:.0f} seconds; expected {least:g} "
                "at least. The rest of the time is left for something else: look at the log for "
                "programs that were not used, or lower the limit."
            )

    def save(self) -> None:
        """Starts to write a checkpoint."""
        self.best.wait()  # several hosts may write only one folder at a time
        self.checkpoints.save(self.trainer.step, self.trainer.host_state())
        if self.course.clock is not None and self.folder.is_main:
            note_minutes(self.folder.path, self.trainer.step, self.course.clock.minutes())

    def validate(self) -> None:
        """Measures the average on the held-out images, and keeps it if it is the best so far.

        Not before its program is compiled.
        """
        if self.preparation is None or self.preparation.is_ready(_VALIDATION):
            self._attempt(self._validate, "validate")

    def _validate(self) -> None:
        params = self.trainer.average()
        measured = self.validation.measure_gap(params, self.pictures, self._stopping)
        if measured is not None:
            self.log.validation(*measured)
            self.checkpoints.wait()
            self.best.save(self.trainer.step, self.trainer.host_state(), loss=measured[0]["loss"])

    def export(self) -> None:
        """Hands the state to the caller."""
        if self.hooks.export is not None:
            self.hooks.export(self.trainer.host_state())

    def _attempt(self, work: Callable[[], object], name: str | None = None) -> None:
        """Does what may fail without an end of the run, if the caller tolerates that.

        It keeps how long it took.
        """
        name, started = name or str(getattr(work, "__name__", "work")), time.monotonic()
        try:
            work()
        except Exception:
            if not self.hooks.tolerant:
                raise
            logging.exception("%s failed; training goes on", name)
        self.seconds[name] = time.monotonic() - started

    def in_time(self, *names: str) -> bool:
        """Whether these are done before the deadline, if they take as long as the last time.

        An unknown time is too long.
        """
        deadline = self.course.clock.deadline if self.course.clock is not None else None
        if deadline is None:
            return True
        needed = sum(self.seconds.get(name, float("inf")) for name in names)
        return time.monotonic() + 1.2 * needed < deadline

    def _may_validate(self) -> bool:
        if not self.stop.is_late:
            return self.in_time("validate", "export")
        seconds = self.seconds.get("validate")
        if seconds is not None and seconds <= LATE_SECONDS:
            return True
        takes = "has not been done before" if seconds is None else f"takes {seconds:.0f} s"
        logging.info("The time is over: the last validation is left out, as it %s.", takes)
        return False

    def _stopping(self) -> bool:
        return self.stop.signal is not None

    def _try_out(self, state: TrainState, phase: Phase, crops: int) -> None:
        batch = Feed(self.pictures).batch(int(state.step), crops)
        self.trainer.try_out(state, batch, phase)

    def _try_validation(self, params: Any) -> None:
        one = dataclasses.replace(self.pictures, held_out=self.pictures.held_out[:1], gap=[])
        self.validation.measure_gap(params, one)


def _report(images: Photographs) -> None:
    """Warns of images that could not be used, or only after conversion."""
    notes = getattr(images, "notes", Notes())
    counts = {"not used": notes.unusable, "converted to RGB": notes.converted}
    for what, names in counts.items():
        if names:
            logging.warning("%d of %d images were %s", len(names), len(images), what)
