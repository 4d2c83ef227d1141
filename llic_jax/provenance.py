"""What made a figure or a set of weights: versions, machine, commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("llic_jax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-compression-ops")


def versions() -> dict[str, str]:
    """Python's, and those of the packages that results depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of this source tree, with "+" for changes on top; None where there is none."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
