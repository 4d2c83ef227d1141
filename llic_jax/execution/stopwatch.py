"""Time of the networks and of the coder, told apart."""

import time
from typing import Any

import jax


class Clock:
    """Adds up where the time goes."""

    def __init__(self) -> None:
        self.network_seconds = self.coder_seconds = 0.0
        self.last = time.perf_counter()

    def network(self, result: Any) -> Any:
        """Waits for `result`; the time since the last call was the networks'."""
        result = jax.block_until_ready(result)
        self.network_seconds += self._lap()
        return result

    def coder(self, result: Any) -> Any:
        """The time since the last call was the range coder's."""
        self.coder_seconds += self._lap()
        return result

    def shares(self, count: int) -> tuple[float, float]:
        """Seconds of the networks, and of the coder, for each of so many images."""
        return self.network_seconds / count, self.coder_seconds / count

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self.last = now - self.last, now
        return lap
