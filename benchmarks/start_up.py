"""What the command line takes for one photograph, start-up included, and what for.

    python benchmarks/start_up.py --data_dir PHOTOGRAPHS

Every command runs in a process of its own, `--rounds` times, the fastest of which counts. The
compilation cache is a fresh folder: "first" are the commands that fill it, "warm" those that find
all programs there, "new size" those for a size never seen whose canvas the cache knows. Then one
process says where a warm command's time goes. `LLIC_TFC` chooses what codes tfc streams.

Columns: seconds of the whole command, compressing and decompressing; and of processor time, which
other work on the machine disturbs less. Below: seconds of each part of a warm process.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from common import last_line, run_process
from PIL import Image

SIZE = 768, 512  # width, height
ALIKE = (740, 500)  # which share a canvas with the above


def stages(source: Path, coded: Path) -> None:
    """Compresses and decompresses twice; prints seconds of each stage as a line of JSON."""
    marks = [("interpreter", time.time() - float(os.environ["STARTED"]))]
    last = time.perf_counter()

    def mark(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        marks.append((name, now - last))
        last = now

    from llic_jax.execution import program_cache
    from llic_jax.images.read import read_photograph
    from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec

    program_cache.enable()
    mark("imports: JAX, Flax, ..")
    codec = load_codec(DEFAULT_FOLDER)
    mark("weights and tables")
    from llic_jax.coding.range_coders.registry import CODERS

    CODERS[codec.coder].encoder(codec.model.tables)
    mark(f"range coder: {codec.coder}")
    image = read_photograph(source).rgb
    mark("reading the image")
    data = codec.compress(image)
    mark("compress, first time")
    codec.compress(image)
    mark("compress, second time")
    codec.decompress(data)
    mark("decompress, first time")
    codec.decompress(data)
    mark("decompress, second time")
    print(json.dumps(marks))


def run(command: list[str], cache: Path) -> tuple[str, float]:
    """What a process printed, and its seconds."""
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache), "STARTED": str(time.time())}
    return run_process(command, environment)


def photograph(folder: Path | None) -> Image.Image:
    """One of `SIZE`."""
    if folder is None:
        import skimage.data

        return Image.fromarray(skimage.data.coffee()).resize(SIZE, Image.Resampling.LANCZOS)
    from llic_jax.data.image_files import image_files

    image = Image.open(image_files(folder)[0]).convert("RGB")
    large = np.all(np.less_equal(SIZE, image.size))
    return image.crop((0, 0, *SIZE)) if large else image.resize(SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="a folder of images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stages", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stages:
        stages(*args.stages)
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        cache, source, alike = work / "cache", work / "photo.png", work / "alike.png"
        image = photograph(args.data_dir)
        image.save(source)
        image.crop((0, 0, *ALIKE)).save(alike)
        llic = ["-m", "llic_jax"]

        def code(command: str, image: Path) -> tuple[float, float]:
            """Seconds of a command, and those of processor time."""
            given, made = (image, image.with_suffix(".llic"))
            if command == "decompress":
                given, made = made, work / "decoded.png"
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = run([*llic, command, "--force", str(given), str(made)], cache)[1]
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        columns = "compress s", "decompress s", "processor s", "processor s"
        print(f"{'':24}" + "".join(f"{column:>14}" for column in columns))
        for label, image_file, rounds in (
            ("first", source, 1),
            ("warm", source, args.rounds),
            ("new size", alike, 1),
            ("new size, warm", alike, args.rounds),
        ):
            found = [
                np.min([code(command, image_file) for _ in range(rounds)], axis=0)
                for command in ("compress", "decompress")
            ]
            cells = "".join(f"{seconds:>14.2f}" for seconds in np.transpose(found).ravel())
            print(f"{label:24}{cells}", flush=True)
        for command in (["--help"], ["info", str(source.with_suffix(".llic"))]):
            light = min(run([*llic, *command], cache)[1] for _ in range(args.rounds))
            print(f"{command[0]:24}{light:>14.2f}")
        print()
        itself = [__file__, "--stages", str(source), str(source.with_suffix(".llic"))]
        rounds = [last_line(run(itself, cache)[0]) for _ in range(args.rounds)]
        for entries in zip(*rounds, strict=True):
            print(f"{entries[0][0]:24}{min(seconds for _, seconds in entries):>14.2f}")


if __name__ == "__main__":
    main()
