"""Times g_a and g_s of configs of different resolutions, taking turns on the same image.

    python benchmarks/layouts.py --configs llic_elic_small llic_elic_eighth

The fastest of `--rounds` rounds counts, since a shared machine's speed drifts; quote the ratios,
which are to the first config. Weights are random: time does not depend on them.
"""

import argparse
import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from common import best

from llic_jax.models.build import build_model, initialize
from llic_jax.models.cost import summarize
from llic_jax.system.memory import keep_freed_memory


def programs(name: str, height: int, width: int) -> dict[str, Callable]:
    """`g_a` and `g_s` of a config, ready to run."""
    model = build_model(importlib.import_module(f"llic_jax.configs.{name}").get_config().model)
    params = initialize(model)
    quality = model.transform_arguments(jnp.full(1, (1 + model.levels) / 2))
    x = jnp.asarray(np.random.default_rng(0).random((1, height, width, 3)), jnp.float32)
    analyze, synthesize = jax.jit(model.g_a.apply), jax.jit(model.g_s.apply)
    y = analyze({"params": params["g_a"]}, x, *quality)
    return {
        "g_a": lambda: analyze({"params": params["g_a"]}, x, *quality),
        "g_s": lambda: synthesize({"params": params["g_s"]}, y, *quality),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="+", default=["llic_elic_small", "llic_elic_eighth"])
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()

    ready = {name: programs(name, args.height, args.width) for name in args.configs}
    seconds: dict[tuple[str, str], float] = {}
    for _ in range(args.rounds):
        for name, parts in ready.items():
            for part, run in parts.items():
                found = best(run, 2)
                seconds[name, part] = min(found, seconds.get((name, part), found))
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {args.width} x {args.height}")
    print(f"{'config':<20} {'part':<5} {'kMACs/pixel':>12} {'seconds':>8} {'ratio':>6}")
    for name in args.configs:
        model = build_model(importlib.import_module(f"llic_jax.configs.{name}").get_config().model)
        costs = summarize(model, args.height, args.width)
        for part in ("g_a", "g_s"):
            macs = getattr(costs, part).macs / costs.pixels / 1000
            took, first = seconds[name, part], seconds[args.configs[0], part]
            print(f"{name:<20} {part:<5} {macs:>12.1f} {took:>8.3f} {took / first:>6.2f}")


if __name__ == "__main__":
    main()
