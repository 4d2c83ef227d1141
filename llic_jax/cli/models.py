"""`llic models`: the installed models, and those that can be installed."""

import argparse
import sys

from llic_jax.zoo.installed import installed_models
from llic_jax.zoo.registry import ReleasedModel, registry


def list_models(args: argparse.Namespace) -> int:
    """Prints a table of all models that are installed or were ever released.

    Args:
        args: Of `llic models`; not used.

    Returns:
        The exit status.
    """
    models, problems = installed_models()
    known = registry()
    rows = [("name", "fingerprint", "parameters", "qualities", "bpp (Kodak)", "BD-rate", "here")]
    whole = {installed.fingerprint for installed in models if not installed.decoder_only}
    for installed in models:
        if installed.decoder_only and installed.fingerprint in whole:
            continue
        released = known.with_fingerprint(installed.fingerprint)
        here = "decodes" if installed.decoder_only else "yes"
        if installed.name == known.recommended:
            here += ", default"
        rows.append((installed.name, installed.fingerprint, *_figures(released), here))
    present = {installed.fingerprint for installed in models}
    for released in reversed(known.models):
        if released.fingerprint not in present:
            rows.append((released.name, released.fingerprint, *_figures(released), "no"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    print(
        "\nBD-rate: over VTM-17.0 (published) on Kodak. `llic models restore NAME --from CLONE` "
        "installs a\nmodel that is not here, from a git clone of llic_jax's repository."
    )
    for problem in problems:
        print(f"llic: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _figures(model: ReleasedModel | None) -> tuple[str, str, str, str]:
    if model is None:
        return "-", "-", "-", "-"
    rates = model.kodak_bpp
    return (
        f"{model.parameters / 1e6:.1f} M",
        str(model.qualities),
        f"{rates[0]:.3f} to {rates[-1]:.3f}" if rates else "-",
        "-" if model.bd_rate_over_vtm is None else f"{model.bd_rate_over_vtm:+.1f} %",
    )


def add(args: argparse.Namespace) -> int:
    """Installs the model in a folder.

    Args:
        args: Of `llic models add`.

    Returns:
        The exit status.
    """
    from llic_jax.zoo.install import add_model

    model = add_model(args.folder, args.name)
    print(f"{model.name} ({model.fingerprint}) is installed in {model.folder}")
    return 0


def restore(args: argparse.Namespace) -> int:
    """Installs a released model from the history of a clone.

    Args:
        args: Of `llic models restore`.

    Returns:
        The exit status.
    """
    from llic_jax.zoo.install import restore_model

    model = restore_model(args.name, args.clone)
    print(f"{model.name} ({model.fingerprint}) is installed in {model.folder}")
    return 0
