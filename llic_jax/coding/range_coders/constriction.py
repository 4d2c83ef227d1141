"""The range coder of the library constriction, which needs no TensorFlow."""

from typing import Any

import numpy as np

from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import PRECISION
from llic_jax.errors import CoderUnavailableError

_MAX_WIDTH = 33  # bits beyond the first of a 32-bit difference, doubled for its sign
_HALF_WORD = 16  # bits that are coded at once


class ConstrictionEncoder:
    """The range encoder of the library constriction.

    Its models are one table each, so the symbols of a piece are coded row by row (in the order of
    the piece within a row). Then come the values that a row does not list: how many bits each has,
    then these bits, likewise grouped.

    Args:
        tables: Of the model.
        equal_widths: All numbers of bits equally likely, as in files of coder 2; else each half as
            likely as the one before.
    """

    def __init__(self, tables: Tables, equal_widths: bool = False):
        self.stream, self.models = _constriction(), _ConstrictionModels(tables, equal_widths)
        self.encoder = self.stream.queue.RangeEncoder()

    def encode(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """See `Encoder.encode`.

        Args:
            symbols: int32, of any shape.
            rows: Of the tables, for each symbol.
        """
        rows = np.ravel(rows)
        values = np.ravel(symbols) - self.models.first_symbols[rows]
        escape = self.models.escapes[rows]
        outside = (values < 0) | (values >= escape)
        listed = np.where(outside, escape, values).astype(np.int32)
        for row, where in _by_row(rows):
            self.encoder.encode(listed[where], self.models[row])
        if outside.any():
            # Zigzag: above the row's end 0, 2, 4 ..; below its start 1, 3, 5 ..
            over = np.where(values < 0, -2 * values - 1, 2 * (values - escape))[outside] + 1
            widths = np.frexp(over.astype(np.float64))[1] - 1  # over = 2^width + the rest
            self.encoder.encode(widths.astype(np.int32), self.models.widths)
            for width, where in _by_row(widths):
                rest = over[where] - (1 << width)
                for shift in range(0, width, _HALF_WORD):
                    part = (rest >> shift) & ((1 << _HALF_WORD) - 1)
                    size = 1 << min(width - shift, _HALF_WORD)
                    self.encoder.encode(part.astype(np.int32), self.models.uniform(size))

    def finish(self) -> bytes:
        """See `Encoder.finish`."""
        return self.encoder.get_compressed().astype("<u4").tobytes()


class ConstrictionDecoder:
    """The decoder to `ConstrictionEncoder`.

    Args:
        tables: Of the model.
        data: The payload.
        equal_widths: As in the encoder.
    """

    def __init__(self, tables: Tables, data: bytes, equal_widths: bool = False):
        if len(data) % 4:
            raise ValueError(f"constriction's payloads are whole words; found {len(data)} bytes.")
        self.stream, self.models = _constriction(), _ConstrictionModels(tables, equal_widths)
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        self.decoder = self.stream.queue.RangeDecoder(words)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """See `Decoder.decode`.

        Args:
            rows: Of the tables, for each symbol.
        """
        flat = np.ravel(rows)
        values = np.empty(flat.shape, np.int64)
        for row, where in _by_row(flat):
            values[where] = self.decoder.decode(self.models[row], len(where))
        escape = self.models.escapes[flat]
        outside = np.flatnonzero(values == escape)
        if len(outside):
            widths = self.decoder.decode(self.models.widths, len(outside))
            over = 1 << widths.astype(np.int64)
            for width, where in _by_row(widths):
                for shift in range(0, width, _HALF_WORD):
                    size = 1 << min(width - shift, _HALF_WORD)
                    part = self.decoder.decode(self.models.uniform(size), len(where))
                    over[where] |= part.astype(np.int64) << shift
            over -= 1
            values[outside] = np.where(over & 1, -(over + 1) // 2, escape[outside] + over // 2)
        return (values + self.models.first_symbols[flat]).astype(np.int32).reshape(rows.shape)

    def finish(self) -> bool:
        """See `Decoder.finish`."""
        return bool(self.decoder.maybe_exhausted())


class _ConstrictionModels:
    """The tables as constriction's models, each made when it is first used."""

    def __init__(self, tables: Tables, equal_widths: bool):
        self.tables = tables
        self.models: dict[int, Any] = {}
        self.first_symbols = tables.first_symbols.astype(np.int64)
        self.escapes = np.diff(tables.starts).astype(np.int64) - 2
        if equal_widths:
            self.widths = self.uniform(_MAX_WIDTH + 1)
        else:
            halving = 0.5 ** np.minimum(np.arange(_MAX_WIDTH + 1) + 1, _MAX_WIDTH)
            self.widths = _constriction().model.Categorical(halving, perfect=False)

    def uniform(self, size: int):
        """`size` equally likely values, two or more."""
        return _constriction().model.Uniform(size)

    def __getitem__(self, row: int):
        if row not in self.models:
            frequencies = np.diff(self.tables.row(row)).astype(np.float64)
            self.models[row] = _constriction().model.Categorical(
                frequencies / (1 << PRECISION), perfect=False
            )
        return self.models[row]


def _by_row(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each row that occurs, ascending, with the positions where it does, ascending."""
    if not rows.size:
        return []
    order = np.argsort(rows, kind="stable")
    present, starts = np.unique(rows[order], return_index=True)
    return list(zip(present.tolist(), np.split(order, starts[1:]), strict=True))


def _constriction():
    try:
        import constriction
    except ImportError as error:
        raise CoderUnavailableError(
            "The range coder 'constriction' needs the library of that name, which does not load; "
            "run pip install constriction."
        ) from error
    return constriction.stream
