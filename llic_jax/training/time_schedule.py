"""A run by the clock: phase, crops and learning rate at each fraction of its time.

The learning rate of a step is computed from the time that has passed and enters the compiled step
as a number, so a run ends with a rate of zero whatever a step takes.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import NamedTuple

from llic_jax.system import json_lines
from llic_jax.training.phases import Phase
from llic_jax.training.settings import RunSettings

_FILE = "clock.jsonl"


class Moment(NamedTuple):
    """What holds at one fraction of the time.

    Attributes:
        phase: Which parameters learn.
        crops: Index into `data.crops`.
        rate: The learning rate.
    """

    phase: Phase
    crops: int
    rate: float


@dataclasses.dataclass(frozen=True)
class TimeSchedule:
    """The schedule of a config with `train.schedule "time"` (our choice).

    Attributes:
        peak: Learning rate between warm-up and decay.
        warmup: Fraction of the whole time in which the rate rises, at the start and again when the
            transforms begin to learn.
        decay: Fraction of the time before the decoder's in which the rate falls to zero, linearly.
        transforms_from: Fraction until which only the entropy model learns.
        decoder: Last fraction, in which only the decoder's side learns.
        decoder_peak: Learning rate there; it falls to zero as a half cosine.
        crops_from: Fractions at which the second size of crops begins, the third, ...
    """

    peak: float
    warmup: float
    decay: float
    transforms_from: float
    decoder: float
    decoder_peak: float
    crops_from: tuple[float, ...]

    @classmethod
    def of(cls, settings: RunSettings) -> "TimeSchedule":
        """The schedule of a run.

        Args:
            settings: Of the run.
        """
        train = settings.train
        return cls(
            float(train.learning_rate),
            float(train.warmup_fraction),
            float(train.decay_fraction),
            float(train.transforms_from_fraction),
            float(train.decoder_fraction),
            float(train.decoder_learning_rate),
            tuple(map(float, settings.data.crop_fractions)),
        )

    def at(self, fraction: float) -> Moment:
        """What holds after this fraction of the time; the rate is exactly zero at 1."""
        crops = sum(fraction >= begin for begin in self.crops_from)
        ends = 1 - self.decoder
        if fraction >= ends and self.decoder:
            passed = min(1.0, (fraction - ends) / self.decoder)
            rate = self.decoder_peak * (1 + math.cos(math.pi * passed)) / 2
            return Moment(Phase.DECODER, crops, rate)
        alone = fraction < self.transforms_from  # the entropy model learns alone
        since = fraction - (0 if alone else self.transforms_from)
        rising = min(1.0, since / self.warmup) if self.warmup else 1.0
        falling = max(0.0, 1 - fraction / ends) / self.decay if self.decay else 1.0
        rate = self.peak * min(rising, falling, 1.0) if fraction < ends else 0.0
        return Moment(Phase.ENTROPY_MODEL if alone else Phase.ALL, crops, rate)

    def programs(self) -> list[tuple[Phase, int]]:
        """The pairs of phase and crops that a run goes through, in order: each is a program."""
        changes = sorted({0.0, self.transforms_from, 1 - self.decoder, *self.crops_from} - {1.0})
        return list(dict.fromkeys(self.at(fraction)[:2] for fraction in changes))


class Clock:
    """The fraction of a run's time that has passed.

    Args:
        minutes: Of the whole run.
        used: Of these, before this start.
        deadline: `time.monotonic()` by which it has to be over, in place of `minutes` from now on.
    """

    def __init__(self, minutes: float, used: float = 0.0, deadline: float | None = None):
        self.used, self.deadline = 60 * used, deadline
        self.total = 60 * minutes
        self.started: float | None = None

    def start(self, reserve: float = 0.0) -> None:
        """Lets time run from here on.

        Args:
            reserve: Seconds before the deadline that are not for steps.
        """
        self.started = time.monotonic()
        if self.deadline is not None:
            self.total = self.used + max(1e-3, self.deadline - reserve - self.started)

    def minutes(self) -> float:
        """Minutes of steps, those of earlier starts included."""
        now = 0.0 if self.started is None else time.monotonic() - self.started
        return (self.used + now) / 60

    def fraction(self) -> float:
        """Of the time that has passed, at most 1."""
        return min(1.0, 60 * self.minutes() / self.total)


def note_minutes(workdir: Path, step: int, minutes: float) -> None:
    """Keeps how long the steps of a run took.

    Args:
        workdir: The run.
        step: The last of the steps.
        minutes: That all of them took.
    """
    json_lines.append(workdir / _FILE, {"step": step, "minutes": minutes})


def minutes_used(workdir: Path, step: int) -> float:
    """How long the steps of a run took.

    Args:
        workdir: The run.
        step: The last of the steps.

    Returns:
        The minutes that were noted for it last; 0 if none were.
    """
    path = workdir / _FILE
    json_lines.repair(path)  # else our next line continues one that a kill cut off
    entries = json_lines.read(path, skip_damaged=True) if path.exists() else []
    return next((e["minutes"] for e in reversed(entries) if e.get("step") == step), 0.0)
