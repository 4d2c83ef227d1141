"""Times the depth-wise convolution: `python benchmarks/depthwise.py [--torch_python PYTHON]`.

For each shape and each operation (forward, input gradient, kernel gradient, all three) it prints
the best time in milliseconds of the native kernel, of the formulation in JAX, of XLA's grouped
convolution (`--xla`: seconds each) and of PyTorch, run by another interpreter that has it; then the
GFLOP/s of the native kernel and how many times longer the others take. All take turns, so that a
busy machine disturbs all alike; ratios can be trusted, single times less. The rate of a large
matrix product is the machine's limit.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp

from llic_jax.layers import native
from llic_jax.layers.depthwise import depthwise_conv, depthwise_conv_reference

# (B, H, W, C), K, one kernel per sample: a picture of 768 x 512 in the encoder, then training.
CASES = [
    ((1, 256, 384, 192), 11, True),
    ((1, 128, 192, 192), 11, True),
    ((1, 64, 96, 192), 9, True),
    ((1, 256, 384, 192), 3, False),
    ((8, 128, 128, 32), 11, True),
    ((8, 64, 64, 64), 9, True),
    ((8, 128, 128, 96), 3, False),
    ((8, 64, 64, 64), 3, False),
]
OPERATIONS = {"forward": 1, "dx": 1, "dkernel": 1, "all": 3}  # and how many times 2 K^2 FLOP

TORCH = """
import json, sys, time
import torch
import torch.nn.functional as F

for line in sys.stdin:
    (b, h, w, c), k, per_sample, repeats = json.loads(line)
    maps = b * c if per_sample else c
    shape = (1, maps, h, w) if per_sample else (b, c, h, w)
    x = torch.randn(shape, requires_grad=True)
    kernel = torch.randn(maps, 1, k, k, requires_grad=True)
    dy = torch.randn(shape)

    def conv():
        return F.conv2d(x, kernel, padding=k // 2, groups=maps)

    def forward():
        with torch.inference_mode():
            conv()

    y = conv()
    operations = {
        "forward": forward,
        "dx": lambda: torch.autograd.grad(y, x, dy, retain_graph=True),
        "dkernel": lambda: torch.autograd.grad(y, kernel, dy, retain_graph=True),
        "all": lambda: torch.autograd.grad(conv(), (x, kernel), dy),
    }
    best = {}
    for name, run in operations.items():
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        best[name] = min(times)
    print(json.dumps(best), flush=True)
"""


def operations(conv: Callable, x: jax.Array, kernel: jax.Array) -> dict[str, Callable]:
    """The four operations of one implementation, compiled; the output gradient is `x`."""

    def both(x, kernel, dy):
        y, pullback = jax.vjp(conv, x, kernel)
        return (y, *pullback(dy))

    runs = {
        "forward": lambda x, kernel, dy: conv(x, kernel),
        "dx": lambda x, kernel, dy: both(x, kernel, dy)[1],
        "dkernel": lambda x, kernel, dy: both(x, kernel, dy)[2],
        "all": both,
    }
    compiled = {name: jax.jit(run).lower(x, kernel, x).compile() for name, run in runs.items()}
    return {name: lambda run=run: run(x, kernel, x) for name, run in compiled.items()}


def seconds(run: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def time_jax(
    shape: tuple[int, ...], k: int, per_sample: bool, with_xla: bool, repeats: int
) -> dict[str, dict[str, float]]:
    """Best times, by implementation and operation."""
    x = jax.random.normal(jax.random.key(0), shape)
    lead = shape[:1] if per_sample else ()
    kernel = jax.random.normal(jax.random.key(1), (*lead, k, k, shape[-1]))
    contenders = {}
    for name, setting in (("native", "1"), ("jax", "0")):
        os.environ["LLIC_NATIVE"] = setting
        if name == "jax" or native.enabled():
            # A function of its own: JAX would remember what it traced with the other setting.
            contenders[name] = operations(lambda x, kernel: depthwise_conv(x, kernel), x, kernel)
    if with_xla:
        contenders["xla"] = operations(depthwise_conv_reference, x, kernel)
    best: dict[str, dict[str, float]] = {name: {} for name in contenders}
    for operation in OPERATIONS:
        for name, runs in contenders.items():
            seconds(runs[operation])
            best[name][operation] = float("inf")
        for _ in range(repeats):
            for name, runs in contenders.items():
                best[name][operation] = min(best[name][operation], seconds(runs[operation]))
    return best


def matrix_product_rate(size: int = 2048, repeats: int = 5) -> float:
    """GFLOP/s."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.dot).lower(a, a).compile()
    return 2e-9 * size**3 / min(seconds(lambda: product(a, a)) for _ in range(repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch_python", help="interpreter that has PyTorch, to compare with")
    parser.add_argument("--xla", action="store_true", help="XLA's grouped convolution too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", type=int, nargs="+", help="only these rows of CASES, from 0")
    args = parser.parse_args()

    torch = None
    if args.torch_python:
        torch = subprocess.Popen(
            [args.torch_python, "-c", TORCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    print(f"matrix product: {matrix_product_rate():.0f} GFLOP/s")
    for case in args.case if args.case is not None else range(len(CASES)):
        shape, k, per_sample = CASES[case]
        best = time_jax(shape, k, per_sample, args.xla, args.repeats)
        if torch is not None:
            print(json.dumps([shape, k, per_sample, args.repeats]), file=torch.stdin, flush=True)
            best["torch"] = json.loads(torch.stdout.readline())
        print(f"\n{shape}, {k}x{k}, {'one kernel per sample' if per_sample else 'static'}")
        print(" " * 8, *(f"{name + ' ms':>10}" for name in best), "  GFLOP/s   times longer")
        for operation, factor in OPERATIONS.items():
            times = {name: runs[operation] for name, runs in best.items()}
            first = next(iter(times.values()))
            flop = factor * 2 * k * k * shape[0] * shape[1] * shape[2] * shape[3]
            ratios = (f"{name} {t / first:.1f}" for name, t in list(times.items())[1:])
            print(
                f"{operation:8}",
                *(f"{1e3 * t:10.1f}" for t in times.values()),
                f"{1e-9 * flop / first:9.0f}  ",
                *ratios,
            )


if __name__ == "__main__":
    main()
