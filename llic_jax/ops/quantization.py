"""Small differentiable operations that everything else is built from.

Quantization and its two training surrogates follow Balle et al., "Variational image compression
with a scale hyperprior" (ICLR 2018) and Minnen and Singh, "Channel-wise autoregressive entropy
models" (ICIP 2020): noise where a rate is estimated, straight-through rounding where a value is
decoded from.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def round_straight_through(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Rounds to the nearest integer; the gradient passes as if nothing had happened.

    Args:
        x: Values of any shape.
    """
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def add_uniform_noise(
    keys: Key[Array, "b"], x: Float[Array, "b *shape"]
) -> Float[Array, "b *shape"]:
    """`x + U(-1/2, 1/2)`: the differentiable stand-in for rounding (Balle et al. 2018, eq. 4).

    Args:
        keys: One for each sample: a sample's noise does not depend on how a batch is spread over
            devices.
        x: Values of the samples.
    """
    return x + jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -0.5, 0.5))(keys)


def fold_in(keys: Key[Array, "b"], data: int) -> Key[Array, "b"]:
    """New keys, one from each, told apart by `data`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def lower_bound(x: Float[Array, "*shape"], bound: float) -> Float[Array, "*shape"]:
    """`max(x, bound)` whose gradient still lets values below the bound climb back.

    The gradient is passed where `x >= bound` or where descent would raise `x`, as in TensorFlow
    Compression's function of the same name. A plain maximum would leave such a value stuck.
    """
    return jnp.maximum(x, bound)


def _lower_bound_fwd(x, bound):
    return jnp.maximum(x, bound), x >= bound


def _lower_bound_bwd(bound, inside, g):
    return (jnp.where(inside | (g < 0), g, 0),)


lower_bound.defvjp(_lower_bound_fwd, _lower_bound_bwd)


_LARGEST_GRADIENT = 1e6  # low enough for what a block may multiply by


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def clip_values(x: Float[Array, "b *shape"], limit: float) -> Float[Array, "b *shape"]:
    """`x` within `[-limit, limit]`, and each sample's gradient scaled down to 1e6 at most.

    As with `lower_bound`, the gradient is passed where `x` is within, or where descent would bring
    it there. Where values explode gradients do too, by as much in each layer again, until they are
    not finite.

    Args:
        x: Values of the samples.
        limit: Above 0.
    """
    return jnp.clip(x, -limit, limit)


def _clip_values_fwd(x, limit):
    held = jnp.clip(x, -limit, limit)
    return held, held  # which the next layer keeps too; a value at the limit counts as beyond


def _clip_values_bwd(limit, held, g):
    # The largest of all, not of those that are passed: the maximum then needs `g` alone and can
    # join what computes it, and it is a bound all the same.
    largest = jnp.max(jnp.abs(g), axis=tuple(range(1, g.ndim)), keepdims=True)
    g = jnp.where((jnp.abs(held) < limit) | (held * g > 0), g, 0)
    return (g * jnp.minimum(1, _LARGEST_GRADIENT / largest),)


clip_values.defvjp(_clip_values_fwd, _clip_values_bwd)
