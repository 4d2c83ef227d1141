"""The figures of one image at one quality, and the file of JSON lines that collects them."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llic_jax.errors import LlicError
from llic_jax.rate_distortion import Points


class RecordsError(LlicError, RuntimeError):
    """A file of results that cannot be gone on with."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One image at one quality of one codec.

    codec, version, setting, quality: what coded it (see `measuring.System`). image, digest: name
    and SHA-256 of its pixels. bpp: bits of the whole file per original pixel; bpp_estimated: the
    model's own estimate. PSNR in dB, over RGB and over Y, of the decoded uint8 image (infinite, in
    the file `Infinity`, where it is the original). MS-SSIM: None where a side is too short.
    Seconds; peak_memory in bytes (see `measuring.Coded`).
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
    def key(self) -> tuple[str, str, str]:
        return self.codec, self.setting, self.image


class RecordFile:
    """`results.jsonl`: one record a line, each written when it is measured.

    Raises:
      RecordsError: lines that are no records (an unfinished last line, as an interrupted run leaves
        it, is cut off).
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.records: dict[tuple[str, str, str], Record] = {}
        if not self.path.is_file():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self.path.write_bytes(whole)
        for number, line in enumerate(whole.decode().splitlines(), 1):
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise RecordsError(
                    f"{self.path}, line {number}, is no record of this version: {error}. Name "
                    "another --output, or remove the file to measure anew."
                ) from error
            self.records[record.key] = record

    def find(self, key: tuple[str, str, str], version: str, digest: str) -> Record | None:
        """The record of this job, if it was measured already.

        Raises:
          RecordsError: it was, but with another version of the codec or on other pixels.
        """
        record = self.records.get(key)
        if record is None:
            return None
        for what, found, expected in (
            ("version", record.version, version),
            ("pixels", record.digest, digest),
        ):
            if found != expected:
                raise RecordsError(
                    f"{self.path} holds figures of {key[0]} on {key[2]} with {what} {found}; this "
                    f"run has {expected}. Name another --output, or remove the file."
                )
        return record

    def add(self, record: Record) -> None:
        self.records[record.key] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(record)) + "\n")


_MEANS = (
    "bytes",
    "bpp",
    "bpp_estimated",
    "psnr",
    "psnr_y",
    "ms_ssim",
    "ms_ssim_db",
    "encode_seconds",
    "encode_network_seconds",
    "decode_seconds",
    "decode_network_seconds",
)


def average(records: Sequence[Record]) -> dict[str, Any]:
    """Means over the images of one codec at one setting; MS-SSIM over those that are large enough.

    peak_memory is the maximum, `identical` holds if it does for all.
    """
    first = records[0]
    means: dict[str, Any] = {
        "codec": first.codec,
        "version": first.version,
        "setting": first.setting,
        "quality": first.quality,
        "images": len(records),
    }
    for name in _MEANS:
        values = [v for r in records if (v := getattr(r, name)) is not None]
        means[name] = float(np.mean(values)) if values else None
    memory = [r.peak_memory for r in records if r.peak_memory is not None]
    means["peak_memory"] = max(memory) if memory else None
    checked = [r.identical for r in records if r.identical is not None]
    means["identical"] = all(checked) if checked else None
    return means


def averages(records: Iterable[Record]) -> dict[str, list[dict[str, Any]]]:
    """The means of each codec's settings, in the order in which they were measured."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.codec, record.setting), []).append(record)
    codecs: dict[str, list[dict[str, Any]]] = {}
    for (codec, _), group in groups.items():
        codecs.setdefault(codec, []).append(average(group))
    return codecs


def points(means: Sequence[dict[str, Any]], figure: str = "psnr") -> Points:
    """The means of a codec, by rate: `figure` (dB) over bpp, where there is such a figure."""
    pairs = sorted((m["bpp"], m[figure]) for m in means if m[figure] is not None)
    return Points(
        means[0]["codec"], tuple(rate for rate, _ in pairs), tuple(quality for _, quality in pairs)
    )


def table(records: Sequence[Record]) -> str:
    """The means as text, one line for each codec and setting."""
    header = (
        f"{'codec':<28} {'quality':>7} {'images':>6} {'bytes':>9} {'bpp':>7} {'PSNR':>6} "
        f"{'PSNR-Y':>6} {'MS-SSIM':>8} {'encode s':>8} {'decode s':>8} {'memory':>7}"
    )
    lines = [header, "-" * len(header)]
    for means in averages(records).values():
        for m in means:
            quality = "-" if m["quality"] is None else f"{m['quality']:g}"
            similarity = "-" if m["ms_ssim"] is None else f"{m['ms_ssim']:.5f}"
            memory = "-" if m["peak_memory"] is None else f"{m['peak_memory'] / 2**20:.0f}M"
            lines.append(
                f"{m['codec'][:28]:<28} {quality:>7} {m['images']:>6} {m['bytes']:>9.0f} "
                f"{m['bpp']:>7.4f} {m['psnr']:>6.2f} {m['psnr_y']:>6.2f} {similarity:>8} "
                f"{m['encode_seconds']:>8.3f} {m['decode_seconds']:>8.3f} {memory:>7}"
            )
        lines.append("")
    if any(r.identical is False for r in records):
        lines.append("Not every decoded image equals the encoder's own reconstruction!")
    return "\n".join(lines)
