"""A run by the clock: who learns, from which crops, and how fast, at each fraction of its time.

The learning rate of a step is computed from the time that has passed and enters the compiled step
as a number, so a run ends with a rate of zero whatever a step takes.
"""

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from llic_jax.configs.config import Config
from llic_jax.errors import ConfigError
from llic_jax.training.phases import Stage

_FILE = "clock.jsonl"


class Moment(NamedTuple):
    """What holds at one fraction of the time: who learns, the number of the crops' stage, the
    learning rate."""

    stage: Stage
    crops: int
    rate: float


@dataclasses.dataclass(frozen=True)
class TimeSchedule:
    """The schedule of a config with `train.schedule "time"` (our choice).

    Args:
      peak: learning rate between warm-up and decay.
      warmup: fraction of all time in which the rate rises, at the start and again when the
        transforms join in.
      decay: fraction of the time before the decoder's in which the rate falls to zero, linearly.
      transforms_from: fraction until which only the entropy model learns.
      decoder: last fraction, in which only the decoder's side learns.
      decoder_peak: learning rate there; it falls to zero as a half cosine.
      crops_from: fractions at which the second stage of crops begins, the third, ...
    """

    peak: float
    warmup: float
    decay: float
    transforms_from: float
    decoder: float
    decoder_peak: float
    crops_from: tuple[float, ...]

    @classmethod
    def of(cls, config: Config) -> "TimeSchedule":
        """That of a whole config.

        Raises:
          ConfigError: fractions that do not go together, or no minutes.
        """
        train, section = config["train"], config["data"]
        names = ("warmup", "decay", "transforms_from", "decoder")
        fractions = {f"train.{name}_fraction": train[f"{name}_fraction"] for name in names}
        if bad := {name: value for name, value in fractions.items() if not 0 <= value <= 1}:
            raise ConfigError(f"{bad}: a fraction of the time is from 0 to 1.")
        if train["transforms_from_fraction"] + train["decoder_fraction"] >= 1:
            raise ConfigError(
                "train.transforms_from_fraction and train.decoder_fraction leave no time in which "
                "everything learns; their sum has to be less than 1."
            )
        if not train["minutes"] > 0:
            raise ConfigError(
                f"train.minutes is {train['minutes']}; with train.schedule 'time' it is how long "
                "the run lasts."
            )
        crops_from = tuple(map(float, section["crop_fractions"]))
        if len(section["crops"]) != len(crops_from) + 1 or list(crops_from) != sorted(crops_from):
            raise ConfigError(
                f"data.crops {section['crops']} needs {len(section['crops']) - 1} ascending "
                f"fractions between its stages; data.crop_fractions is {crops_from}."
            )
        return cls(
            float(train["learning_rate"]),
            float(train["warmup_fraction"]),
            float(train["decay_fraction"]),
            float(train["transforms_from_fraction"]),
            float(train["decoder_fraction"]),
            float(train["decoder_learning_rate"]),
            crops_from,
        )

    def at(self, fraction: float) -> Moment:
        """What holds after this fraction of the time; the rate is exactly zero at 1."""
        crops = sum(fraction >= begin for begin in self.crops_from)
        ends = 1 - self.decoder
        if fraction >= ends and self.decoder:
            passed = min(1.0, (fraction - ends) / self.decoder)
            rate = self.decoder_peak * (1 + math.cos(math.pi * passed)) / 2
            return Moment(Stage.DECODER, crops, rate)
        alone = fraction < self.transforms_from
        since = fraction - (0 if alone else self.transforms_from)
        rising = min(1.0, since / self.warmup) if self.warmup else 1.0
        falling = max(0.0, 1 - fraction / ends) / self.decay if self.decay else 1.0
        rate = self.peak * min(rising, falling, 1.0) if fraction < ends else 0.0
        return Moment(Stage.ENTROPY_MODEL if alone else Stage.ALL, crops, rate)

    def kinds(self) -> list[tuple[Stage, int]]:
        """The pairs of stage and crops that a run goes through, in order: each is a program."""
        changes = sorted({0.0, self.transforms_from, 1 - self.decoder, *self.crops_from} - {1.0})
        found = [self.at(fraction)[:2] for fraction in changes]
        return list(dict.fromkeys(found))


class Clock:
    """The fraction of a run's time that has passed.

    Args:
      minutes: of the whole run.
      used: of these, before this start.
      deadline: `time.monotonic()` by which it has to be over, in place of `minutes` from now on.
    """

    def __init__(self, minutes: float, used: float = 0.0, deadline: float | None = None):
        self.used, self.deadline = 60 * used, deadline
        self.total = 60 * minutes
        self.started: float | None = None

    def start(self, reserve: float = 0.0) -> None:
        """Time runs from here on. reserve: seconds before the deadline that are not for steps."""
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
    """Keeps how many minutes the steps until `step` took."""
    with (workdir / _FILE).open("a") as file:
        file.write(json.dumps({"step": step, "minutes": minutes}) + "\n")


def minutes_used(workdir: Path, step: int) -> float:
    """What was noted for `step` last; 0 if nothing was."""
    path, minutes = workdir / _FILE, 0.0
    for line in path.read_text().splitlines() if path.exists() else ():
        entry: dict[str, Any] = _parsed(line)
        if entry.get("step") == step:
            minutes = entry["minutes"]
    return minutes


def _parsed(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:  # half a line, of a run that was killed
        return {}
