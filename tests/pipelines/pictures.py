"""A folder of photographs, some of which cannot be used, and a loop in the place of Beam."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 96  # pixels a side, at least, of the photographs that can be used


def smooth(seed: int, width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def content(folder: Path) -> list[str]:
    """The names of all image files of the folder, by their suffixes."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.[pj]*g"))


# What becomes of the files of `photographs` in a training set.
EXPECTED = {
    "records": 8,
    "skipped, cannot be read": 2,
    "skipped, too small": 1,
    "skipped, duplicate": 1,
    "skipped, transparent": 1,
}


def do_all(plan, limit: int | None = None) -> dict[str, int]:
    """Does the missing units of a plan, or the first ones of its last step; returns the counts."""
    counts: dict[str, int] = {}
    for step in plan.steps:
        worker = step.open()
        units = step.missing()
        for unit in units[:limit] if step == plan.steps[-1] else units:
            for name, count in worker.do(unit).items():
                counts[name] = counts.get(name, 0) + count
    return counts
