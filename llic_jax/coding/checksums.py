"""Range coders that keep a checksum of all symbols, and count what they cost."""

import zlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from llic_jax.coding.range_coders.interface import Decoder, Encoder
from llic_jax.coding.spent_bits import SpentBits
from llic_jax.errors import CorruptError, LlicError

_Result = TypeVar("_Result")


class CheckedEncoder:
    """Keeps a CRC-32 of the symbols.

    Args:
        encoder: Codes them.
        header: Bytes that the checksum begins with.
    """

    def __init__(self, encoder: Encoder, header: bytes):
        self.encoder, self.crc = encoder, zlib.crc32(header)

    def encode(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Codes symbols and counts them in; see `Encoder.encode`.

        Args:
            symbols: int32, of any shape.
            rows: Of the tables, for each symbol.
        """
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        self.encoder.encode(symbols, rows)

    def finish(self) -> bytes:
        """The payload; see `Encoder.finish`."""
        return self.encoder.finish()


class CheckedDecoder:
    """The same for decoding; a range coder's own errors become `CorruptError`.

    Args:
        make: Makes the decoder, which may find its bytes unreadable as well.
        header: As that of the encoder.
        spent: Counts what the symbols cost.
    """

    ended = False  # as in `ArrivedDecoder`: the payload is whole

    def __init__(self, make: Callable[[], Decoder], header: bytes, spent: SpentBits):
        self.crc, self.spent = zlib.crc32(header), spent
        self.decoder = self._guarded(make)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """Decodes symbols and counts them in; see `Decoder.decode`.

        Args:
            rows: Of the tables, for each symbol.

        Raises:
            CorruptError: The range coder cannot read the payload, or the payload is too short for
                the symbols.
        """
        symbols = self._guarded(lambda: self.decoder.decode(rows))
        self.spent.add(symbols, rows)
        self.crc = zlib.crc32(symbols.astype("<i4").tobytes(), self.crc)
        return symbols

    def finish(self) -> bool:
        """Whether the payload ends with the last symbol; see `Decoder.finish`.

        Raises:
            CorruptError: The range coder cannot tell.
        """
        return self._guarded(self.decoder.finish)

    def _guarded(self, call: Callable[[], _Result]) -> _Result:
        try:
            return call()
        except LlicError:
            raise
        except Exception as error:  # a coder may raise anything for bytes that are not its own
            raise CorruptError(f"The range coder cannot read the payload: {error}") from error
