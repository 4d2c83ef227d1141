"""What decoded symbols cost, to notice a payload that is too short for them."""

import numpy as np

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

    def add(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Counts symbols that were decoded.

        Args:
            symbols: int32, of any shape.
            rows: Of the tables, for each symbol.

        Raises:
            CorruptError: All symbols so far cost more than the payload has.
        """
        rows = np.ravel(rows)
        values = np.ravel(symbols) - self._first_symbols[rows]
        escapes = self._escapes[rows]
        outside = (values < 0) | (values >= escapes)
        listed = np.where(outside, escapes, values)
        self._spent += float(self._bits[self._starts[rows] + listed].sum())
        if outside.any():  # no coder's escape code takes fewer bits than the distance has
            over = np.where(values < 0, -values, values - escapes + 1)[outside]
            self._spent += float(np.frexp(over.astype(np.float64))[1].sum())
        if self._spent > self._most:
            raise CorruptError("The payload is damaged: it ends before its symbols do.")
