"""Which files of a folder are taken, and which look like images and are not."""

import collections
import dataclasses
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

# Of images of all kinds, whether they can be read here or not.
_IMAGE_SUFFIXES = frozenset(
    re.findall(
        r"\.\w+",
        ".heic .heif .hif .jxl .avif .gif .jp2 .j2k .jpx .j2c .jpc .apng .jpe .jfif .pgm .pbm "
        ".pnm .pam .pfm .tga .qoi .psd .exr .hdr .dds .dng .cr2 .cr3 .crw .nef .nrw .arw .srf "
        ".sr2 .orf .rw2 .raf .pef .raw .rwl .srw .3fr .iiq .erf .mos .x3f .png .jpg .jpeg .webp "
        ".tif .tiff .bmp .ppm",
    )
)
_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"\xff\x0a",
    b"\0\0\0\x0cJXL ",
    b"FUJIFILMCCD-RAW",
    b"IIU\0",
    b"IIRO",
)
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heif", b"mif1", b"msf1", b"crx ")


@dataclasses.dataclass
class Found:
    """What is below a folder.

    Attributes:
        files: Those that are taken, sorted.
        unreadable: Folders whose content the system refuses to list, and why.
        left_out: How many of what was not taken although it may hold images, by kind.
    """

    files: list[Path] = dataclasses.field(default_factory=list)
    unreadable: list[OSError] = dataclasses.field(default_factory=list)
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def summary(self) -> str:
        """What was left out, in words; empty if nothing was."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))


def scan(
    folder: str | Path, suffixes: Collection[str], count_images: bool = True, recursive: bool = True
) -> Found:
    """Looks for files below a folder.

    Folders behind symbolic links are not entered, but counted. The files that macOS keeps beside
    others' (`._x.png`) are passed over.

    Args:
        folder: Where to look.
        suffixes: What the names of files that are taken end in, in lower case.
        count_images: Whether other files that look like images count as left out.
        recursive: Whether folders in the folder are entered; if not, they count as left out.
    """
    found = Found()
    for place, folders, names in os.walk(folder, onerror=found.unreadable.append):
        linked = sum(os.path.islink(os.path.join(place, name)) for name in folders)
        if linked:
            found.left_out["folders behind symbolic links"] += linked
        if not recursive:
            if len(folders) > linked:
                found.left_out["folders"] += len(folders) - linked
            folders.clear()
        for name in names:
            path = Path(place, name)
            if name.startswith("._"):
                continue
            taken = path.suffix.lower() in suffixes
            if taken and path.is_file():
                found.files.append(path)
            elif taken and path.is_symlink():
                found.left_out["symbolic links to nothing"] += 1
            elif not taken and count_images and looks_like_image(path):
                found.left_out[f"{path.suffix.lower() or 'without a suffix'} files"] += 1
    found.files.sort()
    return found


def looks_like_image(path: Path) -> bool:
    """Whether a file's suffix or first bytes are those of an image, of whatever kind.

    Args:
        path: Of the file.
    """
    if path.suffix.lower() in _IMAGE_SUFFIXES:
        return True
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith(_SIGNATURES) or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


def is_apple_double(path: Path) -> bool:
    """Whether a file is one of those that macOS keeps beside others' on foreign disks.

    Args:
        path: Of the file.
    """
    if not path.name.startswith("._"):
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"\0\5\x16\7", b"")
    except OSError:
        return False


def is_image_suffix(suffix: str) -> bool:
    """Whether a suffix, in any case, is an image's."""
    return suffix.lower() in _IMAGE_SUFFIXES
