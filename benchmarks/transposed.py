"""Times both gradients of the transposed convolution beside XLA's own, in one run.

    python benchmarks/transposed.py

The two take turns; the fastest of each counts.

Columns: shape of the input, output features, milliseconds of ours and of XLA's for both
gradients, and how many times longer XLA's take.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common import fastest

from llic_jax.layers.convolutions import conv2d_transpose

CASES = (((4, 4, 4, 64), 64), ((4, 8, 8, 64), 96), ((2, 8, 8, 192), 288), ((8, 8, 8, 192), 288))


def plain(x, kernel):
    return jax.lax.conv_transpose(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{'input':>18} {'features':>8} {'ours ms':>8} {'XLA ms':>8} {'XLA / ours':>10}")
    for shape, features in CASES:
        b, h, w, c = shape
        sizes = shape, (5, 5, c, features), (b, 2 * h, 2 * w, features)
        arrays = [jnp.asarray(rng.standard_normal(size), jnp.float32) for size in sizes]
        calls = {}
        for name, f in (("ours", conv2d_transpose), ("XLA", plain)):
            gradients = jax.jit(lambda x, k, g, f=f: jax.vjp(f, x, k)[1](g))
            calls[name] = partial(gradients, *arrays)
        ours, theirs = (1e3 * seconds for seconds in fastest(calls, args.rounds).values())
        print(f"{shape!s:>18} {features:>8} {ours:>8.2f} {theirs:>8.2f} {theirs / ours:>10.1f}")


if __name__ == "__main__":
    main()
