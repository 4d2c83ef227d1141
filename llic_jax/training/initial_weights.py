"""The weights that training starts with: random ones, or those of other models."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree

from llic_jax.configs.config import Config
from llic_jax.configs.upgrade import upgrade_model
from llic_jax.training.growth import grow
from llic_jax.training.principal_components import start_from_components
from llic_jax.training.state import TrainState, fresh_state
from llic_jax.zoo.weights import mean_weights


def initial_state(
    config: Config,
    state: TrainState,
    unravel: Callable[[Any], Any],
    batches: Callable[[], Iterator[np.ndarray]],
    optimizer: Any,
) -> TrainState:
    """The state before the first step, as `train.start` says."""
    start = config["train"]["start"]
    if start == "random":
        return state
    if start == "pca":
        # From the whole batches, whatever the number of processes: all must start alike.
        sample = itertools.islice(batches(), 256 // config["train"]["batch_size"] + 1)
        crops = [np.asarray(multihost_utils.process_allgather(b, tiled=True)) for b in sample]
        section = upgrade_model(config["model"])
        params = start_from_components(
            unravel(state.params),
            crops,
            section["channels"],
            section["strides"],
            config["train"]["lmbdas"],
        )
    else:
        params = grow(unravel(state.params), mean_weights(*start.split(",")))
    return fresh_state(ravel_pytree(params)[0], optimizer)
