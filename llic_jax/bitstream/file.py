"""The `.llic` file: header and sections to bytes and back. Pure; the format: docs/bitstream.md."""

import dataclasses
import struct
import zlib
from collections.abc import Collection

from llic_jax.errors import (
    ArgumentTypeError,
    CorruptError,
    ImageSizeError,
    NotLlicError,
    TruncatedError,
    UnknownSectionError,
    VersionError,
)

MAGIC = b"LLIC"
VERSION = 3  # of the files that are written; versions 1 and 2 are read too
FINGERPRINT_BYTES = 8
MAX_SIDE = 1 << 20
QUALITY_STEPS = 256  # per level: what the file can tell apart

SKIPPABLE = 128  # sections of this tag and above may be passed over by a reader

_PREFIX = struct.Struct(f"<4sB{FINGERPRINT_BYTES}sBHI")
_UNITS = struct.Struct("<H")
_CHECKSUM = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class File:
    """What a `.llic` file says.

    fingerprint: of the model that wrote it (config, weights and tables), 8 bytes.
    coder: number of the range coder. quality: from 1 in steps of 1/256; 0 for a model of one rate.
    width, height: of the image, pixels. symbols_crc: CRC-32 of `identity` and the coded symbols.
    units: of the agreement on table rows (`coding/row_shifts.py`), to a level; 0: none.
    payload: the range coder's bytes. sections: what else belongs to the image, by tag, 1 to 255.
    version: of the format.
    """

    fingerprint: bytes
    coder: int
    quality: float
    width: int
    height: int
    symbols_crc: int
    units: int
    payload: bytes
    sections: dict[int, bytes] = dataclasses.field(default_factory=dict)
    version: int = VERSION

    @property
    def identity(self) -> bytes:
        """What of the header decides which image the symbols make; nothing in version 1."""
        if self.version == 1:
            return b""
        quality = round(self.quality * QUALITY_STEPS)
        sizes = _varint(self.width) + _varint(self.height)
        return self.fingerprint + _UNITS.pack(quality) + _UNITS.pack(self.units) + sizes

    def to_bytes(self) -> bytes:
        """The file's bytes.

        Raises:
          ImageSizeError: no pixels, or a side above 2^20.
        """
        _check_size(self.width, self.height)
        body = _PREFIX.pack(
            MAGIC,
            self.version,
            self.fingerprint,
            self.coder,
            round(self.quality * QUALITY_STEPS),
            self.symbols_crc,
        )
        if self.version > 1:
            body += _UNITS.pack(self.units)
        body += _varint(self.width) + _varint(self.height)
        body += _varint(len(self.payload)) + self.payload
        for tag, content in sorted(self.sections.items()):
            body += bytes([tag]) + _varint(len(content)) + content
        return body + _CHECKSUM.pack(zlib.crc32(body))


def parse(data: bytes, known: Collection[int] = ()) -> File:
    """Reads a file's bytes; nothing of the payload is decoded, no byte outside `data` is read.

    known: tags of sections below `SKIPPABLE` that the caller understands.

    Raises:
      NotLlicError, VersionError, TruncatedError, CorruptError, ImageSizeError, UnknownSectionError:
        see there.
    """
    data = as_bytes(data)
    if data[: len(MAGIC)] != MAGIC:
        if MAGIC.startswith(data[: len(MAGIC)]):
            raise TruncatedError(f"The file ends after {len(data)} bytes, within its first word.")
        raise NotLlicError(
            f"Not a .llic file: it starts with {data[:4]!r}, expected {MAGIC!r}. "
            "Is it an image to compress?"
        )
    if len(data) > len(MAGIC) and not 1 <= data[len(MAGIC)] <= VERSION:
        raise VersionError(
            f"The file is of format version {data[len(MAGIC)]}; this software reads versions 1 to "
            f"{VERSION}. Install a newer llic_jax."
        )
    try:
        file = _parse(data)
    except (TruncatedError, CorruptError):
        if following := _following(data):
            raise CorruptError(
                f"{following} bytes follow the end of the file; expected none. Up to there it is "
                "sound: cut them off."
            ) from None
        raise
    for tag in file.sections:
        if tag < SKIPPABLE and tag not in known:
            raise UnknownSectionError(
                f"The file has a section {tag} that this software does not know and may not pass "
                "over. Install a newer llic_jax."
            )
    return file


def as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """The bytes of a bytes-like object.

    Raises:
      ArgumentTypeError: anything else.
    """
    if isinstance(data, bytes):
        return data
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise ArgumentTypeError(
            f"Found {type(data).__name__}; expected the bytes of a .llic file (bytes, bytearray, "
            "memoryview). A file's are Path(name).read_bytes()."
        ) from None


def _parse(data: bytes) -> File:
    reader = _Reader(data)
    _, version, fingerprint, coder, quality, symbols_crc = _PREFIX.unpack(reader.take(_PREFIX.size))
    (units,) = _UNITS.unpack(reader.take(_UNITS.size)) if version > 1 else (0,)
    width, height = reader.varint(), reader.varint()
    payload = reader.take(reader.varint())
    sections: dict[int, bytes] = {}
    while version > 1 and reader.left > _CHECKSUM.size:
        tag = reader.take(1)[0]
        if tag in sections or tag == 0:
            raise CorruptError(f"Section {tag} stands twice in the file, or is none; expected not.")
        sections[tag] = reader.take(reader.varint())
    end = reader.position
    (checksum,) = _CHECKSUM.unpack(reader.take(_CHECKSUM.size))
    if reader.left:
        raise CorruptError(f"{reader.left} bytes follow the end of the file; expected none.")
    if checksum != zlib.crc32(data[:end]):
        raise CorruptError(
            "The checksum does not fit: the file was damaged after it was written. "
            "Get it anew from where it came from."
        )
    _check_size(width, height)
    return File(
        fingerprint,
        coder,
        quality / QUALITY_STEPS,
        width,
        height,
        symbols_crc,
        units,
        payload,
        sections,
        version,
    )


def _following(data: bytes) -> int:
    """The number of bytes behind the end of a sound file; 0 if no sound file starts here."""
    reader = _Reader(data)
    try:
        version = reader.take(_PREFIX.size)[len(MAGIC)]
        reader.take(_UNITS.size if version > 1 else 0)
        reader.varint(), reader.varint()
        reader.take(reader.varint())
        start = crc = 0
        while reader.left > _CHECKSUM.size:
            end = reader.position
            crc, start = zlib.crc32(data[start:end], crc), end
            if crc == _CHECKSUM.unpack_from(data, end)[0]:
                return reader.left - _CHECKSUM.size
            reader.take(1)
            reader.take(reader.varint())
    except (TruncatedError, CorruptError):
        pass
    return 0


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ImageSizeError(
            f"An image of {width} x {height} pixels; each side must lie in 1 .. {MAX_SIDE}."
        )


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first, the high bit set on all but the last (LEB128)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.position = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise TruncatedError(
                f"The file ends after {len(self.data)} bytes; at least {end} were expected. "
                "Was it copied whole?"
            )
        chunk = self.data[self.position : end]
        self.position = end
        return chunk

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise CorruptError("A length in the header has no end; the file is damaged.")
