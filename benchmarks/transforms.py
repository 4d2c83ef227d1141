"""Times the transforms, beside the same network in PyTorch, in one run.

    python benchmarks/transforms.py --torch_python TORCH_ENV/bin/python --torch_script SCRIPT

SCRIPT prints lines such as `g_a  s 4.3` for LLIC's transforms in stock PyTorch layers. The two take
turns on the same idle machine, `--rounds` times, and the fastest of each counts: a shared machine's
speed drifts. Quote the ratios. "Product" is what a large matrix product, measured in between, takes
for as many MACs: less than that cannot be had in float32. Then come parameters and MACs of every
part of the codec that they belong to (as from `python -m llic_jax.models.cost`).
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llic_jax.configs import llic_elic
from llic_jax.layers.initializers import fresh_params
from llic_jax.models.build import build_model
from llic_jax.models.cost import summarize
from llic_jax.native import library as native
from llic_jax.system.memory import keep_freed_memory
from llic_jax.transforms.transforms import AnalysisTransform, SynthesisTransform


def best(f: Callable, repeats: int) -> float:
    """Seconds of the fastest call, after one that compiles."""
    jax.block_until_ready(f())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(f())
        times.append(time.perf_counter() - started)
    return min(times)


PRODUCT = 4096  # side of the square matrices, float32


def product_rate() -> float:
    """MACs per second of a large matrix product."""
    a = jnp.asarray(np.random.default_rng(0).random((PRODUCT, PRODUCT), np.float32))
    multiply = jax.jit(jnp.matmul)
    return PRODUCT**3 / best(lambda: multiply(a, a), 3)


def ours(height: int, width: int, train: bool, repeats: int) -> dict[str, float]:
    """Seconds of each part at full size (N = 192, M = 320)."""
    g_a, g_s = AnalysisTransform(), SynthesisTransform()
    x = jnp.asarray(np.random.default_rng(0).random((1, height, width, 3)), jnp.float32)
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    a = {"params": fresh_params(g_a, 0, like)}
    y = jax.jit(g_a.apply)(a, x)
    s = {"params": fresh_params(g_s, 1, jax.ShapeDtypeStruct(y.shape, y.dtype))}
    analyze, synthesize = jax.jit(g_a.apply), jax.jit(g_s.apply)
    seconds = {
        "g_a": best(lambda: analyze(a, x), repeats),
        "g_s": best(lambda: synthesize(s, y), repeats),
    }
    if train:
        optimizer = optax.adam(1e-4)
        batch = jnp.asarray(np.random.default_rng(1).random((2, 256, 256, 3)), jnp.float32)
        params = (a, s)
        state = optimizer.init(params)

        @partial(jax.jit, donate_argnums=(0, 1))  # as train.py does; PyTorch updates in place too
        def step(params, state, batch):
            def loss(params):
                x_hat = g_s.apply(params[1], g_a.apply(params[0], batch))
                return jnp.mean(jnp.square(x_hat - batch))

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        def once():
            nonlocal params, state
            params, state = step(params, state, batch)
            return params

        seconds["training step"] = best(once, repeats)
    return seconds


def torch(python: str, script: str, height: int, width: int, train: bool) -> dict[str, float]:
    """Seconds of the same parts, from the script's printed lines."""
    command = [python, script, "--height", str(height), "--width", str(width)]
    output = subprocess.run(
        [*command, *(["--train"] if train else [])], capture_output=True, text=True, check=True
    ).stdout
    seconds = {}
    for line in output.splitlines():
        for part in ("g_a", "g_s", "training step"):
            if line.startswith(part):
                seconds[part] = float(line.split()[-1])
    return seconds


def fastest(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Of each part the shorter time."""
    return {part: min(seconds, one.get(part, seconds)) for part, seconds in other.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--train", action="store_true", help="also a training step, 2 x 256 x 256")
    parser.add_argument("--torch_python", help="an interpreter that has PyTorch")
    parser.add_argument("--torch_script", help="LLIC's transforms in PyTorch")
    args = parser.parse_args()
    keep_freed_memory()  # as train.py and eval.py do

    theirs: dict[str, float] = {}
    mine: dict[str, float] = {}
    rate = 0.0
    size = args.height, args.width, args.train
    for _ in range(args.rounds):
        if args.torch_python and args.torch_script:
            theirs = fastest(theirs, torch(args.torch_python, args.torch_script, *size))
        rate = max(rate, product_rate())
        mine = fastest(mine, ours(*size, args.repeats))
    costs = summarize(build_model(llic_elic.get_config().model), args.height, args.width)
    per_pixel = (costs.g_a.macs + costs.g_s.macs) / (args.height * args.width)
    macs = {
        "g_a": costs.g_a.macs,
        "g_s": costs.g_s.macs,
        "training step": 3 * per_pixel * 2 * 256 * 256,  # forward, and two gradients
    }
    kernel = "native" if native.enabled() else "JAX"
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, depth-wise kernel: {kernel}")
    print(f"image {args.width} x {args.height}; training step on 2 x 256 x 256")
    print(f"matrix product: {2e-9 * rate:.0f} GFLOP/s")
    print(
        f"{'part':<15} {'ours s':>8} {'PyTorch s':>10} {'PyTorch / ours':>15} {'product s':>10} "
        f"{'ours / product':>15}"
    )
    for part, seconds in mine.items():
        other = theirs.get(part)
        ratio = f"{other:>10.3f} {other / seconds:>15.2f}" if other else f"{'-':>10} {'-':>15}"
        least = macs[part] / rate
        print(f"{part:<15} {seconds:>8.3f} {ratio} {least:>10.3f} {seconds / least:>15.2f}")
    print(f"\nLLIC-ELIC, all parts:\n{costs}")


if __name__ == "__main__":
    sys.exit(main())
