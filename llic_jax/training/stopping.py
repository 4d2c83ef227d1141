"""When training stops: at the last step, by the clock, or when it is asked to."""

import dataclasses
import signal
import threading
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


@dataclasses.dataclass
class Stop:
    """Knows when a run has to end early: on SIGTERM or Ctrl-C, or when its time is up.

    Attributes:
        max_minutes: After which it ends; None for no limit.
        signal: Name of the signal that has come.
        is_late: Whether `max_minutes` were over when it was last asked.
    """

    max_minutes: float | None

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.signal: str | None = None
        self.is_late = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        # Several processes hear of a SIGTERM through jax.distributed, which has its own handler.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked for twice: at once, without a checkpoint
        self.signal = signal.Signals(number).name

    def due(self, step: int, together: bool) -> str | None:
        """Why the run has to end after a step.

        Args:
            step: Number of steps done.
            together: All processes ask at this step, and have the time to agree.

        Returns:
            The reason; None if there is none.
        """
        minutes = (time.monotonic() - self.started) / 60
        late = self.max_minutes is not None and minutes > self.max_minutes
        if jax.process_count() > 1:
            if multihost_utils.reached_preemption_sync_point(step):
                return "stopped by SIGTERM"
            late = together and bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
        if self.signal is not None:
            return f"stopped by {self.signal}"
        self.is_late = late
        return f"stopped after {self.max_minutes:g} minutes" if late else None
