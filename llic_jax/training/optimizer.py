"""The optimizer and its learning rate, from a config's `train` section."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from llic_jax.configs.config import Config
from llic_jax.errors import ConfigError
from llic_jax.training.soap import scale_by_soap


def learning_rate_schedule(train: Config) -> optax.Schedule:
    """The schedule that the config names (configs/default.py), then that of the decoder's steps.

    Raises:
      ConfigError: a schedule that is not known.
    """
    if train["schedule"] == "time":
        return optax.constant_schedule(1.0)  # the step is told its rate (time_schedule.py)
    last = train["decoder_steps"]
    if not last:
        return _schedule(train, train["steps"])
    return optax.join_schedules(
        [
            _schedule(train, train["steps"] - last),
            optax.cosine_decay_schedule(train["decoder_learning_rate"], last),
        ],
        [train["steps"] - last],
    )


def _schedule(train: Config, steps: int) -> optax.Schedule:
    peak, warmup = train["learning_rate"], train["warmup_steps"]
    if train["schedule"] == "steps":
        factors = (1.0, *train["schedule_factors"])
        ratios = {
            boundary: factors[i + 1] / factors[i]
            for i, boundary in enumerate(train["schedule_boundaries"])
        }
        main = optax.piecewise_constant_schedule(peak, ratios)
    elif train["schedule"] == "cosine":
        main = optax.cosine_decay_schedule(peak, max(1, steps - warmup), train["final_factor"])
    elif train["schedule"] == "constant":
        main = optax.constant_schedule(peak)
    else:
        raise ConfigError(
            f"train.schedule is {train['schedule']!r}; known are steps, cosine, constant, time."
        )
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, peak, warmup)
    if train["schedule"] == "steps":  # its boundaries count from the first step
        return lambda step: jnp.minimum(ramp(step), main(step))
    return optax.join_schedules([ramp, main], [warmup])


def build_optimizer(train: Config, unravel: Callable[[Array], Any]) -> optax.GradientTransformation:
    """Adam, or SOAP (`soap.py`), on one vector of all parameters, with clipping by the global norm
    (paper: Adam; our choice: SOAP and the clipping).

    unravel: from that vector to the tree of parameters, whose shapes SOAP has to know.

    Raises:
      ConfigError: an optimizer that is not known.
    """
    known = {"adam": optax.scale_by_adam, "soap": partial(scale_by_soap, unravel)}
    if train["optimizer"] not in known:
        raise ConfigError(
            f"train.optimizer is {train['optimizer']!r}; known are {', '.join(known)}."
        )
    return optax.chain(
        optax.clip_by_global_norm(train["clip_norm"]),
        known[train["optimizer"]](),
        optax.scale_by_learning_rate(learning_rate_schedule(train)),
    )


def scale_by_part(
    updates: Float[Array, "n"], unravel: Callable[[Array], Any], rate: Callable[[Any], float]
) -> Float[Array, "n"]:
    """Updates times the learning rates of their parts; exactly zero where a rate is zero.

    A part is a range of the vector, so this is elementwise and XLA makes it a piece of the loop
    over all parameters. As a tree (`optax.partition`), or as a vector that is cut up and put
    together again, it would take one kernel and one more pass for each parameter.

    Args:
        updates: the optimizer's, one vector of all parameters.
        unravel: from that vector to the tree of parameters.
        rate: from a parameter's path in that tree to the factor of its updates.

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
