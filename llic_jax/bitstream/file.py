"""The `.llic` file: header and sections to bytes and back. Pure; the format: docs/bitstream.md."""

import dataclasses
import struct
import zlib
from collections.abc import Collection, Mapping
from typing import Any

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
VERSION = 3  # of files that the networks code; versions 1 and 2 are read too
PICTURE_VERSION = 4  # of files that hold their picture in a section, and name no model
PROGRESSIVE_VERSION = 5  # of files of the networks whose sections come before the payload
FINGERPRINT_BYTES = 8
MAX_SIDE = 1 << 20
QUALITY_STEPS = 256  # per level: what the file can tell apart

# The range coders by their numbers in the header (`coding/range_coders/registry.py`).
CODER_NAMES = {1: "tfc", 2: "constriction, equal widths", 3: "constriction"}

SKIPPABLE = 128  # sections of this tag and above may be passed over by a reader
# Sections that hold the picture (`codec/fallback.py`).
LOSSLESS, WEBP, JPEG = 1, 2, 3
OTHER_CODINGS = {LOSSLESS: "lossless WebP", WEBP: "WebP", JPEG: "JPEG"}

_START = struct.Struct("<4sB")  # magic, version
_OF_NETWORKS = struct.Struct(f"<{FINGERPRINT_BYTES}sBHI")
_UINT16 = struct.Struct("<H")
_CHECKSUM = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class LlicFile:
    """Everything that a `.llic` file holds.

    Version 4 has only size and sections.

    Attributes:
        fingerprint: Of the model that wrote it (config, weights and tables), 8 bytes; empty in
            version 4.
        coder: Number of the range coder (`CODER_NAMES`); 0 in version 4.
        quality: From 1 in steps of 1/256; 0 for a model of one rate, and in version 4.
        width: Of the image, pixels.
        height: Of the image, pixels.
        symbols_crc: CRC-32 of `checksummed_header` and the coded symbols.
        shift_resolution: Row shifts per table row (`coding/row_shifts.py`); 0: no row shifts.
        payload: The range coder's bytes.
        sections: What else belongs to the image, by tag, 1 to 255.
        version: Of the format.
        whole: Whether all of it was there; False from `from_start` alone. Without sections then,
            unless they come before the payload.
        missing: Bytes of the payload that were not.
    """

    fingerprint: bytes
    coder: int
    quality: float
    width: int
    height: int
    symbols_crc: int
    shift_resolution: int
    payload: bytes
    sections: dict[int, bytes] = dataclasses.field(default_factory=dict)
    version: int = VERSION
    whole: bool = True
    missing: int = 0

    @classmethod
    def of_picture(cls, width: int, height: int, sections: Mapping[int, bytes]) -> "LlicFile":
        """A file of version 4, which needs neither networks nor range coder.

        Args:
            width: Of the image, pixels.
            height: Of the image, pixels.
            sections: By tag; one of them is the picture.
        """
        return cls(b"", 0, 0.0, width, height, 0, 0, b"", dict(sections), PICTURE_VERSION)

    @property
    def other_coding(self) -> str | None:
        """Name of the format that holds the picture; None where it is the networks' payload."""
        return next((OTHER_CODINGS[tag] for tag in self.sections if tag in OTHER_CODINGS), None)

    @property
    def coder_name(self) -> str:
        """Of the range coder; its number if it is not known; empty in version 4."""
        if self.version == PICTURE_VERSION:
            return ""
        return CODER_NAMES.get(self.coder, str(self.coder))

    @property
    def checksummed_header(self) -> bytes:
        """The fields that decide which image the symbols make; none in versions 1 and 4."""
        if self.version in (1, PICTURE_VERSION):
            return b""
        quality = round(self.quality * QUALITY_STEPS)
        sizes = _varint(self.width) + _varint(self.height)
        return (
            self.fingerprint + _UINT16.pack(quality) + _UINT16.pack(self.shift_resolution) + sizes
        )

    @property
    def share(self) -> float:
        """How much of the payload is there, 0 to 1."""
        whole = len(self.payload) + self.missing
        return len(self.payload) / whole if whole else 1.0

    def to_bytes(self) -> bytes:
        """Writes the file.

        Returns:
            The file's bytes.

        Raises:
            ImageSizeError: No pixels, or a side above 2^20.
            TruncatedError: A part of it is missing.
        """
        _check_size(self.width, self.height)
        if not self.whole:
            raise TruncatedError(
                f"Found a part of a file, of whose payload {self.missing} bytes are missing; "
                "expected all of it. Read it by LlicFile.from_bytes."
            )
        body = _START.pack(MAGIC, self.version)
        if self.version != PICTURE_VERSION:
            quality = round(self.quality * QUALITY_STEPS)
            body += _OF_NETWORKS.pack(self.fingerprint, self.coder, quality, self.symbols_crc)
            if self.version > 1:
                body += _UINT16.pack(self.shift_resolution)
        body += _varint(self.width) + _varint(self.height)
        sections = b"".join(
            bytes([tag]) + _varint(len(content)) + content
            for tag, content in sorted(self.sections.items())
        )
        if self.version == PROGRESSIVE_VERSION:
            body += _varint(len(sections)) + sections
        if self.version != PICTURE_VERSION:
            body += _varint(len(self.payload)) + self.payload
        if self.version != PROGRESSIVE_VERSION:
            body += sections
        return body + _CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: Any, known: Collection[int] = tuple(OTHER_CODINGS)) -> "LlicFile":
        """Reads a file. The payload is not decoded, and no byte outside `data` is read.

        Args:
            data: The file's bytes: `bytes`, or another bytes-like object.
            known: Tags of sections below `SKIPPABLE` that the caller understands; by default those
                that every reader of this version does.

        Returns:
            The file's fields.

        Raises:
            ArgumentTypeError: `data` is no bytes-like object.
            NotLlicError: The bytes are those of another kind of file.
            VersionError: The format is newer than this software.
            TruncatedError: The file ends too early.
            CorruptError: The bytes have changed since they were written.
            ImageSizeError: The header gives no pixels, or a side above 2^20.
            UnknownSectionError: A section that must be understood is not in `known`.
        """
        data = as_bytes(data)
        if data[: len(MAGIC)] != MAGIC:
            if MAGIC.startswith(data[: len(MAGIC)]):
                raise TruncatedError(
                    f"The file ends after {len(data)} bytes, within its first word."
                )
            raise NotLlicError(
                f"Not a .llic file: it starts with {data[:4]!r}, expected {MAGIC!r}. "
                "Is it an image to compress?"
            )
        if len(data) > len(MAGIC) and not 1 <= data[len(MAGIC)] <= PROGRESSIVE_VERSION:
            raise VersionError(
                f"The file is of format version {data[len(MAGIC)]}; this software reads versions "
                f"1 to {PROGRESSIVE_VERSION}. Install a newer llic_jax."
            )
        try:
            file = _parse(data)
        except (TruncatedError, CorruptError):
            if following := _following(data):
                raise CorruptError(
                    f"{following} bytes follow the end of the file; expected none. Up to there it "
                    "is sound: cut them off."
                ) from None
            raise
        _check_tags(file, known)
        return file

    @classmethod
    def from_start(cls, data: Any) -> "LlicFile":
        """Reads a file, or the start of one that was cut or is still arriving.

        What is there of a cut file is bound to no checksum. Its sections are there in version 5
        alone, where they come before the payload.

        Args:
            data: The bytes so far.

        Returns:
            The file's fields. Those of a cut file are not `whole`.

        Raises:
            LlicError: As `from_bytes`. `TruncatedError`: a part of the header is missing, or the
                picture is in a section, of which no part can be shown.
        """
        data = as_bytes(data)
        try:
            return cls.from_bytes(data)
        except TruncatedError:
            file = _up_to_payload(_Reader(data), cut=True)
            if not file.payload and not file.missing:  # the picture is in a section
                raise
        _check_size(file.width, file.height)
        _check_tags(file, tuple(OTHER_CODINGS))
        return dataclasses.replace(file, whole=False)


def as_bytes(data: Any) -> bytes:
    """The bytes of a bytes-like object.

    Args:
        data: bytes, bytearray or memoryview.

    Raises:
        ArgumentTypeError: Anything else.
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


def _parse(data: bytes) -> LlicFile:
    reader = _Reader(data)
    file = _up_to_payload(reader)
    if 1 < file.version < PROGRESSIVE_VERSION:
        sections = _sections(reader, after=_CHECKSUM.size)
        file = dataclasses.replace(file, sections=sections)
    end = reader.position
    (checksum,) = _CHECKSUM.unpack(reader.take(_CHECKSUM.size))
    if reader.left:
        raise CorruptError(f"{reader.left} bytes follow the end of the file; expected none.")
    if checksum != zlib.crc32(data[:end]):
        raise CorruptError(
            "The checksum does not fit: the file was damaged after it was written. "
            "Get it anew from where it came from."
        )
    _check_size(file.width, file.height)
    return file


def _up_to_payload(reader: "_Reader", cut: bool = False) -> LlicFile:
    """The file up to its payload's end; where it is `cut`, as much of the payload as is there."""
    _, version = _START.unpack(reader.take(_START.size))
    if version == PICTURE_VERSION:
        return LlicFile.of_picture(reader.varint(), reader.varint(), {})
    of_networks = reader.take(_OF_NETWORKS.size)
    fingerprint, coder, quality, symbols_crc = _OF_NETWORKS.unpack(of_networks)
    (shift_resolution,) = _UINT16.unpack(reader.take(_UINT16.size)) if version > 1 else (0,)
    width, height = reader.varint(), reader.varint()
    sections = _sections_at_once(reader) if version == PROGRESSIVE_VERSION else {}
    size = reader.varint()
    if size:
        reader.remedy = "`llic decompress --preview` shows what is there."
    there = min(size, reader.left) if cut else size
    return LlicFile(
        fingerprint,
        coder,
        quality / QUALITY_STEPS,
        width=width,
        height=height,
        symbols_crc=symbols_crc,
        shift_resolution=shift_resolution,
        payload=reader.take(there),
        sections=sections,
        version=version,
        missing=size - there,
    )


def _sections(reader: "_Reader", after: int = 0) -> dict[int, bytes]:
    """Sections by tag, as far as so many bytes before the end."""
    sections: dict[int, bytes] = {}
    while reader.left > after:
        tag = reader.take(1)[0]
        if tag in sections or tag == 0:
            raise CorruptError(
                f"Section tag {tag} occurs twice in the file (or is 0); expected each tag once, "
                "from 1 to 255. The file is damaged."
            )
        sections[tag] = reader.take(reader.varint())
    return sections


def _sections_at_once(reader: "_Reader") -> dict[int, bytes]:
    """Sections by tag, after the length of all of them together."""
    content = reader.take(reader.varint())
    try:
        return _sections(_Reader(content))
    except TruncatedError:
        raise CorruptError(
            f"A section ends behind the {len(content)} bytes that all sections have; expected it "
            "within them. The file is damaged."
        ) from None


def _following(data: bytes) -> int:
    """The number of bytes behind the end of a sound file; 0 if no sound file starts here."""
    reader = _Reader(data)
    try:
        version = _up_to_payload(reader).version
        start = crc = 0
        while reader.left > _CHECKSUM.size:
            end = reader.position
            crc, start = zlib.crc32(data[start:end], crc), end
            if crc == _CHECKSUM.unpack_from(data, end)[0]:
                return reader.left - _CHECKSUM.size
            if version == PROGRESSIVE_VERSION:  # nothing else lies behind the payload
                break
            reader.take(1)
            reader.take(reader.varint())
    except (TruncatedError, CorruptError):
        pass
    return 0


def _check_tags(file: LlicFile, known: Collection[int]) -> None:
    for tag in file.sections:
        if tag < SKIPPABLE and tag not in known:
            raise UnknownSectionError(
                f"The file has a section {tag} that this software does not know and may not "
                "pass over. Install a newer llic_jax."
            )


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ImageSizeError(
            f"The header gives an image of {width} x {height} pixels; expected sides of 1 to "
            f"{MAX_SIDE} pixels."
        )


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the high bit set on all bytes but the last."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Reader:
    """Reads fields one after the other, and never past the end."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0
        self.remedy = "Nothing of it can be shown."  # where the bytes end too early

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise TruncatedError(
                f"The file ends after {len(self.data)} bytes; at least {end} were expected. "
                f"Was it copied whole? {self.remedy}"
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
