"""The optimizer and its learning rate."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from llic_jax.training.settings import TrainSettings
from llic_jax.training.soap import scale_by_soap


def learning_rate_schedule(settings: TrainSettings) -> optax.Schedule:
    """From the number of steps done to the learning rate of the next step.

    Args:
        settings: Of the run.

    Returns:
        The schedule that `train.schedule` names (`configs/default.py`), then that of the decoder's
        steps. One by time is 1 here: the step gets its rate as an argument (`time_schedule.py`).
    """
    if settings.by_time:
        return optax.constant_schedule(1.0)
    last = settings.decoder_steps
    if not last:
        return _schedule(settings, settings.steps)
    return optax.join_schedules(
        [
            _schedule(settings, settings.steps - last),
            optax.cosine_decay_schedule(settings.decoder_learning_rate, last),
        ],
        [settings.steps - last],
    )


def _schedule(settings: TrainSettings, steps: int) -> optax.Schedule:
    """That of the first `steps` steps, with the warm-up."""
    peak, warmup = settings.learning_rate, settings.warmup_steps
    if settings.schedule == "steps":
        factors = (1.0, *settings.schedule_factors)
        ratios = {
            boundary: factors[i + 1] / factors[i]
            for i, boundary in enumerate(settings.schedule_boundaries)
        }
        main = optax.piecewise_constant_schedule(peak, ratios)
    elif settings.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, max(1, steps - warmup), settings.final_factor)
    else:
        main = optax.constant_schedule(peak)
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, peak, warmup)
    if settings.schedule == "steps":  # its boundaries count from the first step
        return lambda step: jnp.minimum(ramp(step), main(step))
    return optax.join_schedules([ramp, main], [warmup])


def build_optimizer(
    settings: TrainSettings, unravel: Callable[[Array], Any]
) -> optax.GradientTransformation:
    """Adam (paper) or SOAP (`soap.py`), with clipping by the global norm (our choice).

    All parameters are one vector, also for `optax`: an update is then one loop and one all-reduce.

    Args:
        settings: Of the run.
        unravel: From that vector to the tree of parameters, whose shapes SOAP has to know.

    Returns:
        The optimizer. Its state is part of the checkpoints' format (`state.py`).
    """
    kinds = {"adam": optax.scale_by_adam, "soap": partial(scale_by_soap, unravel)}
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        kinds[settings.optimizer](),
        optax.scale_by_learning_rate(learning_rate_schedule(settings)),
    )


def scale_by_part(
    updates: Float[Array, "n"], unravel: Callable[[Array], Any], rate: Callable[[Any], float]
) -> Float[Array, "n"]:
    """Updates times the learning rates of their parts; exactly zero where a rate is zero.

    A part is a range of the vector, so this is elementwise, and XLA fuses it into the loop over
    all parameters. As a tree (`optax.partition`), or as a vector that is cut up and put together
    again, it takes one more kernel and one more pass for each parameter.

    Args:
        updates: The optimizer's, one vector of all parameters.
        unravel: From that vector to the tree of parameters.
        rate: From a parameter's path in that tree to the factor of its updates.

    Returns:
        The updates to apply.
    """
    leaves = jax.tree_util.tree_flatten_with_path(jax.eval_shape(unravel, updates))[0]
    position = jax.lax.iota(jnp.int32, len(updates))
    factors: Any = 1.0
    last, begin = None, 0
    for path, leaf in leaves:
        if rate(path) != last:
            last = rate(path)
            factors = jnp.where(position >= begin, last, factors) if begin else last
        begin += leaf.size
    return jnp.where(factors == 0, 0, factors * updates)
