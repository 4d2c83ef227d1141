"""Rate and distortion from real files: every image is written, read back and decoded.

image -> encode -> FILE.llic -> read -> decode -> compare with the original and with the
                                                  encoder's own reconstruction

`load_images` and `trials` say what is measured on which images, `Output` where figures go, and
`measure` does it. Each figure goes to `OUTPUT/results.jsonl` as soon as it is measured; a run that
is started again with the same output measures what is missing.
"""

import functools
import hashlib
import os
import platform
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from tqdm import tqdm

from llic_jax.evaluation.image_sets import ImageSet
from llic_jax.evaluation.output import Output
from llic_jax.evaluation.results import Key, Result, averages, incomparable
from llic_jax.evaluation.system import CodecUnderTest, Image, Measurement, Quality
from llic_jax.evaluation.trials import Trial
from llic_jax.evaluation.workers import run_tasks
from llic_jax.execution import program_cache
from llic_jax.images.write import write_image
from llic_jax.metrics import distortion
from llic_jax.system.provenance import versions


def measure(
    planned: Iterable[Trial],
    images: ImageSet,
    output: Output,
    workers: int = 1,
    progress: bool = True,
) -> list[Result]:
    """Measures every trial on every image, where `output` lacks the result.

    Args:
      planned: Codecs and their qualities.
      images: The images.
      output: Takes each result as soon as it is there, and the decoded images.
      workers: Processes.
      progress: Shows a bar for each codec, on a terminal.

    Returns:
      The results by codec, quality and image.

    Raises:
      ResultsError: `output` has figures of other versions, or of other images of the same names.
      WorkerError: A process died.
    """
    digests = {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in images.images}
    results: dict[Key, Result] = {}
    order: list[Key] = []
    for trial in planned:
        system = trial.system
        version = system.version
        missing: list[tuple[Key, Quality, Image]] = []
        # Image by image: neighbours then share compiled programs.
        for name, image in images.images:
            for quality in trial.qualities:
                key = (system.name, system.setting(quality), name)
                result = output.results.find(key, version, digests[name])
                saved = not output.save_images or output.image_path(key).is_file()
                if result is not None and saved:
                    results[key] = result
                else:
                    missing.append((key, quality, image))
        settings = [system.setting(quality) for quality in trial.qualities]
        order += [(system.name, s, name) for s in settings for name, _ in images.images]
        tasks = [(quality, image) for _, quality, image in missing]
        bar = tqdm(
            total=len(tasks), desc=system.name, unit="image", disable=None if progress else True
        )
        measurements = run_tasks(system, tasks, workers, _process_start(system))
        with bar:
            for (key, quality, image), measurement in zip(missing, measurements, strict=True):
                if output.save_images:
                    path = output.image_path(key)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_image(path, measurement.image)
                result = _result(key, version, quality, digests[key[2]], image, measurement)
                output.results.add(result)
                results[key] = result
                bar.update()
    return [results[key] for key in order]


def _process_start(system: CodecUnderTest) -> Any:
    """What a process does before it runs this codec: it finds the compiled programs of this one."""
    if system.separate:
        return None  # JAX must not be imported there
    return functools.partial(_use_compiled, jax.config.values.get("jax_compilation_cache_dir"))


def _use_compiled(folder: str | None) -> None:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder or ""
    program_cache.enable()


def _result(
    key: Key,
    version: str,
    quality: Quality,
    digest: str,
    image: Image,
    measurement: Measurement,
) -> Result:
    height, width = image.shape[:2]
    similarity = distortion.image_ms_ssim(image, measurement.image)
    bits = measurement.bits
    return Result(
        codec=key[0],
        version=version,
        setting=key[1],
        quality=quality,
        image=key[2],
        digest=digest,
        width=width,
        height=height,
        bytes=measurement.bytes,
        bpp=8 * measurement.bytes / (height * width),
        bpp_estimated=None if bits is None else bits / (height * width),
        psnr=distortion.image_psnr(image, measurement.image),
        psnr_y=distortion.image_psnr_y(image, measurement.image),
        ms_ssim=similarity,
        ms_ssim_db=None if similarity is None else distortion.to_decibels(1 - similarity),
        encode_seconds=measurement.encode_seconds,
        encode_network_seconds=measurement.encode_network_seconds,
        decode_seconds=measurement.decode_seconds,
        decode_network_seconds=measurement.decode_network_seconds,
        peak_memory=measurement.peak_memory,
        identical=measurement.identical,
    )


def summary(results: Sequence[Result], images: ImageSet, workers: int = 1) -> dict[str, Any]:
    """Averages the results, and states what they were measured on.

    Args:
      results: See `measure`.
      images: The images.
      workers: Processes that measured.

    Returns:
      A tree that is JSON; numbers in it are finite.
    """
    return {
        "images": {"set": images.name, "count": len(images.images)},
        "left_out": {name: sorted(names) for name, names in incomparable(results).items()},
        "versions": versions(),
        "machine": {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "platform": f"{platform.system()} {platform.machine()}",
            "workers": workers,
        },
        "codecs": averages(results),
    }
