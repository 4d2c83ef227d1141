"""Integer tables for the range coder, built once from the weights and stored with them.

A receiver must never rebuild them: another machine's floating point could round a probability
differently. One ragged list of rows serves the whole stream:

    one row per channel of `z`      factorized prior          stored (`Tables`)
    64 rows                         scale table, for `y`      stored
    block size, shift               `row_shifts.py`           added (`CodingTables`)
    offset used, offset difference  `scale_offsets.py`        added
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from llic_jax.entropy.gaussian import PRECISION, SCALE_ROWS


@dataclasses.dataclass(frozen=True)
class Tables:
    """Cumulative frequencies of every row.

    Attributes:
        cdf: All rows one after the other, each `0 .. 2^PRECISION`, ascending; int32.
        starts: Where each row begins in `cdf`, and the end; int32, `(rows + 1,)`.
        first_symbols: The value of each row's first symbol; int32, `(rows,)`. A row's last symbol
            is the escape: it stands for every value that the row does not list.
        hyper_rows: Number of rows that belong to `z`; the scale table's begin there.
    """

    cdf: np.ndarray
    starts: np.ndarray
    first_symbols: np.ndarray
    hyper_rows: int

    def __len__(self) -> int:
        return len(self.first_symbols)

    def row(self, i: int) -> np.ndarray:
        """The cumulative frequencies of row `i`."""
        return self.cdf[self.starts[i] : self.starts[i + 1]]

    def row_bits(self, i: int) -> np.ndarray:
        """The cost of each symbol of row `i`, bits."""
        return PRECISION - np.log2(np.diff(self.row(i)))

    def lookup(self) -> np.ndarray:
        """The rows in the flat form of TensorFlow Compression, int32.

        Each row is led by its precision, negative because it ends with an escape.
        """
        return np.insert(self.cdf, self.starts[:-1], -PRECISION).astype(np.int32)

    def arrays(self) -> dict[str, np.ndarray]:
        """As named arrays, to store and to hash."""
        return {
            "cdf": self.cdf,
            "starts": self.starts,
            "offsets": self.first_symbols,  # the name in released folders
            "hyper_rows": np.asarray(self.hyper_rows, np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Tables":
        """The inverse of `arrays`.

        Raises:
          ValueError: arrays that are no such tables.
        """
        tables = cls(arrays["cdf"], arrays["starts"], arrays["offsets"], int(arrays["hyper_rows"]))
        for i in range(len(tables)):
            row = tables.row(i)
            if len(row) < 2 or row[0] != 0 or row[-1] != 1 << PRECISION or (np.diff(row) < 1).any():
                raise ValueError(
                    f"Row {i} of the coding tables is not a cumulative frequency table; the "
                    "released folder is damaged, get it anew."
                )
        return tables


class CodingTables(Tables):
    """The stored rows, and those that `with_all_rows` adds: all that a file is coded with."""

    @classmethod
    def of(cls, tables: Tables, added: Sequence[Sequence[int]]) -> "CodingTables":
        """`tables` and the four added rows.

        Args:
            tables: The stored rows alone.
            added: Integer frequencies from symbol 0 on, of each row in the order of the module's
                table.

        Raises:
            ValueError: `tables` has other rows, for instance the added ones already.
        """
        stored = tables.hyper_rows + SCALE_ROWS
        if len(tables) != stored:
            raise ValueError(
                f"Found tables of {len(tables)} rows; expected the {stored} stored ones alone."
            )
        cumulative = [np.cumsum([0, *row], dtype=np.int32) for row in added]
        ends = tables.starts[-1] + np.cumsum([len(row) for row in cumulative], dtype=np.int32)
        return cls(
            np.concatenate([tables.cdf, *cumulative]),
            np.concatenate([tables.starts, ends]),
            np.append(tables.first_symbols, np.zeros(len(added), np.int32)),
            tables.hyper_rows,
        )

    def hyper(self, shape: tuple[int, ...]) -> Int32[np.ndarray, "*shape"]:
        """The row of every element of a `z` of this shape: its channel."""
        return np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)

    @property
    def scales(self) -> int:
        """The first row of the scale table."""
        return self.hyper_rows

    @property
    def block_size(self) -> int:
        """The row of `row_shifts.py`'s block sizes."""
        return self.hyper_rows + SCALE_ROWS

    @property
    def shift(self) -> int:
        """The row of `row_shifts.py`'s shifts."""
        return self.hyper_rows + SCALE_ROWS + 1

    @property
    def offset_used(self) -> int:
        """The row of "are offsets used" in `scale_offsets.py`."""
        return self.hyper_rows + SCALE_ROWS + 2

    @property
    def offset_difference(self) -> int:
        """The row of the differences between offsets in `scale_offsets.py`."""
        return self.hyper_rows + SCALE_ROWS + 3
