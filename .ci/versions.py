"""Prints the versions under test; `--newest` fails where JAX is older than setup.cfg states."""

import argparse
import configparser
import importlib.metadata
import platform
import sys
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "tensorflow")


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "0.12.0rc1" is (0, 12)."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def installed(package: str) -> str:
    """The version of a package, or "none"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def main() -> str | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--newest", action="store_true", help="fail where JAX is older than tested")
    newest = parser.parse_args().newest
    versions = {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}
    print("Testing with " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    stated = config["tool:llic_jax"]["newest_jax"]
    if newest and version_numbers(versions["jax"]) < version_numbers(stated):
        return (
            f"jax {versions['jax']} is older than {stated}, which setup.cfg states as the newest "
            "tested version. The newest JAX needs Python 3.12 or later: run `make clean`, and name "
            "a Python with LATEST_PYTHON=."
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
