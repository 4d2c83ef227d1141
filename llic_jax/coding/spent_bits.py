"""What decoded symbols cost, to notice where a payload ends before them."""

import numpy as np
from jaxtyping import Float

from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import PRECISION
from llic_jax.errors import CorruptError


class SpentBits:
    """Counts the cost of decoded symbols.

    A range decoder reads zeros beyond the end of its bytes: an encoder may have left them out. So
    a few bytes yield the symbols of any image, and the checksum tells only after the whole walk.

    Args:
        tables: Of the rows that the symbols were coded with.
        size: Of the payload, bytes.
    """

    def __init__(self, tables: Tables, size: int):
        self._starts, self._first_symbols = tables.starts, tables.first_symbols.astype(np.int64)
        self._escapes = np.diff(tables.starts).astype(np.int64) - 2
        self._bits = PRECISION - np.log2(np.maximum(np.diff(tables.cdf), 1))
        # Coders differ a little from what is counted, and leave out zeros at the end.
        self._most, self._spent = 8 * size * 1.01 + 64, 0.0
        self._certain = 8 * size * 0.99 - 64

    def add(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Counts symbols that were decoded.

        Args:
            symbols: int32, of any shape.
            rows: Of the tables, for each symbol.

        Raises:
            CorruptError: All symbols so far cost more than the payload has.
        """
        self._spent += float(self._costs(symbols, rows, escape_bits=1).sum())
        if self._spent > self._most:
            raise CorruptError("The payload is damaged: it ends before its symbols do.")

    def add_certain(self, symbols: np.ndarray, rows: np.ndarray) -> int:
        """Counts symbols that were decoded from the start of a payload, as far as it yields them.

        With a payload that was cut, a decoder yields the encoder's symbols up to its end, and
        others beyond. Close before the end either may come.

        Args:
            symbols: int32, of any shape, in the order of coding.
            rows: Of the tables, for each symbol.

        Returns:
            How many of the symbols are the encoder's, from the first one on.
        """
        ends = self._spent + np.cumsum(self._costs(symbols, rows, escape_bits=3))
        certain = int(np.searchsorted(ends, self._certain, side="right"))
        self._spent = float(ends[-1]) if ends.size else self._spent
        return certain

    def _costs(
        self, symbols: np.ndarray, rows: np.ndarray, escape_bits: int
    ) -> Float[np.ndarray, " n"]:
        """Bits of each symbol.

        Args:
            symbols: int32, of any shape.
            rows: Of the tables, for each symbol.
            escape_bits: Of an escape code, for each bit of the distance behind a row's end: no
                coder takes fewer than 1, and none more than 3.
        """
        rows = np.ravel(rows)
        values = np.ravel(symbols) - self._first_symbols[rows]
        escapes = self._escapes[rows]
        outside = (values < 0) | (values >= escapes)
        listed = np.where(outside, escapes, values)
        costs = self._bits[self._starts[rows] + listed]
        if outside.any():
            over = np.where(values < 0, -values, values - escapes + 1)[outside]
            costs[outside] += escape_bits * np.frexp(over.astype(np.float64))[1]
        return costs
