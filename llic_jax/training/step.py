"""One training step: from a state and a batch to the next state, sharded over devices by `pmap`.

One code path for one device, for many, and for many hosts: the state is replicated, each device
takes its share of the batch, gradients are averaged over all devices.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.tree_util import tree_map_with_path
from jaxtyping import Array

from llic_jax.configs.config import Config
from llic_jax.models.encoder_options import PLAIN, EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.ops.quantization import fold_in
from llic_jax.training.loss import rate_distortion
from llic_jax.training.optimizer import scale_by_part
from llic_jax.training.phases import ANALYSIS, TRANSFORMS, Stage
from llic_jax.training.quality_sampling import draw_qualities, level_weights
from llic_jax.training.state import CAUSES, TrainState

AXIS = "batch"

Step = Callable[..., tuple["TrainState", dict[str, Array]]]


def make_train_step(
    model: LLIC,
    optimizer: optax.GradientTransformation,
    unravel: Callable[[Array], Any],
    train: Config,
    seed: int,
    stage: Stage = Stage.ALL,
    options: EncoderOptions = PLAIN,
    devices: Sequence[jax.Device] | None = None,
) -> Step:
    """The step, `pmap`ped: `(state, images)` with a leading device axis on both, to the new state
    and the metrics. `images` is uint8 `(devices, B / devices, H, W, 3)`. The state is donated.

    A device works through its share in `train.accumulate` parts, one after the other. stage: who
    learns. options: how symbols are chosen where the very symbols count (`Stage.DECODER`). devices:
    that it runs on, also absent ones that it is to be compiled for; None: all that there are.
    With `train.schedule "time"` the step takes the learning rate as a third argument, float32
    `(devices,)`.
    """
    lmbdas, parts = tuple(train["lmbdas"]), train["accumulate"]
    density = train.get("level_density", 0.0)  # configs of folders released before it have none
    frozen = frozenset(train.get("frozen", ()))
    apply: Any = model.apply

    def stands_still(path: Any) -> bool:
        return not frozen.isdisjoint(key.key for key in path)

    def gradients(
        params: Array, key: Array, batch_size: int, images: Array, samples: Array
    ) -> tuple[Array, dict]:
        keys = jax.vmap(partial(jax.random.fold_in, key))(samples)
        quality, lmbda = draw_qualities(fold_in(keys, 0), samples, batch_size, lmbdas, density)
        x = images.astype(jnp.float32) / 255

        def loss_fn(params):
            if frozen:
                params = tree_map_with_path(
                    lambda path, p: jax.lax.stop_gradient(p) if stands_still(path) else p, params
                )
            if stage is Stage.ENTROPY_MODEL:
                still = {name: jax.lax.stop_gradient(params[name]) for name in params}
                params = {n: still[n] if n in TRANSFORMS else params[n] for n in params}
            noise = None if stage is Stage.DECODER else fold_in(keys, 1)
            out = apply({"params": params}, x, quality, noise, options)
            weight = level_weights(lmbda, lmbdas, train["level_balance"], density)
            loss, figures = rate_distortion(
                out, x, lmbda, train["distortion"], weight, train.get("loss_knee", 0.0)
            )
            if stage is Stage.ENTROPY_MODEL:
                # What is not asked for is not computed: XLA drops the synthesis.
                figures = {name: figures[name] for name in ("bpp_y", "bpp_z", "bpp")}
                loss = figures["loss"] = figures["bpp"]
            return loss, figures

        grads, figures = jax.grad(loss_fn, has_aux=True)(unravel(params))
        return ravel_pytree(grads)[0], figures

    def rate(path: Any) -> float:
        names = [key.key for key in path]
        analysis = stage is Stage.DECODER and not set(names).isdisjoint(ANALYSIS)
        if analysis or stands_still(path):
            return 0.0  # Adam's averages would still move them
        return train["transforms_rate"] if names[0] in TRANSFORMS else 1.0

    @partial(jax.pmap, axis_name=AXIS, devices=devices, donate_argnums=0)
    def step(
        state: TrainState, images: Array, learning_rate: Array | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        samples = jax.lax.axis_index(AXIS) * len(images) + jnp.arange(len(images))
        batch_size = jax.lax.psum(len(images), AXIS)
        if parts == 1:
            grads, figures = gradients(state.params, key, batch_size, images, samples)
        else:
            pieces = [a.reshape(parts, -1, *a.shape[1:]) for a in (images, samples)]
            each = partial(gradients, state.params, key, batch_size)
            shapes = jax.eval_shape(each, *(piece[0] for piece in pieces))
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

            def add(total, piece):
                return jax.tree.map(jnp.add, total, each(*piece)), None

            total, _ = jax.lax.scan(add, zeros, tuple(pieces))
            grads, figures = jax.tree.map(lambda t: t / parts, total)
        grads, figures = jax.lax.pmean((grads, figures), AXIS)
        # Written once, before it is used: with the pieces of the vector drawn into it, the update
        # is no plain loop any more, and XLA cuts it in two or copies what it changes in place.
        grads = jax.lax.optimization_barrier(grads)
        figures["gradient_norm"] = optax.tree.norm(grads)
        causes = [~jnp.isfinite(figures.get(name, jnp.zeros(()))) for name in CAUSES]
        failed = state.failed | sum(cause.astype(jnp.int32) << i for i, cause in enumerate(causes))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        updates = scale_by_part(updates, unravel, rate)
        if learning_rate is not None:
            updates = learning_rate * updates
        params = optax.apply_updates(state.params, updates)
        # A young average follows faster: it must not remember the initialization.
        decay = jnp.minimum(train["ema_decay"], (1 + state.step) / (10 + state.step))
        ema = decay * state.ema + (1 - decay) * params
        after = TrainState(state.step + 1, params, ema, opt_state, failed)
        before = dataclasses.replace(state, failed=failed)
        state = jax.tree.map(lambda a, b: jnp.where(failed == 0, a, b), after, before)
        return state, figures

    return step
