"""The report of an evaluation: one HTML file that opens anywhere, Markdown, and SVG/PNG figures.

OUTPUT/report.html     everything, pictures inlined
OUTPUT/report.md       the tables, with links to the figures
OUTPUT/figures/*       each figure as SVG and PNG
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llic_jax.evaluation import baselines, published
from llic_jax.evaluation.baselines import PSNR
from llic_jax.evaluation.image_sets import Images, ImageSet
from llic_jax.evaluation.llic_system import LlicSystem
from llic_jax.evaluation.measure import summary
from llic_jax.evaluation.output import Output
from llic_jax.evaluation.results import Result, notes
from llic_jax.evaluation.trials import Trial
from llic_jax.report.figures import comparison_pictures, inside_pictures, middle_setting
from llic_jax.report.per_image import by_image
from llic_jax.report.render import render
from llic_jax.report.side_by_side import Crop, side_by_side
from llic_jax.report.tables import ANCHORS, LABELS, Comparison, compare

CROP_IMAGES = 3
CROP_CODECS = ("JPEG", "AVIF (default tuning)")  # as people use them: crops are for the eye


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What a report has beside the results.

    Attributes:
      inspect: Crops side by side, and pictures from inside the first model.
      bd_method: Interpolation of BD-rates (see `bd_rate.METHODS`).
      command: The command line, as the report states it; empty: it states none.
      workers: The number of processes that measured, as the report states it.
    """

    inspect: bool = True
    bd_method: str = "pchip"
    command: str = ""
    workers: int = 1


def write_report(
    results: Sequence[Result],
    images: ImageSet,
    trials: Sequence[Trial],
    output: Output,
    options: ReportOptions | None = None,
) -> Path:
    """Writes the report.

    Args:
      results: See `measure.measure`.
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
    pictures = comparison_pictures(comparisons, means)
    crops: list[tuple[str, list[Crop]]] = []
    if options.inspect:
        order = {row.image: i for i, row in enumerate(worst_first)}
        ordered = sorted(images.images, key=lambda pair: order.get(pair[0], 0))
        crops = _crops(systems, means, ordered)
        pictures += inside_pictures(systems[0], images.images, means)
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
        "notes": notes(results),
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
        (folder / name).write_text(render(name, context), encoding="utf-8")


def _sources(
    comparisons: Sequence[Comparison], known: Mapping[str, published.Published]
) -> dict[str, str]:
    """Where the published figures that the tables have come from, by codec."""
    rows = [row for comparison in comparisons for row in comparison.rows]
    return {row.name: known[row.name].source for row in rows if row.kind == "published"}


def _crops(
    systems: Sequence[LlicSystem], means: Mapping[str, Any], images: Images
) -> list[tuple[str, list[Crop]]]:
    group = means[systems[0].name]
    chosen = group[middle_setting(group)]
    system = next(s for s in systems if s.setting(chosen["quality"]) == chosen["setting"])
    others = baselines.by_names(list(CROP_CODECS))
    return [
        (name, side_by_side(system, chosen["quality"], image, others))
        for name, image in tqdm(images[:CROP_IMAGES], "side by side", leave=False, disable=None)
    ]
