"""Integer tables for the range coder, built once from the weights and stored with them.

A receiver must never rebuild them: another machine's floating point could round a probability
differently. One ragged list of rows serves the whole stream: the first rows are the factorized
prior's, one per channel of `z`; then come the 64 Gaussians of the scale ladder, or mixtures.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from llic_jax.entropy.gaussian import PRECISION


@dataclasses.dataclass(frozen=True)
class Tables:
    """Cumulative frequencies of every row.

    cdf: all rows one after the other, each `0 .. 2^PRECISION`, ascending; int32.
    starts: where each row begins in `cdf`, and the end; int32, `(rows + 1,)`.
    offsets: the value of each row's first symbol; int32, `(rows,)`. A row's last symbol is the
        escape: it stands for every value that the row does not list.
    hyper_rows: rows that belong to `z`; the scale ladder's begin there.
    """

    cdf: np.ndarray
    starts: np.ndarray
    offsets: np.ndarray
    hyper_rows: int

    def __len__(self) -> int:
        return len(self.offsets)

    def row(self, i: int) -> np.ndarray:
        """The cumulative frequencies of row `i`."""
        return self.cdf[self.starts[i] : self.starts[i + 1]]

    def row_bits(self, i: int) -> np.ndarray:
        """What each symbol of row `i` costs, bits."""
        return PRECISION - np.log2(np.diff(self.row(i)))

    def with_rows(self, *rows: Sequence[int]) -> "Tables":
        """These tables and rows more, each given by its integer frequencies from symbol 0 on."""
        cumulative = [np.cumsum([0, *row], dtype=np.int32) for row in rows]
        ends = self.starts[-1] + np.cumsum([len(row) for row in cumulative], dtype=np.int32)
        return Tables(
            np.concatenate([self.cdf, *cumulative]),
            np.concatenate([self.starts, ends]),
            np.append(self.offsets, np.zeros(len(rows), np.int32)),
            self.hyper_rows,
        )

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
            "offsets": self.offsets,
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
