"""Writes files in one way and reads them in others: do all decoders agree?

    python benchmarks/agreement.py --data_dir PHOTOGRAPHS --other_python NEWEST_JAX/bin/python

Files of the released model at every quality, and of small and full-size models of all three
entropy models with random weights, are written by jitted programs with all threads. Then processes
of their own read them: jitted again, eagerly, with one thread, with entropy parameters in float64,
with the JAX of another interpreter, and with entropy parameters disturbed by ten times the
differences that the ways before it showed: for every parameter one is drawn from those of the same
model, of the way that differed most. A file that decodes has the symbols of its checksum; the
images are compared here, and the entropy parameters with the writer's.

A line a model under each way. Columns: files, files that do not decode, and the largest
difference from the writer: of a value of the image, of a mean, and of a scale's position on the
table.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import EAGER, FLOAT64, ONE_THREAD, codec_in_float64, timed

WAYS: dict[str, dict[str, str]] = {
    "jitted, all threads": {},
    "eager": EAGER,
    "one thread": ONE_THREAD,
    "float64": FLOAT64,
}
MODELS = ["released", "llic_stf_small", "llic_tcm_small", "llic_stf", "llic_elic", "llic_tcm"]
MODEL_IMAGES = 44  # of each model with random weights
OTHER = "another JAX"
DISTURBED = "disturbed tenfold"


def random_release(folder: Path, name: str) -> None:
    """A released folder with random weights, and latents large enough to code."""
    import importlib

    import jax

    from llic_jax.models.build import build_model, initialize
    from llic_jax.zoo.folder import save_release

    config = importlib.import_module(f"llic_jax.configs.{name}").get_config()
    config.model.levels, config.train.lmbdas = 1, (0.0130,)
    config.coding.back_projection = ()
    model = build_model(config.model)
    params = initialize(model, seed=1)
    image = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3)).astype(np.float32) / 255
    y = jax.jit(partial(model.apply, method="analyze"))({"params": params}, image)
    params["g_a"]["down_3"]["conv"]["kernel"] *= 4 / float(np.std(y))
    save_release(folder, config.to_dict(), params)


def crops(folder: Path, count: int, side: int) -> list[np.ndarray]:
    """Central crops of photographs spread over the folder, as large as `side` where they can be."""
    from llic_jax.data.image_files import image_files
    from llic_jax.images.read import read_image

    paths = image_files(folder)
    found = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        image = read_image(path)
        top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
        found.append(image[top : top + side, left : left + side])
    return found


class Noise(NamedTuple):
    """Differences between two ways, of means and of levels: samples, `(n,)`."""

    mean: np.ndarray
    level: np.ndarray


class Recorder:
    """An entropy model that keeps means and positions of every step, and may disturb them."""

    def __init__(self, model: Any, owner: "Recording"):
        self.model, self.owner, self.steps = model, owner, model.steps

    def entropy_params(self, *args: Any) -> Any:
        mean, scale, carry = self.model.entropy_params(*args)
        mean, scale = self.owner.disturbed(mean, scale)
        positions = np.asarray(self.owner.networks.positions(scale))
        self.owner.found.append((np.asarray(mean), positions))
        return mean, scale, carry

    def refine(self, *args: Any) -> Any:
        return self.model.refine(*args)


class Recording:
    """A codec whose walks are recorded; ten times some noise is added to what they compute."""

    def __init__(self, codec: Any, noise: Noise | None = None):
        from llic_jax.codec.codec import Codec
        from llic_jax.codec.networks import CompiledNetworks

        recording = self

        class Networks(CompiledNetworks):
            def entropy_model(self, canvas: Any) -> Any:
                return Recorder(super().entropy_model(canvas), recording)

        model = codec.model
        self.networks = Networks(model.network, model.params, codec.limits.memory_gb)
        self.codec = Codec(model, codec.options, codec.limits, self.networks)
        self.noise, self.rng = noise, np.random.default_rng(0)
        self.found: list[tuple[np.ndarray, np.ndarray]] = []

    def disturbed(self, mean: Any, scale: Any) -> tuple[Any, Any]:
        if self.noise is None:
            return mean, scale
        of_mean, of_level = (10 * self.rng.choice(drawn, mean.shape) for drawn in self.noise)
        mean = mean + of_mean.astype(np.float32)
        return mean, scale * np.exp(LOG_STEP * of_level).astype(np.float32)

    def take(self) -> list[tuple[np.ndarray, np.ndarray]]:
        found, self.found = self.found, []
        return found


LOG_STEP = np.log(256 / 0.11) / 63  # of the scale table
NOISE_SAMPLES = 2000  # of each file


def write(work: Path, models: list[str], photographs: Path, images: int) -> None:
    """Files, their images and their entropy parameters, into `work`."""
    from llic_jax.codec.rate_control import Quality
    from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec

    folders = {}
    for name in models:
        folders[name] = DEFAULT_FOLDER if name == "released" else work / name
        if name != "released":
            random_release(folders[name], name)
    (work / "folders.json").write_text(json.dumps({k: str(v) for k, v in folders.items()}))
    for name, folder in folders.items():
        codec = load_codec(folder, "constriction")  # which every stack has
        recorder = Recording(codec)
        codec = recorder.codec
        levels = codec.network.levels
        qualities = [None] if levels == 1 else [float(q) for q in range(1, levels + 1)]
        count = images if levels > 1 else MODEL_IMAGES
        for i, image in enumerate(crops(photographs, count, 128)):
            for quality in qualities:
                encoded = codec.encode([image], Quality(quality))[0]
                expected = codec.reconstruct(encoded)
                found = (name, encoded.data, expected, recorder.take())
                (work / f"{name}-{i:03d}-{quality or 0:g}.pickle").write_bytes(pickle.dumps(found))


def measured_noise(work: Path) -> dict[str, Noise]:
    """For each model the differences of the way that differed most."""
    found: dict[str, Noise] = {}
    for path in sorted(work.glob("noise*.pickled")):
        for name, noise in pickle.loads(path.read_bytes()).items():
            if name not in found or np.std(noise.level) > np.std(found[name].level):
                found[name] = noise
    return found


def read(work: Path, way: str) -> None:
    """Decodes all files in this process's way; prints a line of JSON for each, and leaves samples
    of the noise in `work`."""
    from llic_jax.errors import LlicError
    from llic_jax.zoo.folder import load_codec

    folders = json.loads((work / "folders.json").read_text())
    codecs: dict[str, tuple[Any, Recording]] = {}
    drawn = measured_noise(work) if way == DISTURBED else {}
    samples: dict[str, list[Noise]] = {}
    rng = np.random.default_rng(0)
    for path in sorted(work.glob("*.pickle")):
        name, data, expected, params = pickle.loads(path.read_bytes())
        if name not in codecs:
            folder = Path(folders[name])
            codec = codec_in_float64(folder) if way == "float64" else load_codec(folder)
            recorder = Recording(codec, drawn.get(name))
            codecs = {name: (recorder.codec, recorder)}
        codec, recorder = codecs[name]
        line: dict[str, Any] = {"model": name, "ok": True}
        try:
            image = codec.decompress(data)
            line["grey_levels"] = int(np.abs(image.astype(int) - expected).max())
        except LlicError as error:
            line |= {"ok": False, "error": str(error)}
        pairs = list(zip(params, recorder.take(), strict=False))
        line["mean"] = max((float(np.abs(a[0] - b[0]).max()) for a, b in pairs), default=0.0)
        # Below the first boundary nothing can go wrong.
        near = [(b[1] - a[1])[a[1] > 0.4].ravel() for a, b in pairs]
        line["level"] = max((float(np.abs(n).max()) for n in near if n.size), default=0.0)
        print(json.dumps(line), flush=True)
        if pairs and line["ok"]:
            both = np.concatenate([(b[0] - a[0]).ravel() for a, b in pairs]), np.concatenate(near)
            taken = [rng.choice(all_, NOISE_SAMPLES) for all_ in both if all_.size]
            if len(taken) == 2:
                samples.setdefault(name, []).append(Noise(*taken))
    if way != DISTURBED:
        noise = {n: Noise(*map(np.concatenate, zip(*s, strict=True))) for n, s in samples.items()}
        (work / f"noise {way}.pickled").write_bytes(pickle.dumps(noise))


def start(work: Path, way: str, python: str) -> list[dict[str, Any]]:
    """The lines of a process that reads all files its way; the last one says how long it took."""
    command = [python, __file__, "--data_dir", ".", "--work", str(work), "--read", way]
    environment = {**os.environ, **WAYS.get(way, {})}
    out, seconds = timed(
        lambda: subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    )
    lines = [json.loads(line) for line in out.stdout.decode().splitlines()]
    return [*lines, {"minutes": seconds / 60}]


def show(way: str, lines: list[dict[str, Any]]) -> None:
    """Prints a row for every model."""
    *lines, last = lines
    print(f"{way}, {last['minutes']:.1f} minutes")
    for model in dict.fromkeys(line["model"] for line in lines):
        its = [line for line in lines if line["model"] == model]
        bad = [line for line in its if not line["ok"]]
        image = max((line["grey_levels"] for line in its if line["ok"]), default=0)
        mean, level = (max(line[key] for line in its) for key in ("mean", "level"))
        print(
            f"  {model:20}{len(its):>7}{len(bad):>16}{image:>9}{mean:>10.1e}{level:>10.1e}",
            flush=True,
        )
        for line in bad:
            print(f"    {line['error']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--other_python", help="an interpreter with another JAX")
    parser.add_argument("--images", type=int, default=50, help="of the released model")
    parser.add_argument("--workers", type=int, default=2, help="ways at a time")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.work, args.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write(work, args.models, args.data_dir, args.images)
        print(f"{len(list(work.glob('*.pickle')))} files")
        print(f"{'read':22}{'files':>7}{'symbols differ':>16}{'largest difference of':>24}")
        print(f"{'':45}{'image':>8}{'mean':>10}{'level':>10}", flush=True)
        pythons = dict.fromkeys(WAYS, sys.executable)
        if args.other_python:
            pythons[OTHER] = args.other_python
        with ThreadPoolExecutor(args.workers) as pool:
            runs = pool.map(lambda way: start(work, way, pythons[way]), pythons)
            for way, lines in zip(pythons, runs, strict=True):
                show(way, lines)
        show(DISTURBED, start(work, DISTURBED, sys.executable))


if __name__ == "__main__":
    main()
