"""What a machine with an accelerator shows: `python benchmarks/accelerator.py`.

First the depth-wise kernels (depthwise.py), then of the three full-size models, in float32 and
bfloat16, the training step and the networks of encoder and decoder with the memory they need:

* training: the real step, with transforms, entropy model, loss, Adam and moving average, on random
  images. FLOP are three times those of the forward pass (llic_jax.models.cost); utilisation is
  against a large product in the same type and JAX's default precision, measured in the same
  process.
* networks: g_a, h_a, h_s, all steps of the walk (with rounding, without a range coder) and g_s on
  one image, padded as the codec pads it. Peak memory is the device allocator's, parameters
  included, over this size and the smaller ones before it.

A row that fails, of memory or otherwise, says so, and the next one follows. Every model and type
has a process of its own. It needs, beside JAX for the accelerator, flax, optax, jaxtyping, Pillow
and ml_collections, which is pure Python (for a machine without a network:
`pip download --no-deps ml_collections`). `--tiny` tries the script out on any machine.
"""

import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from common import best, product_rate
from ml_collections import ConfigDict
from training import step_seconds

from llic_jax.entropy.walk import quantize
from llic_jax.execution import program_cache
from llic_jax.models.build import build_model, initialize
from llic_jax.models.cost import summarize
from llic_jax.ops.sizes import HYPER_STRIDE, round_up

MODELS = ("llic_stf", "llic_elic", "llic_tcm")
DTYPES = ("float32", "bfloat16")
SIZES = {
    "training": ((8, 256), (16, 256), (8, 512), (16, 512)),  # batch, side of the crops
    "networks": ((768, 512), (2048, 1080), (3840, 2160)),  # width, height; the smaller ones first
}
TINY = {"training": ((2, 64),), "networks": ((100, 60), (128, 128))}
HEADERS = {
    "training": "| model | type | batch | ms | images/s | TFLOP/s | utilisation | first step s |",
    "networks": "| model | type | image | g_a ms | h_a | h_s | walk | g_s | peak GiB |",
}


def training(config: ConfigDict, batch: int, crop: int, product: float) -> str:
    """A row's figures for the training step."""
    macs = summarize(build_model(config.model), crop, crop).macs
    step, first = step_seconds(config, batch, crop, steps=10)
    rate = 3 * 2 * macs * batch / step
    share = f"{100 * rate / product:.0f} %"
    return f"{1e3 * step:.1f} | {batch / step:.1f} | {1e-12 * rate:.2f} | {share} | {first:.0f}"


def networks(config: ConfigDict, width: int, height: int) -> str:
    """A row's figures for the networks of one image."""
    model = build_model(config.model)
    params = initialize(model)
    quality = (jnp.ones(1),) if model.levels > 1 else ()
    height, width = (round_up(side, HYPER_STRIDE) for side in (height, width))
    times = []

    def timed(network: Callable, *args: jax.Array) -> jax.Array:
        """The network's result; its time is noted."""
        run = jax.jit(lambda params, args: network(model.bind({"params": params}), *args))
        times.append(best(lambda: run(params, args), 5))
        return run(params, args)

    def code(bound, hyper, y):
        return quantize(bound, hyper, y)[0]

    x = jax.random.uniform(jax.random.key(0), (1, height, width, 3))
    y = timed(lambda bound, *args: bound.analyze(*args), x, *quality)
    z = timed(lambda bound, *args: bound.hyper_analyze(*args), y, *quality)
    hyper = timed(lambda bound, *args: bound.hyper_synthesize(*args), z, *quality)
    y_hat = timed(code, hyper, y)
    timed(lambda bound, *args: bound.synthesize(*args), y_hat, *quality)
    memory = jax.devices()[0].memory_stats()  # a CPU has none
    peak = f"{memory['peak_bytes_in_use'] / 2**30:.2f}" if memory else "-"
    return " | ".join([*(f"{1e3 * t:.2f}" for t in times), peak])


def rows(part: str, name: str, dtype: str, sizes: tuple) -> Iterator[str]:
    """The rows of one model and type."""
    config = importlib.import_module(f"llic_jax.configs.{name}").get_config()
    config.model.dtype = dtype
    product = product_rate(dtype, "default").value if part == "training" else None
    for a, b in sizes:
        try:
            if part == "training":
                figures = training(config, a, b, product)
            else:
                figures = networks(config, a, b)
        except Exception as error:  # whatever it is, the other rows are wanted
            figures = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:90]}"
        label = f"{a} of {b}x{b}" if part == "training" else f"{a}x{b}"
        yield f"| {name} | {dtype} | {label} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=("kernels", "training", "networks"))
    parser.add_argument("--models", nargs="+", help="config names")
    parser.add_argument("--dtypes", nargs="+")
    parser.add_argument("--sizes", type=int, help="only the first so many of each part")
    parser.add_argument("--torch_python", help="interpreter that has PyTorch, for the kernels")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.only:
        program_cache.enable()
        sizes = (TINY if args.tiny else SIZES)[args.only[0]]
        for row in rows(*args.only, sizes[: args.sizes]):
            print(row, flush=True)
        return
    models, dtypes, passed_on = args.models or MODELS, args.dtypes or DTYPES, []
    if args.sizes:
        passed_on += ["--sizes", str(args.sizes)]
    if args.tiny:
        models, dtypes = ("smoke",), ("bfloat16",)
        passed_on += ["--tiny"]
    for part in args.parts:
        print(f"\n{part}\n", flush=True)
        if part == "kernels":
            command = [sys.executable, str(Path(__file__).with_name("depthwise.py"))]
            command += ["--case", "7", "--repeats", "1"] if args.tiny else []
            command += ["--torch_python", args.torch_python] if args.torch_python else []
            subprocess.run(command)
            continue
        print(HEADERS[part], "|---" * (HEADERS[part].count("|") - 1) + "|", sep="\n", flush=True)
        for name in models:
            for dtype in dtypes:
                done = subprocess.run(
                    [sys.executable, __file__, "--only", part, name, dtype, *passed_on]
                )
                if done.returncode:
                    print(f"| {name} | {dtype} | ended with status {done.returncode} |", flush=True)


if __name__ == "__main__":
    main()
