"""Parts of a progressive file: whole steps are checked, and what is wrong is left out."""

import dataclasses
import struct
import zlib

import numpy as np
import pytest

from llic_jax.bitstream.file import PROGRESSIVE_VERSION, LlicFile
from llic_jax.bitstream.tags import STEP_CHECKS
from llic_jax.coding.range_coders.tfc_streams import TFC_IMPLEMENTATIONS
from llic_jax.coding.scale_offsets import offset_costs, with_all_rows
from llic_jax.coding.step_checks import Verified, check_count
from llic_jax.coding.symbol_stream import SymbolReader, SymbolWriter
from llic_jax.entropy.walk import Step
from llic_jax.errors import CorruptError
from llic_jax.zoo.folder import load_codec

WAYS = [name for name, way in TFC_IMPLEMENTATIONS.items() if way.installed()]
STEPS = (Step(0, 3, 0), Step(0, 3, 1), Step(3, 8), Step(8, 12))
SIZE = 12
HEADER = LlicFile(bytes(range(8)), 1, 1.5, 192, 192, 0, 400, b"", {}, version=PROGRESSIVE_VERSION)


class Stream:
    """Made-up symbols of a model's tables, and the progressive file that holds them."""

    def __init__(self, tables, steps: int = len(STEPS)):
        rng = np.random.default_rng(4)
        self.tables, self.steps = tables, STEPS[:steps]
        self.z = rng.integers(-1, 2, (3, 3, tables.hyper_rows)).astype(np.int32)
        self.positions, self.symbols = [], []
        writer = SymbolWriter(HEADER, tables, offset_costs(tables))
        writer.write_hyper(self.z)
        for step in STEPS[:steps]:
            shape = (SIZE, SIZE // (1 if step.parity is None else 2), step.channels)
            self.positions.append(rng.uniform(0, 40, shape))
            scale = 0.11 * np.exp(self.positions[-1] / 12)
            self.symbols.append(np.rint(rng.normal(0, scale)).astype(np.int32))
            writer.write(step, self.symbols[-1], self.positions[-1])
        self.payload, crc, checks = writer.finish()
        self.file = dataclasses.replace(
            HEADER, payload=self.payload, symbols_crc=crc, sections={STEP_CHECKS: checks}
        )

    def part(self, size: int, payload: bytes | None = None) -> LlicFile:
        """The file with so many bytes of its payload, or of another one."""
        content = (self.payload if payload is None else payload)[:size]
        missing = len(self.payload) - size
        return dataclasses.replace(self.file, payload=content, missing=missing, whole=False)

    def read(self, file: LlicFile) -> tuple[list[np.ndarray], Verified | None]:
        reader = SymbolReader(file, self.tables)
        found = [reader.read_hyper(self.z.shape)]
        found += [reader.read(s, p) for s, p in zip(self.steps, self.positions, strict=True)]
        reader.finish()
        return found, reader.verified

    @property
    def own(self) -> list[np.ndarray]:
        return [self.z, *self.symbols]


@pytest.fixture(scope="module")
def tables(tiny_release):
    return with_all_rows(load_codec(tiny_release).model.tables)


@pytest.fixture(scope="module")
def stream(tables):
    return Stream(tables)


@pytest.fixture(scope="module")
def ends(tables):
    """Bytes of the payload up to the end of `z` and of each step."""
    return [len(Stream(tables, steps).payload) for steps in range(len(STEPS) + 1)]


def equal(found, own) -> list[bool]:
    return [np.array_equal(*pair) for pair in zip(found, own, strict=True)]


def test_a_whole_file_is_verified(stream):
    found, verified = stream.read(stream.file)
    assert all(equal(found, stream.own)) and verified == (5, 5, False)


def test_the_checks_are_those_of_the_documented_checksum(tables, stream):
    """Of the header and `z`; of two steps less, the last is that of the whole."""
    crc = zlib.crc32(stream.z.astype("<i4").tobytes(), zlib.crc32(HEADER.checksummed_header))
    checks = struct.unpack("<5H", stream.file.sections[STEP_CHECKS])
    assert checks[0] == crc & 0xFFFF and checks[4] == stream.file.symbols_crc & 0xFFFF
    shorter = Stream(tables, 2).file
    assert shorter.symbols_crc & 0xFFFF == checks[2]
    assert shorter.sections[STEP_CHECKS] == stream.file.sections[STEP_CHECKS][:6]


@pytest.mark.parametrize("way", WAYS)
def test_every_cut_verifies_the_steps_that_are_there(stream, ends, monkeypatch, way):
    monkeypatch.setenv("LLIC_TFC", way)
    assert ends == sorted(set(ends)) and ends[-1] == len(stream.payload)
    every = 1 if way == "native" else 37
    for size in [*range(0, len(stream.payload), every), len(stream.payload)]:
        found, verified = stream.read(stream.part(size))
        assert verified.total == 5 and not verified.refuted
        # A step counts once all of its symbols are certain: 64 bits and 1 % behind its end.
        least = sum(size >= 1.02 * end + 12 for end in ends)
        most = sum(size >= end - 4 for end in ends)
        assert least <= verified.steps <= most or size == len(stream.payload)
        assert all(equal(found, stream.own)[: verified.steps])
        first_other = [np.flatnonzero(f != o) for f, o in zip(found, stream.own, strict=True)]
        for symbols, others in zip(found, first_other, strict=True):
            assert not others.size or not symbols.ravel()[others[0] :].any()
    assert verified.steps == 5  # of a file that lacks no more than its checksum


@pytest.mark.parametrize("way", WAYS)
def test_damage_is_found_at_the_end_of_its_step_and_left_out(stream, ends, monkeypatch, way):
    monkeypatch.setenv("LLIC_TFC", way)
    rng = np.random.default_rng(9)
    for _ in range(200 if way == "native" else 20):
        damaged = bytearray(stream.payload)
        place = int(rng.integers(ends[0] + 4, ends[3] - 4))
        damaged[place] ^= int(rng.integers(1, 256))
        of_step = sum(place >= end for end in ends)  # 1 to 3
        found, verified = stream.read(stream.part(len(damaged) - 1, bytes(damaged)))
        assert verified == (verified.steps, 5, True)
        assert verified.steps in (of_step - 1, of_step)  # the coder is ahead by some bytes
        assert all(equal(found, stream.own)[: verified.steps])
        assert not any(symbols.any() for symbols in found[verified.steps :])
        assert f"step {verified.steps + 1} of 5 does not fit" in verified.warning


def test_damage_just_before_the_end_of_a_part_is_not_vouched_for(stream, ends):
    """Of a step that is not whole nothing is checked; those before it are."""
    damaged = bytearray(stream.payload[: ends[3] - 20])
    damaged[ends[2] + 30] ^= 1
    found, verified = stream.read(stream.part(len(damaged), bytes(damaged)))
    assert verified == (3, 5, False) and not verified.warning
    assert equal(found, stream.own) == [True, True, True, False, False] and found[3].any()


def test_damage_in_z_is_an_error(stream):
    damaged = bytes([stream.payload[0] ^ 1]) + stream.payload[1:]
    with pytest.raises(CorruptError, match="from step 1 of 5 on: the file is damaged, or"):
        stream.read(stream.part(300, damaged))


@pytest.mark.parametrize("change", [{"width": 191}, {"quality": 1.25}, {"fingerprint": bytes(8)}])
def test_a_header_that_the_symbols_are_not_bound_to_is_an_error(stream, change):
    with pytest.raises(CorruptError, match="from step 1 of 5 on"):
        stream.read(dataclasses.replace(stream.part(300), **change))


def test_damage_in_a_payload_that_is_all_there_is_left_out(stream, ends):
    """Where a file lacks no more than its own checksum."""
    damaged = bytearray(stream.payload)
    damaged[ends[3] + 20] ^= 1
    found, verified = stream.read(stream.part(len(damaged), bytes(damaged)))
    assert verified == (4, 5, True) and not found[4].any()
    assert all(equal(found, stream.own)[:4])


def test_a_whole_file_that_does_not_fit_is_refused_at_the_step(stream):
    """As on a platform that computes other probabilities."""
    checks = bytearray(stream.file.sections[STEP_CHECKS])
    checks[4] ^= 1
    other = dataclasses.replace(stream.file, sections={STEP_CHECKS: bytes(checks)})
    with pytest.raises(CorruptError, match="from step 3 of 5 on: this platform"):
        stream.read(other)
    unchecked = dataclasses.replace(stream.file, sections={}, symbols_crc=1)
    with pytest.raises(CorruptError, match="those that were coded: this platform"):
        stream.read(unchecked)


def test_without_checks_nothing_is_verified(stream):
    part = dataclasses.replace(stream.part(300), sections={})
    found, verified = stream.read(part)
    assert verified is None and all(equal(found, stream.own)[:4])
    # A section of this tag in an older version is someone else's.
    older = dataclasses.replace(part, sections={STEP_CHECKS: b"other"}, version=3)
    check_count(older, 4)
    assert stream.read(older)[1] is None


@pytest.mark.parametrize("size", [0, 8, 9, 11, 12])
def test_checks_of_another_number_of_steps_are_refused(stream, size):
    other = dataclasses.replace(stream.file, sections={STEP_CHECKS: bytes(size)})
    with pytest.raises(CorruptError, match=f"has {size} bytes; expected 10 for"):
        check_count(other, 4)
    check_count(stream.file, 4)
