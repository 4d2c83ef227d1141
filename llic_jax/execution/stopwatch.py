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
        """Counts the time since the last call as the range coder's.

        Args:
            result: Handed through.
        """
        self.coder_seconds += self._lap()
        return result

    def shares(self, count: int) -> tuple[float, float]:
        """Equal shares of the time.

        Args:
            count: Of the images that took it together.

        Returns:
            Seconds of the networks, and of the coder, for each image.
        """
        return self.network_seconds / count, self.coder_seconds / count

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self.last = now - self.last, now
        return lap
