"""What made a figure or a set of weights: versions, machine, commit."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("llic_jax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-compression-ops")


def versions() -> dict[str, str]:
    """Lists the version of Python, and of the packages that results depend on.

    Returns:
      Versions by name, of those that are installed.
    """
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def git_commit() -> str | None:
    """Finds the commit of this source tree.

    Returns:
      The short hash, with "+" for changes on top. None: this file belongs to no repository; it may
      well lie within one, as an environment does.
    """
    # Within a hook these name the repository that the hook is of.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def public_source(source: str) -> str:
    """Names training data without the paths of the machine that it lies on.

    Args:
      source: As `data.source` has it; several are separated by commas.

    Returns:
      The last part of each path; a TensorFlow Datasets name stays whole, and so does what comes
      before the path: `tfds:coco/2017`, `records:*.array_record`, `photographs`.
    """
    return ",".join(map(_public_name, source.split(",")))


def _public_name(source: str) -> str:
    prefix, separator, rest = source.partition(":")
    if not separator or prefix not in ("tfds", "records"):
        return Path(source).name
    if prefix == "records":
        return f"records:{Path(rest).name}"
    name, separator, split = rest.partition(":")
    if Path(name).is_dir() or name.startswith((".", "/", "~")):
        name = Path(name).name
    return f"tfds:{name}{separator}{split}"
