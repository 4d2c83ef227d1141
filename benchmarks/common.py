"""What the benchmarks share: one timing loop, the machine's limits, processes, PyTorch's side.

`fastest` is the only timing loop: implementations take turns, and the best time of each counts, so
that a busy machine disturbs all alike. Ratios of such times can be trusted; single times less.
`product_rate` is the only reference product: that of the library that is fastest on this machine.

`python benchmarks/common.py` prints the product's rate in float32 and bfloat16, one line each: the
type, TFLOP/s, and the library that reached it.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a machine where nothing is installed

import jax
import jax.numpy as jnp

T = TypeVar("T")
FILL_SECONDS = 0.02  # an accelerator's timing covers as many calls as fill this
# Environments of processes that compute in another way.
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
EAGER = {"JAX_DISABLE_JIT": "1"}
FLOAT64 = {"JAX_ENABLE_X64": "1"}


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Returns the call's result and its seconds, until the device is done with it."""
    started = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - started


def fastest(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Times calls that take turns.

    Args:
      calls: By name. Each is called before it is timed, so that it has been compiled.
      rounds: Timings of each.

    Returns:
      Seconds of one call, the least of all rounds, by name. An accelerator gets many short calls
      one after the other, without a pause.
    """
    counts = {}
    for name, call in calls.items():
        timed(call)
        counts[name] = 1
        if jax.default_backend() != "cpu":
            counts[name] = max(1, min(100, int(FILL_SECONDS / timed(call)[1])))

    def several(name: str) -> Any:
        for _ in range(counts[name]):
            result = calls[name]()
        return result

    seconds = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name in calls:
            once = timed(lambda name=name: several(name))[1] / counts[name]
            seconds[name] = min(seconds[name], once)
    return seconds


def best(call: Callable[[], Any], rounds: int) -> float:
    """Returns the seconds of one call, the least of all rounds (see `fastest`)."""
    return fastest({"": call}, rounds)[""]


def least(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Returns the lesser time of each name."""
    return {name: min(one.get(name, t), other.get(name, t)) for name, t in (one | other).items()}


def codec_in_float64(folder: Path) -> Any:
    """A released model whose entropy model computes in float64; for processes that allow it.

    Args:
      folder: Of the model.
    """
    from llic_jax.codec.codec import Codec
    from llic_jax.configs.upgrade import upgrade
    from llic_jax.models.build import build_model
    from llic_jax.zoo.folder import load_codec

    codec = load_codec(folder)
    config = upgrade(json.loads((folder / "config.json").read_text()))
    model = build_model({**config["model"], "dtype": "float64"})
    params = jax.tree.map(lambda p: p.astype(jnp.float64), codec.model.params)
    return Codec(codec.model._replace(network=model, params=params))


class Rate(NamedTuple):
    """A rate of the machine.

    Attributes:
      value: A second: FLOP or bytes.
      library: The library that reached it.
    """

    value: float
    library: str


# Prints the seconds of one product of square matrices: argument 1 is the side, 2 the type.
_TIMER = """
import sys, time
n, dtype = int(sys.argv[1]), sys.argv[2]
{setup}
multiply()
def once():
    started = time.perf_counter()
    multiply()
    return time.perf_counter() - started
print(min(once() for _ in range(7)))
"""
_LIBRARIES = {
    "numpy": """
import numpy as np
a = np.random.default_rng(0).random((n, n), np.float32)
assert dtype == "float32"
multiply = lambda: a @ a""",
    "tensorflow": """
import tensorflow as tf
a = tf.cast(tf.random.normal((n, n)), dtype)
multiply = lambda: tf.linalg.matmul(a, a)[0, 0].numpy()""",
    "torch": """
import torch
a = torch.randn(n, n).to(getattr(torch, dtype))
multiply = lambda: a @ a""",
}


def product_rate(
    dtype: str = "float32", precision: str = "highest", torch_python: str | None = None
) -> Rate:
    """Measures a large matrix product: what no network can exceed.

    On an accelerator JAX multiplies, by the maker's library. On a CPU every library that is
    installed does, each in a process of its own, and the fastest counts: NumPy, JAX, TensorFlow and
    PyTorch (the last two by oneDNN) differ by more than ten times in bfloat16.

    Args:
      dtype: `float32` or `bfloat16`.
      precision: Of JAX; `highest` is float32 without a GPU's matrix units.
      torch_python: An interpreter that has PyTorch (default: this one, if it has it).

    Returns:
      FLOP a second, and the library.
    """
    on_cpu = jax.default_backend() == "cpu"
    size = 2048 if on_cpu else 8192
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    multiply = jax.jit(lambda a: jnp.dot(a, a, precision=precision))
    seconds = {"jax": best(lambda: multiply(a), 5)}
    for library, setup in _LIBRARIES.items() if on_cpu else ():
        python = sys.executable
        if library == "torch" and torch_python is not None:
            python = torch_python
        elif importlib.util.find_spec(library) is None:
            continue
        command = [python, "-c", _TIMER.format(setup=setup), str(size), dtype]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:  # it has no such type otherwise, or cannot be imported
            seconds[library] = float(done.stdout.split()[-1])
    library = min(seconds, key=seconds.__getitem__)
    return Rate(2 * size**3 / seconds[library], library)


def copy_rate() -> Rate:
    """Measures a large copy: bytes a second, read and written."""
    a = jnp.ones((256 if jax.default_backend() == "cpu" else 4096, 2**18))
    copy = jax.jit(lambda a: a + 1)
    return Rate(2 * a.nbytes / best(lambda: copy(a), 5), "jax")


def run_process(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> tuple[str, float]:
    """Runs this interpreter.

    Args:
      command: Its arguments.
      environment: Variables to set.

    Returns:
      What it printed, and its seconds.
    """
    done, seconds = timed(
        lambda: subprocess.run(
            [sys.executable, *map(str, command)],
            env={**os.environ, **(environment or {})},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    return done.stdout, seconds


def last_line(text: str) -> Any:
    """Returns what a process left as JSON in the last line that it printed."""
    return json.loads(text.splitlines()[-1])


def add_torch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--torch_python` and `--torch_script`."""
    parser.add_argument("--torch_python", help="an interpreter that has PyTorch")
    parser.add_argument("--torch_script", help="LLIC's transforms in PyTorch")


def torch_seconds(
    args: argparse.Namespace, height: int, width: int, train: bool
) -> dict[str, float]:
    """Times LLIC's transforms in PyTorch.

    Args:
      args: With the arguments of `add_torch_arguments`.
      height: In pixels.
      width: In pixels.
      train: Also times a training step.

    Returns:
      Seconds of `g_a`, `g_s` and the `training step`, from the lines that the script prints, such
      as `g_a  s 4.3`. Empty if no script is named.
    """
    if not (args.torch_python and args.torch_script):
        return {}
    command = [args.torch_python, args.torch_script, "--height", str(height), "--width", str(width)]
    output = subprocess.run(
        [*command, *(["--train"] if train else [])], capture_output=True, text=True, check=True
    ).stdout
    parts = ("g_a", "g_s", "training step")
    lines = [(part, line) for line in output.splitlines() for part in parts]
    return {part: float(line.split()[-1]) for part, line in lines if line.startswith(part)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch_python", help="an interpreter that has PyTorch")
    args = parser.parse_args()
    for dtype in ("float32", "bfloat16"):
        rate = product_rate(dtype, torch_python=args.torch_python)
        print(f"{dtype:9} {1e-12 * rate.value:6.2f} TFLOP/s, {rate.library}")


if __name__ == "__main__":
    main()
