"""Range coders that keep a checksum of the symbols, and a clock."""

import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from llic_jax.coding.bitstream import CorruptError
from llic_jax.coding.range_coder import Decoder, Encoder
from llic_jax.errors import LlicError

_Result = TypeVar("_Result")


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


class CheckedEncoder:
    """Keeps a checksum of the symbols, after those of `identity`."""

    def __init__(self, encoder: Encoder, identity: bytes):
        self.encoder, self.crc = encoder, zlib.crc32(identity)

    def put(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        self.encoder.put(symbols, rows)

    def finish(self) -> bytes:
        return self.encoder.finish()


class CheckedDecoder:
    """The same for decoding, and it keeps the time; a coder's own errors become `CorruptError`.

    make: makes the decoder, which may find its bytes unreadable as well.
    """

    def __init__(self, make: Callable[[], Decoder], clock: Clock, identity: bytes):
        self.clock, self.crc = clock, zlib.crc32(identity)
        self.decoder = self._guarded(make)

    def get(self, rows: np.ndarray) -> np.ndarray:
        symbols = self._guarded(lambda: self.decoder.get(rows))
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        return symbols

    def finish(self) -> bool:
        return self._guarded(self.decoder.finish)

    def _guarded(self, call: Callable[[], _Result]) -> _Result:
        try:
            return self.clock.coder(call())
        except LlicError:
            raise
        except Exception as error:  # whatever a coder makes of bytes that are not its own
            raise CorruptError(f"The range coder cannot read the payload: {error}") from error
