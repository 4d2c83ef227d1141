"""Times the depth-wise convolution: `python benchmarks/depthwise.py [--torch_python PYTHON]`.

For each shape and each operation (forward, input gradient, kernel gradient, all three) it prints
the best time in milliseconds of every implementation, the GFLOP/s of the first one, and how many
times longer the others take. On a CPU these are the native kernel, the formulation in JAX, XLA's
grouped convolution (`--xla`: seconds each) and PyTorch; on an accelerator the Pallas kernels, XLA's
grouped convolution and PyTorch, in float32 and bfloat16. PyTorch is run by another interpreter,
or, on an accelerator, by this one if it has it. All take turns, so that a busy machine disturbs all
alike; ratios can be trusted, single times less.

The machine's limits are measured in the same run: a large float32 product (no depth-wise
convolution can use a GPU's matrix units, and all sums are float32) and a large copy. The columns
"product" and "copy" are the first implementation's share of each; for the copy, every array counts
once, and what stays in a cache can exceed it. `--sweep` times the Pallas kernels for CUDA with
other blocks than their own.
"""

import argparse
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
from common import best, copy_rate, fastest, product_rate

from llic_jax.layers.depthwise import depthwise_conv, depthwise_conv_reference
from llic_jax.native import library as native

# (B, H, W, C), K, one kernel per sample.
Case = tuple[tuple[int, ...], int, bool]
CASES: dict[str, list[Case]] = {
    "cpu": [  # a picture of 768 x 512 in the encoder, then training of the small model
        ((1, 256, 384, 192), 11, True),
        ((1, 128, 192, 192), 11, True),
        ((1, 64, 96, 192), 9, True),
        ((1, 256, 384, 192), 3, False),
        ((8, 128, 128, 32), 11, True),
        ((8, 64, 64, 64), 9, True),
        ((8, 128, 128, 96), 3, False),
        ((8, 64, 64, 64), 3, False),
    ],
    "gpu": [  # training of the full-size model, then 768 x 512 and 2048 x 1080
        ((8, 128, 128, 192), 11, True),
        ((8, 64, 64, 192), 11, True),
        ((8, 32, 32, 192), 9, True),
        ((8, 16, 16, 320), 9, True),
        ((8, 128, 128, 192), 3, False),
        ((16, 128, 128, 192), 11, True),
        ((16, 128, 128, 192), 3, False),
        ((1, 256, 384, 192), 11, True),
        ((1, 64, 96, 192), 9, True),
        ((1, 256, 384, 192), 3, False),
        ((1, 544, 1024, 192), 11, True),
        ((1, 136, 256, 192), 9, True),
        ((1, 544, 1024, 192), 3, False),
    ],
}
CASES["tpu"] = CASES["gpu"]
TYPES = {"cpu": ("float32",), "gpu": ("float32", "bfloat16"), "tpu": ("float32", "bfloat16")}
# Of the implementations that `depthwise_conv` chooses from: the environment that makes it choose.
CHOICES = {
    "cpu": {"native": {"LLIC_NATIVE": "1"}, "jax": {"LLIC_NATIVE": "0"}},
    "gpu": {"pallas": {"LLIC_PALLAS": "1"}, "xla": {"LLIC_PALLAS": "0"}},
}
CHOICES["tpu"] = CHOICES["gpu"]
# How many times 2 K^2 FLOP an element, and how many arrays of the size of x are read or written.
OPERATIONS = {"forward": (1, 2), "dx": (1, 2), "dkernel": (1, 2), "all": (3, 4)}

TORCH = """
import json, sys, time
import torch
import torch.nn.functional as F

torch.backends.cudnn.benchmark = True

for line in sys.stdin:
    (b, h, w, c), k, per_sample, dtype, repeats = json.loads(line)
    cuda = torch.cuda.is_available()
    maps = b * c if per_sample else c
    shape = (1, maps, h, w) if per_sample else (b, c, h, w)
    like = dict(device="cuda" if cuda else "cpu", dtype=getattr(torch, dtype))
    x = torch.randn(shape, requires_grad=True, **like)
    kernel = torch.randn(maps, 1, k, k, requires_grad=True, **like)
    dy = torch.randn(shape, **like)

    def conv():
        return F.conv2d(x, kernel, padding=k // 2, groups=maps)

    def forward():
        with torch.inference_mode():
            conv()

    def seconds(run, count):
        start = time.perf_counter()
        for _ in range(count):
            run()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    y = conv()
    operations = {
        "forward": forward,
        "dx": lambda: torch.autograd.grad(y, x, dy, retain_graph=True),
        "dkernel": lambda: torch.autograd.grad(y, kernel, dy, retain_graph=True),
        "all": lambda: torch.autograd.grad(conv(), (x, kernel), dy),
    }
    best = {}
    for name, run in operations.items():
        try:
            seconds(run, 1)
            count = max(1, min(100, int(0.02 / seconds(run, 1)))) if cuda else 1
            best[name] = min(seconds(run, count) for _ in range(repeats))
        except RuntimeError as error:
            print(name, str(error).splitlines()[0], file=sys.stderr)
            best[name] = float("nan")
    print(json.dumps(best), flush=True)
"""


def compiled(operation: str, conv: Callable, x: jax.Array, kernel: jax.Array) -> Callable:
    """One operation of one implementation; the output gradient is `x`."""

    def both(x, kernel, dy):
        y, pullback = jax.vjp(conv, x, kernel)
        return (y, *pullback(dy))

    runs = {
        "forward": lambda x, kernel, dy: conv(x, kernel),
        "dx": lambda x, kernel, dy: both(x, kernel, dy)[1],
        "dkernel": lambda x, kernel, dy: both(x, kernel, dy)[2],
        "all": both,
    }
    run = jax.jit(runs[operation]).lower(x, kernel, x).compile()
    return lambda: run(x, kernel, x)


def make_inputs(case: Case, dtype: str) -> tuple[jax.Array, jax.Array]:
    shape, k, per_sample = case
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    lead = shape[:1] if per_sample else ()
    return x, jax.random.normal(jax.random.key(1), (*lead, k, k, shape[-1]), dtype)


def time_jax(case: Case, dtype: str, with_xla: bool, repeats: int) -> dict[str, dict[str, float]]:
    """Best times, by implementation and operation; not a number for what fails."""
    x, kernel = make_inputs(case, dtype)
    contenders = dict(CHOICES[jax.default_backend()])
    if not native.enabled():
        contenders.pop("native", None)
    if with_xla:
        contenders.setdefault("xla", {})
    times: dict[str, dict[str, float]] = {name: {} for name in contenders}
    for operation in OPERATIONS:
        ready = {}
        for name, setting in contenders.items():
            conv = depthwise_conv if setting else depthwise_conv_reference
            try:
                # A function of its own: JAX would remember what it traced with another setting.
                with mock.patch.dict(os.environ, setting):
                    run = compiled(operation, lambda *inputs, conv=conv: conv(*inputs), x, kernel)
                jax.block_until_ready(run())
                ready[name] = run
            except jax.errors.JaxRuntimeError as error:
                print(f"{name} {operation} fails: {str(error).splitlines()[0]}")
                times[name][operation] = math.nan
        for name, seconds in fastest(ready, repeats).items():
            times[name][operation] = seconds
    return times


def print_table(case: Case, dtype: str, found: dict, product: float, copy: float) -> None:
    shape, k, per_sample = case
    print(f"\n{shape} {dtype}, {k}x{k}, {'one kernel per sample' if per_sample else 'static'}")
    header = (f"{name + ' ms':>10}" for name in found)
    print(" " * 8, *header, "  GFLOP/s  product     copy   times longer")
    for operation, (products, arrays) in OPERATIONS.items():
        times = {name: runs[operation] for name, runs in found.items()}
        first = next(iter(times.values()))
        rate = products * 2 * k * k * math.prod(shape) / first
        moved = arrays * math.prod(shape) * jnp.dtype(dtype).itemsize / first
        print(
            f"{operation:8}",
            *(f"{1e3 * t:10.3f}" for t in times.values()),
            f"{1e-9 * rate:9.0f} {100 * rate / product:7.1f}% {100 * moved / copy:7.1f}%  ",
            *(f"{name} {t / first:.1f}" for name, t in list(times.items())[1:]),
            flush=True,
        )


def sweep(case: Case, dtype: str, repeats: int) -> None:
    """Times the CUDA kernels with all blocks that may be sensible; interpreted on a CPU."""
    from llic_jax.layers.kernels import depthwise_gpu

    (shape, size, _), interpret = case, jax.default_backend() == "cpu"
    x, kernel = make_inputs(case, dtype)
    own = {
        "convolve": depthwise_gpu.convolve_blocks(shape, size),
        "correlate": depthwise_gpu.correlate_blocks(shape, size),
    }
    for name in own:
        rows = (1, 2, 4) if name == "correlate" or size <= 5 else (1,)
        choices = itertools.product((32, 64, 128), (1, 2, 4), (4, 8, 16, 32), rows)
        tried = [own[name]]
        if not interpret:  # more than 32 sums a thread need too many registers
            all_blocks = itertools.starmap(depthwise_gpu.Blocks, choices)
            tried += [b for b in all_blocks if b != own[name] and b.width * b.rows <= 32]
        times = {}
        for blocks in tried:

            def run(blocks=blocks, name=name):
                if name == "convolve":
                    return depthwise_gpu.convolve(x, kernel, blocks, interpret)
                return depthwise_gpu.correlate(x, x, size, blocks, interpret)

            times[blocks] = best(run, repeats)
        ranked = sorted(times, key=times.__getitem__)
        print(f"\n{name} {shape} {dtype} {size}x{size}: ms, and blocks; * those of the module")
        for blocks in ranked[:8] + [own[name]] * (own[name] not in ranked[:8]):
            mark = "*" if blocks == own[name] else " "
            print(f"{1e3 * times[blocks]:10.3f} {mark} {blocks}", flush=True)


def main() -> None:
    backend = jax.default_backend()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch_python", help="interpreter that has PyTorch, to compare with")
    parser.add_argument("--xla", action="store_true", help="XLA's grouped convolution on a CPU too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", type=int, nargs="+", help="only these rows of CASES, from 0")
    parser.add_argument("--dtypes", nargs="+", default=TYPES[backend])
    parser.add_argument("--sweep", action="store_true", help="blocks of the CUDA kernels instead")
    args = parser.parse_args()

    torch, python = None, args.torch_python
    if python is None and backend != "cpu" and importlib.util.find_spec("torch"):
        python = sys.executable
    if python is not None and not args.sweep:
        torch = subprocess.Popen(
            [python, "-c", TORCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    product, copy = product_rate(torch_python=args.torch_python), copy_rate()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    print(f"float32 product: {1e-9 * product.value:.0f} GFLOP/s ({product.library}), ", end="")
    print(f"copy: {1e-9 * copy.value:.0f} GB/s")
    cases = CASES[backend]
    for case in cases if args.case is None else [cases[i] for i in args.case]:
        for dtype in args.dtypes:
            if args.sweep:
                sweep(case, dtype, args.repeats)
                continue
            times = time_jax(case, dtype, args.xla, args.repeats)
            if torch is not None:
                print(json.dumps([*case, dtype, args.repeats]), file=torch.stdin, flush=True)
                times["torch"] = json.loads(torch.stdout.readline())
            print_table(case, dtype, times, product.value, copy.value)


if __name__ == "__main__":
    main()
