import builtins
import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.coding.range_coders.registry import (
    CODERS,
    FORMER_CODERS,
    coder_by_id,
    default_coder,
    installed_coders,
)
from llic_jax.coding.table_design import build_tables
from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import coded_bits, gaussian_bits, scale_table
from llic_jax.errors import CoderUnavailableError, CorruptError


@pytest.fixture(scope="module")
def tables(tiny_model, tiny_params) -> Tables:
    return build_tables(tiny_model.prior, tiny_params["prior"])


def draw(tables: Tables, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
    """Symbols, their rows, and the ideal size in bytes."""
    rng = np.random.default_rng(seed)
    level = rng.integers(64, size=count)
    scale = np.asarray(scale_table())[level]
    symbols = np.rint(rng.normal(size=count) * scale).astype(np.int32)
    rows = (level + tables.hyper_rows).astype(np.int32)
    bits = 0.0
    for row, symbol in zip(rows, symbols, strict=True):
        frequencies = np.diff(tables.row(int(row)))
        index = symbol - tables.first_symbols[row]
        listed = 0 <= index < len(frequencies) - 1
        bits += 16 - np.log2(frequencies[index if listed else -1]) + (0 if listed else 8)
    return symbols, rows, bits / 8


def test_round_trip_in_pieces_of_other_shapes(coder, tables):
    symbols, rows, ideal = draw(tables, 6000)
    encoder = CODERS[coder].encoder(tables)
    encoder.encode(symbols[:1000].reshape(10, 100), rows[:1000].reshape(10, 100))
    encoder.encode(symbols[1000:1000], rows[1000:1000])
    encoder.encode(symbols[1000:], rows[1000:])
    data = encoder.finish()
    assert len(data) <= ideal * 1.001 + 12

    decoder = CODERS[coder].decoder(tables, data)
    first = decoder.decode(rows[:1000].reshape(20, 50))
    assert first.shape == (20, 50) and first.dtype == np.int32
    nothing = decoder.decode(rows[:0])
    second = decoder.decode(rows[1000:])
    np.testing.assert_array_equal(np.concatenate([first.ravel(), nothing, second]), symbols)
    assert decoder.finish()


def test_values_beyond_the_tables_use_the_escape(coder, tables):
    symbols = np.array([0, 70_000, -70_000, 5, -6, 2**20, -(2**20)], np.int32)
    rows = np.full(len(symbols), tables.hyper_rows, np.int32)
    encoder = CODERS[coder].encoder(tables)
    encoder.encode(symbols, rows)
    decoder = CODERS[coder].decoder(tables, encoder.finish())
    np.testing.assert_array_equal(decoder.decode(rows), symbols)


def test_decoding_ends_wherever_the_bytes_end(coder, tables):
    """TFC alone would wait for the end of an escape code for ever, in the zeros after its bytes."""
    rows = np.full(50, tables.hyper_rows, np.int32)
    encoder = CODERS[coder].encoder(tables)
    encoder.encode(np.full(50, 1 << 20, np.int32), rows)
    data = encoder.finish()
    errors = 0
    for end in range(0, len(data), 4):
        try:
            CODERS[coder].decoder(tables, data[:end]).decode(rows)
        except (CorruptError, AssertionError):  # the latter: constriction's own
            errors += 1
    assert CODERS[coder].decoder(tables, data).decode(rows).tolist() == [1 << 20] * 50
    assert errors


def test_both_coders_cost_the_same(tables):
    names = installed_coders()
    assert names == ["tfc", "constriction"]
    symbols, rows, _ = draw(tables, 50_000)
    symbols[::500] *= 20  # beyond the tables
    sizes = []
    for name in names:
        encoder = CODERS[name].encoder(tables)
        encoder.encode(symbols, rows)
        sizes.append(len(encoder.finish()))
    assert max(sizes) <= min(sizes) * 1.001


def test_the_estimate_is_what_the_coders_charge(coder, tables):
    """Of a Gaussian's symbols, and of outliers, where the two have little in common."""
    rng = np.random.default_rng(1)
    level = rng.integers(64, size=20_000)
    scale = np.asarray(scale_table(), np.float32)[level]
    symbols = np.rint(rng.normal(size=level.size) * scale).astype(np.int32)
    for spread in (0, 40):
        symbols[::9] += np.rint(spread * rng.standard_normal(symbols[::9].size)).astype(np.int32)
        encoder = CODERS[coder].encoder(tables)
        encoder.encode(symbols, (level + tables.hyper_rows).astype(np.int32))
        size = 8 * len(encoder.finish())
        values = jnp.asarray(symbols, jnp.float32)
        estimate = float(coded_bits(values, jnp.asarray(scale)).sum())
        assert abs(size - estimate) < 0.01 * estimate
    assert float(gaussian_bits(values, jnp.asarray(scale)).sum()) > 1.5 * size


def test_idents_are_distinct_and_found():
    idents = [pair.coder_id for pair in (*CODERS.values(), *FORMER_CODERS.values())]
    assert len(set(idents)) == len(idents)
    assert coder_by_id(1) is CODERS["tfc"]
    assert coder_by_id(99) is None


@pytest.mark.parametrize("former", FORMER_CODERS)
def test_former_coders_are_read(former, tables):
    symbols, rows, _ = draw(tables, 5_000)
    symbols[::50] *= 20
    encoder = FORMER_CODERS[former].encoder(tables)
    encoder.encode(symbols, rows)
    pair = coder_by_id(FORMER_CODERS[former].coder_id)
    np.testing.assert_array_equal(pair.decoder(tables, encoder.finish()).decode(rows), symbols)


def test_a_missing_library_says_what_to_install(monkeypatch, tables):
    real = builtins.__import__

    def no_constriction(name, *args, **kwargs):
        if name == "constriction":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_constriction)
    with pytest.raises(CoderUnavailableError, match="pip install constriction"):
        CODERS["constriction"].encoder(tables)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert installed_coders() == ["tfc"] and default_coder() == "tfc"
