"""How a codec does on each image: means hide the photographs on which it fails."""

import dataclasses
from collections.abc import Sequence

from llic_jax.rate_distortion import Curve, CurveError, bd_rate
from llic_jax.records import Record


@dataclasses.dataclass(frozen=True)
class ImageRow:
    """rates: BD-rate (%) of our codec over each of the others on this image, in their order; None
    where the two have no curves in common."""

    image: str
    rates: tuple[float | None, ...]


def by_image(
    found: Sequence[Record], ours: str, others: Sequence[str], method: str = "pchip"
) -> list[ImageRow]:
    """BD-rate of `ours` over each of `others`, image by image, the worst first: sorted by the first
    of them, images without a figure there last. Empty without others."""
    if not others:
        return []
    points: dict[tuple[str, str], list[Record]] = {}
    for record in found:
        points.setdefault((record.image, record.codec), []).append(record)

    def curve(image: str, codec: str) -> Curve:
        records = points.get((image, codec), [])
        return Curve(codec, tuple(r.bpp for r in records), tuple(r.psnr for r in records))

    def rate(image: str, other: str) -> float | None:
        try:
            return bd_rate(curve(image, other), curve(image, ours), method).value
        except CurveError:
            return None

    images = dict.fromkeys(record.image for record in found)
    rows = [ImageRow(image, tuple(rate(image, other) for other in others)) for image in images]
    return sorted(rows, key=lambda row: (row.rates[0] is None, -(row.rates[0] or 0.0)))
