"""What the scales of one image lack, channel by channel (our choice).

A scale that the networks predict is right on average over the photographs that they were trained
on; in one image a channel may be wider or narrower than predicted throughout, and the choice of
symbols by their cost makes all of them narrower. So for each step and channel the encoder codes an
offset in whole levels of the scale ladder, which is added to the levels of all its symbols:

    step's stream:  used or not, offsets if used, what the agreement needs, symbols

A step over channels that an earlier one has coded (the other half of a checkerboard) starts from
the offsets of that one. The price is about two bits for each offset.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from llic_jax.coding.range_coders.interface import Decoder, Encoder
from llic_jax.coding.row_shifts import nearest_used, with_agreement
from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import PRECISION, SCALE_LEVELS
from llic_jax.entropy.walk import Step
from llic_jax.errors import CorruptError

REACH = 8  # of an offset, levels: a scale up to 2.7 times as large or as small
_OFFSETS = np.arange(-REACH, REACH + 1, dtype=np.int32)
# Differences to the offset before: 0, 1, -1, 2, -2 .. and where each stands.
_DIFFERENCES = np.array([0, *(d * s for d in range(1, 2 * REACH + 1) for s in (1, -1))], np.int32)
_ORDER = np.argsort(_DIFFERENCES).astype(np.int32)
_MAGNITUDES = 64  # of symbols that are told apart when offsets are chosen


def with_offsets(tables: Tables) -> Tables:
    """`tables` and two rows more, for "used or not" and for differences. They are part of the file
    format, so they are made of integers alone (as those of the agreement)."""
    rest = (1 << PRECISION) - 1  # one is the escape's
    differences = [rest // 5]
    while len(differences) < len(_DIFFERENCES) - 1:
        differences.append(max(1, differences[-1] * 3 // 5))
    return tables.with_rows(
        [rest - rest // 2, rest // 2, 1], [rest - sum(differences), *differences, 1]
    )


def with_all_rows(tables: Tables) -> Tables:
    """All the rows that a file is coded with: the model's, the agreement's, the offsets'."""
    return with_offsets(with_agreement(tables))


@dataclasses.dataclass
class Offsets:
    """The offsets of one image, step by step; made anew for each.

    tables: of `with_all_rows`. costs: of `offset_costs`; for `put` only.
    """

    tables: Tables
    costs: Float[np.ndarray, "cases offsets"] | None = None

    def __post_init__(self) -> None:
        self._known: dict[tuple[int, int], Int32[np.ndarray, "c"]] = {}

    def put(
        self,
        encoder: Encoder,
        step: Step,
        symbols: Int32[np.ndarray, "*b c"],
        levels: Float[np.ndarray, "*b c"],
    ) -> tuple[Int32[np.ndarray, "c"], float]:
        """Chooses the step's offsets and codes them.

        Returns them, and by how many bits the step becomes longer, below zero where it pays.
        """
        before, costs = self._before(step), self._channel_costs(symbols, levels)
        used_bits, bits = (self.tables.row_bits(len(self.tables) - i) for i in (2, 1))
        order = _ORDER[_OFFSETS - before[:, None] + 2 * REACH]
        chosen = np.argmin(costs + bits[order], axis=1)
        channels = np.arange(len(before))
        coded = order[channels, chosen]
        gain = costs[:, REACH].sum() - costs[channels, chosen].sum() - bits[coded].sum()
        gain -= used_bits[1] - used_bits[0]
        used = int(gain > 0)
        encoder.put(*self._symbols([used], 2))
        if used:
            encoder.put(*self._symbols(coded, 1))
        offsets = _OFFSETS[chosen] if used else np.zeros_like(before)
        self._known[step.start, step.stop] = offsets
        return offsets, float(used_bits[0] - max(gain, 0.0))

    def get(self, decoder: Decoder, step: Step) -> Int32[np.ndarray, "c"]:
        """The offsets that `put` chose.

        Raises:
          CorruptError: a stream that says what `put` never writes.
        """
        before = self._before(step)
        used, offsets = int(decoder.get(self._symbols([0], 2)[1])[0]), np.zeros_like(before)
        if used not in (0, 1):
            raise CorruptError(f"The payload is damaged: offsets are used or not, not {used}.")
        if used:
            coded = decoder.get(self._symbols(before, 1)[1])
            if coded.min() < 0 or coded.max() >= len(_DIFFERENCES):
                raise CorruptError("The payload is damaged: an offset is none.")
            offsets = before + _DIFFERENCES[coded]
            if np.abs(offsets).max() > REACH:
                raise CorruptError("The payload is damaged: an offset is out of reach.")
        self._known[step.start, step.stop] = offsets
        return offsets

    def _before(self, step: Step) -> Int32[np.ndarray, "c"]:
        nothing = np.zeros(step.channels, np.int32)
        return self._known.get((step.start, step.stop), nothing)

    def _symbols(self, symbols: Any, from_end: int) -> tuple[np.ndarray, np.ndarray]:
        row = len(self.tables) - from_end
        return np.asarray(symbols, np.int32), np.full(len(symbols), row, np.int32)

    def _channel_costs(
        self, symbols: Int32[np.ndarray, "*b c"], levels: Float[np.ndarray, "*b c"]
    ) -> Float[np.ndarray, "c offsets"]:
        """Bits of each channel's symbols under every offset."""
        assert self.costs is not None
        channels = symbols.shape[-1]
        level = np.clip(np.rint(np.nan_to_num(levels)), 0, SCALE_LEVELS - 1).astype(np.int64)
        magnitude = np.minimum(np.abs(symbols.astype(np.int64)), _MAGNITUDES - 1)
        cases = (np.arange(channels) * SCALE_LEVELS + level) * _MAGNITUDES + magnitude
        counts = np.bincount(cases.ravel(), minlength=channels * len(self.costs))
        return counts.reshape(channels, -1) @ self.costs


def offset_costs(tables: Tables) -> Float[np.ndarray, "cases offsets"]:
    """Bits of a symbol of magnitude m at level l, case `64 l + m`, under every offset."""
    magnitudes = np.arange(_MAGNITUDES)
    bits = np.empty((SCALE_LEVELS, _MAGNITUDES))
    for level in range(SCALE_LEVELS):
        row = tables.row_bits(tables.hyper_rows + level)
        listed = row[-int(tables.offsets[tables.hyper_rows + level]) : -1]  # from zero upwards
        excess = np.maximum(2 * (magnitudes - len(listed)) + 1, 1)
        escaped = row[-1] + 1 + 2 * np.floor(np.log2(excess))
        bits[level] = np.where(
            magnitudes < len(listed), listed[np.minimum(magnitudes, len(listed) - 1)], escaped
        )
    levels = np.arange(SCALE_LEVELS, dtype=np.float64)[:, None] + _OFFSETS
    return bits[nearest_used(levels)].transpose(0, 2, 1).reshape(-1, len(_OFFSETS))
