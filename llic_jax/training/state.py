"""What training changes from step to step, and what a checkpoint holds."""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from llic_jax.models.build import initialize
from llic_jax.models.llic import LLIC
from llic_jax.training.optimizer import build_optimizer
from llic_jax.training.settings import TrainSettings

CAUSES = ("bpp_y", "bpp_z", "mse", "ms_ssim", "gradient_norm")  # what may cease to be finite


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes. Replicated, every leaf has a leading axis of devices.

    All parameters are one vector: an update is then one fused loop and one all-reduce, not
    hundreds, which also halves the time to compile. Names and order of the fields are the format
    of checkpoints.

    Attributes:
        step: Number of steps done.
        params, ema: The parameters and their exponential moving average, `(n,)`.
        opt_state: The optimizer's.
        failed: Bit i is set when `CAUSES[i]` was not finite. The state then stays as it was before
            that step, whatever comes, so the host need not look, and wait, at every step.
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any
    failed: Any


def create_state(
    model: LLIC, settings: TrainSettings, seed: int
) -> tuple[TrainState, optax.GradientTransformation, Callable[[Array], Any]]:
    """A model's state before the first step.

    Args:
        model: The codec's networks.
        settings: Of the run; they name the optimizer.
        seed: Of the parameters.

    Returns:
        The state, the optimizer, and `unravel`: from a vector of parameters to their tree.
    """
    params, unravel = flatten(initialize(model, seed))
    optimizer = build_optimizer(settings, unravel)
    return new_state(params, optimizer), optimizer, unravel


def flatten(tree: Any) -> tuple[Array, Callable[[Array], Any]]:
    """JAX's `ravel_pytree` with nothing compiled, where that compiles a program for every shape.

    Args:
        tree: Of float32 arrays.

    Returns:
        The vector `(n,)` of all of them, and the way back, for jitted functions; `unflatten` is
        the one outside of them.
    """
    kept: list[Callable[[Array], Any]] = []
    jax.eval_shape(lambda x: kept.append(ravel_pytree(x)[1]), tree)
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)]
    return jax.device_put(np.concatenate(leaves)), kept[0]


def unflatten(vector: Any, unravel: Callable[[Array], Any]) -> Any:
    """The tree of a vector, with nothing compiled.

    Args:
        vector: `(n,)`.
        unravel: From `flatten`.
    """
    shapes, structure = jax.tree.flatten(jax.eval_shape(unravel, vector))
    parts = np.split(np.asarray(vector), np.cumsum([shape.size for shape in shapes])[:-1])
    shaped = [part.reshape(shape.shape) for part, shape in zip(parts, shapes, strict=True)]
    return jax.device_put(structure.unflatten(shaped))


def new_state(params: Array, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    Args:
        params: The parameters, `(n,)`.
        optimizer: Of the run.
    """
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, params, optimizer.init(params), zero)
