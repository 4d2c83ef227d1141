"""What effort in the encoder gains: bits at equal PSNR, and what it takes.

    python benchmarks/effort.py --data_dir FOLDER --effort 3 10

Codes the middle of some images, real files, without effort and with each number of steps, and
prints the means and the BD-rate of each with against without. `--held_back N` takes the N images of
FOLDER that a training run with `data.held_back = N` never saw: the place to tune on.

    python benchmarks/effort.py --data_dir KODAK --images 24 --whole 4 --effort 3 10

With `--whole Q` whole images are refined, at quality Q alone, and each is set against its own curve
without effort over `--quality`, at equal PSNR: a figure for many images in little time.

Columns: gradient steps, quality, mean bits per pixel, mean PSNR (dB), mean seconds of encoding an
image. With `--whole`: image, steps, bits per pixel, PSNR, seconds, and the change of its bits at
equal PSNR.
"""

import argparse
from pathlib import Path

import numpy as np
from common import timed

from llic_jax.codec.codec import Codec
from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import Quality
from llic_jax.data import sources
from llic_jax.data.photographs import split_held_out
from llic_jax.execution import program_cache
from llic_jax.metrics import distortion
from llic_jax.metrics.bd_rate import Curve, bd_rate
from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec


def measure(
    codec: Codec, images: list[np.ndarray], quality: float, steps: int
) -> tuple[float, float, float]:
    """Mean bits per pixel, PSNR (dB) and seconds of encoding an image."""
    figures = []
    for image in images:
        encoded, seconds = timed(
            lambda image=image: codec.encode([image], Quality(quality), Refinement(steps))[0]
        )
        decoded = codec.decompress(encoded.data)
        bpp = 8 * len(encoded.data) / decoded[..., 0].size
        figures.append((bpp, distortion.image_psnr(image, decoded), seconds))
    bpp, psnr, seconds = np.mean(figures, axis=0).tolist()
    return bpp, psnr, seconds


def compare_whole(
    codec: Codec, images: list[np.ndarray], curve: list[float], quality: float, efforts: list[int]
) -> None:
    """Prints each image's bits with effort over those of its own curve at equal PSNR."""
    ratios: dict[int, list[float]] = {steps: [] for steps in efforts}
    all_seconds: dict[int, list[float]] = {steps: [] for steps in efforts}
    print(f"{'image':>6} {'steps':>6} {'bpp':>8} {'PSNR':>7} {'seconds':>8} {'at equal PSNR':>14}")
    for i, image in enumerate(images):
        codec.encode([image], Quality(quality), Refinement(1))  # compiles
        rates, psnrs, _ = zip(*(measure(codec, [image], q, 0) for q in curve), strict=True)
        for steps in efforts:
            bpp, psnr, seconds = measure(codec, [image], quality, steps)
            start = f"{i:>6} {steps:>6} {bpp:>8.4f} {psnr:>7.3f} {seconds:>8.1f}"
            if not psnrs[0] <= psnr <= psnrs[-1]:
                print(f"{start}: beyond the curve", flush=True)
                continue
            ratios[steps].append(np.log(bpp) - np.interp(psnr, psnrs, np.log(rates)))
            all_seconds[steps].append(seconds)
            print(f"{start} {100 * np.expm1(ratios[steps][-1]):>+12.2f} %", flush=True)
    for steps, found in ratios.items():
        if found:
            worst, mean = (100 * np.expm1(f(found)) for f in (max, np.mean))
            print(
                f"{steps} steps at quality {quality:g}, {len(found)} images: mean {mean:+.2f} %, "
                f"worst {worst:+.2f} %, {np.mean(all_seconds[steps]):.1f} s an image"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data_dir", required=True, help="photographs: a folder, or as for data.source")
    add("--held_back", type=int, help="only these of the folder (default: all)")
    add("--images", type=int, default=4, help="so many of them, evenly spread")
    add("--size", type=int, nargs=2, default=(384, 384), help="height and width of the middle")
    add("--checkpoint", type=Path, default=DEFAULT_FOLDER, help="released folder")
    add("--quality", type=float, nargs="+", default=[2.0, 3.0, 4.0, 5.0])
    add("--effort", type=int, nargs="+", default=[3, 10], help="steps")
    add("--whole", type=float, metavar="Q", help="whole images, refined at quality Q only")
    args = parser.parse_args()

    program_cache.enable()
    codec = load_codec(args.checkpoint)
    found = sources.open_source(args.data_dir)
    if args.held_back:
        found = split_held_out(found, args.held_back)[1]
    if args.whole is not None:
        chosen = [found[i] for i in np.linspace(0, len(found) - 1, args.images).astype(int)]
        compare_whole(codec, chosen, args.quality, args.whole, args.effort)
        return
    height, width = args.size
    images = []
    for i in np.linspace(0, len(found) - 1, args.images).astype(int):
        image = found[i]
        if image is not None and image.shape[0] >= height and image.shape[1] >= width:
            top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
            images.append(image[top : top + height, left : left + width])
    print(f"{len(images)} images, {width} x {height}, model {codec.fingerprint.hex()}")
    codec.encode([images[0]], refinement=Refinement(1))  # compiles

    curves: dict[int, Curve] = {}
    print(f"{'steps':>6} {'quality':>7} {'bpp':>8} {'PSNR':>7} {'seconds':>8}")
    for steps in (0, *args.effort):
        rows = [measure(codec, images, quality, steps) for quality in args.quality]
        for quality, (bpp, psnr, seconds) in zip(args.quality, rows, strict=True):
            print(f"{steps:>6} {quality:>7g} {bpp:>8.4f} {psnr:>7.3f} {seconds:>8.2f}", flush=True)
        rates, psnrs, _ = zip(*rows, strict=True)
        curves[steps] = Curve(f"effort {steps}", rates, psnrs)
        if steps:
            comparison = bd_rate(curves[0], curves[steps])
            print(f"{steps:>6} steps over none: BD-rate {comparison.value:+.2f} %", flush=True)


if __name__ == "__main__":
    main()
