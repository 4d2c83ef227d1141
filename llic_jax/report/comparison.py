"""A page that shows one's own photographs by several codecs: one HTML file, without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from llic_jax.report.render import render
from llic_jax.report.side_by_side import Crop, Equal
from llic_jax.system.files import whole_file


class Compared(NamedTuple):
    """A photograph by several codecs.

    Attributes:
        name: Of the photograph.
        size: Width and height, pixels.
        crops: From `side_by_side`.
    """

    name: str
    size: tuple[int, int]
    crops: Sequence[Crop]


def write_comparison(path: Path, compared: Sequence[Compared], ours: str, equal: Equal) -> None:
    """Writes the page.

    Args:
        path: Of the HTML file.
        compared: One or more photographs.
        ours: Name of the codec that the others are set to.
        equal: What the files have in common.

    Raises:
        OSError: The file cannot be written.
    """
    names = ", ".join(one.name for one in compared)
    figure = "PSNR" if equal == "psnr" else "size of file"
    context = {"title": f"{names}: codecs at equal {figure}", "groups": compared}
    page = render("comparison.html", context | {"ours": ours, "equal": equal})
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
