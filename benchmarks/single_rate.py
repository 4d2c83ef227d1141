"""What one set of weights for every rate gives away against weights for a single rate.

    python benchmarks/single_rate.py --data_dir PHOTOGRAPHS --level 4 --steps 300

Trains released weights further, twice, on the same crops with the same schedule: at all qualities,
as they were trained, and at one level only. Both are validated at that level, on the photographs
that the training never saw. With the distortion held, bits fall by as much as the loss, so the
last column is about what the specialist saves at equal PSNR.
"""

import argparse
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import released_model
from flax import jax_utils
from jax.flatten_util import ravel_pytree

from llic_jax.data.augmentation import RandomCrop
from llic_jax.data.batches import training_batches
from llic_jax.data.photographs import Cached, Photographs
from llic_jax.models.build import build_model
from llic_jax.system.memory import keep_freed_memory
from llic_jax.training import objective as training_objective
from llic_jax.training.objective import Objective
from llic_jax.training.optimizer import build_optimizer
from llic_jax.training.quality_sampling import draw_qualities
from llic_jax.training.settings import TrainSettings
from llic_jax.training.state import new_state
from llic_jax.training.step import make_step
from llic_jax.training.validation import Validation


def further(
    config: dict[str, Any], params: Any, photographs: Photographs, args: argparse.Namespace
) -> Any:
    """The moving average of the weights after `args.steps` more steps."""
    vector, unravel = ravel_pytree(params)
    settings = TrainSettings.of(config)
    optimizer = build_optimizer(settings, unravel)
    state = jax_utils.replicate(new_state(vector, optimizer), jax.local_devices()[:1])
    objective = Objective(build_model(config["model"]), settings)
    step = make_step(objective, optimizer, unravel, seed=0)
    crops = training_batches(
        photographs, stages=[(0, RandomCrop(args.crop))], batch_size=args.batch, seed=2
    )
    for batch in itertools.islice(crops, args.steps):
        state, _ = step(state, batch[None])
    return unravel(jax_utils.unreplicate(state).ema)


def main() -> None:
    parser = released_model.parser(__doc__)
    add = parser.add_argument
    add("--level", type=int, default=4, help="the specialist's")
    add("--steps", type=int, default=300)
    add("--batch", type=int, default=2)
    add("--learning_rate", type=float, default=2e-4, help="falls as a half cosine")
    args = parser.parse_args()
    keep_freed_memory()

    config, model, params, options, seen, held_back = released_model.load(args)
    # All parameters learn alike: it is the difference that counts.
    config["train"] |= {"steps": args.steps, "decoder_steps": 0, "schedule": "cosine"}
    config["train"] |= {"warmup_steps": 20, "learning_rate": args.learning_rate, "ema_decay": 0.98}
    config["train"] |= {"frozen": (), "loss_knee": 0.0}
    seen = Cached(seen, 2.0)
    all_rates, lmbda = draw_qualities, config["train"]["lmbdas"][args.level - 1]

    def one_rate(keys: Any, *_: Any) -> Any:
        return jnp.full(len(keys), float(args.level)), jnp.full(len(keys), lmbda)

    print(f"{'':30} {'bpp':>7} {'PSNR':>7} {'loss':>8} {'of the loss':>12} {'of the bits':>12}")
    reference = None
    for name, draw in (
        ("released", None),
        (f"{args.steps} steps, all qualities", all_rates),
        (f"{args.steps} steps, level {args.level} only", one_rate),
    ):
        after = params
        if draw is not None:
            training_objective.draw_qualities = draw
            after = further(config, params, seen, args)
        validation = Validation(model, TrainSettings.of(config), options)
        found, _ = validation.measure(after, held_back, args.crop, levels=[args.level])
        bpp, psnr, loss = (found[f"{figure}_{args.level}"] for figure in ("bpp", "psnr", "loss"))
        line = f"{name:30} {bpp:7.4f} {psnr:7.3f} {loss:8.5f}"
        if reference is not None:
            whole, bits = reference
            change = loss - whole
            line += f" {100 * change / whole:+11.2f} % {100 * change / bits:+10.2f} %"
        elif draw is not None:
            reference = loss, bpp
        print(line, flush=True)


if __name__ == "__main__":
    main()
