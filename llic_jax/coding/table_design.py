"""Builds the tables of the range coder from a model: probabilities to integers that sum to 2^16."""

import heapq
from typing import Any

import jax
import numpy as np
from scipy.special import expit, ndtr

from llic_jax.coding.tables import Tables
from llic_jax.entropy.factorized import FactorizedPrior
from llic_jax.entropy.gaussian import GAUSSIAN, PRECISION, TAIL_MASS, Mixture, scale_table

_MAX_HALF_WIDTH = 4096


def build_tables(prior: FactorizedPrior, prior_params: dict, mixture: Mixture = GAUSSIAN) -> Tables:
    """The tables of a model with this factorized prior.

    Args:
        prior: Of `z`.
        prior_params: The prior's own parameters (`params["prior"]`).
        mixture: The distribution of a symbol of `y`, given its scale.
    """
    gaussians = [_mixture_pmf(scale, mixture) for scale in scale_table()]
    rows, first_symbols = [], []
    for low, pmf in [*_prior_pmfs(prior, prior_params), *gaussians]:
        escape = max(1.0 - float(pmf.sum()), 0.0)
        frequencies = quantize_pmf(np.append(pmf, escape))
        rows.append(np.concatenate([[0], np.cumsum(frequencies)]).astype(np.int32))
        first_symbols.append(low)
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return Tables(np.concatenate(rows), starts, np.asarray(first_symbols, np.int32), prior.channels)


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
    # All edges of all integers within the widest row at once: each row is cut out of them below.
    logits = jax.jit(lambda p, z: prior.apply({"params": p}, z, method="logits_cumulative"))(
        params, np.broadcast_to(edges[:, None], (len(edges), prior.channels)).astype(np.float32)
    )
    # Float32 may let the cumulative distribution fall by a rounding; probabilities must not.
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
