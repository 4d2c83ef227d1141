"""The cost of a model's parts: parameters, multiplications, memory.

    python -m llic_jax.models.cost --config configs/llic_elic.py --height 512 --width 768

Parameters and multiply-accumulates (MACs) are read off the traced computation: nothing is computed,
and a model of any size takes seconds. `--memory` compiles each part as well and shows the peak of
its activations as the compiler has planned it.
"""

import argparse
import dataclasses
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from llic_jax.configs.config import Config
from llic_jax.configs.upgrade import upgrade
from llic_jax.errors import ConfigError
from llic_jax.models.build import build_model, initialize
from llic_jax.models.llic import LLIC
from llic_jax.ops.sizes import HYPER_STRIDE, LATENT_STRIDE, round_up
from llic_jax.system.arguments import positive
from llic_jax.system.streams import run_command

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a model, for one image.

    Attributes:
        name: Of the part.
        read: Shape of every parameter that the part reads, by name.
        macs: Of all its products and convolutions.
        memory: Bytes of activations and results at the peak; None if not asked for.
    """

    name: str
    read: dict[str, Shape]
    macs: int
    memory: int | None = None

    @property
    def parameters(self) -> int:
        """Number of the parameters that the part reads."""
        return sum(map(math.prod, self.read.values()))


@dataclasses.dataclass(frozen=True)
class Summary:
    """The costs of one model for one image.

    Attributes:
        pixels: Of the padded image.
        total_parameters: Those that no part reads (the prior's) included.
        g_a: Analysis transform.
        h_a: Hyper-analysis.
        h_s: Hyper-synthesis.
        steps: Of the walk.
        g_s: Synthesis transform.
    """

    pixels: int
    total_parameters: int
    g_a: Part
    h_a: Part
    h_s: Part
    steps: tuple[Part, ...]
    g_s: Part

    @property
    def walk(self) -> Part:
        """All steps; a parameter that two steps read counts once."""
        read = {name: shape for step in self.steps for name, shape in step.read.items()}
        peaks = [step.memory for step in self.steps if step.memory is not None]
        macs = sum(step.macs for step in self.steps)
        return Part("all steps", read, macs, max(peaks, default=None))

    @property
    def macs(self) -> int:
        """Of coding and decoding at once: each part once."""
        return sum(part.macs for part in (self.g_a, self.h_a, self.h_s, self.walk, self.g_s))

    @property
    def walk_ratio(self) -> float:
        """The walk's MACs over those of the same layers sliced by hand.

        By hand, every kernel of the walk counts once at every position of y. Steps that computed
        whole tensors and masked them would show here.
        """
        kernels = sum(math.prod(shape) for shape in self.walk.read.values() if len(shape) > 1)
        return self.walk.macs / (kernels * self.pixels / LATENT_STRIDE**2)

    def __str__(self) -> str:
        whole = Part("whole model", {"": (self.total_parameters,)}, self.macs)
        parts = (self.g_a, self.h_a, self.h_s, *self.steps, self.walk, self.g_s, whole)
        lines = [f"{'part':<18} {'parameters':>12} {'kMACs/pixel':>12} {'peak MiB':>9}"]
        for part in parts:
            memory = "" if part.memory is None else f"{part.memory / 2**20:.0f}"
            macs = part.macs / self.pixels / 1000
            lines.append(f"{part.name:<18} {part.parameters:>12,} {macs:>12.2f} {memory:>9}")
        lines.append(f"walk: {self.walk_ratio:.3f} of what its layers cost when sliced by hand")
        return "\n".join(lines)


def summarize(model: LLIC, height: int, width: int, memory: bool = False) -> Summary:
    """Traces the parts of a model for an image.

    Args:
        model: The module.
        height: Of the image, pixels; rounded up as for coding.
        width: Likewise.
        memory: Also compiles the parts, for their peak memory.
    """
    height, width = (round_up(side, HYPER_STRIDE) for side in (height, width))
    params = jax.eval_shape(lambda: initialize(model))
    quality = (_floats(1),) if model.levels > 1 else ()

    def part(name: str, method: str, *args: Any) -> tuple[Part, Any]:
        def run(params: Any, *args: Any) -> Any:
            return model.apply({"params": params}, *args, method=method)

        return _measure(name, run, params, *args, memory=memory)

    g_a, y = part("g_a", "analyze", _floats(1, height, width, 3), *quality)
    h_a, z = part("h_a", "hyper_analyze", y, *quality)
    h_s, hyper = part("h_s", "hyper_synthesize", z, *quality)
    steps, carry = [], None
    for k, step in enumerate(model.steps):

        def run(params: Any, hyper: Any, y_hat: Any, carry: Any, k: int = k) -> Any:
            bound = model.bind({"params": params})
            mean, scale, carry = bound.entropy_params(k, hyper, y_hat, carry)
            return mean, scale, bound.refine(k, hyper, y_hat, carry)

        half = "" if step.parity is None else (" anchors", " rest")[step.parity]
        name = f"step {step.start}:{step.stop}{half}"
        cost, (_, _, (_, carry)) = _measure(name, run, params, hyper, y, carry, memory=memory)
        steps.append(cost)
    g_s, _ = part("g_s", "synthesize", y, *quality)
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return Summary(height * width, total, g_a, h_a, h_s, tuple(steps), g_s)


def count_macs(jaxpr: Any) -> int:
    """Counts multiply-accumulates of the matrix products and convolutions in a jaxpr.

    Of a conditional the costliest branch counts. That is how the depth-wise convolution is seen,
    which runs other code on each platform: one branch is always XLA's own convolution. Zeros that
    a transposed convolution puts between its inputs are not counted.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":  # outputs times contracted length
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = math.prod(shape[axis] for axis in contracted)
            total += math.prod(equation.outvars[0].aval.shape) * inner
        elif name == "conv_general_dilated":  # outputs times taps of one output feature
            kernel = equation.invars[1].aval.shape
            features = kernel[params["dimension_numbers"].rhs_spec[0]]
            taps = math.prod(kernel) // features
            outputs = math.prod(equation.outvars[0].aval.shape)
            total += outputs * taps // math.prod(params["lhs_dilation"])
        else:
            inner_counts = [count_macs(inner) for inner in _inner_jaxprs(params)]
            if name == "cond":
                total += max(inner_counts, default=0)
            else:
                total += sum(inner_counts) * (params["length"] if name == "scan" else 1)
    return total


def load_model(config: Path | None = None, checkpoint: Path | None = None) -> LLIC:
    """The model of a config.

    Args:
        config: A config file, Python.
        checkpoint: A folder that holds a `config.json` (a release or a run), in its place.

    Raises:
        ConfigError: Neither is there.
    """
    path = checkpoint / "config.json" if checkpoint is not None else config
    if path is None or not path.is_file():
        raise ConfigError(f"{path} is no file; name a config or a folder with a config.json.")
    loaded: Config
    if checkpoint is not None:
        loaded = upgrade(json.loads(path.read_text()))
    else:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        loaded = module.get_config()
    return build_model(loaded["model"])


def _measure(
    name: str, run: Callable[..., Any], params: Any, *args: Any, memory: bool
) -> tuple[Part, Any]:
    """The part that `run(params, *args)` is, and the shapes of its result."""
    closed, out = jax.make_jaxpr(run, return_shape=True)(params, *args)
    used = {id(var) for equation in closed.jaxpr.eqns for var in equation.invars}
    paths = jax.tree_util.tree_leaves_with_path(params)
    read = {
        jax.tree_util.keystr(path): leaf.shape
        for (path, leaf), var in zip(paths, closed.jaxpr.invars, strict=False)
        if id(var) in used
    }
    peak = None
    if memory:
        plan = jax.jit(run).lower(params, *args).compile().memory_analysis()
        if plan is not None:  # some platforms do not tell
            peak = plan.temp_size_in_bytes + plan.output_size_in_bytes
    return Part(name, read, count_macs(closed.jaxpr), peak), out


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters, closed or not."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints parameters, kMACs per pixel and peak memory of each part.

    Args:
        argv: The command line; that of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m llic_jax.models.cost",
        description="Prints parameters, kMACs per pixel and peak memory of each part.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", type=Path, help="a config file, e.g. configs/llic_elic.py")
    which.add_argument("--checkpoint", type=Path, help="a released folder, or a training run's")
    parser.add_argument("--height", type=positive, default=512, help="of the image, pixels")
    parser.add_argument("--width", type=positive, default=768)
    parser.add_argument("--memory", action="store_true", help="compile, to show activation memory")
    args = parser.parse_args(argv)

    def work() -> None:
        model = load_model(args.config, args.checkpoint)
        print(summarize(model, args.height, args.width, args.memory))

    return run_command("llic_jax.models.cost", work)


if __name__ == "__main__":
    sys.exit(main())
