"""How fast the command line codes folders: with one worker and several, image by image and in
batches, in one run.

    python benchmarks/batches.py --data_dir PHOTOGRAPHS

Crops of photographs, of one size and of many sizes, are compressed and decompressed by fresh
processes that find their programs in a compilation cache; the fastest of `--rounds` counts. "cores"
is processor time over time: how many of them were kept busy. "first time" is for many sizes with a
cache that knows none of them, once by canvases and once by a program for every size.

Columns: the folder, workers, images in a batch, and for each command seconds and cores.
"""

import argparse
import itertools
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import run_process
from PIL import Image

from llic_jax.data.image_files import image_files

COUNT = 12
SIDES = 320, 704  # smallest and largest of the many sizes


def crops(folder: Path, data_dir: Path, sizes: list[tuple[int, int]]) -> None:
    """A crop of each size, (width, height), of a photograph of its own."""
    folder.mkdir()
    paths = [path for path in image_files(data_dir)]
    paths = paths[:: max(1, len(paths) // len(sizes))]
    for i, (path, size) in enumerate(zip(paths, sizes, strict=False)):
        image = Image.open(path).convert("RGB")
        if np.any(np.less(image.size, size)):
            image = image.resize(np.maximum(image.size, size).tolist(), Image.Resampling.LANCZOS)
        image.crop((0, 0, *size)).save(folder / f"{i:02d}.png")


def run(command: list[str], cache: Path) -> tuple[float, float]:
    """Seconds of a process, and cores that it kept busy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, seconds = run_process(command, {"JAX_COMPILATION_CACHE_DIR": str(cache)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy / seconds


def compress_exact(source: Path, target: Path) -> None:
    """`llic compress` with a program for every size."""
    from llic_jax.cli import main as cli
    from llic_jax.codec.codec import Codec
    from llic_jax.zoo import folder as release

    load = release.load_codec

    def exact(*args, **kwargs):
        codec = load(*args, **kwargs)
        network = codec.network.clone(on_canvas=False)
        return Codec(codec.model._replace(network=network), codec.options, codec.limits)

    release.load_codec = exact
    sys.exit(cli.main(["compress", "--force", str(source), str(target)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4])
    parser.add_argument(
        "--warm", action="store_true", help="images of one size only, in a few minutes"
    )
    parser.add_argument("--exact", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.exact:
        compress_exact(*args.exact)
    rng = np.random.default_rng(0)
    many = [tuple(map(int, rng.integers(*SIDES, 2))) for _ in range(COUNT)]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        crops(work / "one size", args.data_dir, [(768, 512)] * COUNT)
        crops(work / "small", args.data_dir, [(192, 128)] * COUNT * 4)
        crops(work / "many sizes", args.data_dir, many)
        sizes, out = work / "many sizes", str(work / "out")
        if not args.warm:
            first, _ = run(["-m", "llic_jax", "compress", str(sizes), out], work / "cache")
            exact = [__file__, "--data_dir", ".", "--exact", str(sizes), str(work / "other")]
            alone, _ = run(exact, work / "other cache")
            print(f"{COUNT} images of many sizes, the first time: {first:.1f} s")
            print(f"without canvases: {alone:.1f} s\n")
        megapixels = {
            folder: sum(np.prod(Image.open(f).size) for f in (work / folder).iterdir()) / 1e6
            for folder in ("one size", "small", "many sizes")
        }
        print(
            f"{'':12}{'workers':>8}{'batch':>6}{'compress s':>12}{'cores':>7}{'decompress s':>14}"
            f"{'cores':>7}"
        )
        if args.warm:
            del megapixels["many sizes"]
        for folder, size in megapixels.items():
            # Hardly two of many sizes go together.
            batches = args.batch if folder != "many sizes" else [1]
            for workers, together in itertools.product(args.workers, batches):
                best = {}
                for command, given in (("compress", work / folder), ("decompress", work / "out")):
                    made = work / "out" if command == "compress" else work / "decoded"
                    line = ["-m", "llic_jax", command, "--force", "--workers", str(workers)]
                    line += ["--batch", str(together)]
                    if command == "compress":
                        for old in (work / "out").glob("*"):
                            old.unlink()
                    best[command] = min(
                        run([*line, str(given), str(made)], work / "cache")
                        for _ in range(args.rounds + 1)
                    )
                (c, c_cores), (d, d_cores) = best["compress"], best["decompress"]
                print(
                    f"{folder:12}{workers:>8}{together:>6}{c:>12.2f}{c_cores:>7.2f}{d:>14.2f}{d_cores:>7.2f}",
                    flush=True,
                )
            print(f"{'':12}({size:.1f} megapixels)")


if __name__ == "__main__":
    main()
