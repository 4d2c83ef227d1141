"""Table rows that every decoder finds again, whatever its floating point (our choice).

A symbol's row is the level of the scale ladder nearest to its scale. Encoder and decoder compute
that scale with networks, and two platforms differ in its last digits: a level that lies close to
the boundary of two rows falls on either side, and the rest of the stream is noise. So the encoder
moves the levels away from the boundaries:

    row = nearest(level + shift / units)      one small integer shift for a block of symbols

With shifts in steps of 1 / units, each symbol is too close to a boundary (nearer than the margin,
1 / (2 units)) under at most one shift. The encoder takes for each block the smallest shift that no
symbol of it forbids, and codes it ahead of the symbols. All rows then agree wherever levels differ
by less than the margin. The price is about two bits for each symbol that had to be moved, a bit or
more for each step of the walk, and the ladder being off by a fraction of a level. The lowest rows
are hardly worth their boundaries, as nearly all of their symbols are zero: some are not used.

    step's stream:  selector, shifts, symbols     selector: no shifts, or how large the blocks are
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from llic_jax.coding.range_coders.interface import Decoder, Encoder
from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import PRECISION, SCALE_LEVELS
from llic_jax.errors import CorruptError

# Half a unit, 0.00125 levels, is 1.5e-4 of a scale: ten times what full-size models were seen to
# differ by between platforms. Fewer would let a shift reach the next boundary.
UNITS, MIN_UNITS = 400, 256

_SMALLEST = 7  # blocks of 2^7 symbols: fewer symbols than there are shifts, so one is always free
_SELECTORS = 17  # no shifts; blocks of 2^7, 2^8 .. 2^22 symbols
_REACH = 127  # of the shifts, units
# 0, 1, -1, 2, -2 .. and where each stands.
_SHIFTS = np.array([0, *(s * sign for s in range(1, _REACH + 1) for sign in (1, -1))], np.int32)
_ORDER = np.argsort(_SHIFTS).astype(np.int32)
# Chosen for the least bits in all, on photographs held back from training.
_USED = np.array([1, 4, *range(6, SCALE_LEVELS)], np.int32)
_BOUNDARIES = (_USED[:-1] + _USED[1:]) / 2


class Rows(NamedTuple):
    """A step's rows of the scale ladder, in the shape of its levels, and what they cost, bits."""

    rows: Int32[np.ndarray, "..."]
    bits: float


def with_agreement(tables: Tables) -> Tables:
    """`tables` and two rows more, for selectors and shifts. They are part of the file format, so
    they are made of integers alone, not of probabilities that a platform may round."""
    rest = (1 << PRECISION) - 1  # one is the escape's
    selectors = [rest - (_SELECTORS - 1) * (rest // 32), *[rest // 32] * (_SELECTORS - 1), 1]
    shifts = [rest // 4]
    while len(shifts) < len(_SHIFTS):
        shifts.append(max(1, shifts[-1] * 3 // 4))
    shifts[0] += rest - sum(shifts)
    return tables.with_rows(selectors, [*shifts, 1])


def nearest_used(levels: Float[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
    """Of the rows that the agreement uses, the one nearest to each level."""
    return _USED[np.searchsorted(_BOUNDARIES, levels)]


def put_rows(
    encoder: Encoder, tables: Tables, levels: Float[np.ndarray, "*shape"], units: int
) -> Rows:
    """Chooses the rows of a step's symbols and codes what the decoder needs to find them again.

    tables: from `with_agreement`. levels: real-valued levels of the scale ladder. units: to a
    level; 0 for no agreement at all, the nearest of all rows each (files of version 1).
    """
    if not units:
        return Rows(_nearest(levels), 0.0)
    flat = np.ravel(levels).astype(np.float64)
    selector, order, bits = _choose(flat, units, tables)
    encoder.put(*_selector(tables, selector))
    if selector:
        encoder.put(order, _shift_rows(tables, order.size))
    return Rows(_shifted(levels, selector, order, units), bits)


def get_rows(
    decoder: Decoder, tables: Tables, levels: Float[np.ndarray, "*shape"], units: int
) -> Int32[np.ndarray, "*shape"]:
    """The rows that `put_rows` chose, from levels that may differ from its own by the margin.

    Raises:
      CorruptError: a stream that says what `put_rows` never writes.
    """
    if not units:
        return _nearest(levels)
    selector = int(decoder.get(_selector(tables, 0)[1])[0])
    if not 0 <= selector < _SELECTORS:
        raise CorruptError(f"The payload is damaged: it names a block size {selector}.")
    order = np.zeros(0, np.int32)
    if selector:
        order = decoder.get(_shift_rows(tables, _blocks(levels.size, selector)))
        if order.size and not (order.min() >= 0 and order.max() < len(_SHIFTS)):
            raise CorruptError("The payload is damaged: it moves table rows out of reach.")
    return _shifted(levels, selector, order, units)


def _choose(
    levels: Float[np.ndarray, "n"], units: int, tables: Tables
) -> tuple[int, Int32[np.ndarray, "blocks"], float]:
    """The cheapest selector, the order numbers of its shifts, and their bits."""
    selector_bits, shift_bits = (tables.row_bits(_first(tables) + i) for i in (0, 1))
    after = np.clip(np.searchsorted(_BOUNDARIES, levels), 1, len(_BOUNDARIES) - 1)
    above, below = (_BOUNDARIES[after - i] - levels for i in (0, 1))
    forbidden = np.rint(np.where(np.abs(above) < np.abs(below), above, below) * units)
    close = np.flatnonzero(np.abs(forbidden) <= _REACH)
    forbidden = forbidden[close].astype(np.int32)
    if not (forbidden == 0).any():
        return 0, np.zeros(0, np.int32), float(selector_bits[0])
    # taken[b, i]: whether a symbol of block b forbids the i-th shift. Blocks are joined in pairs.
    taken = np.zeros((_blocks(levels.size, 1), len(_SHIFTS)), bool)
    taken[close >> _SMALLEST, _ORDER[forbidden + _REACH]] = True
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
    levels: Float[np.ndarray, "*shape"],
    selector: int,
    order: Int32[np.ndarray, "blocks"],
    units: int,
) -> Int32[np.ndarray, "*shape"]:
    shifted = _numbers(levels)
    if selector:
        shifts = np.repeat(_SHIFTS[order], 1 << (_SMALLEST - 1 + selector))[: levels.size]
        shifted = shifted + shifts.reshape(levels.shape) / units
    return nearest_used(shifted)


def _nearest(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(_numbers(levels)), 0, SCALE_LEVELS - 1).astype(np.int32)


def _numbers(levels: np.ndarray) -> np.ndarray:
    """In double precision; what is no number, from a damaged stream, counts as 0."""
    return np.nan_to_num(levels.astype(np.float64))


def _blocks(size: int, selector: int) -> int:
    return -(-size // (1 << (_SMALLEST - 1 + selector)))


def _selector(tables: Tables, selector: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([selector], np.int32), np.array([_first(tables)], np.int32)


def _shift_rows(tables: Tables, count: int) -> np.ndarray:
    return np.full(count, _first(tables) + 1, np.int32)


def _first(tables: Tables) -> int:
    """The first of the agreement's rows."""
    return tables.hyper_rows + SCALE_LEVELS
