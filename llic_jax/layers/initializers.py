"""Initializers that draw with NumPy, and initial parameters without running the model.

XLA compiles a random draw anew for every shape, up to a second each on a CPU, and a model has some
seventy shapes; NumPy needs no compilation. The values depend on the key alone, jitted or not.
"""

import contextlib
import math
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

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


# Made by `partial`, not as nested functions: Flax calls an initializer at every use of a parameter
# to check its shape, and the tests' type checks are built anew for every function that is defined.
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(stddev: float) -> Initializer:
    """Independent normal values of standard deviation `stddev`."""
    return partial(_initial, lambda rng, shape: stddev * rng.standard_normal(shape, np.float32))


def uniform(low: float, high: float) -> Initializer:
    """Independent values, uniform in `[low, high)`."""
    return partial(_initial, lambda rng, shape: low + (high - low) * rng.random(shape, np.float32))


def fan_in_normal(scale: float = 1.0) -> Initializer:
    """Normal values of variance `scale / fan_in`, the last axis being the outputs."""
    return partial(
        _initial,
        lambda rng, shape: (
            math.sqrt(scale / math.prod(shape[:-1])) * rng.standard_normal(shape, np.float32)
        ),
    )


def _initial(draw: Draw, key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws a parameter, also within a program that is being traced."""
    values = partial(_values, draw, tuple(shape), dtype)
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    if isinstance(data, jax.core.Tracer):
        return jax.pure_callback(values, jax.ShapeDtypeStruct(tuple(shape), dtype), data)
    return jnp.asarray(values(data))


def _values(
    draw: Draw, shape: tuple[int, ...], dtype: DTypeLike, key_data: Array | np.ndarray
) -> np.ndarray:
    return np.asarray(draw(np.random.default_rng(np.asarray(key_data)), shape), dtype)


def init_params(module: nn.Module, seed: int, *inputs: Any) -> dict[str, Any]:
    """Draws the initial parameters of a module.

    Flax's own `init` and `lazy_init` run what does not depend on the input, operation by operation,
    each compiled: half a minute for a codec. Here the model is only traced, its initializers are
    noted on the way, and called one by one, each with a key made of the seed and the parameter's
    path.

    Args:
        module: The module.
        seed: Of all draws.
        *inputs: Arguments of its `__call__`; `jax.ShapeDtypeStruct` will do.

    Returns:
        The collection "params", drawn with NumPy.
    """
    with _on_cpu():  # an accelerator takes longer to compile for, and nothing here is large
        root = jax.random.key(seed)
        with _noted_initializers() as initializers:
            shapes = jax.eval_shape(lambda *x: module.init(root, *x)["params"], *inputs)
        drawn = {}
        for path in traverse_util.flatten_dict(shapes):
            key = jax.random.fold_in(root, zlib.crc32("/".join(path).encode()))
            value = initializers[path](key)
            drawn[path] = value if isinstance(value, jax.core.Tracer) else np.asarray(value)
    return traverse_util.unflatten_dict(jax.device_put(drawn))


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Arrays are made on the CPU, unless `JAX_PLATFORMS` leaves it out."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


_noting = threading.Lock()


@contextlib.contextmanager
def _noted_initializers() -> Iterator[dict[tuple[str, ...], Callable[[Array], Any]]]:
    """Notes the initializer of every parameter that this thread makes, by its path.

    Flax calls an initializer where it makes the parameter and tells nobody; methods of its own,
    such as `param`, cannot be intercepted (`nn.intercept_methods`), and a subclass of `Scope` would
    be lost within `nn.remat`. So `Scope.param` is replaced for the time of a trace: by one thread
    at a time, and for this thread alone.
    """
    initializers: dict[tuple[str, ...], Callable[[Array], Any]] = {}
    thread = threading.get_ident()
    with _noting:
        original = Scope.param

        def param(scope: Scope, name: str, init: Callable, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread:
                own = {key: value for key, value in kwargs.items() if key != "unbox"}
                initializers[(*scope.path, name)] = lambda key: init(key, *args, **own)
            return original(scope, name, init, *args, **kwargs)

        Scope.param = param  # type: ignore[method-assign, assignment]
        try:
            yield initializers
        finally:
            Scope.param = original  # type: ignore[method-assign]
