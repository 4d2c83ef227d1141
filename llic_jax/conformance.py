"""Decodes the files of a suite, and compares the pictures with the expected ones.

    python -m llic_jax.conformance                  # tests/conformance of a clone
    python -m llic_jax.conformance FOLDER           # a suite that was written elsewhere
    python -m llic_jax.conformance --write FOLDER   # a suite to be read elsewhere

Runs on whatever machine and device JAX finds. A case passes if its file decodes to symbols of the
right checksum, and to a picture that differs from the expected one by one grey level at most. The
exit status is 0 if all cases pass.

A suite is a folder with `suite.json`: for each case the file, the checksum of its symbols, and the
decoded picture's size, SHA-256 and a PNG of every `step`-th row and column. Its models are the
installed ones, by fingerprint, or folders that `suite.json` names.
"""

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from llic_jax import __version__
from llic_jax.bitstream.file import LlicFile
from llic_jax.codec.codec import Codec
from llic_jax.coding.range_coders.registry import installed_coders
from llic_jax.coding.range_coders.tfc_streams import TFC_IMPLEMENTATIONS, tfc_implementation
from llic_jax.errors import LlicError
from llic_jax.execution import program_cache
from llic_jax.system.files import write_json
from llic_jax.system.streams import run_command
from llic_jax.zoo.folder import load_codec
from llic_jax.zoo.installed import installed_models, model_of_file

SUITES = Path(__file__).parents[1] / "tests" / "conformance"
TOLERANCE = 1  # grey levels
# Height and width: below and above the padding's 64, a row of pixels, a small photograph.
SIZES = ((1, 1), (48, 60), (1, 300), (130, 200), (256, 384))
FOUR_K = (2160, 3840)
_REFERENCE_PIXELS = 1 << 15  # of a PNG that is compared


class Case(NamedTuple):
    """One file of a suite.

    Attributes:
        file: Its path, from the suite's folder.
        symbols_crc: Of its header, hexadecimal digits.
        picture: The PNG's path, from the suite's folder.
        step: The PNG has every such row and column.
        sha256: Of all decoded pixels, where the suite was written; empty if not kept.
    """

    file: str
    symbols_crc: str
    picture: str
    step: int = 1
    sha256: str = ""


class Outcome(NamedTuple):
    """What became of a case.

    Attributes:
        difference: The largest, in grey levels; None if the file did not decode.
        exact: Whether all pixels are those of the machine that wrote the suite.
        error: Why the case fails; empty if it passes.
    """

    difference: int | None
    exact: bool
    error: str


class Suite:
    """The cases of a folder.

    Args:
        folder: With `suite.json`.

    Raises:
        LlicError: There is no such file, or it is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / "suite.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.models = {key: folder / place for key, place in content["models"].items()}
            self.cases = [Case(**case) for case in content["cases"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LlicError(f"{path} is no suite of files: {error!r}.") from error

    def run(self, codecs: dict[str, Codec]) -> Iterator[tuple[Case, Outcome]]:
        """Decodes every case.

        Args:
            codecs: By fingerprint; those that are missing are loaded and added.
        """
        for case in self.cases:
            try:
                outcome = self._run(case, codecs)
            except Exception as error:  # whatever it is, the other cases are tried
                outcome = Outcome(None, False, f"{type(error).__name__}: {error}")
            yield case, outcome

    def _run(self, case: Case, codecs: dict[str, Codec]) -> Outcome:
        data = (self.folder / case.file).read_bytes()
        file = LlicFile.from_bytes(data)
        if f"{file.symbols_crc:08x}" != case.symbols_crc:
            return Outcome(None, False, f"symbols' checksum is {file.symbols_crc:08x}")
        fingerprint = file.fingerprint.hex()
        if fingerprint not in codecs:
            folder = self.models.get(fingerprint)
            if folder is None and fingerprint:
                folder = model_of_file(fingerprint).folder
            codecs[fingerprint] = load_codec(folder)  # any model reads a file that names none
        image = codecs[fingerprint].decompress(data)
        with Image.open(self.folder / case.picture) as picture:
            expected = np.asarray(picture.convert("RGB"))
        found = image[:: case.step, :: case.step]
        if found.shape != expected.shape:
            return Outcome(None, False, f"picture is {found.shape}, expected {expected.shape}")
        difference = int(np.abs(found.astype(int) - expected).max())
        error = f"differs by {difference} grey levels" if difference > TOLERANCE else ""
        exact = hash_of(image) == case.sha256 if case.sha256 else difference == 0
        return Outcome(difference, exact, error)


def hash_of(image: np.ndarray) -> str:
    """SHA-256 over the pixels, row by row.

    Args:
        image: uint8 `(H, W, 3)`.
    """
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def drawn_image(height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of slopes, edges and texture, in integers: the same on every machine.

    Args:
        height: Pixels.
        width: Pixels.
    """
    row, column = np.indices((height, width), np.int64)
    # Slopes that rise and fall, of another period in each channel.
    slopes = [abs((a * row + b * column) % 480 - 240) for a, b in ((1, 2), (2, 1), (1, -1))]
    patch = (row // 96 + column // 128) % 3  # smooth, textured, inverted
    texture = (row * row * 7 + column * column * 13 + row * column * 5) // 8 % 40
    image = np.stack(slopes, axis=-1) * 3 // 4 + 30 + np.where(patch == 1, texture, 0)[..., None]
    return np.where((patch == 2)[..., None], 255 - image, image).clip(0, 255).astype(np.uint8)


def write_suite(
    folder: Path,
    model: str | Path,
    sizes: Sequence[tuple[int, int]] = SIZES,
    four_k: bool = False,
) -> int:
    """Writes a suite of one model's files, by every installed range coder.

    Args:
        folder: Of the suite; is made.
        model: For `load_codec`.
        sizes: Heights and widths of the images; each at the lowest, the middle and the highest
            quality.
        four_k: Whether to add an image of 3840 x 2160 pixels at the lowest quality.

    Returns:
        The number of cases.

    Raises:
        LlicError: As `load_codec` and `Codec.compress`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cases: list[Case] = []
    for coder in installed_coders():
        codec = load_codec(model, coder)
        top = float(codec.network.levels)
        qualities = [1.0, codec.default_quality, top] if top > 1 else [None]
        jobs = [(size, quality) for size in sizes for quality in qualities]
        if four_k and coder == installed_coders()[0]:
            jobs.append((FOUR_K, qualities[0]))
        for (height, width), quality in jobs:
            data = codec.compress(drawn_image(height, width), quality)
            image = codec.decompress(data)
            step = 1
            while -(-height // step) * -(-width // step) > _REFERENCE_PIXELS:
                step += 1
            stem = f"{width}x{height}" + (f"_q{quality:g}" if quality else "")
            name = f"{stem}_{coder}.llic"
            (folder / name).write_bytes(data)
            # Both coders' files hold the same symbols, so they share a picture.
            picture = folder / f"{stem}.png"
            if not picture.exists():
                Image.fromarray(image[::step, ::step]).save(picture, optimize=True)
            crc = LlicFile.from_bytes(data).symbols_crc
            cases.append(Case(name, f"{crc:08x}", picture.name, step, hash_of(image)))
    content: dict[str, Any] = {"written": environment(), "models": {}}
    write_json(folder / "suite.json", content | {"cases": [case._asdict() for case in cases]})
    return len(cases)


def environment() -> dict[str, str]:
    """Where this runs: versions, device, and the implementation of the tfc coder."""
    device = jax.devices()[0]
    tfc = next(name for name, way in TFC_IMPLEMENTATIONS.items() if way is tfc_implementation())
    return {
        "llic_jax": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform} ({device.device_kind})",
        "tfc coder": tfc,
    }


def run_suites(folder: Path, quick: bool = False) -> int:
    """Decodes every suite below a folder and prints what became of it.

    Args:
        folder: Of suites.
        quick: Whether to leave out images of more than two million pixels.

    Returns:
        The number of cases that fail.

    Raises:
        LlicError: No suite is there.
    """
    suites = [Suite(path.parent) for path in sorted(folder.rglob("suite.json"))]
    if not suites:
        raise LlicError(
            f"No suite.json below {folder}; name the folder of a suite, such as tests/conformance "
            "of a clone."
        )
    codecs: dict[str, Codec] = {}
    failed = total = 0
    for suite in suites:
        if quick:
            suite.cases = [
                case for case in suite.cases if case.step < 8
            ]  # of a larger picture fewer pixels are kept
        outcomes = []
        for case, outcome in suite.run(codecs):
            outcomes.append(outcome)
            if outcome.error:
                print(f"FAILED {suite.folder.name}/{case.file}: {outcome.error}", flush=True)
        passed = sum(not outcome.error for outcome in outcomes)
        differences = [o.difference for o in outcomes if o.difference is not None]
        print(
            f"{suite.folder.name:24}{passed:>5} of {len(outcomes)} pass, "
            f"{sum(outcome.exact for outcome in outcomes)} exactly, "
            f"largest difference {max(differences, default='-')}",
            flush=True,
        )
        failed, total = failed + len(outcomes) - passed, total + len(outcomes)
    print(f"{'all':24}{total - failed:>5} of {total} pass")
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs or writes suites.

    Args:
        argv: The command line; that of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m llic_jax.conformance",
        description="Decodes files of a conformance suite and compares the pictures.",
    )
    parser.add_argument("folder", type=Path, nargs="?", default=SUITES, help="of suites")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write suites instead")
    parser.add_argument(
        "--model", action="append", help="with --write: name or folder (default: all installed)"
    )
    parser.add_argument("--four_k", action="store_true", help="with --write: also 3840 x 2160")
    parser.add_argument("--quick", action="store_true", help="no image above two million pixels")
    args = parser.parse_args(argv)

    def work() -> int:
        program_cache.enable()
        for key, value in environment().items():
            print(f"{key:12}{value}")
        if args.write is None:
            return 1 if run_suites(args.folder, args.quick) else 0
        models = args.model or [m.name for m in installed_models()[0] if not m.decoder_only]
        for model in models:
            name = Path(model).name
            count = write_suite(args.write / name, model, four_k=args.four_k)
            print(f"{args.write / name}: {count} files by {', '.join(installed_coders())}")
        return 0

    return run_command("llic_jax.conformance", work)


if __name__ == "__main__":
    sys.exit(main())
