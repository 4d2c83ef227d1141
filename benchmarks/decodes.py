"""Many files, written in one way and decoded in others: how many fail?

    python benchmarks/decodes.py --data_dir PHOTOGRAPHS --other_python NEWEST_JAX/bin/python

The released model writes files of crops of 64 pixels, at qualities spread over its range, by both
range coders, in batches, jitted, on all threads. Then processes of their own decode all of them:
jitted, with one thread, eagerly, with the entropy model in float64, with each implementation of tfc
streams, and with the JAX of other interpreters. A file that decodes has
the symbols of its checksum. Prints for each way the files, those that fail, and how many pictures
differ by how much from those of the first way. `--seconds` ends each way early.
"""

import argparse
import collections
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import EAGER, FLOAT64, ONE_THREAD, codec_in_float64

WAYS: dict[str, dict[str, str]] = {
    "jitted": {},
    "one thread": ONE_THREAD,
    "eager": EAGER,
    "float64": FLOAT64,
    "python coder": {"LLIC_TFC": "python"},
    "native coder": {"LLIC_TFC": "native"},
}
SIDE, BATCH = 64, 32


def write(work: Path, photographs: Path, count: int) -> None:
    """Files in batches of one quality, with the pictures that they decode to."""
    from llic_jax.codec.rate_control import Quality
    from llic_jax.coding.range_coders.registry import installed_coders
    from llic_jax.data.image_files import image_files
    from llic_jax.images.read import read_image
    from llic_jax.zoo.folder import load_codec

    codecs = [load_codec(coder=name) for name in installed_coders()]
    images = [read_image(path) for path in image_files(photographs)]
    rng = np.random.default_rng(0)
    for number in range(-(-count // BATCH)):
        crops = []
        for _ in range(BATCH):
            image = images[rng.integers(len(images))]
            top, left = (rng.integers(max(1, side - SIDE)) for side in image.shape[:2])
            crops.append(image[top : top + SIDE, left : left + SIDE])
        codec = codecs[number % len(codecs)]
        quality = float(rng.uniform(1, codec.network.levels))
        files = [encoded.data for encoded in codec.encode(crops, Quality(quality))]
        (work / f"{number:05d}.pickle").write_bytes(pickle.dumps(files))


def read(work: Path, seconds: float) -> None:
    """Decodes batch by batch; prints a line of JSON."""
    import jax

    from llic_jax.errors import LlicError
    from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec

    in_float64 = jax.config.values["jax_enable_x64"]
    codec = codec_in_float64(DEFAULT_FOLDER) if in_float64 else load_codec()
    started = time.perf_counter()
    decoded = failed = 0
    differences: collections.Counter[int] = collections.Counter()
    for path in sorted(work.glob("*.pickle")):
        if time.perf_counter() - started > seconds:
            break
        files = pickle.loads(path.read_bytes())
        try:
            images = [result.image for result in codec.decode(files)]
        except LlicError:  # which of them, one by one
            images = []
            for data in files:
                try:
                    images.append(codec.decompress(data))
                except LlicError as error:
                    failed += 1
                    print(f"{path.stem}: {error}", file=sys.stderr)
                    images.append(None)
        decoded += sum(image is not None for image in images)
        expected = path.with_suffix(".images")
        if not expected.exists():
            expected.write_bytes(pickle.dumps(images))
        for image, known in zip(images, pickle.loads(expected.read_bytes()), strict=True):
            if image is not None and known is not None:
                differences[int(np.abs(image.astype(int) - known).max())] += 1
    print(json.dumps([jax.__version__, decoded, failed, sorted(differences.items())]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--other_python", nargs="*", default=[], help="interpreters to read with")
    parser.add_argument("--seconds", type=float, default=3600.0, help="at most, of each way")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read, args.seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write(work, args.data_dir, args.files)
        runs = [(way, sys.executable, WAYS[way]) for way in args.ways]
        for python in args.other_python:
            runs += [(f"{python}, {way}", python, WAYS[way]) for way in args.ways]
        total = bad = 0
        for label, python, extra in runs:
            command = [python, __file__, "--data_dir", str(args.data_dir), "--read", str(work)]
            command += ["--seconds", str(args.seconds)]
            done = subprocess.run(
                command, env={**os.environ, **extra}, capture_output=True, text=True
            )
            if done.returncode:
                print(f"{label}: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            version, decoded, failed, differences = json.loads(done.stdout.splitlines()[-1])
            total, bad = total + decoded + failed, bad + failed
            spread = ", ".join(f"{n} by {levels}" for levels, n in differences)
            found = f"{decoded} decoded, {failed} failed; pictures that differ: {spread}"
            print(f"{label} (jax {version}): {found}", flush=True)
        print(f"all: {total} decodes, {bad} failed")


if __name__ == "__main__":
    main()
