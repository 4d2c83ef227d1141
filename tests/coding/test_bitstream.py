import contextlib
import struct
import zlib

import numpy as np
import pytest

from llic_jax.coding import bitstream
from llic_jax.coding.bitstream import (
    BitstreamError,
    CorruptError,
    File,
    ImageSizeError,
    NotLlicError,
    TruncatedError,
    VersionError,
)

FILE = File(
    fingerprint=bytes(range(8)),
    coder=2,
    quality=3.25,
    width=513,
    height=7,
    symbols_crc=0xDEADBEEF,
    payload=bytes(range(200)),
)


def test_round_trip():
    assert bitstream.parse(FILE.to_bytes()) == FILE


def test_the_header_is_as_documented():
    data = FILE.to_bytes()
    assert data[:5] == b"LLIC\x01"
    assert data[5:13] == FILE.fingerprint
    assert struct.unpack("<BHI", data[13:20]) == (2, 3 * 256 + 64, 0xDEADBEEF)
    assert data[20:22] == bytes([513 & 0x7F | 0x80, 513 >> 7]) and data[22] == 7
    assert data[23:25] == bytes([200 & 0x7F | 0x80, 1]) and data[25:225] == FILE.payload
    assert data[225:] == struct.pack("<I", zlib.crc32(data[:225]))


def test_every_flipped_bit_is_found():
    data = FILE.to_bytes()
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(BitstreamError):
                bitstream.parse(bytes(damaged))


def test_every_truncation_is_found():
    data = FILE.to_bytes()
    for length in range(len(data)):
        with pytest.raises(TruncatedError, match=f"after {length} bytes"):
            bitstream.parse(data[:length])


def test_bytes_that_follow_are_found():
    with pytest.raises(CorruptError, match="3 bytes follow"):
        bitstream.parse(FILE.to_bytes() + b"abc")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n0000", b"hello, world", b"llic"])
def test_other_files_are_told_apart(data):
    with pytest.raises(NotLlicError, match="expected b'LLIC'"):
        bitstream.parse(data)


def test_a_newer_version_is_named():
    with pytest.raises(VersionError, match="version 2"):
        bitstream.parse(b"LLIC\x02" + FILE.to_bytes()[5:])


@pytest.mark.parametrize("width", [0, bitstream.MAX_SIDE + 1])
def test_absurd_sizes_are_refused(width):
    with pytest.raises(ImageSizeError):
        File(**{**FILE.__dict__, "width": width}).to_bytes()


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def test_absurd_sizes_in_a_header_with_the_right_checksum_are_refused():
    prefix = FILE.to_bytes()[:20]
    with pytest.raises(ImageSizeError):
        bitstream.parse(sealed(prefix + b"\x00\x07\x00"))
    with pytest.raises(ImageSizeError):
        bitstream.parse(sealed(prefix + b"\xff\xff\xff\xff\x0f\x07\x00"))
    with pytest.raises(CorruptError, match="no end"):
        bitstream.parse(sealed(prefix + b"\xff" * 9))


def test_random_bytes_raise_nothing_else():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        body = b"LLIC\x01" + rng.integers(0, 256, rng.integers(0, 60), np.uint8).tobytes()
        with contextlib.suppress(BitstreamError):
            bitstream.parse(sealed(body))
