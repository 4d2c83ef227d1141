"""The figures of a report: which curves and pictures it shows."""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from llic_jax.errors import CurveError
from llic_jax.evaluation import inspection
from llic_jax.evaluation.baselines import PSNR
from llic_jax.evaluation.image_sets import Images
from llic_jax.evaluation.llic_system import LlicSystem
from llic_jax.evaluation.system import Quality
from llic_jax.metrics import bd_rate as rd
from llic_jax.metrics.bd_rate import Curve
from llic_jax.ops.sizes import HYPER_STRIDE, round_up
from llic_jax.report import plots
from llic_jax.report.tables import Comparison

INSPECTED_IMAGES = 8


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
        """Writes the picture as SVG and as PNG.

        Args:
            folder: For both files.
        """
        for kind in ("svg", "png"):
            _save(self.figure, folder / f"{self.name}.{kind}", kind)


def _save(figure: Figure, target: Any, kind: str) -> None:
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with plots.style():
        figure.savefig(target, format=kind, dpi=160, metadata=metadata, facecolor="white")


def comparison_pictures(
    comparisons: Sequence[Comparison], means: Mapping[str, Any]
) -> list[Picture]:
    """Draws rates and distortions, rate savings and memory, as far as there are figures for them.

    Args:
        comparisons: Of each figure.
        means: Of each codec's settings.
    """
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


def middle_setting(means: Sequence[Mapping[str, Any]]) -> int:
    """The setting to look at: of low rate, where codecs differ to the eye.

    Args:
        means: Of one codec's settings.

    Returns:
        Its index.
    """
    by_rate = sorted(range(len(means)), key=lambda i: means[i]["bpp"])
    return by_rate[(len(means) - 1) // 2]


def inside_pictures(system: LlicSystem, images: Images, means: Mapping[str, Any]) -> list[Picture]:
    """Draws what goes on inside a model, at its middle quality.

    Args:
        system: The model.
        images: That it is looked at with.
        means: Of each codec's settings.
    """
    codec = system.codec
    group = means[system.name]
    quality = group[middle_setting(group)]["quality"]
    inspector = inspection.Inspector(codec.network, codec.model.params, codec.options)
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
    sizes = [tuple(round_up(side, HYPER_STRIDE) for side in image.shape[:2]) for _, image in images]
    size = max(sizes, key=sizes.count)
    return [p for p, s in zip(images, sizes, strict=True) if s == size][:INSPECTED_IMAGES]


def _receptive_field_pictures(system: LlicSystem, images: Images) -> list[Picture]:
    large = [image for _, image in images if min(image.shape[:2]) >= 64][:INSPECTED_IMAGES]
    if not large:
        return []
    codec = system.codec
    fields = inspection.receptive_fields(
        codec.network, codec.model.params, system.model_config, large
    )
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
    groups = inspection.group_bits(system.codec.network.steps, channels)
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
