"""The weights that training starts with: random ones, or those of other models."""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from llic_jax.training.growth import grow
from llic_jax.training.principal_components import start_from_components
from llic_jax.training.settings import RunSettings
from llic_jax.training.state import TrainState, flatten, new_state, unflatten
from llic_jax.zoo.weights import mean_weights


def initial_state(
    settings: RunSettings,
    state: TrainState,
    unravel: Callable[[Any], Any],
    batches: Callable[[], Iterator[np.ndarray]],
    optimizer: Any,
) -> TrainState:
    """The state before the first step, as `train.start` says.

    Args:
        settings: Of the run.
        state: With random parameters.
        unravel: From a vector of parameters to their tree.
        batches: Makes the batches of training, from the first step on.
        optimizer: Of the run.

    Raises:
        ConfigError: The weights are not of this model.
        ReleaseError: A folder has no weights.
    """
    start = settings.train.start
    if start == "random":
        return state
    fresh = unflatten(state.params, unravel)
    if start == "pca":
        # From the whole batches, whatever the number of processes: all must start alike.
        sample = itertools.islice(batches(), 256 // settings.train.batch_size + 1)
        crops = [np.asarray(multihost_utils.process_allgather(b, tiled=True)) for b in sample]
        params = start_from_components(
            fresh,
            crops,
            settings.model["channels"],
            settings.model["strides"],
            settings.train.lmbdas,
        )
    else:
        params = grow(fresh, mean_weights(*map(os.path.expanduser, start.split(","))))
    return new_state(flatten(params)[0], optimizer)
