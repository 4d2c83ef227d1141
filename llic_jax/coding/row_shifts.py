"""Table rows that every decoder finds again, whatever its floating point (our choice).

A symbol's row is the row of the scale table nearest to its scale. Encoder and decoder compute that
scale with networks, and two platforms differ in its last digits: a position close to the boundary
of two rows falls on either side, and the rest of the stream is noise. So the encoder moves the
positions away from the boundaries:

    row = nearest(position + shift / shift_resolution)     one integer shift for a block of symbols

With shifts in steps of 1 / shift_resolution, each symbol is too close to a boundary (nearer than
the margin, half a step) under at most one shift. The encoder takes for each block the smallest
shift that no symbol of it forbids, and codes it ahead of the symbols. All rows then agree wherever
positions differ by less than the margin. The price is about two bits for each symbol that had to be
moved, a bit or more for each step of the walk, and rows that are off by a fraction.

Rows 0, 2, 3 and 5 are never used. At such small scales nearly every symbol is zero, so the extra
rows would save fewer bits than the shifts around their boundaries cost.

    step's stream:  block size, shifts, symbols     the block size 0 stands for "no shifts"
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from llic_jax.coding.range_coders.interface import Decoder, Encoder
from llic_jax.coding.tables import CodingTables
from llic_jax.entropy.gaussian import PRECISION, SCALE_ROWS
from llic_jax.errors import CorruptError

MIN_SHIFT_RESOLUTION = 256  # with fewer, the largest shift would reach the next boundary

_SMALLEST = 7  # blocks of 2^7 symbols: fewer symbols than there are shifts, so one is always free
_SELECTORS = 17  # 0: no shifts; 1 .. 16: blocks of 2^7, 2^8 .. 2^22 symbols
_LARGEST_SHIFT = 127
# Shifts in the order of their symbols: 0, 1, -1, 2, -2 .. and the symbol of each.
_SHIFTS = np.array(
    [0, *(s * sign for s in range(1, _LARGEST_SHIFT + 1) for sign in (1, -1))], np.int32
)
_ORDER = np.argsort(_SHIFTS).astype(np.int32)
# Chosen for the least bits in all, on photographs held back from training.
_USED = np.array([1, 4, *range(6, SCALE_ROWS)], np.int32)
_BOUNDARIES = (_USED[:-1] + _USED[1:]) / 2


class Rows(NamedTuple):
    """A step's rows of the scale table, in the shape of its positions, and their cost in bits."""

    rows: Int32[np.ndarray, "..."]
    bits: float


def added_rows() -> tuple[list[int], list[int]]:
    """Frequencies of block sizes and of shifts.

    They are part of the file format, so they are made of integers alone, not of probabilities that
    a platform may round.
    """
    rest = (1 << PRECISION) - 1  # one is the escape's
    selectors = [rest - (_SELECTORS - 1) * (rest // 32), *[rest // 32] * (_SELECTORS - 1), 1]
    shifts = [rest // 4]
    while len(shifts) < len(_SHIFTS):
        shifts.append(max(1, shifts[-1] * 3 // 4))
    shifts[0] += rest - sum(shifts)
    return selectors, [*shifts, 1]


def nearest_used(positions: Float[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
    """The used row nearest to each position.

    Args:
        positions: On the scale table.
    """
    return _USED[np.searchsorted(_BOUNDARIES, positions)]


def write_rows(
    encoder: Encoder,
    tables: CodingTables,
    positions: Float[np.ndarray, "*shape"],
    shift_resolution: int,
) -> Rows:
    """Chooses the rows of a step's symbols and codes what the decoder needs to find them again.

    Args:
        encoder: Takes block size and shifts.
        tables: Of the file.
        positions: On the scale table, real-valued.
        shift_resolution: Shifts per row; 0 for no shifts at all, the nearest of all 64 rows each
            (files of version 1).
    """
    if not shift_resolution:
        return Rows(_nearest(positions), 0.0)
    flat = np.ravel(positions).astype(np.float64)
    selector, order, bits = _choose(flat, shift_resolution, tables)
    encoder.encode(np.array([selector], np.int32), np.array([tables.block_size], np.int32))
    if selector:
        encoder.encode(order, np.full(order.size, tables.shift, np.int32))
    return Rows(_shifted(positions, selector, order, shift_resolution), bits)


def read_rows(
    decoder: Decoder,
    tables: CodingTables,
    positions: Float[np.ndarray, "*shape"],
    shift_resolution: int,
) -> Int32[np.ndarray, "*shape"]:
    """The rows that `write_rows` chose.

    Args:
        decoder: Of the payload.
        tables: Of the model.
        positions: On the scale table; they may differ from the encoder's by the margin.
        shift_resolution: Of the file.

    Raises:
        CorruptError: A stream that `write_rows` never writes.
    """
    if not shift_resolution:
        return _nearest(positions)
    selector = int(decoder.decode(np.array([tables.block_size], np.int32))[0])
    if not 0 <= selector < _SELECTORS:
        raise CorruptError(
            f"The payload is damaged: block size {selector}; expected 0 to {_SELECTORS - 1}."
        )
    order = np.zeros(0, np.int32)
    if selector:
        count = _blocks(positions.size, selector)
        order = decoder.decode(np.full(count, tables.shift, np.int32))
        if order.size and not (order.min() >= 0 and order.max() < len(_SHIFTS)):
            raise CorruptError(
                f"The payload is damaged: shift codes {order.min()} to {order.max()}; expected 0 "
                f"to {len(_SHIFTS) - 1}."
            )
    return _shifted(positions, selector, order, shift_resolution)


def _choose(
    positions: Float[np.ndarray, "n"], shift_resolution: int, tables: CodingTables
) -> tuple[int, Int32[np.ndarray, "blocks"], float]:
    """The cheapest block size, the symbols of its shifts, and the bits of both."""
    selector_bits, shift_bits = map(tables.row_bits, (tables.block_size, tables.shift))
    # The one shift that puts each symbol onto the boundary nearest to it, hence forbidden.
    after = np.clip(np.searchsorted(_BOUNDARIES, positions), 1, len(_BOUNDARIES) - 1)
    above, below = (_BOUNDARIES[after - i] - positions for i in (0, 1))
    nearer = np.where(np.abs(above) < np.abs(below), above, below)
    forbidden = np.rint(nearer * shift_resolution)
    close = np.flatnonzero(np.abs(forbidden) <= _LARGEST_SHIFT)
    forbidden = forbidden[close].astype(np.int32)
    if not (forbidden == 0).any():
        return 0, np.zeros(0, np.int32), float(selector_bits[0])
    # taken[b, i]: whether a symbol of block b forbids the i-th shift. Blocks are joined in pairs.
    taken = np.zeros((_blocks(positions.size, 1), len(_SHIFTS)), bool)
    taken[close >> _SMALLEST, _ORDER[forbidden + _LARGEST_SHIFT]] = True
    best = None
    for selector in range(1, _SELECTORS):
        if not taken.all(axis=1).any():
            order = np.argmin(taken, axis=1).astype(np.int32)
            bits = float(selector_bits[selector] + shift_bits[order].sum())
            if best is None or bits < best[2]:
                best = selector, order, bits
        if len(taken) == 1:
            break
        taken = np.pad(taken, ((0, len(taken) % 2), (0, 0)))
        taken = taken[::2] | taken[1::2]
    assert best is not None  # a smallest block holds fewer symbols than there are shifts
    return best


def _shifted(
    positions: Float[np.ndarray, "*shape"],
    selector: int,
    order: Int32[np.ndarray, "blocks"],
    shift_resolution: int,
) -> Int32[np.ndarray, "*shape"]:
    """The nearest used rows of the positions, each moved by its block's shift."""
    shifted = _finite(positions)
    if selector:
        shifts = np.repeat(_SHIFTS[order], 1 << (_SMALLEST - 1 + selector))[: positions.size]
        shifted = shifted + shifts.reshape(positions.shape) / shift_resolution
    return nearest_used(shifted)


def _nearest(positions: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(_finite(positions)), 0, SCALE_ROWS - 1).astype(np.int32)


def _finite(positions: np.ndarray) -> np.ndarray:
    """In double precision; NaN, from a damaged stream, counts as 0."""
    return np.nan_to_num(positions.astype(np.float64))


def _blocks(size: int, selector: int) -> int:
    return -(-size // (1 << (_SMALLEST - 1 + selector)))
