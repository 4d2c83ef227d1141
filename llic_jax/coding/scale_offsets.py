"""Corrections of one image's scales, channel by channel (our choice).

A scale that the networks predict is right on average over the photographs that they were trained
on. In one image a channel may be wider or narrower than predicted throughout, and rate-distortion
optimized quantization makes all of them narrower. So for each step and channel the encoder codes an
offset in whole rows of the scale table, which is added to the positions of all its symbols:

    step's stream:  used or not, offsets if used, row shifts, symbols

A step over channels that an earlier one has coded (the other half of a checkerboard) starts from
the offsets of that one. The price is about two bits for each offset.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int32

from llic_jax.coding import row_shifts
from llic_jax.coding.range_coders.interface import Decoder, Encoder
from llic_jax.coding.tables import CodingTables, Tables
from llic_jax.entropy.gaussian import PRECISION, SCALE_ROWS
from llic_jax.entropy.walk import Step
from llic_jax.errors import CorruptError

LARGEST_OFFSET = 8  # rows: a scale up to 2.7 times as large or as small
_OFFSETS = np.arange(-LARGEST_OFFSET, LARGEST_OFFSET + 1, dtype=np.int32)
# Differences to the offset before, in the order of their symbols: 0, 1, -1, 2, -2 .. and the symbol
# of each.
_DIFFERENCES = np.array(
    [0, *(d * sign for d in range(1, 2 * LARGEST_OFFSET + 1) for sign in (1, -1))], np.int32
)
_ORDER = np.argsort(_DIFFERENCES).astype(np.int32)
_MAGNITUDES = 64  # of symbols that are told apart when offsets are chosen


def added_rows() -> tuple[list[int], list[int]]:
    """Frequencies of "used or not" and of differences; integers alone, as in `row_shifts`."""
    rest = (1 << PRECISION) - 1  # one is the escape's
    differences = [rest // 5]
    while len(differences) < len(_DIFFERENCES) - 1:
        differences.append(max(1, differences[-1] * 3 // 5))
    return [rest - rest // 2, rest // 2, 1], [rest - sum(differences), *differences, 1]


def with_all_rows(tables: Tables) -> CodingTables:
    """All the rows that a file is coded with.

    Args:
        tables: The stored rows.

    Raises:
        ValueError: `tables` has the added rows already.
    """
    return CodingTables.of(tables, [*row_shifts.added_rows(), *added_rows()])


@dataclasses.dataclass
class ScaleOffsets:
    """The offsets of one image, step by step; made anew for each image.

    Attributes:
        tables: Of the file.
        costs: Of `offset_costs`; for `write` only.
    """

    tables: CodingTables
    costs: Float[np.ndarray, "cases offsets"] | None = None

    def __post_init__(self) -> None:
        self._coded: dict[tuple[int, int], Int32[np.ndarray, "c"]] = {}

    def write(
        self,
        encoder: Encoder,
        step: Step,
        symbols: Int32[np.ndarray, "*b c"],
        positions: Float[np.ndarray, "*b c"],
    ) -> tuple[Int32[np.ndarray, "c"], float]:
        """Chooses the step's offsets and codes them.

        Args:
            encoder: Takes them.
            step: Of the walk.
            symbols: To be coded next.
            positions: On the scale table, of each symbol.

        Returns:
            The offsets, and by how many bits the step becomes longer, below zero where it pays.
        """
        before, costs = self._before(step), self._channel_costs(symbols, positions)
        used_bits = self.tables.row_bits(self.tables.offset_used)
        bits = self.tables.row_bits(self.tables.offset_difference)
        # order[c, i]: the symbol for channel c of the i-th offset, given the offset before.
        order = _ORDER[_OFFSETS - before[:, None] + 2 * LARGEST_OFFSET]
        chosen = np.argmin(costs + bits[order], axis=1)
        channels = np.arange(len(before))
        coded = order[channels, chosen]
        gain = costs[:, LARGEST_OFFSET].sum() - costs[channels, chosen].sum() - bits[coded].sum()
        gain -= used_bits[1] - used_bits[0]
        used = int(gain > 0)
        encoder.encode(np.array([used], np.int32), np.array([self.tables.offset_used], np.int32))
        if used:
            encoder.encode(coded, np.full_like(coded, self.tables.offset_difference))
        offsets = _OFFSETS[chosen] if used else np.zeros_like(before)
        self._coded[step.start, step.stop] = offsets
        return offsets, float(used_bits[0] - max(gain, 0.0))

    def read(self, decoder: Decoder, step: Step) -> Int32[np.ndarray, "c"]:
        """The offsets that `write` chose.

        Args:
            decoder: Of the payload.
            step: Of the walk.

        Raises:
            CorruptError: A stream that `write` never writes.
        """
        before = self._before(step)
        used = int(decoder.decode(np.array([self.tables.offset_used], np.int32))[0])
        offsets = np.zeros_like(before)
        if used not in (0, 1):
            raise CorruptError(f"The payload is damaged: offsets used {used}; expected 0 or 1.")
        if used:
            coded = decoder.decode(np.full_like(before, self.tables.offset_difference))
            if coded.min() < 0 or coded.max() >= len(_DIFFERENCES):
                raise CorruptError(
                    f"The payload is damaged: offset codes {coded.min()} to {coded.max()}; "
                    f"expected 0 to {len(_DIFFERENCES) - 1}."
                )
            offsets = before + _DIFFERENCES[coded]
            if np.abs(offsets).max() > LARGEST_OFFSET:
                raise CorruptError(
                    f"The payload is damaged: an offset of {np.abs(offsets).max()} rows; expected "
                    f"{LARGEST_OFFSET} at most."
                )
        self._coded[step.start, step.stop] = offsets
        return offsets

    def _before(self, step: Step) -> Int32[np.ndarray, "c"]:
        """The offsets of an earlier step over the same channels, or zeros."""
        nothing = np.zeros(step.channels, np.int32)
        return self._coded.get((step.start, step.stop), nothing)

    def _channel_costs(
        self, symbols: Int32[np.ndarray, "*b c"], positions: Float[np.ndarray, "*b c"]
    ) -> Float[np.ndarray, "c offsets"]:
        """Bits of each channel's symbols under every offset."""
        assert self.costs is not None
        channels = symbols.shape[-1]
        row = np.clip(np.rint(np.nan_to_num(positions)), 0, SCALE_ROWS - 1).astype(np.int64)
        magnitude = np.minimum(np.abs(symbols.astype(np.int64)), _MAGNITUDES - 1)
        # A histogram over (row, magnitude) of each channel, times the cost of each case.
        cases = (np.arange(channels) * SCALE_ROWS + row) * _MAGNITUDES + magnitude
        counts = np.bincount(cases.ravel(), minlength=channels * len(self.costs))
        return counts.reshape(channels, -1) @ self.costs


def offset_costs(tables: Tables) -> Float[np.ndarray, "cases offsets"]:
    """What offsets cost and save.

    Args:
        tables: Of the model.

    Returns:
        Bits of a symbol of magnitude m at row r, case `64 r + m`, under every offset.
    """
    magnitudes = np.arange(_MAGNITUDES)
    bits = np.empty((SCALE_ROWS, _MAGNITUDES))
    for r in range(SCALE_ROWS):
        row = tables.row_bits(tables.hyper_rows + r)
        first = int(tables.first_symbols[tables.hyper_rows + r])
        listed = row[-first:-1]  # from zero upwards, without the escape
        excess = np.maximum(2 * (magnitudes - len(listed)) + 1, 1)
        escaped = row[-1] + 1 + 2 * np.floor(np.log2(excess))
        bits[r] = np.where(
            magnitudes < len(listed), listed[np.minimum(magnitudes, len(listed) - 1)], escaped
        )
    positions = np.arange(SCALE_ROWS, dtype=np.float64)[:, None] + _OFFSETS
    return bits[row_shifts.nearest_used(positions)].transpose(0, 2, 1).reshape(-1, len(_OFFSETS))
