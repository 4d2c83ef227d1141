import numpy as np
import pytest

from llic_jax.coding import row_shifts
from llic_jax.coding.range_coders.registry import CODERS
from llic_jax.coding.scale_offsets import with_all_rows
from llic_jax.coding.table_design import build_tables
from llic_jax.coding.tables import CodingTables
from llic_jax.entropy.gaussian import PRECISION
from llic_jax.errors import CorruptError
from llic_jax.models.encoder_options import SHIFT_RESOLUTION

MARGIN = 0.5 / SHIFT_RESOLUTION


@pytest.fixture(scope="module")
def tables(tiny_model, tiny_params) -> CodingTables:
    return with_all_rows(build_tables(tiny_model.prior, tiny_params["prior"]))


def draw(count: int, active: float, seed: int = 0) -> np.ndarray:
    """Levels of which a fraction lies above the smallest scale, far below which the rest are."""
    rng = np.random.default_rng(seed)
    levels = np.where(rng.random(count) < active, rng.uniform(0, 64, count), -3.0)
    return levels.astype(np.float32)


def coded(coder: str, tables: CodingTables, levels: np.ndarray) -> tuple[row_shifts.Rows, bytes]:
    encoder = CODERS[coder].encoder(tables)
    rows = row_shifts.write_rows(encoder, tables, levels, SHIFT_RESOLUTION)
    return rows, encoder.finish()


def found(coder: str, tables: CodingTables, data: bytes, levels: np.ndarray) -> np.ndarray:
    decoder = CODERS[coder].decoder(tables, data)
    return row_shifts.read_rows(decoder, tables, levels, SHIFT_RESOLUTION)


@pytest.mark.parametrize("count", [1, 127, 5000, 100_000])
@pytest.mark.parametrize("active", [0.0, 0.02, 1.0])
def test_rows_agree_within_the_margin(coder, tables, count, active):
    levels = draw(count, active).reshape(1, -1, 1)
    rows, data = coded(coder, tables, levels)
    rng = np.random.default_rng(1)
    for sign in (-1, 1, rng.choice([-1, 1], levels.shape)):
        noisy = (levels + sign * 0.99 * MARGIN).astype(np.float32)
        np.testing.assert_array_equal(found(coder, tables, data, noisy), rows.rows)
    # Chosen rows are the nearest of those that are used, or all but.
    far = np.abs(rows.rows - np.clip(levels, 0, 63)) - 127 / SHIFT_RESOLUTION
    assert far.max() <= 1.5 and far[levels > 6].max(initial=0) <= 0.5


def test_without_agreement_the_same_noise_moves_rows(coder, tables):
    levels = draw(100_000, 1.0)
    encoder = CODERS[coder].encoder(tables)
    rows = row_shifts.write_rows(encoder, tables, levels, 0)
    assert rows.bits == 0 and not encoder.finish()
    noisy = (levels + 0.99 * MARGIN).astype(np.float32)
    decoder = CODERS[coder].decoder(tables, b"")
    assert (row_shifts.read_rows(decoder, tables, noisy, 0) != rows.rows).sum() > 50


def test_every_symbol_on_a_boundary(coder, tables):
    """The worst case: no shift of a large block is free, so blocks are small."""
    rng = np.random.default_rng(0)
    forbidden = np.arange(-127, 128)
    levels = rng.integers(6, 62, 4000) + 0.5 - rng.choice(forbidden, 4000) / SHIFT_RESOLUTION
    rows, data = coded(coder, tables, levels.astype(np.float32))
    noisy = (levels + 0.98 * MARGIN * rng.choice([-1, 1], 4000)).astype(np.float32)
    np.testing.assert_array_equal(found(coder, tables, data, noisy), rows.rows)


def test_the_cost_is_what_the_coder_takes_and_small(coder, tables):
    levels = draw(200_000, 0.3)
    rows, data = coded(coder, tables, levels)
    assert abs(8 * len(data) - rows.bits) < 0.02 * rows.bits + 64
    assert rows.bits < 0.008 * 60_000
    nothing, _ = coded(coder, tables, draw(5000, 0.0))
    assert nothing.bits < 1.1


def test_levels_that_are_no_numbers_have_a_row(coder, tables):
    levels = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)
    rows = row_shifts.read_rows(CODERS[coder].decoder(tables, b""), tables, levels, 0)
    np.testing.assert_array_equal(rows, [0, 63, 0, 63, 0])


def test_the_rows_of_the_format_are_fixed(tables):
    assert len(tables) >= 2
    rows = tables.block_size, tables.shift
    assert rows == (len(tables) - 4, len(tables) - 3)
    selectors, shifts = (np.diff(tables.row(row)) for row in rows)
    assert selectors.sum() == shifts.sum() == 1 << PRECISION
    assert selectors.tolist() == [32783, *[2047] * 16, 1]
    assert shifts[:6].tolist() == [16214, 12287, 9215, 6911, 5183, 3887] and len(shifts) == 256


def test_what_is_never_written_is_damage(coder, tables):
    levels = draw(5000, 1.0)
    for selector, shift in ((17, None), (1, 255)):
        encoder = CODERS[coder].encoder(tables)
        encoder.encode(np.array([selector], np.int32), np.array([tables.block_size], np.int32))
        if shift is not None:
            encoder.encode(np.full(40, shift, np.int32), np.full(40, tables.shift, np.int32))
        with pytest.raises(CorruptError, match="damaged"):
            found(coder, tables, encoder.finish(), levels)
