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


@pytest.mark.parametrize("file", [FILE, PICTURE])
def test_every_flipped_bit_is_found(file):
    data = file.to_bytes()
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(BitstreamError):
                LlicFile.from_bytes(bytes(damaged))


@pytest.mark.parametrize("file", [FILE, PICTURE])
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
    with pytest.raises(CorruptError, match="3 bytes follow"):
        LlicFile.from_bytes(PICTURE.to_bytes() + b"abc")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n0000", b"hello, world", b"llic"])
def test_other_files_are_told_apart(data):
    with pytest.raises(NotLlicError, match="expected b'LLIC'"):
        LlicFile.from_bytes(data)


def test_a_newer_version_is_named():
    with pytest.raises(VersionError, match="version 5"):
        LlicFile.from_bytes(b"LLIC\x05" + FILE.to_bytes()[5:])


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
            + bytes([rng.integers(1, 3)])
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


def test_no_part_of_a_picture_in_a_section_is_read():
    data = PICTURE.to_bytes()
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            LlicFile.from_start(data[:length])
