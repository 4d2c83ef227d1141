"""Range coders that keep a checksum of the symbols, and a clock."""

import zlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from llic_jax.coding.range_coders.interface import Decoder, Encoder
from llic_jax.errors import CorruptError, LlicError
from llic_jax.execution.stopwatch import Clock

_Result = TypeVar("_Result")


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
