import numpy as np
import pytest

from llic_jax.coding.range_coders.registry import CODERS
from llic_jax.coding.scale_offsets import (
    LARGEST_OFFSET,
    ScaleOffsets,
    offset_costs,
    with_all_rows,
)
from llic_jax.coding.table_design import build_tables
from llic_jax.coding.tables import CodingTables
from llic_jax.entropy.gaussian import PRECISION, scale_table
from llic_jax.entropy.walk import Step
from llic_jax.errors import CorruptError

ANCHORS, REST = Step(8, 20, 0), Step(8, 20, 1)
WIDER = np.array([0, 0, 3, -3, 5, 0, -5, 1, 0, 7, 0, 0])  # than predicted, levels


@pytest.fixture(scope="module")
def tables(tiny_model, tiny_params) -> CodingTables:
    return with_all_rows(build_tables(tiny_model.prior, tiny_params["prior"]))


def draw(wider: np.ndarray, size: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Symbols, and levels that they were drawn from but for `wider`."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(22, 40, (size, size // 2, len(wider))).astype(np.float32)
    ladder = np.asarray(scale_table())
    symbols = np.rint(rng.normal(0, ladder[np.rint(levels + wider).astype(int)]))
    return symbols.astype(np.int32), levels


def test_offsets_are_found_and_read_again(coder, tables):
    encoder, writer = CODERS[coder].encoder(tables), ScaleOffsets(tables, offset_costs(tables))
    written = []
    for step, seed in ((ANCHORS, 0), (REST, 1)):
        symbols, levels = draw(WIDER, seed=seed)
        offsets, more = writer.write(encoder, step, symbols, levels)
        assert np.abs(offsets - WIDER).max() <= 1 and more < 0
        written.append(offsets)
    reader, decoder = ScaleOffsets(tables), CODERS[coder].decoder(tables, encoder.finish())
    for step, offsets in zip((ANCHORS, REST), written, strict=True):
        np.testing.assert_array_equal(reader.read(decoder, step), offsets)


def test_the_second_half_starts_from_the_first(coder, tables):
    sizes = []
    for steps in ((ANCHORS, REST), (ANCHORS, Step(20, 32))):
        encoder, writer = CODERS[coder].encoder(tables), ScaleOffsets(tables, offset_costs(tables))
        for step in steps:
            writer.write(encoder, step, *draw(WIDER))
        sizes.append(len(encoder.finish()))
    assert sizes[0] <= 0.8 * sizes[1]


def test_the_gain_is_what_the_coder_saves(coder, tables):
    symbols, levels = draw(WIDER)
    sizes, more = [], 0.0
    for corrected in (False, True):
        encoder, offsets = CODERS[coder].encoder(tables), np.zeros(len(WIDER), np.int32)
        if corrected:
            offsets, more = ScaleOffsets(tables, offset_costs(tables)).write(
                encoder, ANCHORS, symbols, levels
            )
        rows = np.rint(levels).astype(np.int32) + offsets
        encoder.encode(symbols, rows + tables.hyper_rows)
        sizes.append(8 * len(encoder.finish()))
    assert more < -0.02 * sizes[0]
    assert abs(sizes[1] - sizes[0] - more) < 0.001 * sizes[0] + 64


def test_where_nothing_is_to_be_gained_it_costs_a_bit(coder, tables):
    encoder = CODERS[coder].encoder(tables)
    writer = ScaleOffsets(tables, offset_costs(tables))
    symbols, levels = draw(0 * WIDER, size=2)
    offsets, more = writer.write(encoder, ANCHORS, 0 * symbols, 0 * levels - 3)
    assert not offsets.any() and 0 < more < 1.01
    decoder = CODERS[coder].decoder(tables, encoder.finish())
    assert not ScaleOffsets(tables).read(decoder, ANCHORS).any()


def test_levels_that_are_no_numbers_have_a_cost(tables):
    levels = np.array([[np.nan, np.inf, -np.inf, 1e30]], np.float32)
    encoder = next(iter(CODERS.values())).encoder(tables)
    writer = ScaleOffsets(tables, offset_costs(tables))
    _, more = writer.write(encoder, Step(0, 4), np.full((1, 4), -(2**31), np.int32), levels)
    assert np.isfinite(more)


def test_costs_are_the_tables(tables):
    costs = offset_costs(tables).reshape(64, 64, 2 * LARGEST_OFFSET + 1)
    row = tables.hyper_rows + 33
    zero = -tables.first_symbols[row]
    np.testing.assert_allclose(
        costs[30, :4, LARGEST_OFFSET + 3], tables.row_bits(row)[zero : zero + 4]
    )
    # Beyond a row: the escape, and twice as many bits as the excess has.
    assert costs[0, 40, LARGEST_OFFSET] == tables.row_bits(tables.hyper_rows + 1)[-1] + 1 + 2 * 6


def test_the_rows_of_the_format_are_fixed(tables):
    rows = tables.offset_used, tables.offset_difference
    used, differences = (np.diff(tables.row(row)) for row in rows)
    assert rows == (len(tables) - 2, len(tables) - 1)
    assert used.sum() == differences.sum() == 1 << PRECISION
    assert used.tolist() == [32768, 32767, 1]
    assert differences[:5].tolist() == [32775, 13107, 7864, 4718, 2830] and len(differences) == 34


@pytest.mark.parametrize("used, differences", [(2, ()), (1, (33,)), (1, (17,)), (1, (31,))])
def test_what_is_never_written_is_damage(coder, tables, used, differences):
    encoder = CODERS[coder].encoder(tables)
    encoder.encode(np.array([used], np.int32), np.array([tables.offset_used], np.int32))
    if differences:
        encoder.encode(
            np.array(differences, np.int32), np.array([tables.offset_difference], np.int32)
        )
    decoder = CODERS[coder].decoder(tables, encoder.finish())
    with pytest.raises(CorruptError, match="damaged"):
        ScaleOffsets(tables).read(decoder, Step(0, 1))


def test_rows_are_added_once(tables):
    with pytest.raises(ValueError, match="stored ones alone"):
        with_all_rows(tables)
