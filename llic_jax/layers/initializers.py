"""Initializers that draw with NumPy.

XLA compiles a random draw anew for every shape, up to a second each on a CPU, and a model has some
seventy shapes; NumPy needs no compilation. The values depend on the key alone, jitted or not.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

Initializer = Callable[..., Array]


def normal(stddev: float) -> Initializer:
    """Independent normal values of standard deviation `stddev`."""
    return _drawn(lambda rng, shape: stddev * rng.standard_normal(shape, np.float32))


def uniform(low: float, high: float) -> Initializer:
    """Independent values, uniform in `[low, high)`."""
    return _drawn(lambda rng, shape: low + (high - low) * rng.random(shape, np.float32))


def fan_in_normal(scale: float = 1.0) -> Initializer:
    """Normal values of variance `scale / fan_in`, the last axis being the outputs."""

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        return normal(math.sqrt(scale / math.prod(shape[:-1])))(key, shape, dtype)

    return init


def _drawn(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> Initializer:
    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        def values(data: Array | np.ndarray) -> np.ndarray:
            return np.asarray(draw(np.random.default_rng(np.asarray(data)), tuple(shape)), dtype)

        data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        if isinstance(data, jax.core.Tracer):
            return jax.pure_callback(values, jax.ShapeDtypeStruct(tuple(shape), dtype), data)
        return jnp.asarray(values(data))

    return init
