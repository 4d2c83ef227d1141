"""The range coder of tfc streams in Python, where nothing faster is installed.

It writes and reads the bytes of TensorFlow Compression; docs/bitstream.md states the stream bit by
bit. What can be done for all symbols of a piece at once is done in NumPy; the interval itself has
to be narrowed symbol by symbol.
"""

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np

from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import PRECISION
from llic_jax.errors import CorruptError

_WORD = 1 << 16
_WINDOW = 1 << 32
_MAX_GAMMA_ZEROS = 32  # a symbol's distance to a row's ends is at most 2^32


class PythonEncoder:
    """The encoder of tfc streams in Python.

    Args:
      tables: of the rows that symbols will be coded with.
    """

    def __init__(self, tables: Tables):
        self.cdf, self.starts = tables.cdf, tables.starts.astype(np.int64)
        self.firsts = tables.first_symbols.astype(np.int64)
        self.listed = np.diff(self.starts) - 2  # symbols of each row, without its escape
        self.words: list[int] = []  # of 16 bits and, above them, a carry into the word before
        self.base, self.size = 0, _WINDOW

    def encode(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Appends symbols; see `Encoder`.

        Args:
          symbols: int32, any shape.
          rows: int32, as many: each symbol's row of the tables.
        """
        rows = np.ravel(rows)
        values = np.ravel(symbols) - self.firsts[rows]
        listed = self.listed[rows]
        outside = (values < 0) | (values >= listed)
        places = self.starts[rows] + np.where(outside, listed, values)
        lower, upper = self.cdf[places].tolist(), self.cdf[places + 1].tolist()
        start = 0
        for end in np.flatnonzero(outside).tolist():
            self._narrow(lower[start : end + 1], upper[start : end + 1], PRECISION)
            value = int(values[end])
            bits = _escape_code(-value if value < 0 else value - int(listed[end]) + 1, value < 0)
            self._narrow(bits, [bit + 1 for bit in bits], 1)
            start = end + 1
        self._narrow(lower[start:], upper[start:], PRECISION)

    def _narrow(self, lower: list[int], upper: list[int], precision: int) -> None:
        base, size = self.base, self.size
        for low, high in zip(lower, upper, strict=True):
            below = size * low >> precision
            base += below
            size = (size * high >> precision) - below
            if size <= _WORD:
                self.words.append(base >> 16)
                base = (base & 0xFFFF) << 16
                size <<= 16
        self.base, self.size = base, size

    def finish(self) -> bytes:
        """All that was put, as bytes."""
        carry, rest = divmod(self.base, _WINDOW)
        whole = []
        for word in reversed(self.words):
            carry, word = divmod(word + carry, _WORD)
            whole.append(word)
        whole.reverse()
        spare = False  # the last byte
        if rest + self.size > _WINDOW:  # the carry is open: with it, all that follows is zeros
            while whole[-1] == _WORD - 1:
                whole.pop()
            whole[-1] += 1
            spare = whole[-1] % 256 == 0
        elif rest:
            whole.append(_shortest(rest, self.size) >> 16)
            spare = whole[-1] % 256 == 0
        data = np.array(whole, ">u2").tobytes()
        return data[:-1] if spare else data


class PythonDecoder:
    """The decoder of tfc streams in Python; as `NativeDecoder`.

    Args:
      tables: of the rows that the symbols were coded with.
      data: the stream.
    """

    def __init__(self, tables: Tables, data: bytes):
        self.rows = [tables.row(i).tolist() for i in range(len(tables))]
        self.firsts = tables.first_symbols.astype(np.int64)
        words = np.frombuffer(data + bytes(len(data) % 2), ">u2")
        self.words, self.position = words.tolist(), 2
        self.size = _WINDOW
        self.code = self._window()  # the last two words that were read, less the encoder's base

    def _window(self) -> int:
        """The last two words that were read; behind the end there are zeros."""
        high, low = [*self.words[self.position - 2 : self.position], 0, 0][:2]
        return high << 16 | low

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """The next symbols; see `Decoder`.

        Args:
          rows: int32, any shape: each symbol's row of the tables.

        Returns:
          The symbols, int32, in the shape of `rows`.

        Raises:
          CorruptError: an escape code that stands for no int32.
        """
        indexes = np.ravel(rows).tolist()
        ahead = iter([self.rows[index] for index in indexes])
        symbols: list[int] = []
        while len(symbols) < len(indexes):
            symbols += self._narrow(ahead, PRECISION)
            listed = len(self.rows[indexes[len(symbols) - 1]]) - 2
            if symbols[-1] == listed:
                symbols[-1] = self._escaped(listed)
        found = np.array(symbols, np.int64).reshape(rows.shape) + self.firsts[rows]
        if (found != found.astype(np.int32)).any():
            raise CorruptError(_DAMAGED)
        return found.astype(np.int32)

    def _narrow(self, rows: Iterator[list[int]], precision: int) -> list[int]:
        """Indexes of symbols in these rows, up to the first one that is its row's last."""
        code, size, position, words = self.code, self.size, self.position, self.words
        symbols = []
        for row in rows:
            symbol = bisect_right(row, (((code + 1) << precision) - 1) // size) - 1
            symbols.append(symbol)
            below = size * row[symbol] >> precision
            code -= below
            size = (size * row[symbol + 1] >> precision) - below
            if size <= _WORD:
                code = code << 16 | (words[position] if position < len(words) else 0)
                size <<= 16
                position += 1
            if symbol == len(row) - 2:
                break
        self.code, self.size, self.position = code, size, position
        return symbols

    def _bit(self) -> int:
        return self._narrow(iter([_BIT]), 1)[0]

    def _escaped(self, listed: int) -> int:
        """The index of a symbol outside a row that lists so many."""
        zeros = 0
        while not self._bit():
            zeros += 1
            if zeros > _MAX_GAMMA_ZEROS:
                raise CorruptError(_DAMAGED)
        distance = 1
        for _ in range(zeros):
            distance = 2 * distance + self._bit()
        return -distance if self._bit() else listed - 1 + distance

    def finish(self) -> bool:
        """Whether the bytes end as an encoder of these symbols would have ended them."""
        read = self._window()
        base = (read - self.code) % _WINDOW
        last = 0 if base + self.size > _WINDOW else _shortest(base, self.size)
        return read == last and self.position >= len(self.words)


_BIT = [0, 1, 2]  # the row of a bit, at a precision of 1
_DAMAGED = "The payload is damaged: an escape code stands for no 32-bit number."


def _shortest(base: int, size: int) -> int:
    """The number in the interval with the fewest leading bytes that are not zero: one or two."""
    end = -(-base >> 24) << 24
    return end if end < base + size else -(-base >> 16) << 16


def _escape_code(distance: int, below: bool) -> list[int]:
    """Bits of a distance >= 1 in Elias gamma code, then of the side: 1 is below the row's start."""
    digits = [int(digit) for digit in f"{distance:b}"]
    return [0] * (len(digits) - 1) + digits + [int(below)]
