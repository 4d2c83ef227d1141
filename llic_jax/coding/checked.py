"""Range coders that keep a checksum of the symbols, and a clock."""

import time
import zlib
from typing import Any

import jax
import numpy as np

from llic_jax.coding.bitstream import CorruptError
from llic_jax.coding.range_coder import Decoder, Encoder


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

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self.last = now - self.last, now
        return lap


class CheckedEncoder:
    """Keeps a checksum of the symbols, after those of `identity`, and the time."""

    def __init__(self, encoder: Encoder, clock: Clock, identity: bytes):
        self.encoder, self.clock, self.crc = encoder, clock, zlib.crc32(identity)
        clock.coder(None)

    def put(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        self.encoder.put(symbols, rows)
        self.clock.coder(None)

    def finish(self) -> bytes:
        return self.clock.coder(self.encoder.finish())


class CheckedDecoder:
    """The same for decoding; a coder's own errors become `CorruptError`."""

    def __init__(self, decoder: Decoder, clock: Clock, identity: bytes):
        self.decoder, self.clock, self.crc = decoder, clock, zlib.crc32(identity)

    def get(self, rows: np.ndarray) -> np.ndarray:
        try:
            symbols = self.clock.coder(self.decoder.get(rows))
        except Exception as error:  # whatever a coder makes of bytes that are not its own
            raise CorruptError(f"The range coder cannot read the payload: {error}") from error
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        return symbols

    def finish(self) -> bool:
        return self.clock.coder(self.decoder.finish())
