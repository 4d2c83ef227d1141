"""The tables of a report: rows of figures, of measured and published codecs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from llic_jax.errors import CurveError
from llic_jax.evaluation import baselines, published
from llic_jax.evaluation import results as records
from llic_jax.evaluation.baselines import MS_SSIM, PSNR
from llic_jax.metrics import bd_rate as rd
from llic_jax.metrics.bd_rate import Curve, Points

# Published curves that are drawn; all of them are in the tables.
DRAWN = (
    "MLIC++",
    "STF",
    published.ANCHOR,
    "mbt2018",
    "BPG 4:4:4",
    "bmshj2018-hyperprior",
    "AV1",
)
# The codec that BD-rates of a figure are over: the first one that there is.
ANCHORS = {
    PSNR: (published.ANCHOR, "AVIF", "WebP", "JPEG XL", "JPEG 2000", "JPEG"),
    MS_SSIM: (
        "VTM (version not stated)",
        "AVIF (default tuning)",
        "JPEG XL",
        "WebP",
        "JPEG 2000",
        "JPEG",
    ),
}
LABELS = {PSNR: "PSNR", MS_SSIM: "MS-SSIM"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a BD table.

    Attributes:
      name: The codec's.
      kind: "ours", "measured" or "published".
      rate: BD-rate over the anchor in per cent. None: it cannot be computed.
      gain: BD-PSNR, or that of MS-SSIM, over the anchor in dB, likewise.
      stated: BD-rate as its authors state it.
      ours: BD-rate of our first curve over this one.
      remarks: What weakens the figures.
    """

    name: str
    kind: str
    rate: float | None
    gain: float | None
    stated: float | None
    ours: float | None
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All codecs by one figure.

    Attributes:
      figure: A key of `results.CURVE_FIGURES`.
      anchor: What BD-rates are over. None: there is no such curve.
      rows: Best first; what cannot be compared comes last. Empty without an anchor.
      curves: Those that were measured, by codec.
      ours: What was measured of our codecs.
      others: What was measured of the others that are tuned for this figure.
      drawn: Published curves to draw.
      remarks: Why some codecs have no curve.
    """

    figure: str
    anchor: Curve | None
    rows: list[Row]
    curves: dict[str, Curve]
    ours: list[Points]
    others: list[Points]
    drawn: list[Curve]
    remarks: list[str]

    @property
    def label(self) -> str:
        """The figure's name, with its unit."""
        return LABELS[self.figure]


def compare(
    figure: str,
    means: Mapping[str, Any],
    ours: Sequence[str],
    known: Mapping[str, published.Published],
    method: str = "pchip",
) -> Comparison:
    """Compares all codecs by one figure; others only where they are tuned for it.

    Args:
      figure: `PSNR` or `MS_SSIM`.
      means: By codec (see `results.averages`).
      ours: Names of our codecs.
      known: Published curves, by codec.
      method: Interpolation of BD-rates.

    Returns:
      The comparison.
    """
    compared = {name: group for name, group in means.items() if baselines.compared_by(name, figure)}
    points = [records.points(group, figure) for group in compared.values()]
    points = [p for p in points if p.rates]
    curves, remarks = measured_curves(points)
    others = {name: curve for name, entry in known.items() if (curve := entry.curve(figure))}
    every = others | curves  # of one name, what was measured here counts
    anchor = next((every[name] for name in ANCHORS[figure] if name in every), None)
    return Comparison(
        figure=figure,
        anchor=anchor,
        rows=comparison_rows(figure, ours, curves, others, anchor, method) if anchor else [],
        curves=curves,
        ours=[p for p in points if p.name in ours],
        others=[p for p in points if p.name not in ours],
        drawn=[others[name] for name in DRAWN if name in others],
        remarks=remarks,
    )


def measured_curves(every: Sequence[Points]) -> tuple[dict[str, Curve], list[str]]:
    """The curve of every codec whose points make one, and why the others make none."""
    curves: dict[str, Curve] = {}
    remarks = []
    for points in every:
        try:
            curves[points.name] = Curve(points.name, points.rates, points.quality)
        except CurveError as error:
            remarks.append(str(error))
    return curves, remarks


def comparison_rows(
    figure: str,
    ours: Sequence[str],
    curves: Mapping[str, Curve],
    others: Mapping[str, Curve],
    anchor: Curve,
    method: str,
) -> list[Row]:
    """Compares every codec with the anchor.

    Args:
        figure: What quality is measured by.
        ours: Names of this project's codecs.
        curves: Measured, by name.
        others: Published, by name.
        anchor: The curve that rates are compared with.
        method: Of interpolation.

    Returns:
        The best first; what cannot be compared comes last.
    """
    stated = published.bd_rates() if anchor.name == published.ANCHOR and figure == PSNR else {}
    own = next((curves[name] for name in ours if name in curves), None)
    rows = []
    every = [(name, "ours" if name in ours else "measured", c) for name, c in curves.items()]
    every += [(name, "published", curve) for name, curve in others.items()]
    for name, kind, curve in every:
        rate = gain = reverse = None
        remarks: list[str] = []
        try:
            compared = rd.bd_rate(anchor, curve, method)
            rate, gain = compared.value, rd.bd_psnr(anchor, curve, method).value
            remarks += compared.remarks
            if own is not None and kind != "ours":
                reverse = rd.bd_rate(curve, own, method).value
        except CurveError as error:
            remarks.append(str(error))
        row_stated = stated.get(name) if kind == "published" else None
        rows.append(Row(name, kind, rate, gain, row_stated, reverse, tuple(remarks)))
    return sorted(rows, key=lambda row: (row.rate is None, row.rate))
