"""Times a training step of the full-size LLIC-ELIC, and the data that is to feed it, in one run.

    python benchmarks/training.py --data_dir PHOTOGRAPHS \\
        --torch_python TORCH_ENV/bin/python --torch_script SCRIPT

The step is the real one: transforms, entropy model, loss, Adam, moving average. SCRIPT times a step
of the transforms alone in PyTorch (see transforms.py), so the ratio is a cautious one. The pipeline
decodes, crops and batches with as many threads as the config has, nothing else running, first on
files that are not decoded yet, then from its memory.

A line each: seconds of the fastest step (and crops a second), of the first step, of PyTorch's;
images a second that the pipeline yields, and how many times those that the step takes.
"""

import argparse
import collections
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import add_torch_arguments, best, timed, torch_seconds
from ml_collections import ConfigDict

from llic_jax.configs import llic_elic
from llic_jax.data import sources
from llic_jax.data.augmentation import RandomCrop
from llic_jax.data.batches import training_batches
from llic_jax.data.photographs import Cached
from llic_jax.models.build import build_model
from llic_jax.system.memory import keep_freed_memory
from llic_jax.training.objective import Objective
from llic_jax.training.settings import TrainSettings
from llic_jax.training.state import create_state
from llic_jax.training.step import make_step


def step_seconds(config: ConfigDict, batch: int, crop: int, steps: int) -> tuple[float, float]:
    """Seconds of the fastest step, and of the first one, compiling included; on one device."""
    model = build_model(config.model)
    settings = TrainSettings.of(config)
    state, optimizer, unravel = create_state(model, settings, 0)
    step = make_step(Objective(model, settings), optimizer, unravel, 0)
    state = jax.tree.map(lambda x: jnp.stack([x]), state)
    images = np.random.default_rng(0).integers(0, 256, (1, batch, crop, crop, 3), np.uint8)

    def once() -> None:
        nonlocal state  # its memory is given to the step
        state, _ = jax.block_until_ready(step(state, images))

    _, first = timed(once)
    return best(once, steps), first


def pipeline_rates(folder: Path, batch: int, crop: int, batches: int) -> tuple[float, float]:
    """Images per second in the first pass over the files, and once they are in memory."""
    section = llic_elic.get_config().data
    images = Cached(sources.open_source(str(folder)), section.cache_gb)
    iterator = training_batches(
        images,
        stages=[(0, RandomCrop(crop, section.flip, section.downsample))],
        batch_size=batch,
        seed=0,
        threads=section.threads,
    )
    next(iterator)  # threads have started
    rates = []
    passes = -(-len(images) // batch)
    for skip, count in ((0, min(batches, passes)), (passes, batches)):
        for _ in range(skip):
            next(iterator)
        _, seconds = timed(
            lambda count=count: collections.deque(itertools.islice(iterator, count), 0)
        )
        rates.append(batch * count / seconds)
    return rates[0], rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--give_back", action="store_true", help="do not keep freed memory")
    add_torch_arguments(parser)
    args = parser.parse_args()
    if not args.give_back:
        keep_freed_memory()  # as train.py does

    first, again = pipeline_rates(args.data_dir, args.batch, args.crop, 100)
    theirs = torch_seconds(args, 256, 256, train=True).get("training step")
    config = llic_elic.get_config()
    seconds, compiling = step_seconds(config, args.batch, args.crop, args.steps)
    intake = args.batch / seconds
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    print(f"LLIC-ELIC, batch {args.batch} of {args.crop} x {args.crop} pixels, float32")
    print(f"training step            {seconds:8.2f} s   {intake:.2f} images/s")
    print(f"first step, compiling    {compiling:8.2f} s")
    if theirs is not None:
        print(f"PyTorch, transforms only {theirs:8.2f} s   PyTorch / ours {theirs / seconds:.2f}")
    print(f"pipeline, from files     {first:8.1f} images/s, {first / intake:.0f} times the intake")
    print(f"pipeline, from memory    {again:8.1f} images/s, {again / intake:.0f} times the intake")


if __name__ == "__main__":
    main()
