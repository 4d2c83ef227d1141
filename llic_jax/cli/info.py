"""`llic info`: what the headers of .llic files say. Loads neither JAX nor NumPy."""

import argparse
import io
import json
import struct
import sys
from typing import Any

from llic_jax.bitstream.file import PROGRESSIVE_VERSION, LlicFile
from llic_jax.bitstream.tags import ALPHA, EXIF, GREY, ICC, RESOLUTION, XMP, inflated
from llic_jax.errors import LlicError
from llic_jax.images import folders
from llic_jax.system import files
from llic_jax.zoo.registry import registry

_OF_NETWORKS = ("quality", "model", "payload")  # lines that a file without networks has not


def info(args: argparse.Namespace) -> int:
    """Prints what the files say.

    Args:
        args: Of `llic info`.

    Returns:
        The exit status: 1 if a file cannot be read, else 0.
    """
    failures = 0
    for path in map(files.path_argument, args.names):
        name = files.name_of(path, "standard input")
        if folders.is_apple_double(path):
            continue
        try:
            data = files.read(path)
            said = _figures(LlicFile.from_bytes(data), len(data))
        except (LlicError, OSError) as error:
            print(f"llic: {files.said(path, error)}", file=sys.stderr)
            failures += 1
            continue
        print(json.dumps({"file": name, **said}) if args.json else _text(name, said))
    return 1 if failures else 0


def _figures(file: LlicFile, size: int) -> dict[str, Any]:
    """What a file says, by name."""
    sections = file.sections
    model = registry().with_fingerprint(file.fingerprint.hex())
    icc = inflated(sections, ICC)
    dpi = sections.get(RESOLUTION, b"")
    return {
        "width": file.width,
        "height": file.height,
        "grey": GREY in sections,
        "alpha": ALPHA in sections,
        "bytes": size,
        "bpp": 8 * size / (file.width * file.height),
        "quality": file.quality or None,
        "qualities": model.qualities if model else None,
        "model": model.name if model else None,
        "fingerprint": file.fingerprint.hex() or None,
        "coded_by": file.other_coding or "networks",
        "profile": None if icc is None else _profile_name(icc),
        "exif": EXIF in sections,
        "xmp": XMP in sections,
        "dpi": struct.unpack("<2f", dpi) if len(dpi) == 8 else None,
        "version": file.version,
        "progressive": file.version == PROGRESSIVE_VERSION,
        "coder": file.coder_name or None,
        "payload_bytes": len(file.payload),
        "symbols_crc": f"{file.symbols_crc:08x}",
        "portable": bool(file.shift_resolution or file.other_coding),
        "sections": {str(tag): len(content) for tag, content in sections.items()},
    }


def _text(name: str, said: dict[str, Any]) -> str:
    channels = ("grey" if said["grey"] else "colour") + (", alpha" if said["alpha"] else "")
    raw = said["width"] * said["height"] * (1 if said["grey"] else 3)
    quality = "the model's only one" if said["quality"] is None else f"{said['quality']:g}"
    if said["quality"] and said["qualities"]:
        quality += f", of 1 (smallest) to {said['qualities']} (best)"
    networks = said["coded_by"] == "networks"
    progressive = ", progressive" if said["progressive"] else ""
    kept = [kind.upper() for kind in ("exif", "xmp") if said[kind]]
    if said["dpi"]:
        kept.append("{:g} x {:g} dpi".format(*said["dpi"]))
    lines = {
        "image": f"{said['width']} x {said['height']} pixels, {channels}",
        "size": f"{said['bytes']} bytes, {said['bpp']:.4f} bpp; 1/{raw / said['bytes']:.0f} of "
        "the pixels",
        "picture": "by the networks" if networks else f"as {said['coded_by']}",
        "quality": quality,
        "model": f"{said['model'] or 'none that was released'} ({said['fingerprint']})",
        "profile": said["profile"] or "none, so sRGB",
        "metadata": ", ".join(kept) or "none",
        "format": f"version {said['version']}{progressive}, range coder {said['coder']}",
        "payload": f"{said['payload_bytes']} bytes, symbols' checksum {said['symbols_crc']}",
        "decodes": "anywhere" if said["portable"] else "for certain only where it was made",
    }
    if said["fingerprint"] is None:  # neither networks nor range coder took part
        lines["format"] = f"version {said['version']}"
        lines = {title: lines[title] for title in lines if title not in _OF_NETWORKS}
    lines |= {f"section {tag}": f"{size} bytes" for tag, size in said["sections"].items()}
    return "\n".join([name, *(f"  {title:11} {content}" for title, content in lines.items())])


def _profile_name(icc: bytes) -> str:
    """How a colour profile calls itself."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.getProfileDescription(profile).strip() or "without a name"
    except (OSError, ImageCms.PyCMSError):
        return f"{len(icc)} bytes that are no profile"
