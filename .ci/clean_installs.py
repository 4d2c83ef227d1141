"""Installs what `make dist` made into empty environments, and codes a photograph there and back.

    python .ci/clean_installs.py dist

Each Python that is here gets an environment with the wheel alone; the newest gets one more, with
the source distribution and no compiler. Then, in an empty folder: `llic compress`, `llic info`,
`llic decompress`, and two steps of training by a config of the package.

Columns: the Python; what was installed; seconds of creating the environment and `pip install` (from
pip's cache where it has the packages); seconds of the first `llic compress` in it, which compiles;
of the second; MiB of the environment, and of llic_jax in it; PSNR of the decoded photograph, dB;
seconds of training.
"""

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
PICTURE = ROOT / "docs" / "pictures" / "qualities.jpg"
CROP = (0, 0, 256, 192)

# Run by the environment's Python: a photograph to compress; what became of it.
CROPPED = """
import sys
from PIL import Image
Image.open(sys.argv[1]).convert("RGB").crop([*map(int, sys.argv[2:])]).save("photo.png")
"""
COMPARED = """
import importlib.util, pathlib, numpy as np
from PIL import Image
import llic_jax
from llic_jax.coding.range_coders import native
from llic_jax.native import library
assert importlib.util.find_spec("tensorflow") is None, "TensorFlow was installed"
before, after = (np.asarray(Image.open(f"{n}.png").convert("RGB"), float) for n in ("photo", "out"))
psnr = 10 * np.log10(255**2 / np.square(before - after).mean())
print(library.enabled(), native.enabled(), pathlib.Path(llic_jax.__file__).parent, psnr)
"""
TRAINING = (
    *("-m", "llic_jax.train", "--config", "smoke", "--workdir", "run"),
    *("--config.data.source", "photos", "--config.data.held_back", "2"),
    *("--config.train.steps", "2", "--config.train.batch_size", "2"),
)


class Row(NamedTuple):
    """A line of the table; see above."""

    python: str
    installed: str
    install_seconds: float
    first_seconds: float
    second_seconds: float
    mib: float
    own_mib: float
    psnr: float
    training_seconds: float


def find_pythons() -> dict[str, str]:
    """Version -> interpreter, of those of `PYTHONS` that are here and run."""
    found = {}
    for version in PYTHONS:
        pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
        places = [shutil.which(f"python{version}")]
        places += sorted(glob.glob(f"{pyenv}/versions/{version}*/bin/python{version}"))
        for place in places:
            if place and subprocess.run([place, "-c", "import ensurepip"]).returncode == 0:
                found[version] = place
                break
    return found


def install(version: str, python: str, package: Path, native: bool) -> Row:
    """Makes the environment, uses it, and removes it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("LLIC_", "PYTHON"))},
            "XDG_CACHE_HOME": str(place / "cache"),
            "JAX_PLATFORMS": "cpu",
        }

        def run(*command: str, **more: str) -> tuple[str, float]:
            started = time.perf_counter()
            done = subprocess.run(
                command, cwd=place, env=environment | more, capture_output=True, text=True
            )
            if done.returncode:
                tail = (done.stdout + done.stderr)[-3000:]
                raise SystemExit(f"Python {version}, {package.name}: {command}:\n{tail}")
            return done.stdout, time.perf_counter() - started

        compiler = {} if native else {"CC": "false", "CXX": "false"}
        started = time.perf_counter()
        run(python, "-m", "venv", "env")
        binaries = place / "env" / "bin"
        # pip's cache stays where it is: what it holds was fetched from the index before.
        cache = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))}
        pip = (
            str(binaries / "python"),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "-v",
        )
        said, _ = run(*pip, str(package), **compiler, **cache)
        # A wheel that pip built before, with a compiler, would tell nothing.
        assert native or "py3-none-any" in said, said[-2000:]
        install_seconds = time.perf_counter() - started
        mib, own = _mib(place / "env"), _mib(next(place.glob("env/lib/*/site-packages/llic_jax")))

        own_python, llic = str(binaries / "python"), str(binaries / "llic")
        run(own_python, "-c", CROPPED, str(PICTURE), *map(str, CROP))
        _, first = run(llic, "compress", "photo.png", "photo.llic")
        _, second = run(llic, "compress", "photo.png", "again.llic")
        said, _ = run(llic, "info", "photo.llic")
        assert "256 x 192" in said, said[-2000:]
        run(llic, "decompress", "photo.llic", "out.png")
        kernel, coder, home, psnr = run(own_python, "-c", COMPARED)[0].split()
        assert Path(home).is_relative_to(place), f"{home} was used, not what was installed"
        expected = str(native)
        assert (kernel, coder) == (expected, expected), f"kernel {kernel}, range coder {coder}"
        assert float(psnr) > 25, f"PSNR {psnr}"

        (place / "photos").mkdir()
        for name in range(6):
            shutil.copy(place / "photo.png", place / "photos" / f"{name}.png")
        _, training = run(own_python, *TRAINING)
        assert list((place / "run").iterdir()), "training wrote nothing"
        what = "wheel" if package.suffix == ".whl" else "sdist, no compiler"
        return Row(version, what, install_seconds, first, second, mib, own, float(psnr), training)


def _mib(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with one wheel and one source distribution")
    parser.add_argument("--only", nargs="+", choices=PYTHONS, default=PYTHONS)
    args = parser.parse_args()
    (wheel,), (sdist,) = args.folder.glob("*.whl"), args.folder.glob("*.tar.gz")
    pythons = {version: place for version, place in find_pythons().items() if version in args.only}
    if not pythons:
        sys.exit(f"None of Python {', '.join(args.only)} is here.")
    jobs = [(version, wheel.resolve(), True) for version in pythons]
    jobs.append((list(pythons)[-1], sdist.resolve(), False))
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    print("| " + " | ".join(Row._fields) + " |\n|" + "---|" * len(Row._fields), flush=True)
    for version, package, native in jobs:
        row = install(version, pythons[version], package, native)
        cells = [f"{cell:.1f}" if isinstance(cell, float) else cell for cell in row]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
