"""Figures that others published: rate-distortion points and BD-rates, each with its source.

They lie in `llic_jax/evaluation/published_figures/*.json`; nothing in them was measured by this
project.
"""

import dataclasses
import json
from functools import cache
from pathlib import Path

from llic_jax.metrics.bd_rate import Curve
from llic_jax.metrics.distortion import to_decibels

ANCHOR = "VTM-17.0 (calibrated)"
_FOLDER = Path(__file__).parent / "published_figures"


@dataclasses.dataclass(frozen=True)
class Published:
    """A published curve over a data set.

    Attributes:
      codec: Its name.
      source: Where the figures stand.
      bpp: Bits per pixel.
      psnr: In dB.
      ms_ssim: None where only PSNR was published.
    """

    codec: str
    source: str
    bpp: tuple[float, ...]
    psnr: tuple[float, ...]
    ms_ssim: tuple[float, ...] | None = None

    def curve(self, figure: str = "psnr") -> Curve | None:
        """Makes a rate-distortion curve.

        Args:
          figure: "psnr", or "ms_ssim_db", which is `-10 log10(1 - MS-SSIM)` of the mean MS-SSIM.

        Returns:
          Rate in bits per pixel and figure in dB; None where the figure was not published.
        """
        if figure == "psnr":
            return Curve(self.codec, self.bpp, self.psnr)
        if self.ms_ssim is None:
            return None
        return Curve(self.codec, self.bpp, tuple(to_decibels(1 - value) for value in self.ms_ssim))


@cache
def curves(dataset: str | None) -> dict[str, Published]:
    """Reads the published curves on a data set.

    Args:
      dataset: `kodak`, `clic_pro_valid` or `tecnick`; any other has none.

    Returns:
      The curves by codec.
    """
    path = _FOLDER / f"{dataset}.json"
    if dataset is None or not path.is_file():
        return {}
    entries = json.loads(path.read_text())
    for entry in entries:
        for key in ("bpp", "psnr", "ms_ssim"):
            entry[key] = tuple(map(float, entry[key])) if key in entry else None
    return {entry["codec"]: Published(**entry) for entry in entries}


@cache
def bd_rates() -> dict[str, float]:
    """Reads BD-rates in per cent over VTM-17.0 Intra on Kodak (PSNR), as their authors state."""
    return json.loads((_FOLDER / "bd_rates.json").read_text())["percent"]
