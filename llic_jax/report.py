"""The report of an evaluation: one HTML file that opens anywhere, Markdown, and SVG/PNG figures.

OUTPUT/report.html     everything, pictures inlined
OUTPUT/report.md       the tables, with links to the figures
OUTPUT/figures/*       each figure as SVG and PNG
"""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from tqdm import tqdm

from llic_jax import baselines, inspection, plots, published, records
from llic_jax import rate_distortion as rd
from llic_jax.by_image import by_image
from llic_jax.measuring import Image
from llic_jax.rate_distortion import Curve, CurveError, Points
from llic_jax.records import Record
from llic_jax.side_by_side import Crop, side_by_side

# Published curves that are drawn; all of them are in the table.
DRAWN = (
    "MLIC++",
    "STF",
    published.ANCHOR,
    "mbt2018",
    "BPG 4:4:4",
    "bmshj2018-hyperprior",
)
CROP_IMAGES = 3
CROP_CODECS = ("JPEG", "AVIF")
ANCHORS = ("AVIF", "WebP", "JPEG XL", "JPEG 2000", "JPEG")  # the first that was measured


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the BD table. kind: "ours", "measured" or "published". rate (%), psnr (dB): over
    the anchor, None if they cannot be computed. stated: BD-rate as its authors state it. ours:
    BD-rate of our first curve over this one. remarks: what to know about the line."""

    name: str
    kind: str
    rate: float | None
    psnr: float | None
    stated: float | None
    ours: float | None
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the report: its file's name, title, text, and the drawing."""

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


def write(
    output: Path,
    systems: Sequence[Any],
    found: Sequence[Record],
    figures: Mapping[str, Any],
    image_set: Any,
    inspect: bool = True,
    command: str = "",
    method: str = "pchip",
) -> Path:
    """Writes the report of `found` into `output` and returns the HTML file's path.

    systems: the `LlicSystem`s; the first is looked inside (`inspect`). figures: the evaluation's
    summary. image_set: what was measured on. method: of BD-rate (see `rate_distortion.METHODS`).
    """
    means = figures["codecs"]
    ours = list(dict.fromkeys(system.name for system in systems))
    curves, remarks = _curves(means)
    known = published.curves(image_set.published)
    anchor = known[published.ANCHOR].curve() if published.ANCHOR in known else None
    anchor = anchor or next((curves[name] for name in ANCHORS if name in curves), None)
    rows = _rows(ours, curves, known, anchor, method)
    measured = [name for name in ANCHORS if name in means]
    worst_first = by_image(found, ours[0], measured, method)
    pictures = _comparison_pictures(ours, curves, means, known, anchor, rows)
    crops: list[tuple[str, list[Crop]]] = []
    if inspect:
        order = {row.image: i for i, row in enumerate(worst_first)}
        images = sorted(image_set.images, key=lambda pair: order.get(pair[0], 0))
        crops = _crops(systems, means, images)
        pictures += _inside(systems[0], image_set.images, means)
    folder = output / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for picture in tqdm(pictures, "figures", leave=False, disable=None):
        picture.save(folder)
    context = {
        "title": f"{' and '.join(ours)} on {image_set.name}",
        "ours": ours,
        "anchor": anchor.name if anchor else None,
        "method": method,
        "means": means,
        "rows": rows,
        "sources": {row.name: known[row.name].source for row in rows if row.kind == "published"},
        "remarks": remarks,
        "pictures": pictures,
        "crops": crops,
        "measured": measured,
        "by_image": worst_first,
        "records": found,
        "figures": figures,
        "command": command,
        "all_identical": all(r.identical for r in found if r.identical is not None),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llic_jax"),
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for name in ("report.md", "report.html"):
        text = environment.get_template(name).render(context)
        (output / name).write_text(text, encoding="utf-8")
    return output / "report.html"


def _curves(means: Mapping[str, Any]) -> tuple[dict[str, Curve], list[str]]:
    """The curve of every codec whose points make one, and why the others make none."""
    curves: dict[str, Curve] = {}
    remarks = []
    for name, group in means.items():
        try:
            points = records.points(group)
            curves[name] = Curve(points.name, points.rates, points.quality)
        except CurveError as error:
            remarks.append(str(error))
    return curves, remarks


def _rows(
    ours: Sequence[str],
    curves: Mapping[str, Curve],
    known: Mapping[str, published.Published],
    anchor: Curve | None,
    method: str,
) -> list[Row]:
    """Every codec against the anchor, best first; what cannot be compared comes last."""
    stated = published.bd_rates() if anchor and anchor.name == published.ANCHOR else {}
    own = next((curves[name] for name in ours if name in curves), None)
    rows = []
    everything = [(name, "ours" if name in ours else "measured", c) for name, c in curves.items()]
    everything += [(name, "published", entry.curve()) for name, entry in known.items()]
    for name, kind, curve in everything:
        rate = psnr = reverse = None
        remarks: list[str] = []
        try:
            if anchor is not None:
                compared = rd.bd_rate(anchor, curve, method)
                rate, psnr = compared.value, rd.bd_psnr(anchor, curve, method).value
                remarks += compared.remarks
            if own is not None and kind != "ours":
                reverse = rd.bd_rate(curve, own, method).value
        except CurveError as error:
            remarks.append(str(error))
        rows.append(Row(name, kind, rate, psnr, stated.get(name), reverse, tuple(remarks)))
    return sorted(rows, key=lambda row: (row.rate is None, row.rate))


def _comparison_pictures(
    ours: Sequence[str],
    curves: Mapping[str, Curve],
    means: Mapping[str, Any],
    known: Mapping[str, published.Published],
    anchor: Curve | None,
    rows: Sequence[Row],
) -> list[Picture]:
    drawn = [known[name].curve() for name in DRAWN if name in known]
    note = " Dashed: published figures, not measured here." if drawn else ""
    pictures = [
        Picture(
            "psnr",
            "Rate and distortion",
            "PSNR over RGB and bits per pixel of whole files, both averaged over images." + note,
            plots.rate_distortion(*_points(ours, means, "psnr"), drawn, "PSNR (dB)"),
        )
    ]
    own, others = _points(ours, means, "ms_ssim_db")
    if own:
        drawn = [
            Curve(name, entry.bpp, tuple(plots.decibels(entry.ms_ssim)))
            for name, entry in known.items()
            if name in DRAWN and entry.ms_ssim is not None
        ]
        pictures.append(
            Picture(
                "ms_ssim",
                "MS-SSIM",
                "As -10 log10(1 - MS-SSIM), averaged over images (published curves: of the mean).",
                plots.rate_distortion(own, others, drawn, "MS-SSIM (dB)"),
            )
        )
    if anchor is None:
        return pictures
    savings = {}
    for curve in curves.values():
        try:
            if curve.name != anchor.name:
                savings[curve.name] = rd.rate_saving(anchor, curve)
        except CurveError:
            continue  # its line in the table says why
    if savings:
        pictures.append(
            Picture(
                "rate_saving",
                "Rate saved at equal PSNR",
                "Cubic splines through the points, rates compared at each PSNR with those of "
                f"{anchor.name}; above zero, fewer bits.",
                plots.rate_saving(savings, anchor.name),
            )
        )
    rates = {r.name: r.rate for r in rows if r.kind != "published" and r.rate is not None}
    memory = {
        name: (max(m["peak_memory"] for m in group) / 2**20, rates[name])
        for name, group in means.items()
        if name in rates and all(m["peak_memory"] for m in group)
    }
    if memory:
        pictures.append(
            Picture(
                "memory",
                "Memory",
                "The most memory that the process held while coding and decoding, interpreter and "
                "libraries included, against BD-rate: down and left is better.",
                plots.memory(memory, anchor.name),
            )
        )
    return pictures


def _points(
    ours: Sequence[str], means: Mapping[str, Any], figure: str
) -> tuple[list[Points], list[Points]]:
    """What there is to draw of our codecs, and of the others."""
    every = [records.points(group, figure) for group in means.values()]
    every = [points for points in every if points.rates]
    return [p for p in every if p.name in ours], [p for p in every if p.name not in ours]


def _middle(means: Sequence[Mapping[str, Any]]) -> int:
    """The setting to look at: of low rate, where codecs differ to the eye."""
    by_rate = sorted(range(len(means)), key=lambda i: means[i]["bpp"])
    return by_rate[(len(means) - 1) // 2]


def _crops(
    systems: Sequence[Any], means: Mapping[str, Any], images: Sequence[tuple[str, Image]]
) -> list[tuple[str, list[Crop]]]:
    group = means[systems[0].name]
    chosen = group[_middle(group)]
    system = next(s for s in systems if s.setting(chosen["quality"]) == chosen["setting"])
    others = baselines.by_names(list(CROP_CODECS))
    return [
        (name, side_by_side(system, chosen["quality"], image, others))
        for name, image in tqdm(images[:CROP_IMAGES], "side by side", leave=False, disable=None)
    ]


def _inside(
    system: Any, images: Sequence[tuple[str, Image]], means: Mapping[str, Any]
) -> list[Picture]:
    codec, config = system.codec, system.model_config
    group = means[system.name]
    quality = group[_middle(group)]["quality"]
    # Images of one padded size share a compiled program; the most common size is looked at.
    sizes = [tuple(-(-side // 64) for side in image.shape[:2]) for _, image in images]
    size = max(sizes, key=sizes.count)
    alike = [pair for pair, s in zip(images, sizes, strict=True) if s == size][:8]
    names = [name for name, _ in alike]
    seen = [
        inspection.inspect_image(codec.model, codec.params, image, quality, codec.options)
        for _, image in tqdm(alike, "bits and weights", leave=False, disable=None)
    ]
    channels = sum(s.bits_y.sum((0, 1)) for s in seen) / len(seen)
    at = "" if quality is None else f" at quality {quality:g}"
    large = [image for _, image in images if min(image.shape[:2]) >= 64][:8]
    pictures = []
    if large:
        fields = inspection.receptive_fields(codec.model, codec.params, config, large)
        pictures.append(
            Picture(
                "receptive_field",
                "Effective receptive field",
                "Squared gradient of the central latent (summed over channels) with respect to "
                f"the image, averaged over {len(large)} images; the circle holds 95 % of it. The "
                "static kernels were not trained.",
                plots.receptive_fields(fields),
                raster=True,
            )
        )
    pictures += [
        Picture(
            "channel_bits",
            "Bits by channel",
            f"Estimated bits of y{at}, averaged over {len(seen)} images.",
            plots.channel_bits(channels, inspection.group_bits(codec.model.steps, channels)),
        ),
        Picture(
            "bit_maps",
            "Bits over the image",
            f"Where the bits go{at} ({', '.join(names[:2])}).",
            plots.bit_maps([image for _, image in alike[:2]], [s.bit_map() for s in seen[:2]]),
            raster=True,
        ),
    ]
    if config["style"]["self_conditioned"] and len(seen) > 1:
        block = next(iter(seen[0].kernels))
        side = seen[0].kernels[block].shape[0]
        pictures.append(
            Picture(
                "kernels",
                f"Generated {side}x{side} kernels",
                "Depth-wise kernels that the first stage generates for two images, in the channels "
                "where they differ most. Each channel has its own scale, the same in all rows.",
                plots.kernels(names, seen, block),
                raster=True,
            )
        )
    if seen[0].factors:
        pictures.append(
            Picture(
                "factors",
                "Channel importance factors",
                "Generated by SCCT in each block of g_a.",
                plots.factors(names[:3], seen[:3]),
            )
        )
    return pictures
