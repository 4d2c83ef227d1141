"""The codecs that people use, through maintained libraries: JPEG, JPEG 2000, WebP, AVIF, JPEG XL.

Each has the chroma resolution that serves it best in PSNR over RGB (our choice), and is tuned for
the figure it is compared by, where its library offers that: AVIF has curves for PSNR
(`tune=psnr`) and one for MS-SSIM (libaom's own tuning, which takes 12 % more bits at equal PSNR and
15 % fewer at equal MS-SSIM on scikit-image's photographs). `Format.tuning` tells it in words.
"""

import dataclasses
import functools
import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL import features

from llic_jax.errors import BaselineError
from llic_jax.evaluation.system import Image, Measurement, Quality
from llic_jax.metrics import distortion
from llic_jax.system.extras import install_command

PSNR, MS_SSIM = "psnr", "ms_ssim_db"  # figures that codecs are compared by (see `records`)


@dataclasses.dataclass(frozen=True)
class Format:
    """How one format is written and read.

    Attributes:
      encode: Image, uint8 `(H, W, 3)`, and quality to a file's bytes.
      decode: The inverse.
      qualities: Those that are measured, from low to high rate.
      span: First and last quality that the library takes, from low to high rate.
      whole: Whether only whole numbers are qualities.
      settings: In words, with `{quality}`.
      library: Returns its name and version.
      tuning: What the encoder optimizes, in words.
      compared_by: Figures whose tables and curves have this codec.
    """

    encode: Callable[[Image, float], bytes]
    decode: Callable[[bytes], Image]
    qualities: tuple[float, ...]
    span: tuple[float, float]
    whole: bool
    settings: str
    library: Callable[[], str]
    tuning: str
    compared_by: tuple[str, ...] = (PSNR, MS_SSIM)


def _pillow_encode(image: Image, quality: float, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, kind, quality=int(quality), **options)
    return buffer.getvalue()


def _pillow_decode(data: bytes) -> Image:
    with PillowImage.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _pillow_library(feature: str, name: str) -> str:
    if not features.check(feature):
        raise BaselineError(
            f"This Pillow was built without {name}; install a wheel of Pillow 11.3 or later, or "
            "leave the codec out of --codecs."
        )
    return f"{name} {features.version(feature)}"


def _jpeg2000_encode(image: Image, ratio: float) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(
        buffer,
        "JPEG2000",
        quality_mode="rates",
        quality_layers=[ratio],
        irreversible=True,
        mct=1,
    )
    return buffer.getvalue()


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise BaselineError(
            f"JPEG XL needs imagecodecs, which is not installed: `{install_command('eval')}` "
            "brings it. Or leave JPEG XL out of --codecs."
        ) from error
    return imagecodecs


def _jpegxl_encode(image: Image, distance: float) -> bytes:
    return _imagecodecs().jpegxl_encode(image, distance=distance, effort=7, lossless=False)


def _jpegxl_decode(data: bytes) -> Image:
    return _imagecodecs().jpegxl_decode(data)


def _jpegxl_library() -> str:
    return _imagecodecs().jpegxl_version()


def _avif(
    settings: str,
    qualities: tuple[float, ...],
    tuning: str,
    compared_by: tuple[str, ...],
    **options: Any,
) -> Format:
    return Format(
        partial(_pillow_encode, kind="AVIF", subsampling="4:4:4", **options),
        _pillow_decode,
        qualities,
        (0.0, 100.0),
        True,
        f"quality {{quality:g}}, 4:4:4, {settings}",
        partial(_pillow_library, "avif", "libavif"),
        tuning,
        compared_by,
    )


_AVIF_LADDER = (8.0, 16.0, 24.0, 33.0, 42.0, 52.0, 62.0, 72.0)
_AVIF_PSNR = {"advanced": {"tune": "psnr"}}  # libaom's own option

FORMATS: dict[str, Format] = {
    "JPEG": Format(
        partial(_pillow_encode, kind="JPEG", optimize=True, progressive=True, subsampling="4:2:0"),
        _pillow_decode,
        (5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 75.0, 88.0),
        (1.0, 95.0),
        True,
        "quality {quality:g}, 4:2:0, optimized Huffman tables, progressive",
        partial(_pillow_library, "libjpeg_turbo", "libjpeg-turbo"),
        "the standard's quantization tables, made for the eye",
    ),
    "JPEG 2000": Format(
        _jpeg2000_encode,
        _pillow_decode,
        (240.0, 160.0, 100.0, 60.0, 40.0, 26.0, 16.0, 10.0),
        (1000.0, 2.0),
        False,
        "compression ratio {quality:g}, 9/7 wavelet, colour transform, one layer",
        partial(_pillow_library, "jpg_2000", "OpenJPEG"),
        "mean squared error, OpenJPEG's only criterion",
    ),
    "WebP": Format(
        partial(_pillow_encode, kind="WEBP", method=6),
        _pillow_decode,
        (0.0, 5.0, 15.0, 30.0, 50.0, 70.0, 82.0, 90.0),
        (0.0, 100.0),
        True,
        "quality {quality:g}, method 6",
        partial(_pillow_library, "webp", "libwebp"),
        "libwebp's default, for the eye; the library interface offers no tuning for PSNR",
    ),
    "AVIF": _avif(
        "speed 6, tune=psnr", _AVIF_LADDER, "PSNR (tune=psnr)", (PSNR,), speed=6, **_AVIF_PSNR
    ),
    "AVIF (slow)": _avif(
        "speed 4, tune=psnr",
        _AVIF_LADDER,
        "PSNR (tune=psnr), at a slower speed",
        (PSNR,),
        speed=4,
        **_AVIF_PSNR,
    ),
    "AVIF (default tuning)": _avif(
        "speed 6, default tuning",
        _AVIF_LADDER,
        "libaom's default, for the eye: it stands where MS-SSIM is compared",
        (MS_SSIM,),
        speed=6,
    ),
    "JPEG XL": Format(
        _jpegxl_encode,
        _jpegxl_decode,
        (20.0, 14.0, 10.0, 7.0, 4.5, 3.0, 2.0, 1.2),
        (25.0, 0.1),
        False,
        "distance {quality:g}, effort 7",
        _jpegxl_library,
        "libjxl's own measure of what the eye sees; it offers no tuning for PSNR",
    ),
}


@dataclasses.dataclass(frozen=True)
class Baseline:
    """One of `FORMATS` as a codec under test.

    Attributes:
      name: A key of `FORMATS`, also the name of its curve.
      separate: Measured in a process of its own (see `system.CodecUnderTest`).

    Raises:
      BaselineError: The name is not known.
    """

    name: str
    separate: bool = True

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise BaselineError(f"No codec {self.name!r}; known are {', '.join(FORMATS)}.")

    @property
    def format(self) -> Format:
        """The format's functions and settings."""
        return FORMATS[self.name]

    @property
    def qualities(self) -> tuple[float, ...]:
        """The qualities that its curve is measured at."""
        return self.format.qualities

    @property
    def version(self) -> str:
        """The library's name and version.

        Raises:
          BaselineError: The library is not installed.
        """
        return self.format.library()

    def setting(self, quality: Quality) -> str:
        """The settings of a quality in words, for results.

        Args:
            quality: Of the format.
        """
        return self.format.settings.format(quality=quality)

    def code(self, image: Image, quality: Quality) -> Measurement:
        """Codes and decodes an image in memory; see `CodecUnderTest.code`.

        Args:
            image: uint8 `(H, W, 3)`.
            quality: Of the format.
        """
        assert quality is not None
        _warm_up(self.name)
        start = time.perf_counter()
        data = self.format.encode(image, quality)
        middle = time.perf_counter()
        decoded = self.format.decode(data)
        end = time.perf_counter()
        return Measurement(len(data), decoded, middle - start, end - middle)

    def at_size(self, image: Image, size: int) -> tuple[float, bytes]:
        """Finds the quality whose file comes nearest to a size, by bisection.

        Args:
          image: uint8 `(H, W, 3)`.
          size: In bytes.

        Returns:
          The quality and its file.
        """
        return self._nearest(image, float(size), lambda data: float(len(data)))

    def at_psnr(self, image: Image, psnr: float) -> tuple[float, bytes]:
        """Finds the quality whose file comes nearest to a PSNR, by bisection.

        Args:
          image: uint8 `(H, W, 3)`.
          psnr: Of the decoded image, dB.

        Returns:
          The quality and its file.
        """
        decode = self.format.decode
        return self._nearest(image, psnr, lambda data: distortion.image_psnr(image, decode(data)))

    def _nearest(
        self, image: Image, value: float, figure: Callable[[bytes], float]
    ) -> tuple[float, bytes]:
        """The quality, and its file, whose figure, which rises with the rate, is nearest."""
        low, high = self.format.span
        tried: dict[float, tuple[float, bytes]] = {}

        def found(quality: float) -> float:
            if quality not in tried:
                data = self.format.encode(image, quality)
                tried[quality] = figure(data), data
            return tried[quality][0]

        for _ in range(9):
            # Ratios and distances matter by their proportions, qualities by their differences.
            middle = (low + high) // 2 if self.format.whole else (low * high) ** 0.5
            if found(middle) > value:
                high = middle
            else:
                low = middle
            if self.format.whole and high - low <= 1:
                found(low), found(high)
                break
        quality = min(tried, key=lambda q: abs(tried[q][0] - value))
        return quality, tried[quality][1]


@functools.cache
def _warm_up(name: str) -> None:
    """A library's first image in a process also pays for loading it."""
    FORMATS[name].encode(np.zeros((64, 64, 3), np.uint8), FORMATS[name].qualities[-1])


def by_names(names: list[str] | None) -> list[Baseline]:
    """Finds codecs by their names.

    Args:
      names: In any spelling (`jpeg2000`, `JPEG-XL`, `avif-slow`). None: all of them.

    Returns:
      The codecs, in order.

    Raises:
      BaselineError: A name is not known.
    """
    if names is None:
        return [Baseline(name) for name in FORMATS]
    spelled = {_plain(name): name for name in FORMATS}
    spelled |= {"jxl": "JPEG XL", "j2k": "JPEG 2000", "avifdefault": "AVIF (default tuning)"}
    return [Baseline(spelled.get(_plain(name), name)) for name in names]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def compared_by(name: str, figure: str) -> bool:
    """Tells whether a codec stands in the tables and curves of a figure, by how it was tuned.

    Args:
      name: Any codec's; those that are not in `FORMATS` stand everywhere.
      figure: `PSNR` or `MS_SSIM`.
    """
    return name not in FORMATS or figure in FORMATS[name].compared_by
