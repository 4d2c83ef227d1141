"""The paper-size codecs at work: two images through a real file and back, each model by itself.

    python benchmarks/full_size.py --data_dir FOLDER

The weights are random (the latent is scaled up, so that there is something to code): this shows
that the decoder returns exactly what the encoder reconstructs, and what that costs. Without a
folder the images are scikit-image's. "first" is the first coding and decoding of a size, compiling
included; the other seconds are those of compiled programs. Memory is the process's peak, of both
images, compiling included.

Columns: the model, its parameters, MACs per pixel in thousands, size of the image, bits per
pixel, whether the decoder's image is exactly the encoder's, seconds of compressing, of
decompressing and of the first time of both, and peak memory.
"""

import argparse
import json
import resource
from pathlib import Path

import numpy as np
from common import last_line, run_process, timed
from PIL import Image

MODELS = ("llic_stf", "llic_elic", "llic_tcm")
SIZES = ((768, 512), (301, 203))  # width, height


def images(data_dir: Path | None) -> list[np.ndarray]:
    """An image of each size, RGB uint8."""
    if data_dir is not None:
        from llic_jax.data.image_files import image_files

        sources = [Image.open(file).convert("RGB") for file in image_files(data_dir)[: len(SIZES)]]
    else:
        import skimage.data

        sources = [Image.fromarray(skimage.data.coffee()), Image.fromarray(skimage.data.rocket())]
    found = []
    for source, (width, height) in zip(sources, SIZES, strict=True):
        if source.width < width or source.height < height:
            source = source.resize((width, height), Image.Resampling.LANCZOS)
        found.append(np.asarray(source.crop((0, 0, width, height))))
    return found


def random_codec(name: str, *options):
    """The codec of a config with random weights; options: encoder's options and limits."""
    import jax

    from llic_jax.codec.codec import Codec
    from llic_jax.codec.model import CodecModel
    from llic_jax.coding.table_design import build_tables
    from llic_jax.models.build import initialize
    from llic_jax.models.cost import load_model

    model = load_model(Path(__file__).parents[1] / "configs" / f"{name}.py")
    params = initialize(model)
    params["g_a"]["down_3"] = jax.tree.map(lambda p: 4 * p, params["g_a"]["down_3"])
    tables = build_tables(model.prior, params["prior"])
    return Codec(CodecModel(model, params, tables, b"fullsize"), *options)


def measure(name: str, data_dir: Path | None) -> dict:
    """Everything in the table about one model."""
    from llic_jax.models.cost import summarize

    codec = random_codec(name)
    costs = summarize(codec.network, 512, 768)
    rows = []
    for image in images(data_dir):
        height, width = image.shape[:2]
        _, first = timed(lambda image=image: codec.decompress(codec.compress(image)))
        compressed, encoding = timed(lambda image=image: codec.encode([image])[0])
        decoded, decoding = timed(lambda data=compressed.data: codec.decode([data])[0].image)
        rows.append(
            dict(
                size=f"{width}x{height}",
                bpp=8 * len(compressed.data) / (width * height),
                exact=bool(np.array_equal(decoded, codec.reconstruct(compressed))),
                first=first,
                compress=encoding,
                decompress=decoding,
            )
        )
    return dict(
        parameters=costs.total_parameters,
        kmacs=costs.macs / costs.pixels / 1000,
        # Kilobytes on Linux.
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        rows=rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="a folder of images")
    parser.add_argument("--models", nargs="+", default=MODELS, help="config names")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one model, in a process of its own
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.data_dir)))
        return
    print(
        "| model | parameters | kMACs/pixel | image | bpp | exact | compress s | decompress s "
        "| first s | peak GiB |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name in args.models:
        command = [__file__, "--only", name]
        if args.data_dir is not None:
            command += ["--data_dir", str(args.data_dir)]
        found = last_line(run_process(command)[0])
        for row in found["rows"]:
            print(
                f"| {name} | {found['parameters'] / 1e6:.1f} M | {found['kmacs']:.0f} "
                f"| {row['size']} | {row['bpp']:.2f} | {'yes' if row['exact'] else 'NO'} "
                f"| {row['compress']:.2f} | {row['decompress']:.2f} | {row['first']:.0f} "
                f"| {found['peak_gib']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
