"""The course of a run: phase, crops and learning rate of each step, by steps or by time."""

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from llic_jax.configs.config import Config
from llic_jax.errors import ConfigError
from llic_jax.training.optimizer import learning_rate_schedule
from llic_jax.training.phases import Stage
from llic_jax.training.state import TrainState
from llic_jax.training.step import Step
from llic_jax.training.time_schedule import Clock, TimeSchedule


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


class _Moment(NamedTuple):
    """What holds in a step: who learns; the number of the crops' stage, None for what the steps
    say; the learning rate, None for what the optimizer knows; whether it is the last one."""

    stage: Stage
    crops: int | None
    rate: float | None
    is_last: bool


class BySteps:
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


class ByTime:
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


class Events:
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
