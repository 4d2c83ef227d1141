"""The course of a run: phase, crops and learning rate of each step, by steps or by time."""

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from llic_jax.errors import ConfigError
from llic_jax.training.optimizer import learning_rate_schedule
from llic_jax.training.phases import Phase
from llic_jax.training.settings import RunSettings, TrainSettings
from llic_jax.training.state import TrainState
from llic_jax.training.step import Step
from llic_jax.training.time_schedule import Clock, TimeSchedule


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What a caller adds to a run (`accelerate.py`). Nothing of it changes what a step learns.

    Attributes:
        deadline: With `train.schedule "time"`: `time.monotonic()` by which `train` has returned,
            in place of `train.minutes` from the first step on.
        export: Is called with the state, as NumPy arrays, before anything is compiled, every
            `export_minutes`, and at the end.
        export_minutes: Between two exports.
        wrap_step: From a phase and its step function to the one that is used.
        compile_quickly: On a GPU, what is not carried is compiled without autotuning.
        least_crops: A second. A run that does fewer in its first `SLOW_SECONDS` of steps ends with
            an error, so that the time that is left serves for something else.
        tolerant: An error of validation or export is logged, and training goes on.
    """

    deadline: float | None = None
    export: Callable[[TrainState], object] | None = None
    export_minutes: float = 2.0
    wrap_step: Callable[[Phase, Step], Step] | None = None
    compile_quickly: bool = False
    least_crops: float = 0.0
    tolerant: bool = False


NO_HOOKS = Hooks()
SLOW_SECONDS = 15.0
LATE_SECONDS = 10.0  # that the last validation may take when `--max_minutes` are over


class Moment(NamedTuple):
    """What holds in a step.

    Attributes:
        phase: Which parameters learn.
        crops: Index into `data.crops`; None for what `data.crop_boundaries` say.
        rate: The learning rate; None for that of the optimizer's own schedule.
        is_last: Whether the run ends with this step.
    """

    phase: Phase
    crops: int | None
    rate: float | None
    is_last: bool


class BySteps:
    """The course of a run that is counted in steps.

    Args:
        settings: Of the run.
    """

    clock = None

    def __init__(self, settings: TrainSettings):
        self.settings, self.last = settings, settings.steps
        self.rate = learning_rate_schedule(settings)

    def is_over(self, step: int) -> bool:
        """Whether the run is over.

        Args:
            step: How many steps are done.
        """
        return step >= self.last

    def at(self, step: int) -> Moment:
        """What the next step is to be.

        Args:
            step: How many steps are done.
        """
        return Moment(Phase.at(step, self.settings), None, None, step + 1 == self.last)

    def phase_before(self, step: int) -> Phase | None:
        """The phase of the step before."""
        return Phase.at(step - 1, self.settings) if step else None

    def programs(self) -> list[tuple[Phase, int]]:
        """None: they are compiled when the run comes to them."""
        return []

    def figures(self, step: int, moment: Moment) -> dict[str, float]:
        """What the log tells of a step beside its own figures.

        Args:
            step: How many steps are done.
            moment: From `at`.
        """
        return {"learning_rate": float(self.rate(step - 1))}


class ByTime:
    """The course of a run that goes by the clock (`time_schedule.py`).

    Args:
        settings: Of the run.
        clock: Of the run.
    """

    last = None

    def __init__(self, settings: RunSettings, clock: Clock):
        if jax.process_count() > 1:
            raise ConfigError(
                "train.schedule 'time' takes one process: several have no common clock. Use steps."
            )
        self.schedule, self.clock = TimeSchedule.of(settings), clock

    def is_over(self, step: int) -> bool:
        """Whether the run is over.

        Args:
            step: How many steps are done; not used.
        """
        return self.clock.deadline is None and self.clock.fraction() >= 1

    def at(self, step: int) -> Moment:
        """What the next step is to be.

        Args:
            step: How many steps are done; not used.
        """
        fraction = self.clock.fraction()
        return Moment(*self.schedule.at(fraction), is_last=fraction >= 1)

    def phase_before(self, step: int) -> Phase | None:
        """The phase that a resumed run was in; None for a run that begins.

        Args:
            step: How many steps are done; not used.
        """
        return self.schedule.at(self.clock.fraction()).phase if self.clock.used else None

    def programs(self) -> list[tuple[Phase, int]]:
        """The pairs of phase and crops that the run goes through, in order."""
        return self.schedule.programs()

    def figures(self, step: int, moment: Moment) -> dict[str, float]:
        """What the log tells of a step beside its own figures.

        Args:
            step: How many steps are done; not used.
            moment: From `at`.
        """
        assert moment.rate is not None
        minutes, fraction = self.clock.minutes(), self.clock.fraction()
        return {"learning_rate": moment.rate, "minutes": minutes, "time_fraction": fraction}


class Events:
    """When something is due that happens every so often, in steps or in minutes.

    Args:
        settings: Of the run.
        hooks: Of its caller.
    """

    def __init__(self, settings: TrainSettings, hooks: Hooks):
        self.steps = {
            "log": settings.log_every,
            "eval": settings.eval_every,
            "checkpoint": settings.checkpoint_every,
        }
        by_clock = {"eval": settings.eval_minutes, "checkpoint": settings.checkpoint_minutes}
        self.minutes = {n: m for n, m in by_clock.items() if m} if settings.by_time else {}
        if hooks.export is not None:
            self.minutes["export"] = hooks.export_minutes
        self.start()

    def start(self) -> None:
        """Minutes count from here on."""
        self.since = dict.fromkeys(self.minutes, time.monotonic())

    def due(self, name: str, step: int) -> bool:
        """Whether an event is due; if so, the next is after its time.

        Args:
            name: Of the event.
            step: How many steps are done.
        """
        if name not in self.minutes:
            return name in self.steps and step % self.steps[name] == 0
        now = time.monotonic()
        if now - self.since[name] < 60 * self.minutes[name]:
            return False
        self.since[name] = now
        return True
