"""Times the transforms, beside the same network in PyTorch, in one run.

    python benchmarks/transforms.py --torch_python TORCH_ENV/bin/python --torch_script SCRIPT

SCRIPT prints lines such as `g_a  s 4.3` for LLIC's transforms in stock PyTorch layers. The two take
turns on the same idle machine, `--rounds` times, and the fastest of each counts: a shared machine's
speed drifts. Quote the ratios. "Product" is what a large matrix product, measured in between, takes
for as many MACs: less than that cannot be had in float32. Then come parameters and MACs of every
part of the codec that they belong to (as from `python -m llic_jax.models.cost`).
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import add_torch_arguments, best, least, product_rate, torch_seconds

from llic_jax.configs import llic_elic
from llic_jax.layers.initializers import init_params
from llic_jax.models.build import build_model
from llic_jax.models.cost import summarize
from llic_jax.native import library as native
from llic_jax.system.memory import keep_freed_memory
from llic_jax.transforms.transforms import AnalysisTransform, SynthesisTransform


def ours(height: int, width: int, train: bool, repeats: int) -> dict[str, float]:
    """Seconds of each part at full size (N = 192, M = 320)."""
    g_a, g_s = AnalysisTransform(), SynthesisTransform()
    x = jnp.asarray(np.random.default_rng(0).random((1, height, width, 3)), jnp.float32)
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    a = {"params": init_params(g_a, 0, like)}
    y = jax.jit(g_a.apply)(a, x)
    s = {"params": init_params(g_s, 1, jax.ShapeDtypeStruct(y.shape, y.dtype))}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--train", action="store_true", help="also a training step, 2 x 256 x 256")
    add_torch_arguments(parser)
    args = parser.parse_args()
    keep_freed_memory()  # as train.py and eval.py do

    theirs: dict[str, float] = {}
    mine: dict[str, float] = {}
    rate = product_rate(torch_python=args.torch_python)
    size = args.height, args.width, args.train
    for _ in range(args.rounds):
        theirs = least(theirs, torch_seconds(args, *size))
        mine = least(mine, ours(*size, args.repeats))
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
    print(f"matrix product: {1e-9 * rate.value:.0f} GFLOP/s ({rate.library})")
    print(
        f"{'part':<15} {'ours s':>8} {'PyTorch s':>10} {'PyTorch / ours':>15} {'product s':>10} "
        f"{'ours / product':>15}"
    )
    for part, seconds in mine.items():
        other = theirs.get(part)
        ratio = f"{other:>10.3f} {other / seconds:>15.2f}" if other else f"{'-':>10} {'-':>15}"
        product = 2 * macs[part] / rate.value
        print(f"{part:<15} {seconds:>8.3f} {ratio} {product:>10.3f} {seconds / product:>15.2f}")
    print(f"\nLLIC-ELIC, all parts:\n{costs}")


if __name__ == "__main__":
    main()
