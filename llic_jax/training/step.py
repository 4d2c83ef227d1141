"""One training step: from a state and a batch to the next state, sharded over devices by `pmap`.

One code path for one device, for many, and for many hosts: the state is replicated, each device
takes its share of the batch, and gradients are averaged over all devices.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, UInt8

from llic_jax.training.objective import Objective
from llic_jax.training.optimizer import scale_by_part
from llic_jax.training.phases import rate_factor
from llic_jax.training.settings import TrainSettings
from llic_jax.training.state import CAUSES, TrainState

AXIS = "batch"

# A state, images and perhaps the learning rate, all with a leading axis of devices, to the new
# state and the figures of the step.
Step = Callable[..., tuple[TrainState, dict[str, Array]]]


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    unravel: Callable[[Array], Any],
    seed: int,
    devices: Sequence[jax.Device] | None = None,
) -> Step:
    """The step of a phase, `pmap`ped.

    Args:
        objective: What is minimized.
        optimizer: Of the vector of all parameters.
        unravel: From that vector to the tree of parameters.
        seed: Of the run: noise and qualities are functions of it and of the step.
        devices: That the step runs on, also absent ones that it is to be compiled for. None: all.

    Returns:
        `(state, images)` to the new state and the figures. The state is replicated, and donated;
        images are uint8 `(devices, B / devices, H, W, 3)`. With `train.schedule "time"` there is a
        third argument, the learning rate, float32 `(devices,)`.
    """
    settings = objective.settings

    @partial(jax.pmap, axis_name=AXIS, devices=devices, donate_argnums=0)
    def step(
        state: TrainState, images: Array, learning_rate: Array | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, figures = _gradients(objective, unravel, state.params, images, key)
        grads, figures = jax.lax.pmean((grads, figures), AXIS)
        # An invariant: the vector of gradients is written once, before it is used. Without the
        # barrier XLA fuses its pieces into the update, which then is no plain loop any more, and
        # cuts that in two or copies what it changes in place.
        grads = jax.lax.optimization_barrier(grads)
        figures["gradient_norm"] = optax.tree.norm(grads)
        causes = [~jnp.isfinite(figures.get(name, jnp.zeros(()))) for name in CAUSES]
        failed = state.failed | sum(cause.astype(jnp.int32) << i for i, cause in enumerate(causes))
        # optax leaves types to JAX (0.2.8: `decay**count`), also where a program forbids that.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        factor = partial(rate_factor, settings=settings, phase=objective.phase)
        updates = scale_by_part(updates, unravel, factor)
        if learning_rate is not None:
            updates = learning_rate * updates
        params = optax.apply_updates(state.params, updates)
        # A young average follows faster, so that it forgets the initialization.
        decay = jnp.minimum(settings.ema_decay, (1 + state.step) / (10 + state.step))
        ema = decay * state.ema + (1 - decay) * params
        after = TrainState(state.step + 1, params, ema, opt_state, failed)
        before = dataclasses.replace(state, failed=failed)
        # Not `optax.apply_if_finite`, which goes on with the next batch: a run stops here, at the
        # last sound state, moving average included.
        state = jax.tree.map(lambda a, b: jnp.where(failed == 0, a, b), after, before)
        return state, figures

    return step


def _gradients(
    objective: Objective,
    unravel: Callable[[Array], Any],
    params: Float[Array, "n"],
    images: UInt8[Array, "b h w 3"],
    key: Key[Array, ""],
) -> tuple[Float[Array, "n"], dict[str, Array]]:
    """Gradient and figures of a device's share of the batch, means over its samples.

    The share is worked through in `train.accumulate` parts, one after the other.
    """
    samples = jax.lax.axis_index(AXIS) * len(images) + jnp.arange(len(images))
    batch_size = jax.lax.psum(len(images), AXIS)

    def of_part(
        images: UInt8[Array, "p h w 3"], samples: Int[Array, "p"]
    ) -> tuple[Float[Array, "n"], dict[str, Array]]:
        differentiate = jax.grad(objective, has_aux=True)
        grads, figures = differentiate(unravel(params), images, samples, key, batch_size)
        return ravel_pytree(grads)[0], figures

    parts = objective.settings.accumulate
    if parts == 1:
        return of_part(images, samples)
    pieces = tuple(a.reshape(parts, -1, *a.shape[1:]) for a in (images, samples))
    shapes = jax.eval_shape(of_part, *(piece[0] for piece in pieces))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total: Any, piece: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of_part(*piece)), None

    total, _ = jax.lax.scan(add, zeros, pieces)
    return jax.tree.map(lambda t: t / parts, total)


def step_arguments(
    state: TrainState, settings: TrainSettings, crop: int, devices: int
) -> tuple[Any, ...]:
    """Shapes and types of a step's arguments, to compile it before there is a batch.

    Args:
        state: Of one device.
        settings: Of the run.
        crop: Side of the crops, pixels.
        devices: How many there are.

    Returns:
        The replicated state and the images; with `train.schedule "time"` also the learning rate.
    """
    share = settings.batch_size // devices
    images = jax.ShapeDtypeStruct((devices, share, crop, crop, 3), jnp.uint8)
    replicated = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((devices, *jnp.shape(x)), jnp.asarray(x).dtype), state
    )
    rates = (jax.ShapeDtypeStruct((devices,), jnp.float32),) if settings.by_time else ()
    return replicated, images, *rates
