"""The pictures of a report. Each function draws one figure and returns it; none writes a file."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.patches
import matplotlib.ticker
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llic_jax.evaluation.inspection import Insight, ReceptiveField
from llic_jax.metrics.bd_rate import Points

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e4e8ec"
OURS = ("#c2185b", "#7b1fa2", "#e65100", "#00695c")
MEASURED = {
    "AVIF": "#0b6fb8",
    "AVIF (slow)": "#083d6b",
    "AVIF (default tuning)": "#5aa9e6",
    "JPEG XL": "#1b9e77",
    "WebP": "#b8860b",
    "JPEG 2000": "#8c6bb1",
    "JPEG": "#8b5a3c",
}
_WIDEST_BPP = 1.6  # bits per pixel; at higher rates all codecs look alike
LEAST_SAVING = -150  # per cent; curves below it would press the others together
# Colour and dashes of published curves, in the order in which they are drawn.
PUBLISHED = (
    ("#1f2933", (6, 2)),
    ("#7b8794", (2, 1.5)),
    ("#1f2933", (1, 1)),
    ("#9aa5b1", (6, 2)),
    ("#7b8794", (6, 2, 1, 2)),
    ("#9aa5b1", (1, 1)),
    ("#1f2933", (6, 2, 1, 2)),
)
PLAIN = matplotlib.ticker.StrMethodFormatter("{x:g}")  # numbers as one says them
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b8c0c8",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "svg.fonttype": "path",  # looks the same on machines without the font
    "svg.hashsalt": "llic_jax",  # the same figure gives the same file
    "text.parse_math": False,  # a file's name may have dollars in it
}


def style() -> Any:
    """The context in which figures are drawn and saved."""
    return matplotlib.rc_context(STYLE)


def grid(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """Makes an empty figure.

    Args:
      width: In inches.
      height: In inches.
      rows: Of axes.
      columns: Of axes.

    Returns:
      The figure, and its axes `(rows, columns)`.
    """
    # Figure objects of their own: pyplot would keep every one of them open.
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False)


def rate_distortion(
    ours: Sequence[Points], measured: Sequence[Points], published: Sequence[Points], label: str
) -> Figure:
    """Draws curves over bits per pixel.

    Args:
      ours: Drawn thick.
      measured: Others that were measured here, drawn solid.
      published: Drawn dashed.
      label: Of the vertical axis.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(8.0, 5.2)
        ax: Axes = axes[0, 0]
        for curve, (colour, dashes) in zip(published, PUBLISHED * len(published), strict=False):
            ax.plot(curve.rates, curve.quality, color=colour, lw=1.3, dashes=dashes)
            ax.lines[-1].set_label(curve.name)
        for curve in measured:
            ax.plot(
                curve.rates,
                curve.quality,
                "-o",
                color=_colour(curve.name),
                lw=1.5,
                ms=3.5,
                label=curve.name,
            )
        for curve, colour in zip(ours, OURS * len(ours), strict=False):
            ax.plot(
                curve.rates,
                curve.quality,
                "-o",
                color=colour,
                lw=2.6,
                ms=5.5,
                zorder=5,
                label=curve.name,
            )
        rates = [rate for curve in (*ours, *measured) for rate in curve.rates]
        span = min(max(rates), max(_WIDEST_BPP, min(rates)))
        inside = [
            quality
            for curve in (*ours, *measured)
            for rate, quality in zip(curve.rates, curve.quality, strict=True)
            if rate <= span
        ]
        margin = max(0.06 * (max(inside) - min(inside)), 0.2)
        ax.set(xlabel="bits per pixel", ylabel=label, xlim=(0, span * 1.02))
        ax.set_ylim(min(inside) - margin, max(inside) + margin)
        # In the order in which the curves lie at the right-hand side, best first.
        ax.legend(*_ordered(ax), loc="lower right", fontsize=9)
        return figure


def _colour(name: str) -> str:
    return MEASURED.get(name, MUTED)


def rate_saving(savings: Mapping[str, tuple[np.ndarray, np.ndarray]], anchor: str) -> Figure:
    """Draws the rate saved over PSNR (paper, fig. 4-6).

    Args:
      savings: PSNR in dB and saving in per cent, by codec.
      anchor: Name of the codec that is compared with.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(8.0, 4.4)
        ax: Axes = axes[0, 0]
        ax.axhline(0, color=INK, lw=1)
        drawn = {name: pair for name, pair in savings.items() if pair[1].max() > LEAST_SAVING}
        for index, (name, (psnr, saving)) in enumerate(drawn.items()):
            colour = MEASURED.get(name) or OURS[index % len(OURS)]
            ax.plot(psnr, saving, color=colour, lw=1.5 if name in MEASURED else 2.6)
            ax.lines[-1].set_label(name)
        ax.set(xlabel="PSNR (dB)", ylabel=f"rate saved over {anchor} (%)")
        low = min((saving.min() for _, saving in drawn.values()), default=0)
        ax.set_ylim(bottom=max(low * 1.1, LEAST_SAVING))
        ax.legend(loc="best", fontsize=9)
        return figure


def memory(points: Mapping[str, tuple[float, float]], anchor: str) -> Figure:
    """Draws BD-rate over peak memory (paper, fig. 1).

    Args:
      points: MiB and per cent, by codec.
      anchor: Name of the codec that BD-rates are over.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(8.0, 3.8)
        ax: Axes = axes[0, 0]
        ax.axhline(0, color=INK, lw=1)
        colours = iter(OURS * len(points))
        for index, (name, (x, y)) in enumerate(sorted(points.items(), key=lambda p: p[1][1])):
            ours = name not in MEASURED
            colour = next(colours) if ours else MEASURED[name]
            ax.plot(x, y, "o", color=colour, ms=10 if ours else 7)
            # To the left and to the right by turns: neighbours in height are often close.
            shift, side = ((9, "left"), (-9, "right"))[index % 2]
            ax.annotate(
                name,
                (x, y),
                (shift, 0),
                textcoords="offset points",
                va="center",
                ha=side,
                fontsize=9,
            )
        ax.set_xscale("log")
        ax.margins(x=0.25, y=0.15)
        ax.set(xlabel="peak memory (MiB)", ylabel=f"BD-rate over {anchor} (%)")
        ax.xaxis.set_major_formatter(PLAIN)
        ax.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        return figure


def receptive_fields(fields: Sequence[ReceptiveField]) -> Figure:
    """Draws maps of the gradient's energy, logarithmic, with the circle that holds 95 % of it.

    Args:
        fields: One a map.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = grid(3.0 * len(fields), 3.5, 1, len(fields))
        half = _half_width(fields)
        for ax, field in zip(axes[0], fields, strict=True):
            rows, columns = np.indices(field.energy.shape)
            centre = (columns * field.energy).sum(), (rows * field.energy).sum()
            level = np.log10(field.energy / field.energy.max() + 1e-12)
            picture = ax.imshow(level, cmap="magma", vmin=-6, vmax=0, interpolation="nearest")
            ax.add_patch(
                matplotlib.patches.Circle(centre, field.radius, fill=False, color="white", lw=1.2)
            )
            ax.set_xlim(centre[0] - half, centre[0] + half)
            ax.set_ylim(centre[1] + half, centre[1] - half)
            ax.set_title(f"{field.name}\n95 % within {field.radius:.1f} px", fontsize=9)
            ax.set_xticks([])
            ax.set_yticks([])
        bar = figure.colorbar(picture, ax=list(axes[0]), shrink=0.7, aspect=30, pad=0.01)
        bar.set_label("log10 energy, relative", fontsize=8)
        return figure


def _half_width(fields: Sequence[ReceptiveField]) -> float:
    return min(max(2 * max(field.radius for field in fields), 48), fields[0].energy.shape[0] / 2)


def channel_bits(bits: Float[np.ndarray, "m"], groups: Mapping[str, float]) -> Figure:
    """Draws each channel's share of the latent's bits, sorted, and each group's in coding order.

    Args:
      bits: Of each channel.
      groups: Bits of each group, by its name.
    """
    with matplotlib.rc_context(STYLE):
        figure, (row,) = grid(10.0, 3.2, 1, 2)
        order = np.sort(bits)[::-1] / bits.sum() * 100
        row[0].bar(np.arange(len(order)), order, width=1.0, color=OURS[0])
        row[0].set(xlabel="channels, most bits first", ylabel="share of bits (%)")
        row[0].set_title("by channel")
        shares = np.array(list(groups.values())) / bits.sum() * 100
        row[1].bar(list(groups), shares, color=OURS[1])
        for index, share in enumerate(shares):
            row[1].text(index, share, f"{share:.1f}", ha="center", va="bottom", fontsize=8)
        row[1].set(xlabel="channels of the group, in coding order", ylabel="share of bits (%)")
        row[1].tick_params(axis="x", labelrotation=45 if len(groups) > 6 else 0)
        row[1].set_title("by group")
        return figure


def bit_maps(images: Sequence[np.ndarray], maps: Sequence[np.ndarray]) -> Figure:
    """Draws images beside their bits per pixel, place by place.

    Args:
      images: Each uint8 `(H, W, 3)`.
      maps: Bits per pixel of each, `(H/16, W/16)`.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        ratio = images[0].shape[0] / images[0].shape[1]
        figure, axes = grid(10.0, 4.6 * ratio * len(images) + 0.3, len(images), 2)
        top = max(m.max() for m in maps)
        for row, image, bits in zip(axes, images, maps, strict=True):
            height, width = image.shape[:2]
            row[0].imshow(image)
            extent = (0, 16 * bits.shape[1], 16 * bits.shape[0], 0)
            picture = row[1].imshow(bits, cmap="inferno", vmin=0, vmax=top, extent=extent)
            row[1].set_xlim(0, width)
            row[1].set_ylim(height, 0)
            for ax in row:
                ax.set_axis_off()
        figure.colorbar(picture, ax=axes[:, 1], shrink=0.8, aspect=30).set_label("bits per pixel")
        return figure


def kernels(
    names: Sequence[str], insights: Sequence[Insight], block: str, count: int = 10
) -> Figure:
    """Draws the kernels that a block generates for two images, and their difference.

    Colours are scaled by channel, the same in all three rows.

    Args:
      names: Of the images.
      insights: Of the images; the first two count.
      block: Name of the block of g_a.
      count: Channels to draw: those whose kernels differ most.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        a, b = (insight.kernels[block] for insight in insights[:2])
        count = min(count, a.shape[-1])
        chosen = np.argsort(-np.abs(a - b).max((0, 1)))[:count]
        figure, axes = grid(10.0, 3.4, 3, count)
        for column, channel in enumerate(chosen):
            span = max(np.abs(a[..., channel]).max(), np.abs(b[..., channel]).max())
            rows = (a, b, a - b)
            for ax, kernel in zip(axes[:, column], rows, strict=True):
                ax.imshow(kernel[..., channel], cmap="RdBu_r", vmin=-span, vmax=span)
                ax.set_xticks([])
                ax.set_yticks([])
                for spine in ax.spines.values():
                    spine.set_visible(False)
            axes[0, column].set_title(f"{channel}", fontsize=8, fontweight="normal", loc="center")
        for ax, name in zip(axes[:, 0], (*names[:2], "difference"), strict=True):
            ax.set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
        return figure


def factors(names: Sequence[str], insights: Sequence[Insight]) -> Figure:
    """Draws SCCT's channel importance factors of each block for several images.

    Args:
      names: Of the images.
      insights: Of the images.
    """
    with matplotlib.rc_context(STYLE):
        blocks = list(insights[0].factors)
        columns = min(3, len(blocks))
        rows = -(-len(blocks) // columns)
        figure, axes = grid(10.0, 2.2 * rows, rows, columns)
        for ax in axes.flat[len(blocks) :]:
            ax.set_visible(False)
        for ax, block in zip(axes.flat, blocks, strict=False):
            order = np.argsort(insights[0].factors[block])
            for name, insight, colour in zip(names, insights, OURS, strict=False):
                ax.plot(insight.factors[block][order], color=colour, lw=1.2, label=name)
            _, stage, index = block.split("_")
            ax.set_title(f"stage {int(stage) + 1}, block {int(index) + 1}", fontsize=9)
            ax.set_ylim(0, 1)
        axes[0, 0].legend(fontsize=8, loc="best")
        figure.supxlabel("channels, in the order of the first image's factors", fontsize=9)
        return figure


def _ordered(ax: Axes) -> tuple[list, list]:
    """Legend entries, the best curve first: by quality at one rate that most curves reach."""
    lines = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    data = {line: np.asarray(line.get_data(), np.float64) for line in lines}
    at = float(np.median([np.median(rates) for rates, _ in data.values()]))
    lines.sort(key=lambda line: -np.interp(at, *data[line]))
    return lines, [str(line.get_label()) for line in lines]
