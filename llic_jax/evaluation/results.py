"""Results of an evaluation: one image at one quality each, their file, and means over images."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llic_jax.errors import JsonLinesError, ResultsError
from llic_jax.metrics.bd_rate import Points
from llic_jax.system import json_lines

Key = tuple[str, str, str]  # codec, setting, image

# Figures that are infinite where the decoded image is the original: in a file they are null.
_UNBOUNDED = ("psnr", "psnr_y", "ms_ssim_db")
# What a curve can show, and the figures that are averaged over the same images.
CURVE_FIGURES = {"psnr": ("psnr", "psnr_y"), "ms_ssim_db": ("ms_ssim", "ms_ssim_db")}


@dataclasses.dataclass(frozen=True)
class Result:
    """One image at one quality of one codec.

    Attributes:
      codec: Name of its curve.
      version: Everything that the figures depend on (see `system.CodecUnderTest`).
      setting: The settings in words.
      quality: None for a model of one rate.
      image: Name.
      digest: SHA-256 of its pixels.
      width: In pixels.
      height: In pixels.
      bytes: Of the whole file.
      bpp: Bits of the whole file per original pixel.
      bpp_estimated: The model's own estimate of it.
      psnr: In dB over RGB, of the decoded uint8 image; infinite where it is the original.
      psnr_y: In dB over luma; infinite where that is the original's.
      ms_ssim: None where a side is too short for it.
      ms_ssim_db: `-10 log10(1 - ms_ssim)`; infinite where MS-SSIM is 1.
      encode_seconds: See `system.Measurement`, also for the rest.
      encode_network_seconds: Part of the above.
      decode_seconds: With compiled programs.
      decode_network_seconds: Part of the above.
      peak_memory: In bytes.
      identical: Whether the decoder gave the encoder's reconstruction.
    """

    codec: str
    version: str
    setting: str
    quality: float | None
    image: str
    digest: str
    width: int
    height: int
    bytes: int
    bpp: float
    bpp_estimated: float | None
    psnr: float
    psnr_y: float
    ms_ssim: float | None
    ms_ssim_db: float | None
    encode_seconds: float
    encode_network_seconds: float | None
    decode_seconds: float
    decode_network_seconds: float | None
    peak_memory: int | None
    identical: bool | None

    @property
    def key(self) -> Key:
        """Codec, setting and image."""
        return self.codec, self.setting, self.image

    def to_json(self) -> dict[str, Any]:
        """Returns the fields; figures that are infinite become None, since JSON has no infinity."""
        fields = dataclasses.asdict(self)
        return fields | {name: None for name in _UNBOUNDED if fields[name] == math.inf}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Result":
        """The inverse of `to_json`. Files of before hold `Infinity`, which Python reads too.

        Raises:
          TypeError: The fields are not those of a result.
        """
        infinite = {name for name in _UNBOUNDED if name in fields and fields[name] is None}
        if fields.get("ms_ssim") is None:
            infinite.discard("ms_ssim_db")  # the image is too small, and there is no such figure
        return cls(**fields | dict.fromkeys(infinite, math.inf))


class ResultsFile:
    """`results.jsonl`: one result a line, each written when it is measured.

    Attributes:
      path: The file.
      results: What it holds, by codec, setting and image; of equal ones the last.

    Raises:
      ResultsError: A whole line is no result. An unfinished last line, as a killed run leaves it,
        is removed.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.results: dict[Key, Result] = {}
        if not self.path.is_file():
            return
        remedy = "Name another --output, or remove the file to measure anew."
        json_lines.repair(self.path)
        try:
            entries = json_lines.read(self.path)
        except JsonLinesError as error:
            raise ResultsError(f"{error} {remedy}") from error
        for number, entry in enumerate(entries, 1):
            try:
                result = Result.from_json(entry)
            except (TypeError, ValueError) as error:
                raise ResultsError(
                    f"{self.path}, line {number}, is no record of this version: {error}. {remedy}"
                ) from error
            self.results[result.key] = result

    def find(self, key: Key, version: str, digest: str) -> Result | None:
        """Looks for a result that was measured already.

        Args:
          key: Codec, setting and image.
          version: The codec's version now.
          digest: SHA-256 of the image's pixels now.

        Returns:
          The result, or None.

        Raises:
          ResultsError: It is of another version of the codec, or of other pixels.
        """
        result = self.results.get(key)
        if result is None:
            return None
        for what, old, new in (
            ("version", result.version, version),
            ("pixels", result.digest, digest),
        ):
            if old != new:
                raise ResultsError(
                    f"{self.path} holds figures of {key[0]} on {key[2]} with {what} {old}; this "
                    f"run has {new}. Name another --output, or remove the file."
                )
        return result

    def add(self, result: Result) -> None:
        """Appends a result to the file; whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        json_lines.append(self.path, result.to_json())
        self.results[result.key] = result


_MEANS = (
    "bytes",
    "bpp",
    "bpp_estimated",
    "encode_seconds",
    "encode_network_seconds",
    "decode_seconds",
    "decode_network_seconds",
)


def incomparable(results: Iterable[Result]) -> dict[str, set[str]]:
    """Finds the images that no mean of a figure can include.

    A mean over finite values alone would be of other images at each quality. So an image is left
    out of a figure's means altogether as soon as one codec at one setting has no finite value for
    it, because it is reproduced exactly (a flat picture), or is too small for MS-SSIM.

    Args:
      results: Of all codecs.

    Returns:
      Names of images, by figure: a key of `CURVE_FIGURES`.
    """
    names: dict[str, set[str]] = {figure: set() for figure in CURVE_FIGURES}
    for result in results:
        for figure, averaged in CURVE_FIGURES.items():
            values = [getattr(result, name) for name in averaged]
            if any(value is None or not math.isfinite(value) for value in values):
                names[figure].add(result.image)
    return names


def average(
    results: Sequence[Result], left_out: Mapping[str, Collection[str]] | None = None
) -> dict[str, Any]:
    """Averages one codec at one setting over images.

    Args:
      results: One an image.
      left_out: Images that a figure's mean excludes (default: `incomparable(results)`).

    Returns:
      The means by field of `Result`; None where there is no value. For each figure of a curve,
      `FIGURE_bpp` and `FIGURE_images` are rate and number of the images that its mean is of.
      `peak_memory` is the maximum; `identical` holds if it holds for every image.
    """
    left_out = incomparable(results) if left_out is None else left_out
    first = results[0]
    means: dict[str, Any] = {
        "codec": first.codec,
        "version": first.version,
        "setting": first.setting,
        "quality": first.quality,
        "images": len(results),
    }
    means |= {name: _mean(results, name) for name in _MEANS}
    for figure, averaged in CURVE_FIGURES.items():
        included = [result for result in results if result.image not in left_out[figure]]
        means |= {name: _mean(included, name) for name in averaged}
        means[f"{figure}_bpp"] = _mean(included, "bpp")
        means[f"{figure}_images"] = len(included)
    memory = [r.peak_memory for r in results if r.peak_memory is not None]
    means["peak_memory"] = max(memory) if memory else None
    checked = [r.identical for r in results if r.identical is not None]
    means["identical"] = all(checked) if checked else None
    return means


def _mean(results: Sequence[Result], name: str) -> float | None:
    values = [value for r in results if (value := getattr(r, name)) is not None]
    return float(np.mean(values)) if values else None


def averages(results: Iterable[Result]) -> dict[str, list[dict[str, Any]]]:
    """Averages every codec at every setting, in the order in which they were measured.

    Args:
      results: Of all codecs.

    Returns:
      The means of each codec's settings, by codec. All are of the same images.
    """
    results = list(results)
    left_out = incomparable(results)
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.codec, result.setting), []).append(result)
    codecs: dict[str, list[dict[str, Any]]] = {}
    for (codec, _), group in groups.items():
        codecs.setdefault(codec, []).append(average(group, left_out))
    return codecs


def points(means: Sequence[Mapping[str, Any]], figure: str = "psnr") -> Points:
    """Makes the rate-distortion points of a codec from its means.

    Args:
      means: Of one codec (see `average`).
      figure: A key of `CURVE_FIGURES`.

    Returns:
      Rate (bits per pixel) and figure (dB), both of the same images, by rate; none where the
      figure has no mean.
    """
    # Summaries of before do not tell the rate of a figure's images.
    present = [m for m in means if m[figure] is not None]
    pairs = sorted((m.get(f"{figure}_bpp", m["bpp"]), m[figure]) for m in present)
    return Points(
        means[0]["codec"], tuple(rate for rate, _ in pairs), tuple(value for _, value in pairs)
    )


def notes(results: Iterable[Result]) -> list[str]:
    """States which images are missing from which means.

    Args:
      results: Of all codecs.

    Returns:
      One sentence a figure.
    """
    results = list(results)
    count = len({result.image for result in results})
    left_out = incomparable(results)
    sentences = []
    for figure, label, reason in (
        ("psnr", "PSNR", "a codec reproduces them exactly, so their PSNR is infinite"),
        ("ms_ssim_db", "MS-SSIM", "they are too small for it, or a codec reproduces them exactly"),
    ):
        if names := sorted(left_out[figure]):
            listed = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            sentences.append(
                f"Means of {label}, and the rates of its curves, are over {count - len(names)} of "
                f"{count} images. Left out ({reason}): {listed}."
            )
    return sentences


def table(results: Sequence[Result]) -> str:
    """Formats the means as text, one line for each codec and setting.

    Args:
      results: Of all codecs.
    """
    header = (
        f"{'codec':<28} {'quality':>7} {'images':>6} {'bytes':>9} {'bpp':>7} {'PSNR':>6} "
        f"{'PSNR-Y':>6} {'MS-SSIM':>8} {'encode s':>8} {'decode s':>8} {'memory':>7}"
    )
    lines = [header, "-" * len(header)]
    for means in averages(results).values():
        for m in means:
            quality = "-" if m["quality"] is None else f"{m['quality']:g}"
            psnr, luma = ("-" if m[n] is None else f"{m[n]:.2f}" for n in ("psnr", "psnr_y"))
            similarity = "-" if m["ms_ssim"] is None else f"{m['ms_ssim']:.5f}"
            memory = "-" if m["peak_memory"] is None else f"{m['peak_memory'] / 2**20:.0f}M"
            lines.append(
                f"{m['codec'][:28]:<28} {quality:>7} {m['images']:>6} {m['bytes']:>9.0f} "
                f"{m['bpp']:>7.4f} {psnr:>6} {luma:>6} {similarity:>8} "
                f"{m['encode_seconds']:>8.3f} {m['decode_seconds']:>8.3f} {memory:>7}"
            )
        lines.append("")
    lines += notes(results)
    if any(r.identical is False for r in results):
        lines.append("Not every decoded image equals the encoder's own reconstruction!")
    return "\n".join(lines)
