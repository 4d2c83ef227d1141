"""`llic compare`: a page that shows photographs by LLIC and by the codecs that people use."""

import argparse
import dataclasses
import sys
import webbrowser
from pathlib import Path

from llic_jax.cli.common import prepare
from llic_jax.errors import BaselineError, LlicError
from llic_jax.system import files
from llic_jax.system.extras import install_command


def compare(args: argparse.Namespace) -> int:
    """Makes the page that the arguments ask for, and opens it.

    Args:
        args: Of `llic compare`.

    Returns:
        The exit status.

    Raises:
        LlicError: A photograph that cannot be read or coded, a codec that is not there, or a page
            that exists.
    """
    photographs = [files.path_argument(name) for name in args.names]
    page = args.output or Path(f"{photographs[0].stem}.compared.html")
    if page.exists() and not args.force:
        raise LlicError(f"{page} exists. Name another with -o, or replace it with --force.")
    prepare(args)
    try:
        from llic_jax.report.comparison import Compared, write_comparison
    except ModuleNotFoundError as error:  # jinja2
        raise LlicError(
            f"The page needs {error.name}, which is not installed: "
            f"`{install_command('eval')}` brings it."
        ) from error
    from llic_jax.evaluation import baselines
    from llic_jax.evaluation.llic_system import LlicSystem
    from llic_jax.images.read import read_photograph
    from llic_jax.report.side_by_side import side_by_side
    from llic_jax.zoo.folder import DEFAULT_FOLDER
    from llic_jax.zoo.installed import folder_of

    others = []
    for other in baselines.by_names(args.codecs):
        try:
            _ = other.version
        except BaselineError as error:
            print(f"llic: left out: {error}", file=sys.stderr)
        else:
            others.append(other)
    folder = DEFAULT_FOLDER if args.checkpoint is None else folder_of(args.checkpoint)
    ours = LlicSystem(folder, label="LLIC")
    quality = args.quality if args.quality is not None else ours.codec.default_quality
    compared = []
    for path in photographs:
        photograph = read_photograph(path)
        image = photograph.colours_to_code()
        crops = side_by_side(ours, quality, image, others, args.size, args.equal)
        crops = [dataclasses.replace(crop, icc=photograph.icc) for crop in crops]
        compared.append(Compared(path.name, (image.shape[1], image.shape[0]), crops))
        for crop in crops[1:]:
            print(
                f"{path}  {crop.label:22} {crop.bytes:>9} bytes  {crop.psnr:.2f} dB  {crop.setting}"
            )
    write_comparison(page, compared, ours.name, args.equal)
    print(page)
    if args.open and not webbrowser.open(page.absolute().as_uri()):
        print("llic: no browser was found; open the page by hand", file=sys.stderr)
    return 0
