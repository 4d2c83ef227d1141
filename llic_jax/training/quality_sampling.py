"""Qualities of the samples in a batch, and the weights that make up for how they are drawn."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from llic_jax.layers.quality import lmbda_of_quality


def draw_qualities(
    keys: Key[Array, "b"],
    samples: Int[Array, "b"],
    batch_size: int,
    lmbdas: tuple[float, ...],
    density: float = 0.0,
) -> tuple[Float[Array, "b"] | None, Float[Array, "b"]]:
    """A quality for each sample and its lambda; samples: their places in the whole batch.

    With one lambda there is no quality. With several, quality is drawn from [1, levels] with a
    density of `lambda^density` (0: uniform) and lambda is interpolated geometrically, like the
    gains. The probability is divided among the batch: sample i of n draws from its i-th part of n,
    so that every batch has low rates and high ones and the gradient varies less (stratified
    sampling; our choice).
    """
    if len(lmbdas) == 1:
        return None, jnp.full(len(keys), lmbdas[0])
    place = (samples + jax.vmap(jax.random.uniform)(keys)) / batch_size
    grid, mass = _quality_mass(lmbdas, density)
    below = jnp.concatenate([jnp.zeros(1), jnp.cumsum((mass[1:] + mass[:-1]) / 2)])
    quality = jnp.interp(place, below / below[-1], grid)
    return quality, lmbda_of_quality(quality, lmbdas)


def level_weights(
    lmbda: Float[Array, "b"], lmbdas: tuple[float, ...], balance: float, density: float = 0.0
) -> Float[Array, "b"]:
    """Weights `lambda^-(balance + density)`, 1 on average over the qualities drawn (our choice).

    `R + lambda D` grows about as the root of lambda, so without them the high rates have most of
    the gradient; with a balance of 0.5 every rate is bettered by about the same fraction. A density
    leaves that as it is: it draws more of the qualities whose gradients are larger, and weights
    each less by as much, so that the gradient's mean is the same and its variance smaller
    (importance sampling).
    """
    grid, mass = _quality_mass(lmbdas, density)
    power = -(balance + density)
    return lmbda**power / jnp.average(lmbda_of_quality(grid, lmbdas) ** power, weights=mass)


def _quality_mass(lmbdas: tuple[float, ...], density: float) -> tuple[Array, Array]:
    """Qualities over the whole range, and the density of each (not normalized)."""
    grid = jnp.linspace(1.0, len(lmbdas), 256)
    return grid, lmbda_of_quality(grid, lmbdas) ** density
