import contextlib
import dataclasses
import struct
import zlib

import numpy as np
import pytest

from llic_jax.bitstream import file as bitstream
from llic_jax.bitstream.file import LlicFile
from llic_jax.errors import (
    BitstreamError,
    CorruptError,
    ImageSizeError,
    NotLlicError,
    TruncatedError,
    UnknownSectionError,
    VersionError,
)

FILE = LlicFile(
    fingerprint=bytes(range(8)),
    coder=2,
    quality=3.25,
    width=513,
    height=7,
    symbols_crc=0xDEADBEEF,
    shift_resolution=400,
    payload=bytes(range(200)),
    sections={200: b"later", 130: b""},
)


def test_round_trip():
    assert LlicFile.from_bytes(FILE.to_bytes()) == FILE


def test_the_header_is_as_documented():
    data = FILE.to_bytes()
    assert data[:5] == b"LLIC\x03"
    assert data[5:13] == FILE.fingerprint
    assert struct.unpack("<BHIH", data[13:22]) == (2, 3 * 256 + 64, 0xDEADBEEF, 400)
    assert data[22:24] == bytes([513 & 0x7F | 0x80, 513 >> 7]) and data[24] == 7
    assert data[25:27] == bytes([200 & 0x7F | 0x80, 1]) and data[27:227] == FILE.payload
    assert data[227:229] == bytes([130, 0]) and data[229:236] == bytes([200, 5]) + b"later"
    assert data[236:] == struct.pack("<I", zlib.crc32(data[:236]))


FIRST = dataclasses.replace(FILE, version=1, shift_resolution=0, sections={})


def test_the_first_version_is_still_read():
    data = FIRST.to_bytes()
    assert data[4] == 1 and data[20:22] == FILE.to_bytes()[22:24]
    assert LlicFile.from_bytes(data) == FIRST and FIRST.checksummed_header == b""


PICTURE = LlicFile.of_picture(513, 7, {2: b"a picture", 130: b""})


def test_a_file_without_networks_has_size_and_sections():
    data = PICTURE.to_bytes()
    assert data[:5] == b"LLIC\x04" and data[5:8] == FILE.to_bytes()[22:25]
    assert data[8:19] == bytes([2, 9]) + b"a picture" and data[19:21] == bytes([130, 0])
    assert data[21:] == struct.pack("<I", zlib.crc32(data[:21]))
    assert LlicFile.from_bytes(data) == PICTURE and PICTURE.other_coding == "WebP"
    assert PICTURE.coder_name == ""


PROGRESSIVE = dataclasses.replace(FILE, version=5)


def test_a_progressive_file_has_its_sections_before_the_payload():
    data, plain = PROGRESSIVE.to_bytes(), FILE.to_bytes()
    assert data[:5] == b"LLIC\x05" and data[5:25] == plain[5:25]
    assert data[25] == 9 and data[26:35] == bytes([130, 0, 200, 5]) + b"later"
    assert data[35:237] == plain[25:227]  # the payload and its length
    assert data[237:] == struct.pack("<I", zlib.crc32(data[:237])) and len(data) == len(plain) + 1
    assert LlicFile.from_bytes(data) == PROGRESSIVE
    assert PROGRESSIVE.checksummed_header == FILE.checksummed_header


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 20_000])
def test_progressive_files_round_trip(size):
    """Lengths of all sections on both sides of a varint's bytes."""
    for sections in ({}, {255: bytes(size)}, {1: bytes(size), 2: b"", 135: bytes(size)}):
        for payload in (b"", bytes(size)):
            file = dataclasses.replace(PROGRESSIVE, sections=sections, payload=payload)
            assert LlicFile.from_bytes(file.to_bytes()) == file


def test_the_identity_tells_headers_apart():
    changes = [{"width": 514}, {"height": 8}, {"quality": 3.5}, {"shift_resolution": 401}]
    changes += [{"fingerprint": bytes(8)}, {}]
    found = {dataclasses.replace(FILE, **change).checksummed_header for change in changes}
    assert len(found) == len(changes)


def test_sections_that_must_be_understood_are_not_passed_over():
    data = dataclasses.replace(FILE, sections={5: b"new"}).to_bytes()
    with pytest.raises(UnknownSectionError, match="section 5"):
        LlicFile.from_bytes(data)
    assert LlicFile.from_bytes(data, known=[5]).sections == {5: b"new"}


def test_a_section_stands_once():
    body = FILE.to_bytes()[:-4]
    with pytest.raises(CorruptError, match="twice"):
        LlicFile.from_bytes(sealed(body + bytes([130, 0])))
    with pytest.raises(CorruptError, match="twice"):
        LlicFile.from_bytes(sealed(body + bytes([0, 0, 1, 0])))


def with_sections(content: bytes, size: int | None = None) -> bytes:
    """A progressive file with these bytes as its sections, of a length that may be another."""
    data = PROGRESSIVE.to_bytes()
    length = len(content) if size is None else size
    return sealed(data[:25] + bytes([length]) + content + data[35:-4])


def test_wrong_sections_of_a_progressive_file_are_errors():
    assert LlicFile.from_bytes(with_sections(bytes([200, 1, 7]))).sections == {200: b"\7"}
    for tags in ((130, 0, 130, 0), (0, 0), (0, 0, 1, 0)):
        with pytest.raises(CorruptError, match="twice"):
            LlicFile.from_bytes(with_sections(bytes(tags)))
    for cut in (bytes([130]), bytes([200, 2, 7])):
        with pytest.raises(CorruptError, match=f"behind the {len(cut)} bytes that all"):
            LlicFile.from_bytes(with_sections(cut))
    unknown = with_sections(bytes([5, 0]))
    with pytest.raises(UnknownSectionError, match="section 5"):
        LlicFile.from_bytes(unknown)
    with pytest.raises(UnknownSectionError, match="section 5"):
        LlicFile.from_start(unknown[:-40])
    assert LlicFile.from_bytes(unknown, known=[5]).sections == {5: b""}
    with pytest.raises(BitstreamError):
        LlicFile.from_bytes(with_sections(bytes([200, 1, 7]), size=2))


@pytest.mark.parametrize("file", [FILE, PICTURE, PROGRESSIVE])
def test_every_flipped_bit_is_found(file):
    data = file.to_bytes()
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(BitstreamError):
                LlicFile.from_bytes(bytes(damaged))


@pytest.mark.parametrize("file", [FILE, PICTURE, PROGRESSIVE])
def test_every_truncation_is_found(file):
    data = file.to_bytes()
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            LlicFile.from_bytes(data[:length])


def test_a_file_that_is_too_short_is_called_so():
    data = FILE.to_bytes()
    for length in range(227):  # within header and payload the file is known to be too short
        with pytest.raises(TruncatedError, match=f"after {length} bytes"):
            LlicFile.from_bytes(data[:length])


def test_bytes_that_follow_are_found():
    with pytest.raises(CorruptError, match="3 bytes follow"):
        LlicFile.from_bytes(FIRST.to_bytes() + b"abc")
    with pytest.raises(BitstreamError):
        LlicFile.from_bytes(FILE.to_bytes() + b"abc")
    for following in (b"abc", bytes(1), PROGRESSIVE.to_bytes()):
        with pytest.raises(CorruptError, match=f"{len(following)} bytes follow .* is sound"):
            LlicFile.from_bytes(PROGRESSIVE.to_bytes() + following)
    with pytest.raises(CorruptError, match="3 bytes follow"):
        LlicFile.from_bytes(PICTURE.to_bytes() + b"abc")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n0000", b"hello, world", b"llic"])
def test_other_files_are_told_apart(data):
    with pytest.raises(NotLlicError, match="expected b'LLIC'"):
        LlicFile.from_bytes(data)


def test_a_newer_version_is_named():
    with pytest.raises(VersionError, match=r"version 6; .* versions 1 to 5\. Install a newer"):
        LlicFile.from_bytes(b"LLIC\x06" + FILE.to_bytes()[5:])


@pytest.mark.parametrize("width", [0, bitstream.MAX_SIDE + 1])
def test_absurd_sizes_are_refused(width):
    with pytest.raises(ImageSizeError):
        LlicFile(**{**FILE.__dict__, "width": width}).to_bytes()


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def test_absurd_sizes_in_a_header_with_the_right_checksum_are_refused():
    prefix = FILE.to_bytes()[:22]
    with pytest.raises(ImageSizeError):
        LlicFile.from_bytes(sealed(prefix + b"\x00\x07\x00"))
    with pytest.raises(ImageSizeError):
        LlicFile.from_bytes(sealed(prefix + b"\xff\xff\xff\xff\x0f\x07\x00"))
    with pytest.raises(CorruptError, match="no end"):
        LlicFile.from_bytes(sealed(prefix + b"\xff" * 9))


def test_random_bytes_raise_nothing_else():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        body = (
            b"LLIC"
            + bytes([rng.integers(1, 6)])
            + rng.integers(0, 256, rng.integers(0, 60), np.uint8).tobytes()
        )
        with contextlib.suppress(BitstreamError):
            LlicFile.from_bytes(sealed(body))


def test_the_start_of_a_file_is_read_as_far_as_it_goes():
    data = FILE.to_bytes()
    for length in range(len(data)):
        if length < 27:  # the header is not whole
            with pytest.raises(TruncatedError, match=f"after {length} bytes"):
                LlicFile.from_start(data[:length])
            continue
        with contextlib.suppress(CorruptError):  # a cut section may end as a whole file would
            file = LlicFile.from_start(data[:length])
            there = min(length - 27, 200)
            assert file.payload == FILE.payload[:there] and file.missing == 200 - there
            assert file.share == there / 200 and not file.whole and file.sections == {}
            assert (file.width, file.height, file.quality) == (513, 7, 3.25)
            with pytest.raises(TruncatedError, match="expected all of it"):
                file.to_bytes()
    assert LlicFile.from_start(data) == FILE and FILE.share == 1


def test_the_start_of_a_progressive_file_has_its_sections():
    data = PROGRESSIVE.to_bytes()
    for length in range(len(data)):
        if length < 37:  # the length of the payload is not there
            with pytest.raises(TruncatedError, match=f"after {length} bytes"):
                LlicFile.from_start(data[:length])
            continue
        file, there = LlicFile.from_start(data[:length]), min(length - 37, 200)
        assert file.payload == FILE.payload[:there] and file.missing == 200 - there
        assert file.sections == FILE.sections and not file.whole
    assert LlicFile.from_start(data) == PROGRESSIVE


def test_a_preview_is_named_where_it_shows_something():
    """Not where the header is cut, least of all by a preview itself."""
    for file, header in ((FILE, 27), (PROGRESSIVE, 37)):
        data = file.to_bytes()
        for length in range(len(data) - 4):
            with pytest.raises(BitstreamError) as found:
                LlicFile.from_bytes(data[:length])
            said = str(found.value)
            assert ("--preview" in said) == (length >= header) or "checksum" in said
            if length < header:
                with pytest.raises(TruncatedError) as found:
                    LlicFile.from_start(data[:length])
                assert "--preview" not in str(found.value)
    with pytest.raises(TruncatedError, match="after 30 bytes; at least 35 were expected"):
        LlicFile.from_start(PROGRESSIVE.to_bytes()[:30])  # the sections are 9 bytes, from 26 on


def test_no_part_of_a_picture_in_a_section_is_read():
    data = PICTURE.to_bytes()
    for length in range(len(data)):
        with pytest.raises(BitstreamError) as found:
            LlicFile.from_start(data[:length])
        assert "--preview" not in str(found.value)
