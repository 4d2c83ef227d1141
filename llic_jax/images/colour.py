"""Colour profiles: what they do, and profiles made for what a file says in another way.

A profile is judged by its effect on colours, never by its description. Sources: ICC.1:2022 (profile
format), ITU-T H.273 (code points of primaries and transfer functions), the PNG specification, third
edition (gAMA, cHRM, sRGB, cICP).
"""

import functools
import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from llic_jax.errors import ColourError

Matrix = np.ndarray  # (3, 3)

_D50 = np.array([0.9642, 1.0, 0.8249])
_D65 = (0.3127, 0.3290)
SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x, y of white, red, green, blue
_PRIMARIES = {  # by H.273's code point, in the order of `SRGB`
    1: SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_BT709 = (1, 6, 14, 15)  # code points of one and the same transfer function
_SRGB_TRANSFER = 13
_UNSPECIFIED = 2
_ENCODED_GAMMA = 0.45455  # what encoders write into gAMA for sRGB


# ------------------------------------------------------------------ judging


def space(icc: bytes) -> bytes:
    """The colour space of a profile's pixels, e.g. b"RGB ", b"GRAY".

    Args:
        icc: The profile.

    Returns:
        Four bytes; empty if it is no profile.
    """
    return icc[16:20] if len(icc) >= 128 and icc[36:40] == b"acsp" else b""


def is_srgb(icc: bytes) -> bool:
    """Whether an RGB profile does what sRGB does, to within one level of 8 bits.

    Compared are 4,913 colours of a grid and 256 greys, for each rendering intent. A profile that
    cannot be judged is none of sRGB's.

    Args:
        icc: The profile.
    """
    if space(icc) != b"RGB ":
        return False
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        colours = _probes()
        for intent in ImageCms.Intent:
            shown = _shown(profile, colours, intent)
            if np.abs(shown - np.asarray(colours, np.int16)).max() > 1:
                return False
    except Exception:  # LittleCMS refuses it
        return False
    return True


def _shown(
    profile: ImageCms.ImageCmsProfile, colours: Image.Image, intent: ImageCms.Intent
) -> np.ndarray:
    transform = ImageCms.buildTransform(
        profile, _srgb_profile(), "RGB", "RGB", renderingIntent=intent
    )
    return np.asarray(transform.apply(colours), np.int16)


@functools.cache
def _probes() -> Image.Image:
    steps = np.linspace(0, 255, 17).round()
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    greys = np.repeat(np.arange(256.0)[None, :, None], 3, -1)
    return Image.fromarray(np.concatenate([grid, greys], 1).astype(np.uint8))


@functools.cache
def _srgb_profile() -> ImageCms.core.CmsProfile:
    return ImageCms.createProfile("sRGB")


# ------------------------------------------------------------------ between grey and RGB


def rgb_of_grey(icc: bytes) -> bytes | None:
    """An RGB profile that shows equal channels as a grey profile shows one.

    Args:
        icc: The grey profile.

    Returns:
        The RGB profile; None if the grey one's curve cannot be found.
    """
    curve = _tags(icc).get(b"kTRC")
    return None if curve is None else _rgb_profile("RGB of a grey profile", SRGB, curve)


def grey_of_rgb(icc: bytes) -> bytes | None:
    """A grey profile that shows one channel as an RGB profile shows three equal ones.

    Args:
        icc: The RGB profile.

    Returns:
        The grey profile; None unless the RGB one consists of one curve for all channels.
    """
    tags = _tags(icc)
    curves = {tags.get(name) for name in (b"rTRC", b"gTRC", b"bTRC")}
    tables = {b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2", b"D2B3"}
    (curve, *others) = curves
    if others or curve is None or tables & set(tags):
        return None
    return _profile(b"GRAY", "Grey of an RGB profile", {b"kTRC": curve})


def _tags(icc: bytes) -> dict[bytes, bytes]:
    """The contents of a profile's tags; empty if its table is damaged."""
    found = {}
    try:
        (count,) = struct.unpack_from(">I", icc, 128)
        for k in range(min(count, 100)):
            name, offset, size = struct.unpack_from(">4sII", icc, 132 + 12 * k)
            if offset + size > len(icc):
                return {}
            found[name] = icc[offset : offset + size]
    except struct.error:
        return {}
    return found


# ------------------------------------------------------------------ making


def of_png(chunks: dict[bytes, bytes], profile: bytes | None, grey: bool) -> bytes | None:
    """The profile that a PNG's chunks stand for, in their order of precedence.

    Args:
        chunks: By type: cICP, iCCP, sRGB, gAMA, cHRM.
        profile: iCCP, inflated.
        grey: Whether the image is grey, and so its profile.

    Returns:
        An ICC profile, None for sRGB.

    Raises:
        ColourError: High dynamic range (PQ, HLG), or code points that are not known.
    """
    if len(cicp := chunks.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full = cicp
        if matrix or full != 1:
            raise ColourError(
                f"its cICP chunk names matrix {matrix} and range {full}; an RGB image has 0 and 1. "
                "Convert it to sRGB"
            )
        return of_code_points(primaries, transfer, grey)
    if profile:
        return profile
    if b"sRGB" in chunks or b"iCCP" in chunks:
        return None
    gamma = _numbers(chunks.get(b"gAMA", b""), 1)
    chromaticities = _numbers(chunks.get(b"cHRM", b""), 8)
    if chromaticities is not None and not _possible(chromaticities):
        chromaticities = None
    usual_primaries = chromaticities is None or np.allclose(chromaticities, SRGB, atol=0.002)
    if gamma is not None and not 1e-4 < gamma[0] < 100:
        gamma = None
    # Encoders write 1/2.2 where they mean sRGB.
    usual_curve = gamma is None or abs(gamma[0] - _ENCODED_GAMMA) < 0.005
    if usual_curve and (usual_primaries or grey):
        return None
    curve = _srgb_curve() if usual_curve or gamma is None else _gamma_curve(1 / gamma[0])
    if grey:
        return _profile(b"GRAY", f"PNG gAMA {gamma[0]:g}" if gamma else "PNG", {b"kTRC": curve})
    return _rgb_profile("PNG gAMA and cHRM", chromaticities or SRGB, curve)


def of_code_points(primaries: int, transfer: int, grey: bool = False) -> bytes | None:
    """The profile for H.273's code points, None for sRGB.

    Args:
        primaries: ColourPrimaries; 2 (unspecified) is taken for sRGB's.
        transfer: TransferCharacteristics; 2 (unspecified) is taken for sRGB's.
        grey: Make a profile for grey images.

    Raises:
        ColourError: High dynamic range (PQ, HLG), or code points that are not known.
    """
    if transfer in (16, 18):
        name = "PQ" if transfer == 16 else "HLG"
        raise ColourError(
            f"it is of high dynamic range ({name}), which 8 bits do not hold; convert it to sRGB"
        )
    curves: dict[int, Callable[[], bytes]] = {
        _UNSPECIFIED: _srgb_curve,
        _SRGB_TRANSFER: _srgb_curve,
        4: lambda: _gamma_curve(2.2),
        5: lambda: _gamma_curve(2.8),
        8: lambda: _gamma_curve(1.0),
        **dict.fromkeys(_BT709, _bt709_curve),
    }
    chromaticities = SRGB if primaries == _UNSPECIFIED else _PRIMARIES.get(primaries)
    if chromaticities is None or transfer not in curves:
        raise ColourError(
            f"its colours are given by code points that are not known (primaries {primaries}, "
            f"transfer {transfer}); convert it to sRGB"
        )
    if transfer in (_UNSPECIFIED, _SRGB_TRANSFER) and (chromaticities == SRGB or grey):
        return None
    curve = curves[transfer]()
    description = f"H.273 primaries {primaries}, transfer {transfer}"
    if grey:
        return _profile(b"GRAY", description, {b"kTRC": curve})
    return _rgb_profile(description, chromaticities, curve)


def _numbers(content: bytes, count: int) -> tuple[float, ...] | None:
    """PNG's numbers, in units of 1/100,000."""
    if len(content) != 4 * count:
        return None
    return tuple(value / 100_000 for value in struct.unpack(f">{count}I", content))


def _possible(chromaticities: tuple[float, ...]) -> bool:
    if min(chromaticities[1::2]) <= 0 or max(chromaticities) > 1:
        return False
    return bool(np.abs(np.linalg.det(_xyz(chromaticities[2:]))) > 1e-3)


def _xyz(xy: tuple[float, ...]) -> Matrix:
    """XYZ of luminance 1, a column for each chromaticity."""
    x, y = np.array(xy[::2]), np.array(xy[1::2])
    return np.stack([x / y, np.ones_like(x), (1 - x - y) / y])


def _rgb_profile(description: str, chromaticities: tuple[float, ...], curve: bytes) -> bytes:
    """A profile of three primaries, adapted to D50, and one curve."""
    white, primaries = _xyz(chromaticities[:2])[:, 0], _xyz(chromaticities[2:])
    columns = primaries * np.linalg.solve(primaries, white)
    cone = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ cone @ _BRADFORD @ columns
    tags: dict[bytes, bytes] = {}
    for letter, column in zip(b"rgb", adapted.T, strict=True):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(*column)
        tags[bytes([letter]) + b"TRC"] = curve
    return _profile(b"RGB ", description, tags)


def _profile(colour_space: bytes, description: str, tags: dict[bytes, bytes]) -> bytes:
    """A display profile of version 4.0; equal arguments make equal bytes."""
    said = description.encode("utf-16-be")
    tags = {
        b"desc": _text(said),
        b"cprt": _text("No copyright".encode("utf-16-be")),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        **tags,
    }
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", offset + len(body), b"", 4 << 24, b"mntr", colour_space, b"XYZ "
    )
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += _fixed(*_D50)
    return header.ljust(128, b"\0") + table + body


def _text(said: bytes) -> bytes:
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(said), 28) + said


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _gamma_curve(gamma: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + _fixed(gamma)


def _srgb_curve() -> bytes:
    return _broken_curve(2.4, 0.055, 12.92, 0.04045)


def _bt709_curve() -> bytes:
    return _broken_curve(1 / 0.45, 0.099, 4.5, 0.081)


def _broken_curve(gamma: float, offset: float, slope: float, below: float) -> bytes:
    """`((x + offset) / (1 + offset)) ** gamma`, and `x / slope` below a limit."""
    scale = 1 / (1 + offset)
    values = gamma, scale, offset * scale, 1 / slope, below
    return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(*values)
