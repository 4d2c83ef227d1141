"""Integer tables for the range coder, built once from the weights and stored with them.

A receiver must never rebuild them: another machine's floating point could round a probability
differently. One ragged list of rows serves the whole stream: the first rows are the factorized
prior's, one per channel of `z`; then come the 64 Gaussians of the scale ladder, or mixtures.
"""

import dataclasses
import heapq
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import expit, ndtr

from llic_jax.entropy.factorized import FactorizedPrior
from llic_jax.entropy.gaussian import GAUSSIAN, PRECISION, TAIL_MASS, Mixture, scale_ladder

_MAX_HALF_WIDTH = 4096


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


def build_tables(prior: FactorizedPrior, prior_params: dict, mixture: Mixture = GAUSSIAN) -> Tables:
    """The tables of a model with this factorized prior.

    prior_params: the prior's own parameters (`params["prior"]`).
    mixture: what a symbol's distribution is taken to be, given its scale.
    """
    gaussians = [_mixture_pmf(scale, mixture) for scale in scale_ladder()]
    rows, offsets = [], []
    for low, pmf in [*_prior_pmfs(prior, prior_params), *gaussians]:
        escape = max(1.0 - float(pmf.sum()), 0.0)
        frequencies = quantize_pmf(np.append(pmf, escape))
        rows.append(np.concatenate([[0], np.cumsum(frequencies)]).astype(np.int32))
        offsets.append(low)
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return Tables(np.concatenate(rows), starts, np.asarray(offsets, np.int32), prior.channels)


def quantize_pmf(pmf: np.ndarray, precision: int = PRECISION) -> np.ndarray:
    """Integer frequencies, each at least 1, `2^precision` in all, close to `pmf` in code length.

    Rounds, then takes or gives single counts where that changes the expected length least.
    """
    total = 1 << precision
    frequencies = np.maximum(1, np.rint(pmf / pmf.sum() * total)).astype(np.int64)
    surplus = int(frequencies.sum()) - total
    sign = 1 if surplus > 0 else -1

    def cost(i: int) -> float:
        f = frequencies[i]
        if f - sign < 1:
            return np.inf
        return pmf[i] * np.log2(f / (f - sign))

    heap = [(cost(i), i) for i in range(len(pmf))]
    heapq.heapify(heap)
    for _ in range(abs(surplus)):
        _, i = heapq.heappop(heap)
        frequencies[i] -= sign
        heapq.heappush(heap, (cost(i), i))
    return frequencies.astype(np.int32)


def _mixture_pmf(scale: float, mixture: Mixture) -> tuple[int, np.ndarray]:
    """Lowest value and probabilities of a rounded zero-mean mixture, short of its tails."""

    def below(x: Any) -> Any:
        parts = [weight * ndtr(x / (relative * scale)) for weight, relative in mixture]
        return np.sum(parts, axis=0)

    half = 1
    while 2 * below(-(half + 0.5)) > TAIL_MASS:
        half += 1
    # Both tails through the lower one: no cancellation.
    magnitude = np.abs(np.arange(-half, half + 1))
    return -half, below(0.5 - magnitude) - below(-0.5 - magnitude)


def _prior_pmfs(prior: FactorizedPrior, params: dict) -> list[tuple[int, np.ndarray]]:
    """Lowest value and probabilities of each channel of `z`, short of the tails."""
    edges = np.arange(-_MAX_HALF_WIDTH, _MAX_HALF_WIDTH + 2) - 0.5
    logits = jax.jit(lambda p, z: prior.apply({"params": p}, z, method="logits_cumulative"))(
        params, np.broadcast_to(edges[:, None], (len(edges), prior.channels)).astype(np.float32)
    )
    logits = np.maximum.accumulate(np.asarray(logits, np.float64), axis=0)
    cumulative, survival = expit(logits), expit(-logits)
    pmfs = []
    for c in range(prior.channels):
        # The smaller of the two tails is the exact one.
        upper_half = logits[:-1, c] > 0
        pmf = np.where(upper_half, -np.diff(survival[:, c]), np.diff(cumulative[:, c]))
        first = int(np.argmax(cumulative[1:, c] > TAIL_MASS / 2))
        last = len(pmf) - 1 - int(np.argmax(survival[:-1, c][::-1] > TAIL_MASS / 2))
        pmfs.append((first - _MAX_HALF_WIDTH, pmf[first : max(first, last) + 1]))
    return pmfs
