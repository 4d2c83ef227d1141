"""How to install what an optional part of the package needs."""

from pathlib import Path


def install_command(extras: str) -> str:
    """The command that brings extras, as it is for this copy of the package.

    Args:
        extras: Names in `setup.cfg`, separated by commas.

    Returns:
        For a clone, a command that keeps the clone in use.
    """
    root = Path(__file__).parents[2]
    if (root / "setup.cfg").is_file():
        return f"pip install -e '{root}[{extras}]'"
    return f"pip install 'llic_jax[{extras}]'"
