"""Rate and distortion from real files: every image is written, read back and decoded.

    image -> encode -> FILE.llic -> read -> decode -> compare with the original and with the
                                                      encoder's own reconstruction
"""

import dataclasses
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from llic_jax import metrics
from llic_jax.coding.codec import Codec
from llic_jax.data import DataError, image_files
from llic_jax.images import read_image, write_image

# Photographs that scikit-image ships with its package (no download).
EMBEDDED = ("astronaut", "chelsea", "coffee", "motorcycle", "rocket")


@dataclasses.dataclass(frozen=True)
class Point:
    """One image at one quality. Rates are bits per original pixel; bpp counts the whole file."""

    image: str
    width: int
    height: int
    quality: float | None
    bytes: int
    bpp: float
    bpp_estimated: float
    psnr: float
    ms_ssim: float | None
    ms_ssim_db: float | None
    encode_network_seconds: float
    encode_coder_seconds: float
    decode_network_seconds: float
    decode_coder_seconds: float
    identical: bool


def load_images(source: str | Path | None) -> list[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """Names and images of a folder, or the embedded photographs (None).

    Raises:
      DataError: an empty folder, or none. ImageFileError: a file in it that is no RGB image.
    """
    if source is not None:
        return [(path.name, read_image(path)) for path in image_files(source)]
    try:
        from skimage import data
    except ImportError as error:
        raise DataError(
            "The embedded photographs come with scikit-image, which is not installed; install "
            "llic_jax[eval] or name a folder with --data_dir."
        ) from error
    loaders = {"motorcycle": lambda: data.stereo_motorcycle()[0]}
    return [(name, loaders.get(name, getattr(data, name, None))()) for name in EMBEDDED]


def evaluate(
    codec: Codec,
    images: Sequence[tuple[str, UInt8[np.ndarray, "h w 3"]]],
    qualities: Iterable[float | None],
    save_images: str | Path | None = None,
    progress: bool = True,
) -> list[Point]:
    """Compresses every image at every quality into a real file and decodes that.

    Times are those of compiled programs: the first image of a size is coded once beforehand.
    `save_images` is a folder that receives the decoded images.
    """
    qualities = list(qualities)
    points, seen = [], set()
    with tempfile.TemporaryDirectory() as folder, tqdm(
        total=len(images) * len(qualities), unit="image", disable=not progress
    ) as bar:
        for name, image in images:
            if image.shape not in seen:
                seen.add(image.shape)
                codec.decode(codec.encode(image, qualities[0]).data)
            for quality in qualities:
                bar.set_postfix_str(name)
                points.append(
                    _evaluate_one(codec, name, image, quality, Path(folder), save_images)
                )
                bar.update()
    return points


def _evaluate_one(
    codec: Codec,
    name: str,
    image: np.ndarray,
    quality: float | None,
    folder: Path,
    save_images: str | Path | None,
) -> Point:
    height, width = image.shape[:2]
    path = folder / "image.llic"
    encoded = codec.encode(image, quality)
    path.write_bytes(encoded.data)
    data = path.read_bytes()
    decoded = codec.decode(data)
    reconstruction = codec.reconstruct(encoded, height, width)
    if save_images is not None:
        label = "" if quality is None else f"_q{quality:g}"
        Path(save_images).mkdir(parents=True, exist_ok=True)
        write_image(Path(save_images) / f"{Path(name).stem}{label}.png", decoded.image)
    similarity = None
    if min(height, width) >= metrics.MS_SSIM_MIN_SIDE:
        similarity = float(_ms_ssim(_batch(image), _batch(decoded.image))[0])
    error = np.mean(np.square(image.astype(np.float64) - decoded.image))
    return Point(
        image=name,
        width=width,
        height=height,
        quality=quality,
        bytes=len(data),
        bpp=8 * len(data) / (height * width),
        bpp_estimated=encoded.bits / (height * width),
        psnr=float(10 * np.log10(255**2 / error)) if error else float("inf"),
        ms_ssim=similarity,
        ms_ssim_db=None if similarity is None else metrics.decibel(similarity),
        encode_network_seconds=encoded.network_seconds,
        encode_coder_seconds=encoded.coder_seconds,
        decode_network_seconds=decoded.network_seconds,
        decode_coder_seconds=decoded.coder_seconds,
        identical=bool(np.array_equal(decoded.image, reconstruction)),
    )


def _batch(image: np.ndarray) -> jax.Array:
    return jnp.asarray(image[None], jnp.float32)


@jax.jit
def _ms_ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    return metrics.ms_ssim(a, b, data_range=255.0)


def average(points: Sequence[Point]) -> dict[str, Any]:
    """Means over images of every figure (MS-SSIM: over the images that are large enough)."""
    means: dict[str, Any] = {"images": len(points)}
    for field in dataclasses.fields(Point):
        values = [getattr(p, field.name) for p in points]
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if field.name not in ("width", "height") and numbers:
            means[field.name] = float(np.mean(numbers))
    means["identical"] = all(p.identical for p in points)
    return means


def by_quality(points: Sequence[Point]) -> dict[float | None, list[Point]]:
    """The points of each quality, in the order of their first appearance."""
    groups: dict[float | None, list[Point]] = {}
    for point in points:
        groups.setdefault(point.quality, []).append(point)
    return groups


def summary(codec: Codec, points: Sequence[Point]) -> dict[str, Any]:
    """Everything that was measured, with what it was measured on, for a JSON file."""
    packages = ("llic_jax", "jax", "jaxlib", "flax", "numpy", "tensorflow-compression-ops")
    return {
        "model": codec.fingerprint.hex(),
        "coder": codec.coder,
        "versions": {"python": platform.python_version(), **_versions(packages)},
        "machine": {"device": jax.devices()[0].device_kind, "platform": platform.platform()},
        "mean": [average(group) for group in by_quality(points).values()],
        "images": [dataclasses.asdict(point) for point in points],
    }


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def table(points: Sequence[Point]) -> str:
    """The figures as text: a line for each image, and the mean of each quality."""
    header = (
        f"{'image':<20} {'size':>11} {'quality':>7} {'bytes':>8} {'bpp':>7} {'estimate':>8} "
        f"{'PSNR':>6} {'MS-SSIM':>8} {'encode s':>8} {'decode s':>8}"
    )
    lines = [header, "-" * len(header)]
    for group in by_quality(points).values():
        lines += [_line(p.image, f"{p.width}x{p.height}", dataclasses.asdict(p)) for p in group]
        mean = average(group)
        lines += [_line("mean", f"{len(group)} images", mean), ""]
    if not all(p.identical for p in points):
        lines.append("Not every decoded image equals the encoder's own reconstruction!")
    return "\n".join(lines)


def _line(name: str, size: str, values: dict[str, Any]) -> str:
    quality, similarity = values.get("quality"), values.get("ms_ssim")
    encode = values["encode_network_seconds"] + values["encode_coder_seconds"]
    decode = values["decode_network_seconds"] + values["decode_coder_seconds"]
    return (
        f"{name[:20]:<20} {size:>11} {'-' if quality is None else f'{quality:.2f}':>7} "
        f"{values['bytes']:>8.0f} {values['bpp']:>7.4f} {values['bpp_estimated']:>8.4f} "
        f"{values['psnr']:>6.2f} {'-' if similarity is None else f'{similarity:.5f}':>8} "
        f"{encode:>8.2f} {decode:>8.2f}"
    )


def run(
    codec: Codec,
    source: str | Path | None,
    qualities: Sequence[float] | None,
    output: str | Path,
    save_images: bool = False,
) -> list[Point]:
    """The main job: evaluates, prints the table, writes `OUTPUT/results.json` (and images)."""
    output = Path(output)
    images = load_images(source)
    if qualities is None:
        levels = codec.model.levels
        chosen: list[float | None] = [float(q) for q in range(1, levels + 1)]
        chosen = chosen if levels > 1 else [None]
    else:
        chosen = list(qualities)
    output.mkdir(parents=True, exist_ok=True)
    points = evaluate(codec, images, chosen, output / "images" if save_images else None)
    print(table(points))
    path = output / "results.json"
    path.write_text(json.dumps(summary(codec, points), indent=2) + "\n")
    print(f"model {codec.fingerprint.hex()}, coder {codec.coder}; figures in {path}")
    return points
