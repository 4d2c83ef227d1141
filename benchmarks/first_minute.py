"""The facts that a GPU's first minute has to yield.

    python benchmarks/first_minute.py --out FOLDER --programs PROGRAMS --profile

Every part is a process of its own with a time limit, and all together end after `--seconds`. What a
part found until then is printed and kept in `FOLDER/first_minute.json`.

* device: kind, driver, target config and fingerprint (for compiling ahead of time), versions.
* programs: whether each carried program (`train.py --compile_only --target ...`) of `--programs`
  loads and runs; ms a step, peak memory, with `--profile` one step by kernel. With `--config` in
  place of it, or with `--compile`, what does not load is compiled here, and the results of
  autotuning are kept in `FOLDER/autotune`.
* fused: the gate's fused kernels (`LLIC_PALLAS_FUSED=1`) beside XLA's way: how far each is from
  float32, in value and gradients, and ms of both; with `--fused_programs`, steps compiled with the
  switch on, as in "programs".
* files: files of another machine (`--files`, an earlier run's `FOLDER/files`) decoded here, and
  photographs (`--images`) coded and decoded here, kept in `FOLDER/files`.
* torch: PyTorch's step of the same transforms (torch_transforms.py), where there is PyTorch.
* tests: names of failing tests of `--tests`.
"""

import argparse
import collections
import gzip
import importlib.util
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from aot import load_config
from common import best, timed

from llic_jax.configs.config import Config, as_dict
from llic_jax.configs.upgrade import upgrade
from llic_jax.data.image_files import image_files
from llic_jax.execution import program_cache
from llic_jax.images.read import read_image
from llic_jax.images.write import write_image
from llic_jax.layers.convolutions import Conv
from llic_jax.layers.kernels import gate_gpu
from llic_jax.layers.kernels.gate import gated_projection
from llic_jax.models.build import build_model
from llic_jax.ops.quantization import clip_values
from llic_jax.system import provenance
from llic_jax.training import carried_programs
from llic_jax.training.objective import Objective
from llic_jax.training.settings import RunSettings
from llic_jax.training.state import create_state
from llic_jax.training.step import make_step, step_arguments
from llic_jax.transforms.blocks import multiply_halves
from llic_jax.zoo.folder import DEFAULT_FOLDER, load_codec

# Most seconds of each part, of 90 in all; those before it may leave it less.
LIMITS = {"device": 20, "programs": 45, "fused": 30, "files": 25, "torch": 40, "tests": 40}
RESULTS = "first_minute.json"
GATE_RESULTS = ("y", "x", "expand", "expand_bias", "project", "project_bias", "gain")
Note = Callable[..., None]


class Found:
    """What a part found, written to a file whenever something is added: its process may be ended
    at any time."""

    def __init__(self, path: Path):
        self.path, self.values = path, {}

    def __call__(self, **values: Any) -> None:
        self.values |= values
        self.path.write_text(json.dumps(self.values, indent=1, default=str))


def device(args: argparse.Namespace, note: Note) -> None:
    first = jax.devices()[0]
    note(
        kind=first.device_kind,
        platform=first.platform,
        platform_version=first.client.platform_version,
        compute_capability=getattr(first, "compute_capability", None),
        devices=jax.device_count(),
        memory=first.memory_stats(),
        versions=provenance.versions(),
        commit=provenance.git_commit(),
    )
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"]
        note(nvidia_smi=subprocess.run(query, capture_output=True, text=True).stdout)
    try:
        # No public function tells; the target config is what XLA finds autotuning results by.
        from jax._src.lib import xla_client

        topology = xla_client.get_topology_for_devices(jax.devices())
        (args.out / "autotune").mkdir(exist_ok=True)
        (args.out / "autotune" / "target_config.txt").write_text(str(topology.target_config))
        note(target_config=str(topology.target_config))
        note(fingerprint=str(topology.fingerprint()))
    except Exception as error:
        note(not_told=f"{type(error).__name__}: {error}")


def programs(args: argparse.Namespace, note: Note) -> None:
    time_programs(args, args.programs, note)


def config_of(args: argparse.Namespace, folder: Path | None) -> Config:
    """The config that this folder's programs were compiled for; without a folder `--config`."""
    if folder is None:
        return as_dict(load_config(args.config, args.set))
    return json.loads((folder / carried_programs.MANIFEST).read_text())["config"]


def time_programs(args: argparse.Namespace, folder: Path | None, note: Note) -> None:
    """Every planned step of the config of this folder's manifest, or of `--config`."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    config = config_of(args, folder)
    settings, count = RunSettings.of(config), jax.local_device_count()
    carried = carried_programs.CarriedPrograms(folder, settings) if folder else None
    model = build_model(settings.model)
    fresh, optimizer, unravel = create_state(model, settings.train, settings.seed)
    rng = np.random.default_rng(0)
    for planned in carried_programs.planned_steps(settings):
        row: dict[str, Any] = {"loaded": False}
        messages.clear()
        started = time.perf_counter()
        step: Any = carried.load(planned.name) if carried else None
        row |= {"loaded": step is not None, "log": list(messages)}
        if step is not None:
            row["load_s"] = time.perf_counter() - started
        elif args.compile or carried is None:
            objective = Objective(model, settings.train, planned.phase, settings.options)
            step = make_step(objective, optimizer, unravel, settings.seed)
        note(**{planned.name: row})
        if step is None:
            continue
        _, shape, *rates = step_arguments(fresh, settings.train, planned.crop, count)
        state = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * count), fresh)
        images = rng.integers(0, 256, shape.shape, np.uint8)
        rest = [images, *(np.zeros(rate.shape, rate.dtype) for rate in rates)]
        try:
            row |= time_steps(step, state, rest, args.steps, args.profile and args.out / "profile")
            row["crops_per_second"] = 1e3 * settings.train.batch_size / row["ms"]
        except Exception as error:
            row["fails"] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        note(**{planned.name: row})


def time_steps(
    step: Any, state: Any, rest: Sequence[Any], steps: int, profile: Path | None
) -> dict[str, Any]:
    """Seconds of the first step, ms of later ones, peak memory so far, one step by kernel; rest:
    what a step takes beside the state."""
    started = time.perf_counter()
    state, figures = jax.block_until_ready(step(state, *rest))
    row: dict[str, Any] = {"first_step_s": time.perf_counter() - started}
    state, figures = jax.block_until_ready(step(state, *rest))
    started = time.perf_counter()
    for _ in range(steps):  # no pause in between: the host does not wait
        state, figures = step(state, *rest)
    jax.block_until_ready(state)
    row["ms"] = 1e3 * (time.perf_counter() - started) / steps
    row["loss"] = float(np.asarray(figures["loss"])[0])
    memory = jax.devices()[0].memory_stats()  # a CPU has none
    row["peak_gib"] = memory["peak_bytes_in_use"] / 2**30 if memory else None
    if profile:
        with jax.profiler.trace(str(profile)):
            jax.block_until_ready(step(state, *rest))
        row["kernels"] = kernel_times(profile)
    return row


def kernel_times(folder: Path, most: int = 60) -> list[tuple[str, int, float]]:
    """Name, launches and ms of what the device ran in the newest trace, the longest first. Of a
    CPU, whose trace has no device, what all threads did."""
    path = max(folder.rglob("*.trace.json.gz"), key=lambda p: p.stat().st_mtime)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    on_device = {pid for pid, name in processes.items() if "/device:" in name}
    streams = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"
    }
    any_stream = any(name.startswith("Stream") for name in streams.values())
    sums: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for event in events:
        if event.get("ph") != "X" or (on_device and event["pid"] not in on_device):
            continue
        stream = streams.get((event["pid"], event["tid"]), "")
        if any_stream and not stream.startswith("Stream"):
            continue  # derived lines tell the same time again, by module and by scope
        if event["name"].startswith("$"):
            continue  # Python's own
        row = sums[event["name"]]
        row[0] += 1
        row[1] += event["dur"] / 1e3
    longest = sorted(sums.items(), key=lambda item: -item[1][1])
    return [(name, int(count), round(ms, 4)) for name, (count, ms) in longest[:most]]


def fused(args: argparse.Namespace, note: Note) -> None:
    """One gate of the first stage that has blocks, and steps compiled with the switch on."""
    config = config_of(args, args.fused_programs or args.programs)
    section = upgrade(config)["model"]
    stage = next(i for i, depth in enumerate(section["depths"]) if depth)
    side = config["data"]["crops"][-1] // math.prod(section["strides"][: stage + 1])
    shape = (config["train"]["batch_size"], side, side, section["channels"][stage])
    on_gpu = jax.default_backend() == "gpu"
    if not on_gpu:  # interpreted: a trial of this script
        shape = (2, 3, 5, shape[-1])
    note(gate=compare_gates(shape, section["activation_limit"], not on_gpu, args.steps))
    if args.fused_programs:
        time_programs(args, args.fused_programs, note)


def compare_gates(
    shape: tuple[int, ...], limit: float, interpret: bool, repeats: int
) -> dict[str, Any]:
    """Distances from float32 over float32's length, of the value and each gradient, and ms of
    value and gradients, by XLA and fused, in bfloat16.

    Args:
        shape: of the gate's input.
        interpret: runs the fused kernels where there is no GPU.
    """
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for _ in range(2))
    gain = jnp.asarray(rng.uniform(0.5, 2, (shape[0], shape[-1])), jnp.float32)
    c = shape[-1]
    sizes = (c, 2 * c), (2 * c,), (c, c), (c,)
    weights = [jnp.asarray(rng.standard_normal(s) / np.sqrt(c), jnp.float32) for s in sizes]
    kernels: Any = gate_gpu
    if interpret:
        kernels = SimpleNamespace(
            forward=partial(gate_gpu.forward, interpret=True),
            backward=partial(gate_gpu.backward, interpret=True),
        )

    def plain(x: Any, expand: Any, expand_bias: Any, project: Any, bias: Any, gain: Any) -> Any:
        def conv(features: int, kernel: Any, bias: Any, *inputs: Any) -> Any:
            params = {"conv": {"kernel": kernel, "bias": bias}}
            return Conv(features, 1, dtype=x.dtype).apply({"params": params}, *inputs)

        h = multiply_halves(conv(2 * c, expand, expand_bias, x))
        y = x + conv(c, project, bias, h, gain)
        return clip_values(y, limit) if limit else y

    def both(function: Callable) -> Callable:
        def run(x: Any, dy: Any, *others: Any) -> Any:
            y, pull = jax.vjp(function, x, *others)
            return y, *pull(dy)

        return jax.jit(run)

    def fused_way(x: Any, *others: Any) -> Any:
        return gated_projection(kernels, x, *others, limit)

    wide = (x.astype(jnp.float32), dy.astype(jnp.float32), *weights, gain)
    with jax.default_matmul_precision("highest"):
        exact = both(plain)(*wide)
    row: dict[str, Any] = {"shape": shape}
    for name, function in (("xla", plain), ("fused", fused_way)):
        run = both(function)
        arguments = x, dy, *weights, gain
        found, first = timed(partial(run, *arguments))
        seconds = best(partial(run, *arguments), repeats)
        distances = [
            float(jnp.linalg.norm((a.astype(jnp.float32) - b).ravel()) / jnp.linalg.norm(b.ravel()))
            for a, b in zip(found, exact, strict=True)
        ]
        row[name] = {
            "first_s": first,
            "ms": 1e3 * seconds,
            "distances": dict(zip(GATE_RESULTS, distances, strict=True)),
        }
    # As in the tests: no further from float32 than XLA's way, which rounds in other places.
    row["right"] = all(
        row["fused"]["distances"][name] < 1.2 * row["xla"]["distances"][name] + 2.0**-9
        for name in GATE_RESULTS
    )
    return row


def files(args: argparse.Namespace, note: Note) -> None:
    codec = load_codec(args.checkpoint)
    for path in sorted(args.files.glob("*.llic")) if args.files else []:
        try:
            started = time.perf_counter()
            image = codec.decompress(path.read_bytes())
            there = read_image(path.with_suffix(".png"))
            apart = np.abs(image.astype(int) - there.astype(int))
            row = {
                "decoded": True,
                "seconds": time.perf_counter() - started,
                "pixels_apart": int((apart.max(-1) > 0).sum()),
                "most_apart": int(apart.max()),
            }
        except Exception as error:
            row = {"decoded": False, "error": f"{type(error).__name__}: {error}"}
        note(**{f"theirs/{path.name}": row})
    if not args.images:
        return
    kept = args.out / "files"
    kept.mkdir(exist_ok=True)
    for path in image_files(args.images):
        data = codec.compress(read_image(path))
        (kept / f"{path.stem}.llic").write_bytes(data)
        write_image(kept / f"{path.stem}.png", codec.decompress(data))
        note(**{f"ours/{path.stem}.llic": {"bytes": len(data)}})


def torch(args: argparse.Namespace, note: Note) -> None:
    python = args.torch_python or sys.executable
    if not args.torch_python and importlib.util.find_spec("torch") is None:
        note(skipped="no PyTorch here; --torch_python names an interpreter that has it")
        return
    config = config_of(args, args.programs)
    model = args.out / "model.json"
    model.write_text(json.dumps(config["model"]))
    side, crops = config["data"]["crops"][-1], config["train"]["batch_size"]
    command = [python, str(Path(__file__).with_name("torch_transforms.py"))]
    command += ["--model", str(model), "--dtype", config["model"]["dtype"]]
    command += ["--crops", str(crops), "--side", str(side), "--steps", str(args.steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        note(fails=done.stderr.splitlines()[-1:])
    else:
        note(crops=crops, side=side, **json.loads(done.stdout.splitlines()[-1]))


def tests(args: argparse.Namespace, note: Note) -> None:
    if not args.tests:
        note(skipped="no --tests")
        return
    command = [sys.executable, "-m", "pytest", "-vv", "--tb=line", *args.tests]
    outcomes: dict[str, list[str]] = {"failed": [], "passed": []}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:  # as they come: what was found counts though the time is up
        for outcome, word in (("failed", " FAILED"), ("failed", " ERROR"), ("passed", " PASSED")):
            if word in line and "::" in line:
                outcomes[outcome].append(line.split(word)[0].strip())
                note(failed=outcomes["failed"], passed=len(outcomes["passed"]))
    note(status=run.wait())


PARTS = {
    "device": device, "programs": programs, "fused": fused,
    "files": files, "torch": torch, "tests": tests,
}  # fmt: skip


def run_part(name: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """A part in a process of its own, ended after `limit` seconds with all that it started."""
    found = args.out / f"{name}.json"
    found.unlink(missing_ok=True)
    environment = dict(os.environ)
    environment["LLIC_PALLAS_FUSED"] = "1" if name == "fused" else "0"
    if name == "programs" and (args.compile or not args.programs):
        folder = (args.out / "autotune").resolve()
        (folder / "per_fusion").mkdir(parents=True, exist_ok=True)
        flags = f"--xla_gpu_dump_autotune_results_to={folder / 'results.textproto'}"
        flags += f" --xla_gpu_per_fusion_autotune_cache_dir={folder / 'per_fusion'}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}".strip()
    started, status = time.monotonic(), "done"
    process = subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], "--only", name],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    error = ""
    try:
        _, error = process.communicate(timeout=limit)
        if process.returncode:
            status = f"ended with {process.returncode}: {' '.join(error.splitlines()[-1:])}"
    except subprocess.TimeoutExpired:
        status = f"ended after {limit:.0f} s"
        os.killpg(process.pid, 9)
        process.communicate()
    values = json.loads(found.read_text()) if found.exists() else {}
    return {"status": status, "seconds": round(time.monotonic() - started, 1), **values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is found")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=90.0, help="of all parts together")
    parser.add_argument("--programs", type=Path, help="folder of carried programs")
    parser.add_argument("--fused_programs", type=Path, help="compiled with LLIC_PALLAS_FUSED=1")
    parser.add_argument("--config", default="smoke", help="without --programs: of configs/")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", action="extend")
    parser.add_argument("--compile", action="store_true", help="what does not load")
    parser.add_argument("--steps", type=int, default=10, help="to time")
    parser.add_argument("--profile", action="store_true", help="one step of each, by kernel")
    parser.add_argument("--files", type=Path, help="FILE.llic with FILE.png, decoded elsewhere")
    parser.add_argument("--images", type=Path, help="photographs to code here")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_FOLDER, help="of the codec")
    parser.add_argument("--torch_python", help="interpreter that has PyTorch")
    parser.add_argument("--tests", nargs="+", help="files or names for pytest")
    parser.add_argument("--only", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        if args.only == "files":
            program_cache.enable()
        PARTS[args.only](args, Found(args.out / f"{args.only}.json"))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    started, results = time.monotonic(), {}
    for name in args.parts:
        left = args.seconds - (time.monotonic() - started)
        if left <= 1:
            results[name] = {"status": "no time left"}
        else:
            results[name] = run_part(name, args, min(left, LIMITS[name] * args.seconds / 90))
        (args.out / RESULTS).write_text(json.dumps(results, indent=1))
        print(name, json.dumps(results[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
