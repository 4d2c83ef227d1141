"""Qualities of the samples in a batch, and the weights that make up for how they are drawn."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from llic_jax.layers.quality import lmbda_of_quality


def draw_qualities(
    keys: Key[Array, "b"],
    samples: Int[Array, "b"],
    batch_size: int | Int[Array, ""],
    lmbdas: tuple[float, ...],
    density: float = 0.0,
) -> tuple[Float[Array, "b"] | None, Float[Array, "b"]]:
    """Draws a quality for each sample (our choice).

    With several lambdas, quality is drawn from [1, levels] with density `lambda^density`, and
    lambda is interpolated geometrically, like the gains. Sampling is stratified: sample i of n
    draws from the i-th n-th of the probability, so every batch has low and high rates, and the
    gradient varies less.

    Args:
        keys: One for each sample.
        samples: Their places in the whole batch.
        batch_size: Of the whole batch.
        lmbdas: One for each quality level.
        density: `train.rate_sampling`; 0 for uniform.

    Returns:
        Qualities, None with a single lambda, and lambdas.
    """
    if len(lmbdas) == 1:
        return None, jnp.full(len(keys), lmbdas[0])
    place = (samples.astype(jnp.float32) + jax.vmap(jax.random.uniform)(keys)) / batch_size
    grid, mass = _quality_mass(lmbdas, density)
    below = jnp.concatenate([jnp.zeros(1), jnp.cumsum((mass[1:] + mass[:-1]) / 2)])
    quality = jnp.interp(place, below / below[-1], grid)
    return quality, lmbda_of_quality(quality, lmbdas)


def quality_weights(
    lmbda: Float[Array, "b"], lmbdas: tuple[float, ...], weighting: float, density: float = 0.0
) -> Float[Array, "b"]:
    """Weights of the samples' losses: `lambda^-(weighting + density)`, 1 on average (our choice).

    `R + lambda D` grows about as the root of lambda, so without weights the high rates have most
    of the gradient. With a weighting of 0.5 every rate improves by about the same fraction. A
    sampling density changes the gradient's variance only: weights correct for it (importance
    sampling).

    Args:
        lmbda: Of the samples.
        lmbdas: One for each quality level.
        weighting: `train.rate_weighting`.
        density: `train.rate_sampling`, with which the qualities were drawn.
    """
    grid, mass = _quality_mass(lmbdas, density)
    power = -(weighting + density)
    return lmbda**power / jnp.average(lmbda_of_quality(grid, lmbdas) ** power, weights=mass)


def _quality_mass(lmbdas: tuple[float, ...], density: float) -> tuple[Array, Array]:
    """Qualities over the whole range, and the density of each (not normalized)."""
    grid = jnp.linspace(1.0, len(lmbdas), 256)
    return grid, lmbda_of_quality(grid, lmbdas) ** density
