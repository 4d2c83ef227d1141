"""Writes golden files: streams that every later version must decode to the same images.

    python tests/golden/write.py

For each of the tiny models in `models` (made if there are none), a file by every range coder, named
by the coder's number, and the image that they decode to, into the folder of the format's version.
For pictures that no model codes, a file by each of the other codings. A progressive file of the
first model. What is there already stays.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from llic_jax.bitstream.file import (
    OTHER_CODINGS,
    PICTURE_VERSION,
    PROGRESSIVE_VERSION,
    VERSION,
    LlicFile,
)
from llic_jax.bitstream.sections import sections_of
from llic_jax.codec import fallback
from llic_jax.codec.rate_control import Quality
from llic_jax.coding.range_coders.registry import CODERS, installed_coders
from llic_jax.configs import smoke
from llic_jax.images.photograph import Photograph
from llic_jax.images.write import write_photograph
from llic_jax.models.build import build_model, initialize
from llic_jax.zoo.folder import load_codec, save_release

TINY = {
    "elic": {"groups": (4, 12)},
    "stf": {"slices": 2, "max_support": 1},
    "tcm": {"slices": 2, "attention_channels": 8, "window_sizes": (2, 4), "head_dims": (4, 4)},
}


def photograph() -> Photograph:
    """A made-up one: smooth colours, edges and some noise; 90 x 70 pixels."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:70, :90]
    waves = np.stack([np.sin(rows / a + columns / b) for a, b in ((9, 7), (31, 5), (6, 40))], -1)
    image = 120 + 70 * waves + 40 * (rows > columns)[..., None] + rng.normal(0, 6, waves.shape)
    alpha = np.clip(4 * rows, 0, 255).astype(np.uint8)
    rgb = np.clip(image, 0, 255).astype(np.uint8)
    return Photograph(rgb, alpha=alpha, icc=b"a colour profile", exif=None)


def make_model(folder: Path, name: str) -> None:
    """A released folder with random weights."""
    config = smoke.get_config()
    config.model.update(
        entropy_model=name,
        channels=(4, 8, 8, 16),
        kernel_sizes=(5, 5, 3, 3),
        hyper_channels=16,
        context_widths=(8,),
        levels=2,
        **TINY[name],
    )
    config.train.lmbdas = (0.0067, 0.0250)
    params = initialize(build_model(config.model), seed=3)
    # Latents large enough that there is something to code.
    for part, by in (("gain_y", 3.0), ("gain_z", 2.0)):
        params[part]["log_gain"] += by
        params[part]["log_inverse"] -= by
    save_release(folder, config.to_dict(), params)


def main() -> None:
    """Makes what is not there."""
    whole, here = photograph(), Path(__file__).parent
    for name in TINY:
        model, files = here / "models" / name, here / f"version_{VERSION}" / name
        if not model.exists():
            make_model(model, name)
        files.mkdir(parents=True, exist_ok=True)
        for coder in installed_coders():
            path = files / f"coder_{CODERS[coder].coder_id}.llic"
            if path.exists():
                continue
            codec = load_codec(model, coder)
            tags = sections_of(whole)
            (encoded,) = codec.encode([whole.rgb], Quality(1.7), sections=[tags])
            path.write_bytes(encoded.data)
            if not (files / "decoded.png").exists():
                decoded = codec.decode_photographs([path.read_bytes()])[0]
                write_photograph(files / "decoded.png", decoded)
    write_pictures(whole, here / f"version_{PICTURE_VERSION}")
    write_progressive(whole, here / f"version_{PROGRESSIVE_VERSION}" / "elic")


def write_progressive(whole: Photograph, files: Path) -> None:
    """The photograph in a file whose first part is checked."""
    if files.exists():
        return
    files.mkdir(parents=True)
    codec = load_codec(files.parents[1] / "models" / files.name, "tfc").progressive
    (encoded,) = codec.encode([whole.rgb], Quality(1.7), sections=[sections_of(whole)])
    (files / "coder_1.llic").write_bytes(encoded.data)
    decoded = codec.decode_photographs([encoded.data])[0]
    write_photograph(files / "decoded.png", decoded)


def write_pictures(whole: Photograph, folder: Path) -> None:
    """The photograph, by each way of coding that needs no model."""
    codec = load_codec(folder.parent / "models" / "elic")
    for tag in OTHER_CODINGS:
        files = folder / f"section_{tag}"
        if files.exists():
            continue
        files.mkdir(parents=True)
        content = fallback.coded(whole.rgb, tag, psnr=30.0)
        height, width = whole.rgb.shape[:2]
        file = LlicFile.of_picture(width, height, {**sections_of(whole), tag: content})
        (files / "picture.llic").write_bytes(file.to_bytes())
        decoded = codec.decode_photographs([file.to_bytes()])[0]
        write_photograph(files / "decoded.png", decoded)


if __name__ == "__main__":
    main()
