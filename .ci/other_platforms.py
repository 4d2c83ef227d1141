"""What can be told of platforms that are not here: do the native sources compile, are wheels there?

    python .ci/other_platforms.py

Compiles both native libraries with Zig's cross compiler, and asks pip's index for wheels of every
requirement, for each platform and Python. Nothing is run.
"""

import configparser
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("depthwise_native.cc", "range_coder.cc")
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-shared", "-fPIC")  # as in setup.py
PYTHONS = ("3.11", "3.12", "3.13")


class Platform(NamedTuple):
    """A platform as Zig, as pip, and as requirements' markers name it."""

    target: str
    tags: tuple[str, ...]
    markers: dict[str, str]


_GLIBC = (17, 24, 26, 27, 28, 34)
PLATFORMS = {
    "Linux, aarch64": Platform(
        "aarch64-linux-gnu.2.17",
        (*(f"manylinux_2_{minor}_aarch64" for minor in _GLIBC), "manylinux2014_aarch64"),
        {"platform_machine": "aarch64", "platform_system": "Linux"},
    ),
    "macOS, arm64": Platform(
        "aarch64-macos",
        (
            *(f"macosx_{major}_0_arm64" for major in (11, 12, 13, 14)),
            "macosx_10_9_universal2",
            "macosx_11_0_universal2",
        ),
        {"platform_machine": "arm64", "platform_system": "Darwin"},
    ),
}


def requirements(python: str, platform: Platform) -> list[str]:
    """What the package needs there."""
    from packaging.requirements import Requirement

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    environment = {**platform.markers, "python_version": python}
    return [
        f"{need.name}{need.specifier}"
        for need in found
        if need.marker is None or need.marker.evaluate(environment)
    ]


def wheels(python: str, platform: Platform, folder: Path) -> str:
    """Whether pip finds wheels of all requirements, or its error."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--target", folder]
    command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    command += [item for tag in platform.tags for item in ("--platform", tag)]
    done = subprocess.run(
        [*map(str, command), *requirements(python, platform)], capture_output=True, text=True
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return "all" if not done.returncode else (errors or [done.stderr[-500:]])[0]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "zig", with_pip=True)
        zig = str(folder / "zig" / "bin" / "python")
        subprocess.run([zig, "-m", "pip", "install", "--quiet", "ziglang"], check=True)
        for label, platform in PLATFORMS.items():
            for source in SOURCES:
                out = folder / f"{label}-{source}.so"
                compiler = zig, "-m", "ziglang", "c++", "-target", platform.target
                code = str(ROOT / "llic_jax" / "native" / source)
                done = subprocess.run(
                    [*compiler, *FLAGS, "-o", str(out), code], capture_output=True, text=True
                )
                said = f"compiled, {out.stat().st_size >> 10} KiB" if out.exists() else done.stderr
                print(f"{label}: {source}: {said}", flush=True)
            for python in PYTHONS:
                found = wheels(python, platform, folder / "target")
                print(f"{label}: wheels for Python {python}: {found}", flush=True)


if __name__ == "__main__":
    main()
