"""The report of an evaluation: one HTML file that opens anywhere, Markdown, and SVG/PNG figures.

OUTPUT/report.html     everything, pictures inlined
OUTPUT/report.md       the tables, with links to the figures
OUTPUT/figures/*       each figure as SVG and PNG
"""

import base64
import dataclasses
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from llic_jax import baselines, inspection, plots, published, records
from llic_jax import rate_distortion as rd
from llic_jax.baselines import MS_SSIM, PSNR
from llic_jax.by_image import by_image
from llic_jax.evaluation import Images, ImageSet, LlicSystem, Output, Trial, summary
from llic_jax.measuring import Quality
from llic_jax.rate_distortion import Curve, CurveError, Points
from llic_jax.records import Result
from llic_jax.side_by_side import Crop, side_by_side

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
CROP_IMAGES = 3
CROP_CODECS = ("JPEG", "AVIF (default tuning)")  # as people use them: crops are for the eye
INSPECTED_IMAGES = 8


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What a report has beside the results.

    Attributes:
      inspect: Crops side by side, and pictures from inside the first model.
      bd_method: Interpolation of BD-rates (see `rate_distortion.METHODS`).
      command: The command line, as the report states it; empty: it states none.
      workers: The number of processes that measured, as the report states it.
    """

    inspect: bool = True
    bd_method: str = "pchip"
    command: str = ""
    workers: int = 1


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
      figure: A key of `records.CURVE_FIGURES`.
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
        return LABELS[self.figure]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
      name: Of its files.
      title: Its heading.
      text: Below it.
      figure: The drawing.
      raster: Whether it is mostly pixels.
    """

    name: str
    title: str
    text: str
    figure: Figure
    raster: bool = False

    @property
    def uri(self) -> str:
        """The figure inlined: SVG, or PNG where it is mostly pixels."""
        buffer = io.BytesIO()
        kind, mime = ("png", "image/png") if self.raster else ("svg", "image/svg+xml")
        _save(self.figure, buffer, kind)
        return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def save(self, folder: Path) -> None:
        for kind in ("svg", "png"):
            _save(self.figure, folder / f"{self.name}.{kind}", kind)


def _save(figure: Figure, target: Any, kind: str) -> None:
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with plots.style():
        figure.savefig(target, format=kind, dpi=160, metadata=metadata, facecolor="white")


def write_report(
    results: Sequence[Result],
    images: ImageSet,
    trials: Sequence[Trial],
    output: Output,
    options: ReportOptions | None = None,
) -> Path:
    """Writes the report.

    Args:
      results: See `evaluation.measure`.
      images: What was measured on.
      trials: What was measured; the first model is looked inside.
      output: Where the report goes.
      options: What it has (default: everything).

    Returns:
      The path of the HTML file.
    """
    options = options or ReportOptions()
    figures = summary(results, images, options.workers)
    means = figures["codecs"]
    systems = [trial.system for trial in trials if isinstance(trial.system, LlicSystem)]
    ours = list(dict.fromkeys(system.name for system in systems))
    known = published.curves(images.published)
    comparisons = [compare(figure, means, ours, known, options.bd_method) for figure in LABELS]
    measured = [name for name in ANCHORS[PSNR] if name in means]
    worst_first = by_image(results, ours[0], measured, options.bd_method)
    pictures = _comparison_pictures(comparisons, means)
    crops: list[tuple[str, list[Crop]]] = []
    if options.inspect:
        order = {row.image: i for i, row in enumerate(worst_first)}
        ordered = sorted(images.images, key=lambda pair: order.get(pair[0], 0))
        crops = _crops(systems, means, ordered)
        pictures += _inside_pictures(systems[0], images.images, means)
    folder = output.folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for picture in tqdm(pictures, "figures", leave=False, disable=None):
        picture.save(folder)
    context = {
        "title": f"{' and '.join(ours)} on {images.name}",
        "ours": ours,
        "comparisons": comparisons,
        "method": options.bd_method,
        "means": means,
        "sources": _sources(comparisons, known),
        "tunings": {n: baselines.FORMATS[n].tuning for n in means if n in baselines.FORMATS},
        "notes": records.notes(results),
        "pictures": pictures,
        "crops": crops,
        "measured": measured,
        "by_image": worst_first,
        "results": results,
        "figures": figures,
        "command": options.command,
        "all_identical": all(r.identical for r in results if r.identical is not None),
    }
    _render(output.folder, context)
    return output.folder / "report.html"


def _render(folder: Path, context: Mapping[str, Any]) -> None:
    for name in ("report.md", "report.html"):
        text = _environment(name).get_template(name).render(context)
        (folder / name).write_text(text, encoding="utf-8")


def _environment(template: str) -> jinja2.Environment:
    """Escapes what templates fill in, by the rules of HTML or of Markdown."""
    is_html = template.endswith(".html")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llic_jax"),
        autoescape=is_html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    if not is_html:
        environment.finalize = markdown_text
        environment.filters["code"] = _Code
    return environment


class _Code(str):
    """Text that a Markdown template shows as code."""


# Also at the beginning of a word only: within one, an underscore is no markup.
_MARKUP = re.compile(r"[\\`*\[\]|<>&#~$]|(?<![^\W_])_|_(?![^\W_])")


def markdown_text(value: Any) -> Any:
    """Escapes text for Markdown, also within tables; what is no text stays as it is.

    Args:
      value: What a template fills in.

    Returns:
      Text that is shown as it is: characters with a meaning in Markdown are escaped, those of HTML
      become entities, and line breaks become spaces. `_Code` becomes a code span.
    """
    if not isinstance(value, str):
        return value
    text = re.sub(r"\s+", " ", value) if re.search(r"[\r\n\v\f\x85\u2028\u2029]", value) else value
    if isinstance(value, _Code):
        fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
        edge = " " if text.startswith("`") or text.endswith("`") else ""
        return f"{fence}{edge}{text}{edge}{fence}"

    def escaped(match: re.Match[str]) -> str:
        character = match.group()
        return html.escape(character) if character in "<>&" else f"\\{character}"

    return _MARKUP.sub(escaped, text)


def _sources(
    comparisons: Sequence[Comparison], known: Mapping[str, published.Published]
) -> dict[str, str]:
    """Where the published figures that the tables have come from, by codec."""
    rows = [row for comparison in comparisons for row in comparison.rows]
    return {row.name: known[row.name].source for row in rows if row.kind == "published"}


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
      means: By codec (see `records.averages`).
      ours: Names of our codecs.
      known: Published curves, by codec.
      method: Interpolation of BD-rates.

    Returns:
      The comparison.
    """
    compared = {name: group for name, group in means.items() if baselines.compared_by(name, figure)}
    points = [records.points(group, figure) for group in compared.values()]
    points = [p for p in points if p.rates]
    curves, remarks = _curves(points)
    others = {name: curve for name, entry in known.items() if (curve := entry.curve(figure))}
    every = others | curves  # of one name, what was measured here counts
    anchor = next((every[name] for name in ANCHORS[figure] if name in every), None)
    return Comparison(
        figure=figure,
        anchor=anchor,
        rows=_rows(figure, ours, curves, others, anchor, method) if anchor else [],
        curves=curves,
        ours=[p for p in points if p.name in ours],
        others=[p for p in points if p.name not in ours],
        drawn=[others[name] for name in DRAWN if name in others],
        remarks=remarks,
    )


def _curves(every: Sequence[Points]) -> tuple[dict[str, Curve], list[str]]:
    """The curve of every codec whose points make one, and why the others make none."""
    curves: dict[str, Curve] = {}
    remarks = []
    for points in every:
        try:
            curves[points.name] = Curve(points.name, points.rates, points.quality)
        except CurveError as error:
            remarks.append(str(error))
    return curves, remarks


def _rows(
    figure: str,
    ours: Sequence[str],
    curves: Mapping[str, Curve],
    others: Mapping[str, Curve],
    anchor: Curve,
    method: str,
) -> list[Row]:
    """Every codec against the anchor, best first; what cannot be compared comes last."""
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


def _comparison_pictures(
    comparisons: Sequence[Comparison], means: Mapping[str, Any]
) -> list[Picture]:
    pictures: list[Picture | None] = []
    for comparison in comparisons:
        # MS-SSIM is drawn where ours has it: others are measured beside it, not for themselves.
        if comparison.ours or (comparison.figure == PSNR and comparison.others):
            pictures.append(_rate_distortion_picture(comparison))
    for comparison in comparisons:
        if comparison.figure == PSNR and comparison.anchor is not None:
            pictures.append(_rate_saving_picture(comparison, comparison.anchor))
            pictures.append(_memory_picture(comparison, comparison.anchor, means))
    return [picture for picture in pictures if picture is not None]


def _rate_distortion_picture(comparison: Comparison) -> Picture:
    if comparison.figure == PSNR:
        name, title = "psnr", "Rate and distortion"
        text = "PSNR over RGB and bits per pixel of whole files, both averaged over images."
    else:
        name, title = "ms_ssim", "MS-SSIM"
        text = "As -10 log10(1 - MS-SSIM), averaged over images (published curves: of the mean)."
    if comparison.drawn:
        text += " Dashed: published figures, not measured here."
    axis = f"{comparison.label} (dB)"
    figure = plots.rate_distortion(comparison.ours, comparison.others, comparison.drawn, axis)
    return Picture(name, title, text, figure)


def _rate_saving_picture(comparison: Comparison, anchor: Curve) -> Picture | None:
    savings = {}
    for curve in comparison.curves.values():
        try:
            if curve.name != anchor.name:
                savings[curve.name] = rd.rate_saving(anchor, curve)
        except CurveError:
            continue  # its line in the table says why
    if not savings:
        return None
    return Picture(
        "rate_saving",
        "Rate saved at equal PSNR",
        "Cubic splines through the points, rates compared at each PSNR with those of "
        f"{anchor.name}; above zero, fewer bits.",
        plots.rate_saving(savings, anchor.name),
    )


def _memory_picture(
    comparison: Comparison, anchor: Curve, means: Mapping[str, Any]
) -> Picture | None:
    rates = {
        row.name: row.rate
        for row in comparison.rows
        if row.kind != "published" and row.rate is not None
    }
    memory = {
        name: (max(m["peak_memory"] for m in group) / 2**20, rates[name])
        for name, group in means.items()
        if name in rates and all(m["peak_memory"] for m in group)
    }
    if not memory:
        return None
    return Picture(
        "memory",
        "Memory",
        "The most memory that the process held while coding and decoding, interpreter and "
        "libraries included, against BD-rate: down and left is better.",
        plots.memory(memory, anchor.name),
    )


def _middle(means: Sequence[Mapping[str, Any]]) -> int:
    """The setting to look at: of low rate, where codecs differ to the eye."""
    by_rate = sorted(range(len(means)), key=lambda i: means[i]["bpp"])
    return by_rate[(len(means) - 1) // 2]


def _crops(
    systems: Sequence[LlicSystem], means: Mapping[str, Any], images: Images
) -> list[tuple[str, list[Crop]]]:
    group = means[systems[0].name]
    chosen = group[_middle(group)]
    system = next(s for s in systems if s.setting(chosen["quality"]) == chosen["setting"])
    others = baselines.by_names(list(CROP_CODECS))
    return [
        (name, side_by_side(system, chosen["quality"], image, others))
        for name, image in tqdm(images[:CROP_IMAGES], "side by side", leave=False, disable=None)
    ]


def _inside_pictures(system: LlicSystem, images: Images, means: Mapping[str, Any]) -> list[Picture]:
    """What goes on inside a model, at its middle quality."""
    codec = system.codec
    group = means[system.name]
    quality = group[_middle(group)]["quality"]
    inspector = inspection.Inspector(codec.model, codec.params, codec.options)
    alike = _alike(images)
    insights = [
        inspector.inspect(image, quality)
        for _, image in tqdm(alike, "bits and weights", leave=False, disable=None)
    ]
    pictures = _receptive_field_pictures(system, images)
    pictures += _bit_pictures(system, quality, alike, insights)
    pictures += _weight_pictures(system, [name for name, _ in alike], insights)
    return pictures


def _alike(images: Images) -> Images:
    """Images of the most common padded size: they share a compiled program."""
    sizes = [tuple(-(-side // 64) for side in image.shape[:2]) for _, image in images]
    size = max(sizes, key=sizes.count)
    return [p for p, s in zip(images, sizes, strict=True) if s == size][:INSPECTED_IMAGES]


def _receptive_field_pictures(system: LlicSystem, images: Images) -> list[Picture]:
    large = [image for _, image in images if min(image.shape[:2]) >= 64][:INSPECTED_IMAGES]
    if not large:
        return []
    codec = system.codec
    fields = inspection.receptive_fields(codec.model, codec.params, system.model_config, large)
    return [
        Picture(
            "receptive_field",
            "Effective receptive field",
            "Squared gradient of the central latent (summed over channels) with respect to "
            f"the image, averaged over {len(large)} images; the circle holds 95 % of it. The "
            "static kernels were not trained.",
            plots.receptive_fields(fields),
            raster=True,
        )
    ]


def _bit_pictures(
    system: LlicSystem,
    quality: Quality,
    images: Images,
    insights: Sequence[inspection.Insight],
) -> list[Picture]:
    channels: np.ndarray = sum(i.bits_y.sum((0, 1)) for i in insights) / len(insights)
    groups = inspection.group_bits(system.codec.model.steps, channels)
    at = "" if quality is None else f" at quality {quality:g}"
    names = ", ".join(name for name, _ in images[:2])
    maps = [insight.bit_map() for insight in insights[:2]]
    return [
        Picture(
            "channel_bits",
            "Bits by channel",
            f"Estimated bits of y{at}, averaged over {len(insights)} images.",
            plots.channel_bits(channels, groups),
        ),
        Picture(
            "bit_maps",
            "Bits over the image",
            f"Where the bits go{at} ({names}).",
            plots.bit_maps([image for _, image in images[:2]], maps),
            raster=True,
        ),
    ]


def _weight_pictures(
    system: LlicSystem, names: Sequence[str], insights: Sequence[inspection.Insight]
) -> list[Picture]:
    """The weights that the model generates for an image."""
    pictures = []
    if system.model_config["style"]["self_conditioned"] and len(insights) > 1:
        block = next(iter(insights[0].kernels))
        side = insights[0].kernels[block].shape[0]
        pictures.append(
            Picture(
                "kernels",
                f"Generated {side}x{side} kernels",
                "Depth-wise kernels that the first stage generates for two images, in the channels "
                "where they differ most. Each channel has its own scale, the same in all rows.",
                plots.kernels(names, insights, block),
                raster=True,
            )
        )
    if insights[0].factors:
        pictures.append(
            Picture(
                "factors",
                "Channel importance factors",
                "Generated by SCCT in each block of g_a.",
                plots.factors(names[:3], insights[:3]),
            )
        )
    return pictures
