"""Payloads that were cut: every symbol that comes is the encoder's, then come zeros."""

import numpy as np
import pytest

from llic_jax.coding.arrived import ArrivedDecoder
from llic_jax.coding.range_coders.registry import CODERS
from llic_jax.coding.range_coders.tfc_streams import TFC_IMPLEMENTATIONS
from llic_jax.coding.scale_offsets import with_all_rows
from llic_jax.entropy.gaussian import SCALE_ROWS
from llic_jax.zoo.folder import load_codec

WAYS = [name for name, way in TFC_IMPLEMENTATIONS.items() if way.installed()]


@pytest.fixture(scope="module")
def tables(tiny_release):
    return with_all_rows(load_codec(tiny_release).model.tables)


def pieces(tables, rng, count=6, size=1500):
    """Symbols near zero with a few far outside their rows, and the rows."""
    found = []
    for _ in range(count):
        rows = (tables.scales + rng.integers(0, SCALE_ROWS, size)).astype(np.int32)
        symbols = np.rint(rng.normal(0, 2, size)).astype(np.int32)
        symbols[rng.integers(0, size, 3)] = [-70_000, 300, 2_000_000]
        found.append((symbols.reshape(10, -1), rows.reshape(10, -1)))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_symbols_are_the_encoders_up_to_the_cut(tables, monkeypatch, way):
    monkeypatch.setenv("LLIC_TFC", way)
    coder, coded = CODERS["tfc"], pieces(tables, np.random.default_rng(3))
    encoder = coder.encoder(tables)
    for symbols, rows in coded:
        encoder.encode(symbols, rows)
    payload = encoder.finish()
    whole = np.concatenate([symbols.ravel() for symbols, _ in coded])
    arrived = []
    for size in [0, 1, 2, 3, 9, 100, *range(500, len(payload), 700), len(payload) - 1]:
        decoder = ArrivedDecoder(coder, tables, payload[:size])
        found = np.concatenate([decoder.decode(rows).ravel() for _, rows in coded])
        first_other = np.flatnonzero(np.append(found != whole, True))[0]
        assert not found[first_other:].any()
        if size >= 500:  # nearly all that the bytes can hold: pieces may be lost, and a margin is
            assert first_other >= len(whole) * (0.94 * size / len(payload) - 0.03)
        arrived.append(first_other)
    assert arrived == sorted(arrived) and arrived[:2] == [0, 0]


def test_an_escape_at_the_cut_is_not_taken_for_the_encoders(tables):
    """Its code is long: a part of it decodes to another number."""
    coder, row = CODERS["tfc"], np.full(1, tables.scales + 8, np.int32)
    encoder = coder.encoder(tables)
    for symbol in (5, 2_000_000, -900_000_000, 7):
        encoder.encode(np.array([symbol], np.int32), row)
    payload = encoder.finish()
    for size in range(len(payload)):
        decoder = ArrivedDecoder(coder, tables, payload[:size])
        found = [int(decoder.decode(row)[0]) for _ in range(4)]
        assert found in ([0] * 4, [5, 0, 0, 0], [5, 2_000_000, 0, 0])
