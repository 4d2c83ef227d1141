"""Trains one config in float32 and in bfloat16 on the same crops, and prints both loss curves.

    python benchmarks/precision.py --data_dir PHOTOGRAPHS --set "model.channels=(16,16)" \\
        "model.depths=(1,0)" "model.groups=(4,12)" "model.context_widths=(8,)"

Parameters, optimizer, entropy parameters, likelihoods and loss are float32 in both. The weights'
moving averages are validated in float32 on crops that training never saw, at every quality level.
How far two such runs differ by chance is what a third one shows: float32, other crops. Gradients of
single batches are compared beforehand, on the weights that training sets out from. Four programs
are compiled, which takes most of the time where a CPU is shared: a model of few groups and blocks,
as above, keeps it short.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from aot import load_config
from flax import jax_utils
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from llic_jax.data import sources
from llic_jax.data.augmentation import RandomCrop
from llic_jax.data.batches import training_batches
from llic_jax.data.photographs import Cached, split_held_out
from llic_jax.models.build import build_model
from llic_jax.models.llic import LLIC
from llic_jax.system.memory import keep_freed_memory
from llic_jax.training.loss import rate_distortion
from llic_jax.training.objective import Objective
from llic_jax.training.principal_components import start_from_components
from llic_jax.training.settings import TrainSettings
from llic_jax.training.state import create_state, new_state
from llic_jax.training.step import make_step
from llic_jax.training.validation import Validation

RUNS = (("float32", "float32", 1), ("bfloat16", "bfloat16", 1), ("other crops", "float32", 2))


class Bench:
    """A config, its photographs, and the weights that every run sets out from."""

    def __init__(self, config: ConfigDict, args: argparse.Namespace):
        self.config, self.args = config, args
        self.settings = TrainSettings.of(config)
        photographs = sources.open_source(args.data_dir)
        seen, self.held_back = split_held_out(photographs, args.held_back)
        self.seen = Cached(seen, 2.0)
        self.models = {
            dtype: build_model({**config.model.to_dict(), "dtype": dtype})
            for dtype in ("float32", "bfloat16")
        }
        state, self.optimizer, self.unravel = create_state(
            self.models["float32"], self.settings, config.seed
        )
        section, sample = config.model, list(itertools.islice(self.crops(0), 16))
        params = start_from_components(
            self.unravel(state.params),
            sample,
            section.channels,
            section.strides,
            config.train.lmbdas,
        )
        self.start, self.sample = ravel_pytree(params)[0], sample
        self.steps = {
            dtype: make_step(Objective(model, self.settings), self.optimizer, self.unravel, seed=0)
            for dtype, model in self.models.items()
        }
        self.validation = Validation(self.models["float32"], self.settings)

    def crops(self, seed: int) -> Any:
        stages = [(0, RandomCrop(self.args.crop))]
        return training_batches(self.seen, stages=stages, batch_size=self.args.batch, seed=seed)

    def gradients(self, model: LLIC, images: np.ndarray, level: float) -> dict[str, np.ndarray]:
        """The loss's gradient by all parameters of each part, at one quality."""
        lmbda = float(np.interp(level, range(1, model.levels + 1), self.config.train.lmbdas))
        gradient = _gradient(model)(self.unravel(self.start), images, level, lmbda)
        return {name: np.asarray(ravel_pytree(part)[0]) for name, part in gradient.items()}

    def curve(self, dtype: str, seed: int) -> list[dict[str, float]]:
        """Validation figures after every `args.every` steps."""
        step, validation = self.steps[dtype], self.validation
        state = new_state(self.start, self.optimizer)
        state = jax_utils.replicate(state, jax.local_devices()[:1])
        figures = []
        for i, batch in enumerate(itertools.islice(self.crops(seed), self.args.steps), 1):
            state, _ = step(state, batch[None])
            if i % self.args.every == 0:
                assert int(state.failed[0]) == 0, f"not finite in {dtype}, step {i}"
                params = self.unravel(jax_utils.unreplicate(state).ema)
                found, _ = validation.measure(params, self.held_back, self.args.validation)
                figures.append(found)
        return figures


def _gradient(model: LLIC) -> Any:
    @jax.jit
    def gradient(params: Any, images: jax.Array, level: jax.Array, lmbda: jax.Array) -> Any:
        x = images.astype(jnp.float32) / 255
        keys = jax.random.split(jax.random.key(0), len(x))

        def loss(params: Any) -> jax.Array:
            out = model.apply({"params": params}, x, jnp.full(len(x), level), keys)
            return rate_distortion(out, x, jnp.full(len(x), lmbda))[0]

        return jax.grad(loss)(params)

    return gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--config", default="smoke_eighth", help="of configs/, of several quality levels")
    add("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="fields of the config")
    add("--data_dir", required=True, help="a folder of photographs")
    add("--steps", type=int, default=500)
    add("--every", type=int, default=100, help="steps between validations")
    add("--crop", type=int, default=64, help="side of the crops, pixels, a multiple of 64")
    add("--batch", type=int, default=4)
    add("--validation", type=int, default=128, help="side of the validation crops, pixels")
    add("--held_back", type=int, default=8, help="photographs for validation")
    add("--learning_rate", type=float, default=1e-3)
    args = parser.parse_args()
    keep_freed_memory()

    config = load_config(args.config, args.set)
    config.train.learning_rate, config.train.schedule = args.learning_rate, "constant"
    config.train.ema_decay, config.train.transforms_from = 0.98, 0
    config.train.steps, config.train.decoder_steps = args.steps, 0
    bench = Bench(config, args)
    levels = config.model.levels

    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {args.config}")
    print("distance of the gradients, bfloat16 from float32, over float32's length")
    parts = ("g_a", "g_s", "h_a", "h_s", "entropy_model", "prior", "gain_y", "gain_z")
    print(f"{'level':>6} " + " ".join(f"{part:>13}" for part in parts))
    for level in (1, (levels + 1) // 2, levels):
        exact, other = (
            bench.gradients(bench.models[dtype], bench.sample[0], float(level))
            for dtype in ("float32", "bfloat16")
        )
        distance = [
            np.linalg.norm(other[part] - exact[part]) / np.linalg.norm(exact[part])
            for part in parts
        ]
        print(f"{level:>6} " + " ".join(f"{value:13.4f}" for value in distance), flush=True)

    curves = {name: bench.curve(dtype, seed) for name, dtype, seed in RUNS}
    print("validation loss, in float32")
    print(f"{'':>12} " + " ".join(f"{name:>12}" for name in curves) + "  bfloat16 over float32")

    def row(name: str, values: list[float]) -> None:
        ratio = 100 * (values[1] / values[0] - 1)
        print(f"{name:>12} " + " ".join(f"{v:12.4f}" for v in values) + f" {ratio:+10.2f} %")

    for i in range(args.steps // args.every):
        row(f"step {(i + 1) * args.every}", [curve[i]["loss"] for curve in curves.values()])
    for level in range(1, levels + 1):
        row(f"level {level}", [curve[-1][f"loss_{level}"] for curve in curves.values()])


if __name__ == "__main__":
    main()
