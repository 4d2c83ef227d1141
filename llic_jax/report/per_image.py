"""How a codec does on each image: means hide the photographs on which it fails."""

import dataclasses
from collections.abc import Sequence

from llic_jax.errors import CurveError
from llic_jax.evaluation.results import Result
from llic_jax.metrics.bd_rate import Curve, bd_rate


@dataclasses.dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
      image: Its name.
      rates: BD-rate (%) of our codec over each of the others on this image, in their order. None:
        the two have no curves in common.
    """

    image: str
    rates: tuple[float | None, ...]


def by_image(
    results: Sequence[Result], ours: str, others: Sequence[str], method: str = "pchip"
) -> list[ImageRow]:
    """Computes BD-rates image by image.

    Args:
      results: Of all codecs.
      ours: Name of our codec.
      others: Names of the codecs that it is compared with.
      method: Interpolation (see `bd_rate.METHODS`).

    Returns:
      The images, the worst over the first of `others` first, those without a figure there last.
      Empty without others.
    """
    if not others:
        return []
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.image, result.codec), []).append(result)

    def curve(image: str, codec: str) -> Curve:
        group = groups.get((image, codec), [])
        return Curve(codec, tuple(r.bpp for r in group), tuple(r.psnr for r in group))

    def rate(image: str, other: str) -> float | None:
        try:
            return bd_rate(curve(image, other), curve(image, ours), method).value
        except CurveError:
            return None

    images = dict.fromkeys(result.image for result in results)
    rows = [ImageRow(image, tuple(rate(image, other) for other in others)) for image in images]
    return sorted(rows, key=lambda row: (row.rates[0] is None, -(row.rates[0] or 0.0)))
