"""What a config costs on a GPU that is not there: its training step and its networks, compiled
ahead of time, and what their optimized HLO says (hlo_cost.py).

    make aot ARGS="--config llic_elic_small --set model.dtype=bfloat16 --crops 32"
    make aot ARGS="--config llic_elic --parts encoder decoder entropy --size 768x512"
    make aot ARGS="--config llic_elic --compare main --save hlo"
    make aot ARGS="--hlo hlo/here-step.txt --compare_hlo hlo/before-step.txt"

Parts: "step" (of training, the stage in which everything learns); and of one image "encoder" (g_a
and h_a), "entropy" (h_s and the walk, with rounding, without a range coder) and "decoder" (g_s).
Without autotuning results from such a GPU, tiles come from XLA's cost model: bytes and kernels are
nearly those of the GPU's own compiler, measured times would not be. More: docs/ahead_of_time.md.
"""

import argparse
import ast
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import hlo_cost
import hlo_text
from ml_collections import ConfigDict

from llic_jax.execution import ahead_of_time

ROOT = Path(__file__).parents[1]
PARTS = ("step", "encoder", "entropy", "decoder")
AUTOTUNE = Path(__file__).with_name("autotune")


def load_config(name: str, settings: list[str]) -> ConfigDict:
    """The config of this name, with "section.field=value" settings."""
    config = importlib.import_module(f"llic_jax.configs.{Path(name).stem}").get_config()
    for setting in settings:
        field, _, text = setting.partition("=")
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            value = text
        config.update_from_flattened_dict({field: value})
    return config


def lower_step(config: ConfigDict, side: int, device: Any) -> Any:
    """The training step in which everything learns, lowered for one device."""
    from llic_jax.models.build import build_model
    from llic_jax.training.objective import Objective
    from llic_jax.training.settings import TrainSettings
    from llic_jax.training.state import create_state
    from llic_jax.training.step import make_step, step_arguments

    settings = TrainSettings.of(config)
    model = build_model(config.model)
    state, optimizer, unravel = create_state(model, settings, 0)
    step: Any = make_step(Objective(model, settings), optimizer, unravel, 0, [device])
    return step.lower(*step_arguments(state, settings, side, 1))


def lower_network(config: ConfigDict, part: str, width: int, height: int, device: Any) -> Any:
    """A network of one image, lowered for the device."""
    import jax
    import jax.numpy as jnp

    from llic_jax.entropy.walk import quantize
    from llic_jax.models.build import build_model, initialize
    from llic_jax.ops.sizes import HYPER_STRIDE, round_up

    model = build_model(config.model)

    def encoder(net, x, *quality):
        y = net.analyze(x, *quality)
        return y, net.hyper_analyze(y, *quality)

    def entropy(net, y, z, *quality):
        hyper = net.hyper_synthesize(z, *quality)
        return quantize(net, hyper, y)[0]

    def decoder(net, y, *quality):
        return net.synthesize(y, *quality)

    def program(network: Callable) -> Any:
        return jax.jit(lambda params, args: network(model.bind({"params": params}), *args))

    width, height = (round_up(side, HYPER_STRIDE) for side in (width, height))
    x = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    quality = [jax.ShapeDtypeStruct((1,), jnp.float32)] if model.levels > 1 else []
    params = jax.eval_shape(lambda: initialize(model, 0))
    y, z = jax.eval_shape(program(encoder), params, [x, *quality])
    network, args = {
        "encoder": (encoder, [x]),
        "entropy": (entropy, [y, z]),
        "decoder": (decoder, [y]),
    }[part]
    sharding = ahead_of_time.sharding_on(device)
    arguments = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        (params, [*args, *quality]),
    )
    with jax.sharding.use_abstract_mesh(sharding.mesh.abstract_mesh):
        return program(network).lower(*arguments)


def compile_part(args: argparse.Namespace, part: str) -> tuple[str, dict[str, float]]:
    """A part's optimized HLO, and what its compiling took."""
    config = load_config(args.config, args.set)
    if args.crops:
        config.train.batch_size = args.crops
    autotune = AUTOTUNE / args.target
    device = ahead_of_time.target_device(args.target, autotune)
    started = time.perf_counter()
    if part == "step":
        lowered = lower_step(config, args.side, device)
    else:
        width, height = map(int, args.size.split("x"))
        lowered = lower_network(config, part, width, height, device)
    traced, cpu = time.perf_counter(), time.process_time()
    program = lowered.compile(ahead_of_time.compiler_options(device, autotune))
    figures = {
        "tracing, s": traced - started,
        "compiling, s": time.perf_counter() - traced,
        "compiling, s of CPU": time.process_time() - cpu,
        "GiB beside arguments and results": program.memory_analysis().temp_size_in_bytes / 2**30,
    }
    return program.as_text(), figures


def compile_revision(revision: str, parts: list[str], arguments: list[str], folder: Path) -> None:
    """Compiles parts with another revision's own code and own version of this script."""
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(tree), revision], check=True)
        try:
            script = tree / "benchmarks" / "aot.py"
            if not script.exists():
                raise SystemExit(f"{revision} has no benchmarks/aot.py; save its HLO another way.")
            command = [sys.executable, str(script), *arguments, "--parts", *parts]
            subprocess.run(
                [*command, "--save", str(folder.resolve()), "--label", "before"], check=True
            )
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def report(
    text: str, target: str, samples: int, movers: int, before: str | None = None
) -> hlo_cost.Totals:
    """Prints what an optimized HLO costs, beside another one if there is one.

    Args:
        text: of the module. before: of the module to compare with.
        target: whose rates count.
        samples: images or crops that the program works on, for the most a second.
        movers: rows of each table.
    """
    rates = hlo_cost.RATES[target]
    modules = [hlo_text.parse(one) for one in ([text] if before is None else [text, before])]
    found = [hlo_cost.kernels(module) for module in modules]
    sums = [hlo_cost.totals(one, rates) for one in found]
    for name in hlo_cost.Totals._fields:
        values = [f"{getattr(one, name):10.2f}" for one in sums]
        print(f"{name.replace('_', ' '):>24} {'   before '.join(values)}")
    at_most = [f"{1e3 * samples / one.ms_floor_with_launches:10.0f}" for one in sums]
    print(f"{'a second, at most':>24} {'   before '.join(at_most)}")
    keys = {
        "purpose": hlo_cost.role,
        "part of the model": hlo_cost.model_part,
        "source line": hlo_cost.source_line,
    }
    for title, key in keys.items():
        tables = [
            hlo_cost.shares(one, lambda kernel, m=module, key=key: key(kernel, m), rates)
            for one, module in zip(found, modules, strict=True)
        ]
        now, past = tables[0], tables[-1]
        names = list(now)
        if before is not None:  # the largest changes first
            names = sorted(
                {**now, **past},
                key=lambda n: -abs(_share(now, n).gigabytes - _share(past, n).gigabytes),
            )
        print(f"\n{'GB':>9} {'kernels':>8} {'ms':>8}  by {title}")
        for name in names[:movers]:
            moved, count, ms = _share(now, name)
            was = _share(past, name)
            change = f"   before {was.gigabytes:.2f}, {was.kernels}" if before is not None else ""
            print(f"{moved:9.2f} {count:8} {ms:8.2f}  {name}{change}")
    return sums[0]


def _share(table: dict[str, hlo_cost.Share], name: str) -> hlo_cost.Share:
    return table.get(name, hlo_cost.Share())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="llic_elic_small", help="a module of configs/")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", action="extend")
    parser.add_argument("--parts", nargs="+", default=["step"], choices=PARTS)
    parser.add_argument("--crops", type=int, help="of a step (default: the config's batch size)")
    parser.add_argument("--side", type=int, default=256, help="of the crops")
    parser.add_argument("--size", default="768x512", help="of the image that networks work on")
    parser.add_argument("--target", default="h200", choices=sorted(ahead_of_time.TARGETS))
    parser.add_argument("--movers", type=int, default=12, help="rows of each table")
    parser.add_argument("--save", type=Path, help="folder for the optimized HLO and the figures")
    parser.add_argument("--label", default="here", help="begins the names of saved files")
    parser.add_argument("--compare", metavar="REVISION", help="compiles this revision too")
    parser.add_argument("--hlo", type=Path, help="reads this file; nothing is compiled")
    parser.add_argument("--compare_hlo", type=Path, help="beside it, this one")
    args = parser.parse_args()
    if args.hlo:
        before = args.compare_hlo.read_text() if args.compare_hlo else None
        report(args.hlo.read_text(), args.target, args.crops or 1, args.movers, before)
        return
    ahead_of_time.prepare_environment()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.save or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if args.compare:
            arguments = ["--config", args.config, "--side", str(args.side), "--size", args.size]
            arguments += ["--target", args.target, "--movers", "0"]
            arguments += ["--crops", str(args.crops)] if args.crops else []
            arguments += ["--set", *args.set] if args.set else []
            compile_revision(args.compare, args.parts, arguments, folder)
        for part in args.parts:
            text, figures = compile_part(args, part)
            name = f"{args.label}-{part}"
            (folder / f"{name}.txt").write_text(text)
            before = (folder / f"before-{part}.txt").read_text() if args.compare else None
            config = load_config(args.config, args.set)
            samples = args.crops or config.train.batch_size if part == "step" else 1
            print(f"\n{args.config} {' '.join(args.set)}, {part}, for {args.target}")
            for what, value in figures.items():
                print(f"{what:>40}: {value:.2f}")
            sums = report(text, args.target, samples, args.movers, before)
            (folder / f"{name}.json").write_text(json.dumps(figures | sums._asdict(), indent=2))


if __name__ == "__main__":
    main()
