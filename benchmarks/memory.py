"""Peak memory against image size, full-size LLIC-ELIC: whole images and images in bands.

    python benchmarks/memory.py --sizes 768x512 1920x1080 3840x2160 7680x4320 --memory_gb 4 6 inf
    python benchmarks/memory.py --released --sizes 4096x4096 --memory_gb 2 4

Every figure comes from a process of its own, libraries, weights and compiling included, which does
one thing once: it codes an image, or it decodes the file that was coded with the last budget. The
budget `inf` is the whole image at once. "Differs" compares what is decoded with what the last
budget makes of the same file: the largest difference of a value, and how many of a million differ.
"Walk" is what the entropy model and the latents are estimated to take, with the reserve of 1 GiB:
an image that needs more than the budget is refused. Weights are random, or the released model's;
images are a photograph enlarged.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from common import last_line, run_process, timed


def photograph(width: int, height: int) -> np.ndarray:
    import skimage.data
    from PIL import Image

    image = Image.fromarray(skimage.data.coffee())
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def work(task: str, size: str, memory_gb: float, folder: Path, released: bool) -> dict:
    """Codes or decodes the first file in `folder`; seconds (of compiling too), GiB of the estimate
    and of the peak."""
    from full_size import random_codec

    from llic_jax import load_codec
    from llic_jax.codec.model import Limits
    from llic_jax.models.encoder_options import EncoderOptions
    from llic_jax.system.memory import peak_memory

    limits = Limits(memory_gb=memory_gb)
    if released:
        codec = load_codec(limits=limits)
    else:
        codec = random_codec("llic_elic", EncoderOptions(), limits)
    file = folder / "image.llic"
    if task == "compress":
        image = photograph(*map(int, size.split("x")))
        data, seconds = timed(lambda: codec.compress(image))
    else:
        image, seconds = timed(lambda: codec.decompress(file.read_bytes()))
    if task == "decompress":
        np.save(folder / f"{memory_gb}.npy", image)
    elif not file.exists():
        file.write_bytes(data)
    peak = peak_memory() / 2**30
    width, height = map(int, size.split("x"))
    return dict(seconds=seconds, walk_gib=codec.networks.walk_gib(height, width), peak_gib=peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["768x512", "1920x1080", "3840x2160"])
    parser.add_argument("--memory_gb", nargs="+", type=float, default=[4.0, float("inf")])
    parser.add_argument("--released", action="store_true", help="the recommended model")
    parser.add_argument("--only", nargs=4, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.only:
        task, size, memory_gb, folder = args.only
        print(json.dumps(work(task, size, float(memory_gb), Path(folder), args.released)))
        return
    print(
        "| image | budget | walk | compress s | peak GiB | decompress s | peak GiB | differs |\n"
        "|---|--:|--:|--:|--:|--:|--:|---|"
    )
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            images = []
            for memory_gb in reversed(args.memory_gb):
                cells = []
                for task in ("compress", "decompress"):
                    command = [__file__, "--only", task, size, str(memory_gb), folder]
                    command += ["--released"] * args.released
                    found = last_line(run_process(command)[0])
                    cells = cells or [f"{found['walk_gib']:.2f}"]
                    cells += [f"{found['seconds']:.0f}", f"{found['peak_gib']:.2f}"]
                images.append(np.load(Path(folder) / f"{memory_gb}.npy").astype(np.int16))
                error = np.abs(images[-1] - images[0])
                cells.append(f"{error.max()}, {1e6 * np.mean(error > 0):.1f}")
                print(f"| {size} | {memory_gb:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
