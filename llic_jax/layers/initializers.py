"""Initializers that draw with NumPy, and fresh parameters without running the model.

XLA compiles a random draw anew for every shape, up to a second each on a CPU, and a model has some
seventy shapes; NumPy needs no compilation. The values depend on the key alone, jitted or not.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flax.core.scope import Scope
from jax import Array
from jax.typing import DTypeLike

Initializer = Callable[..., Array]

# Variance, times the fan-in, of the last weights of every residual branch, which so starts small
# (our choice). The gates of LLIC's transforms multiply features with features: branches of unit
# variance would square the signal's size in each block and overflow within a dozen. The entropy
# model of TCM would start with means of twenty times the latent's size.
RESIDUAL_SCALE = 1e-4


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


def fresh_params(module: nn.Module, seed: int, *inputs: Any) -> dict[str, Any]:
    """The parameters of `module` for `inputs` of these shapes (`jax.ShapeDtypeStruct` will do).

    Flax's own `init` and `lazy_init` run what does not depend on the input, operation by operation,
    each compiled: half a minute for a codec. Here the model is only traced, its initializers are
    noted on the way, and called one by one, each with a key made of the seed and its path.
    """
    initializers: dict[tuple[str, ...], Callable[[Array], Any]] = {}
    original = Scope.param

    def param(scope: Scope, name: str, init: Callable, *args: Any, **kwargs: Any) -> Any:
        unbox = {"unbox": kwargs.pop("unbox")} if "unbox" in kwargs else {}
        initializers[(*scope.path, name)] = lambda key: init(key, *args, **kwargs)
        return original(scope, name, init, *args, **unbox, **kwargs)

    root = jax.random.key(seed)
    with mock.patch.object(Scope, "param", param):
        shapes = jax.eval_shape(lambda *x: module.init(root, *x)["params"], *inputs)
    values = {}
    for path in traverse_util.flatten_dict(shapes):
        key = jax.random.fold_in(root, zlib.crc32("/".join(path).encode()))
        values[path] = jnp.asarray(initializers[path](key))
    return traverse_util.unflatten_dict(values)
