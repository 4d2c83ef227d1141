"""What the first part of a file shows: PSNR over the share of its bytes.

    python benchmarks/preview.py --data_dir PHOTOS
    python benchmarks/preview.py --picture docs/pictures/preview.jpg

The centre of every photograph is coded once at each quality, and the file is cut. Beside the mean
PSNR of the previews stands the whole file's, and by how many bytes a progressive file is larger
("more"). Without a folder these are scikit-image's photographs. The picture shows the first of
them.
"""

import argparse
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from llic_jax.codec.codec import Codec
from llic_jax.data.image_files import image_files
from llic_jax.execution import program_cache
from llic_jax.images.read import read_image
from llic_jax.metrics.distortion import image_psnr
from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec

SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
SHOWN = (0.1, 0.25, 0.5, 1.0)
HEADING = 24  # pixels above each part of the picture


def previews(codec: Codec, data: bytes, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Images of the first part of a file, for each share of its bytes."""
    cut = [data[: round(share * len(data))] for share in shares]
    return [codec.decode([part], preview=True)[0].image for part in cut]


def centre(image: np.ndarray, side: int) -> np.ndarray:
    """The middle of a photograph, `side` pixels square or as much as there is."""
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def picture(codec: Codec, image: np.ndarray, quality: float) -> Image.Image:
    """Previews of a photograph side by side, with share and PSNR above."""
    data = codec.compress(image, quality)
    height, width = image.shape[:2]
    whole = Image.new("RGB", (width * len(SHOWN), height + HEADING), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(15)
    for i, (share, shown) in enumerate(zip(SHOWN, previews(codec, data, SHOWN), strict=True)):
        whole.paste(Image.fromarray(shown), (i * width, HEADING))
        text = f"{share:.0%}: {share * len(data):,.0f} bytes, {image_psnr(image, shown):.1f} dB"
        draw.text((i * width + 6, 3), text, "black", font)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data_dir", type=Path, help="photographs (default: scikit-image's)")
    add("--checkpoint", type=Path, default=DEFAULT_FOLDER, help="released folder")
    add("--quality", type=float, nargs="+", default=[2.0, 5.0, 8.0])
    add("--crop", type=int, default=384, help="side of the centre, pixels")
    add("--limit", type=int, help="only the first so many photographs")
    add("--picture", type=Path, help="write a picture in place of the table")
    args = parser.parse_args()
    program_cache.enable()

    codec = load_codec(args.checkpoint)
    if args.data_dir is None:
        images = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]
    else:
        images = [read_image(path) for path in image_files(args.data_dir)[: args.limit]]
    if args.picture is not None:
        picture(codec, images[0][:384, 64:448], args.quality[1]).save(args.picture, quality=92)
        return
    print(f"{'quality':>10}{'bytes':>9}{'more':>6}" + "".join(f"{share:>8.0%}" for share in SHARES))
    for quality in args.quality:
        psnr, sizes, more = [], [], []
        for image in (centre(image, args.crop) for image in images):
            data = codec.compress(image, quality, strict_llic=True)
            sizes.append(len(data))
            checked = codec.progressive.compress(image, quality, strict_llic=True)
            more.append(len(checked) - len(data))
            psnr.append([image_psnr(image, shown) for shown in previews(codec, data, SHARES)])
        means = "".join(f"{mean:8.2f}" for mean in np.mean(psnr, axis=0))
        print(f"{quality:10g}{np.mean(sizes):9.0f}{np.mean(more):6.0f}{means}", flush=True)


if __name__ == "__main__":
    main()
