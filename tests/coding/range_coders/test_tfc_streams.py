"""tfc streams: three implementations and the text of docs/bitstream.md, byte for byte."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from llic_jax.bitstream.file import LlicFile
from llic_jax.coding.range_coders import native, tensorflow_core
from llic_jax.coding.range_coders.interface import CoderPair
from llic_jax.coding.range_coders.pure_python import PythonDecoder, PythonEncoder
from llic_jax.coding.range_coders.registry import CODERS
from llic_jax.coding.range_coders.tfc_streams import TFC_IMPLEMENTATIONS, tfc_implementation
from llic_jax.coding.tables import Tables
from llic_jax.errors import CoderUnavailableError, CorruptError
from llic_jax.zoo.folder import load_codec

GOLDEN = Path(__file__).parents[2] / "golden"
WAYS = [name for name, way in TFC_IMPLEMENTATIONS.items() if way.installed()]
OURS = [name for name in WAYS if name != "ops"]
needs_ops = pytest.mark.skipif("ops" not in WAYS, reason="needs tensorflow-compression-ops")
needs_native = pytest.mark.skipif("native" not in WAYS, reason="needs the native range coder")
LIMITS = np.iinfo(np.int32)


class Rows(Tables):
    """Rows of any precision, with or without escape, in the ops' flat form."""

    def __init__(self, flat: list[int] | np.ndarray, count: int):
        nothing = np.zeros(1, np.int32)
        super().__init__(np.asarray(flat, np.int32), nothing, np.zeros(count, np.int32), 0)

    def lookup(self) -> np.ndarray:
        return self.cdf


def random_cdf(rng: np.random.Generator, precision: int, most: int = 300) -> np.ndarray:
    total = 1 << precision
    inner = rng.integers(0, min(total, most))
    if rng.random() < 0.5:  # nearly everything in one entry, or all alike
        points = rng.choice(total - 1, inner, replace=False) + 1
    else:
        points = 1 + np.arange(inner)
        points = points if rng.random() < 0.5 else total - points
    return np.concatenate([[0], np.sort(points), [total]]).astype(np.int32)


def random_tables(rng: np.random.Generator) -> Tables:
    rows = [random_cdf(rng, 16) for _ in range(rng.integers(1, 6))]
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    offsets = rng.integers(-50, 50, len(rows)).astype(np.int32)
    return Tables(np.concatenate(rows), starts, offsets, 0)


def random_symbols(
    rng: np.random.Generator, tables: Tables, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Symbols drawn from their rows, a few far outside, and the rows."""
    rows = rng.integers(0, len(tables), count).astype(np.int32)
    values = np.empty(count, np.int64)
    for i, row in enumerate(rows):
        cdf = tables.row(int(row))
        values[i] = np.searchsorted(cdf, rng.integers(0, 1 << 16), side="right") - 1
        if values[i] == len(cdf) - 2:  # the escape: behind the end or before the start
            distance = int(2 ** rng.uniform(0, 29.99))
            values[i] = -distance if rng.random() < 0.5 else values[i] - 1 + distance
    symbols = np.clip(values + tables.first_symbols[rows], -(2**30) + 400, 2**30 - 400)
    return symbols.astype(np.int32), rows


def write(name: str, tables: Tables, symbols: np.ndarray, rows: np.ndarray) -> bytes:
    encoder = TFC_IMPLEMENTATIONS[name].encoder(tables)
    encoder.encode(symbols, rows)
    return encoder.finish()


def ops_write(rows: Rows, values: np.ndarray, indexes: np.ndarray) -> bytes:
    ops = tensorflow_core.compression_ops()
    handle = ops.create_range_encoder([], rows.lookup())
    return ops.entropy_encode_finalize(ops.entropy_encode_index(handle, indexes, values)).numpy()


def ops_read(lookup: np.ndarray, data: bytes, indexes: np.ndarray) -> tuple[np.ndarray, bool]:
    """What the ops themselves decode, and whether they find that the stream ends well."""
    ops = tensorflow_core.compression_ops()
    handle = ops.create_range_decoder(data, lookup)
    handle, values = ops.entropy_decode_index(handle, indexes, indexes.shape, np.int32)
    return values.numpy(), bool(ops.entropy_decode_finalize(handle).numpy())


@needs_ops
@needs_native
def test_every_precision_with_and_without_escape_as_the_ops():
    rng = np.random.default_rng(0)
    for trial in range(2000):
        pieces, listed, escapes = [], [], []
        for _ in range(rng.integers(1, 4)):
            precision = int(rng.integers(1, 17))
            cdf = random_cdf(rng, precision)
            # The ops take a lead that equals the end of the row before for a part of that row.
            escape = bool(rng.random() < 0.5 or (pieces and pieces[-1][-1] == precision))
            pieces += [[-precision if escape else precision], cdf]
            listed.append(len(cdf) - 1 - escape)
            escapes.append(escape)
        rows = Rows(np.concatenate(pieces), len(listed))
        count = int(rng.integers(0, 4) if trial % 2 else rng.integers(0, 100))
        indexes = rng.integers(0, len(listed), count).astype(np.int32)
        values = np.zeros(count, np.int32)
        for i, index in enumerate(indexes):
            if escapes[index] and (listed[index] == 0 or rng.random() < 0.03):
                distance = int(2 ** rng.uniform(0, 29.999))
                below = rng.random() < 0.5
                values[i] = -distance if below else min(listed[index] - 1 + distance, 2**30 - 1)
            else:
                values[i] = rng.integers(listed[index])
        data = ops_write(rows, values, indexes)
        assert write("native", rows, values, indexes) == data
        decoder = native.NativeDecoder(rows, data)
        np.testing.assert_array_equal(decoder.decode(indexes), values)
        assert decoder.finish()


@pytest.mark.parametrize("seed", range(10))
def test_all_ways_write_the_same_and_read_each_other(seed):
    rng = np.random.default_rng(seed)
    for count in (0, 1, 2, 5, 40, 400):
        tables = random_tables(rng)
        symbols, rows = random_symbols(rng, tables, count)
        streams = {write(name, tables, symbols, rows) for name in WAYS}
        assert len(streams) == 1
        for name in OURS:
            decoder = TFC_IMPLEMENTATIONS[name].decoder(tables, *streams)
            half = count // 2
            found = [decoder.decode(rows[:half]), decoder.decode(rows[half:])]
            np.testing.assert_array_equal(np.concatenate(found), symbols)
            assert decoder.finish()
        np.testing.assert_array_equal(read_by_the_text(tables, *streams, rows), symbols)


def straddling() -> Tables:
    """Entry 1 of the row keeps 1/2 inside the interval: a carry that stays open for ever."""
    cdf = np.array([0, 32767, 32769, 65535, 65536], np.int32)
    return Tables(cdf, np.array([0, len(cdf)], np.int32), np.zeros(1, np.int32), 0)


@pytest.mark.parametrize("last", [[], [0], [2], [0, 0], [2, 0], [2, 2, 1]])
def test_carries_through_long_runs(last):
    for length in (*range(12), 1000):
        symbols = np.array([1] * length + last, np.int32)
        rows = np.zeros(len(symbols), np.int32)
        streams = {write(name, straddling(), symbols, rows) for name in WAYS}
        assert len(streams) == 1
        for name in OURS:
            decoder = TFC_IMPLEMENTATIONS[name].decoder(straddling(), *streams)
            np.testing.assert_array_equal(decoder.decode(rows), symbols)
            assert decoder.finish()
        np.testing.assert_array_equal(read_by_the_text(straddling(), *streams, rows), symbols)


@pytest.mark.parametrize("cdf", [[0, 65535, 65536], [0, 1, 65535, 65536], [0, 1, 2, 65535, 65536]])
def test_very_long_runs_of_probable_symbols(cdf):
    tables = Tables(
        np.array(cdf, np.int32), np.array([0, len(cdf)], np.int32), np.zeros(1, np.int32), 0
    )
    likely = int(np.argmax(np.diff(cdf)))
    symbols = np.full(300_000, likely, np.int32)
    rows = np.zeros(symbols.size, np.int32)
    streams = {write(name, tables, symbols, rows) for name in WAYS}
    assert len(streams) == 1
    for name in OURS:
        np.testing.assert_array_equal(
            TFC_IMPLEMENTATIONS[name].decoder(tables, *streams).decode(rows), symbols
        )


@pytest.mark.parametrize("first", [0, -5, LIMITS.min, LIMITS.max - 3])
def test_escapes_up_to_the_extremes(first):
    """The ops stop at 2^30; beyond, ours follow the same code."""
    cdf = np.array([0, 20000, 40000, 65536], np.int32)
    tables = Tables(cdf, np.array([0, 4], np.int32), np.array([first], np.int32), 0)
    symbols = np.array([LIMITS.min, LIMITS.max, 0, -1, 1, 2**30, -(2**30), first], np.int32)
    rows = np.zeros(len(symbols), np.int32)
    streams = {write(name, tables, symbols, rows) for name in OURS}
    assert len(streams) == 1
    for name in OURS:
        decoder = TFC_IMPLEMENTATIONS[name].decoder(tables, *streams)
        np.testing.assert_array_equal(decoder.decode(rows), symbols)
        assert decoder.finish()
    np.testing.assert_array_equal(read_by_the_text(tables, *streams, rows), symbols)


@needs_ops
def test_the_ops_are_kept_from_what_they_never_end():
    tables = straddling()
    for symbol in (2**30 - 1, 1 - 2**30):
        data = write("ops", tables, np.array([symbol], np.int32), np.zeros(1, np.int32))
        assert all(
            data == write(name, tables, np.array([symbol]), np.zeros(1, np.int32)) for name in OURS
        )
    for symbol in (2**30, -(2**30), LIMITS.min, LIMITS.max):
        with pytest.raises(ValueError, match="LLIC_TFC=native"):
            write("ops", tables, np.array([symbol], np.int32), np.zeros(1, np.int32))


def damages(rng: np.random.Generator, data: bytes):
    yield data
    yield data + b"\0"
    yield data + b"\0\0\1"
    for _ in range(3):
        yield data[: rng.integers(len(data) + 1)]
    yield rng.bytes(rng.integers(40))
    yield bytes(rng.integers(40))
    yield b"\xff" * int(rng.integers(40))
    for _ in range(4):
        flipped = bytearray(data or b"\0")
        flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
        yield bytes(flipped)
        flipped[-1] ^= 1 << rng.integers(8)
        yield bytes(flipped)


def test_damaged_streams_as_the_ops_read_them():
    """The same symbols and the same verdict on the end, or `CorruptError`; from all of ours alike.

    The ops are asked only where ours find symbols: they may never come back from the others.
    """
    rng = np.random.default_rng(2)
    refused = ended_badly = 0
    for _ in range(40):
        tables = random_tables(rng)
        symbols, rows = random_symbols(rng, tables, int(rng.integers(1, 40)))
        symbols[::9] = 2**29  # a long escape code
        for data in damages(rng, write("python", tables, symbols, rows)):
            found = []
            for name in OURS:
                decoder = TFC_IMPLEMENTATIONS[name].decoder(tables, data)
                try:
                    found.append((decoder.decode(rows).tolist(), decoder.finish()))
                except CorruptError:
                    found.append(None)
            assert all(one == found[0] for one in found)
            if found[0] is None:
                refused += 1
                continue
            ended_badly += not found[0][1]
            if "ops" in WAYS:
                values, ended = ops_read(tables.lookup(), data, rows)
                with np.errstate(over="ignore"):
                    assert (values + tables.first_symbols[rows]).tolist() == found[0][0]
                assert ended == found[0][1]
    assert refused > 20 and ended_badly > 200


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("version_*/*/coder_1.llic")), ids=lambda p: "-".join(p.parts[-3:-1])
)
def test_golden_files_are_written_again_byte_for_byte(path, monkeypatch):
    pieces: list[tuple[np.ndarray, np.ndarray]] = []
    tables: list[Tables] = []

    class Recording:
        def __init__(self, of: Tables, data: bytes):
            self.decoder = TFC_IMPLEMENTATIONS[OURS[0]].decoder(of, data)
            tables.append(of)

        def decode(self, rows):
            pieces.append((self.decoder.decode(rows), rows))
            return pieces[-1][0]

        def finish(self):
            return self.decoder.finish()

    monkeypatch.setitem(CODERS, "tfc", CoderPair(1, None, CODERS["tfc"].encoder, Recording))
    data = path.read_bytes()
    load_codec(GOLDEN / "models" / path.parts[-2]).decode_photographs([data])[0]
    for name in WAYS:
        encoder = TFC_IMPLEMENTATIONS[name].encoder(tables[0])
        for symbols, rows in pieces:
            encoder.encode(symbols, rows)
        assert encoder.finish() == LlicFile.from_bytes(data).payload
    symbols, rows = (np.concatenate([np.ravel(p[i]) for p in pieces]) for i in (0, 1))
    payload = LlicFile.from_bytes(data).payload
    np.testing.assert_array_equal(read_by_the_text(tables[0], payload, rows), symbols)


def read_by_the_text(tables: Tables, data: bytes, rows: np.ndarray) -> list[int]:
    """A reader as docs/bitstream.md describes it, and nothing else."""
    stream = iter(data)

    def byte() -> int:
        return next(stream, 0)

    size = 1 << 32
    code = byte() << 24 | byte() << 16 | byte() << 8 | byte()

    def entry(cdf: list[int], p: int) -> int:
        nonlocal size, code
        for i in range(len(cdf) - 1):
            low, high = size * cdf[i] // 2**p, size * cdf[i + 1] // 2**p
            if low <= code < high:
                break
        else:
            raise AssertionError("no entry owns the code")
        code, size = code - low, high - low
        if size <= 1 << 16:
            code, size = code << 16 | byte() << 8 | byte(), size << 16
        return i

    def distance_and_side() -> tuple[int, int]:
        k = 0
        while entry([0, 1, 2], 1) == 0:
            k += 1
        d = 1
        for _ in range(k):
            d = 2 * d + entry([0, 1, 2], 1)
        return d, entry([0, 1, 2], 1)

    symbols = []
    for r in np.ravel(rows).tolist():
        cdf, first = tables.row(r).tolist(), int(tables.first_symbols[r])
        n = len(cdf) - 1
        i = entry(cdf, 16)
        if i < n - 1:
            symbols.append(first + i)
        else:
            d, side = distance_and_side()
            symbols.append(first - d if side else first + n - 2 + d)
    return symbols


@needs_native
@pytest.mark.parametrize(
    "flat",
    [
        [-17, 0, 1 << 17],
        [0, 0, 1],
        [4, 1, 16],
        [4, 0],
        [4],
        [4, 0, 5, 5, 16],
        [4, 0, 9, 5, 16],
        [4, 0, 17],
        [4, 0, 16, 4],
        [LIMITS.min, 0, 16],
        [4, 0, 16, 4, 0, 16],
        [],
    ],
)
def test_no_coder_is_made_of_wrong_tables(flat):
    rows = Rows(flat, 1)
    with pytest.raises(ValueError, match="tables"):
        native.NativeEncoder(rows)
    with pytest.raises(ValueError, match="tables"):
        native.NativeDecoder(rows, b"abc")


@needs_native
def test_arguments_are_checked_against_each_other():
    rows = Rows([4, 0, 3, 16], 1)
    encoder, decoder = native.NativeEncoder(rows), native.NativeDecoder(rows, b"abc")
    zeros = np.zeros(3, np.int32)
    for bad in (1, -1, LIMITS.max, LIMITS.min):
        with pytest.raises(ValueError, match="row"):
            encoder.encode(zeros, np.array([0, 0, bad], np.int32))
        with pytest.raises(ValueError, match="row"):
            decoder.decode(np.array([bad], np.int32))
    with pytest.raises(ValueError, match="unequal"):
        encoder.encode(zeros, zeros[:2])
    with pytest.raises(ValueError, match="escape"):
        encoder.encode(zeros + 2, zeros)
    library = encoder.library
    done, bad = 0, 2
    assert library.llic_range_encoder_encode(None, zeros, 3, zeros, 3) == bad
    assert library.llic_range_encoder_encode(encoder.handle, zeros, -1, zeros, -1) == bad
    assert library.llic_range_decoder_decode(decoder.handle, zeros, 3, zeros, 2) == bad
    assert library.llic_range_encoder_finish(encoder.handle, None, 0, None) == bad
    needed = ctypes.c_int64()
    small = ctypes.create_string_buffer(b"?", 1)
    fresh = native.NativeEncoder(rows)
    fresh.encode(np.ones(50, np.int32), np.zeros(50, np.int32))
    finish = library.llic_range_encoder_finish
    assert finish(fresh.handle, small, 1, ctypes.byref(needed)) == done
    assert needed.value == len(fresh.finish()) > 1 and small.raw == b"?"


@needs_native
def test_coders_in_several_threads():
    rng = np.random.default_rng(5)
    tables = random_tables(rng)
    symbols, rows = random_symbols(rng, tables, 5000)
    expected = write("python", tables, symbols, rows)
    with ThreadPoolExecutor(4) as pool:
        streams = list(pool.map(lambda _: write("native", tables, symbols, rows), range(16)))
    assert set(streams) == {expected}


def test_the_implementation_is_a_choice(monkeypatch):
    monkeypatch.delenv("LLIC_TFC", raising=False)
    assert tfc_implementation() is TFC_IMPLEMENTATIONS[WAYS[0]]
    assert tfc_implementation("python") is TFC_IMPLEMENTATIONS["python"]
    monkeypatch.setenv("LLIC_TFC", "python")
    assert tfc_implementation() is TFC_IMPLEMENTATIONS["python"]
    assert isinstance(CODERS["tfc"].encoder(straddling()), PythonEncoder)
    assert isinstance(CODERS["tfc"].decoder(straddling(), b""), PythonDecoder)
    monkeypatch.setenv("LLIC_TFC", "fastest")
    with pytest.raises(CoderUnavailableError, match="expected one of ops, native, python"):
        tfc_implementation()
    monkeypatch.setenv("LLIC_NATIVE", "0")
    with pytest.raises(CoderUnavailableError, match="not installed"):
        tfc_implementation("native")


@pytest.mark.parametrize("name", OURS)
def test_no_tensorflow_where_it_is_not_needed(name):
    script = f"""
import sys
from llic_jax.zoo.folder import load_codec
data = open({str(GOLDEN / "version_3" / "elic" / "coder_1.llic")!r}, "rb").read()
load_codec({str(GOLDEN / "models" / "elic")!r}).decode_photographs([data])[0]
assert not [name for name in sys.modules if name.startswith("tensorflow")]
"""
    environment = {**os.environ, "LLIC_TFC": name}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
