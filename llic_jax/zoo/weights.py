"""Weights as they are stored: in 8 bits with scales, small arrays in float32."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file  # the other one compiles a program for every shape

from llic_jax.errors import ReleaseError

# Arrays of fewer elements stay float32: gains, scales and biases, 2 % of the parameters, whose
# rounding would cost 1 % of the bits at high rates (docs/experiments.md).
_ROUNDED_FROM = 4096
# Of all others 8 bits are enough, but not of these (docs/experiments.md).
_UPSAMPLING = "g_s.up_"
_SCALE = ":scale"  # what the name of the scales of an array in 8 bits ends in


def load_weights(folder: str | Path) -> dict[str, Any]:
    """The parameters in a released folder, float32, to go on from in training.

    Raises:
      ReleaseError: there are none.
    """
    path = Path(folder) / "weights.safetensors"
    try:
        return restored_weights(load_file(path))
    except Exception as error:  # the library has its own ways to find a file unreadable
        raise ReleaseError(
            f"No weights can be read from {path}: {error}. Name a released folder."
        ) from error


def mean_weights(*folders: str | Path) -> dict[str, Any]:
    """The mean of the parameters in released folders, float32.

    Weights of runs with a common start lie in one valley, and their mean is nearer to its floor
    than either, since most of what is left of a run's steps is noise (Wortsman et al., "Model
    soups", ICML 2022).

    Raises:
      ReleaseError: A folder without weights, or with those of another model.
    """
    return mean_params([(folder, load_weights(folder)) for folder in folders])


def mean_params(of: Sequence[tuple[str | Path, dict[str, Any]]]) -> dict[str, Any]:
    """The mean of parameters.

    Args:
        of: The folder and the parameters of each; the folder is for errors.

    Raises:
        ReleaseError: They are not all of one model.
    """
    (first, total), *others = of
    for name, weights in others:
        if jax.tree.map(jnp.shape, weights) != jax.tree.map(jnp.shape, total):
            raise ReleaseError(
                f"The weights in {name} are of another model than those in {first}: they "
                "have no mean. Name folders of one model."
            )
        total = jax.tree.map(jnp.add, total, weights)
    return total if not others else jax.tree.map(lambda p: p / len(of), total)


def stored_weights(params: Any) -> dict[str, Any]:
    """A tree of parameters as it is stored: all but small arrays are rounded.

    Args:
        params: The tree.

    Returns:
        Arrays by dotted name.
    """
    weights: dict[str, Any] = {}
    for name, value in traverse_util.flatten_dict(params, sep=".").items():
        weights |= stored_arrays(name, np.asarray(value))
    return weights


def stored_arrays(name: str, value: np.ndarray) -> dict[str, Any]:
    """A parameter as it is stored.

    Args:
        name: Its dotted name.
        value: The parameter.

    Returns:
        By name: float32; bfloat16; or int8 and its scales, one for all inputs of a feature (of a
        convolution's feature at each position of the kernel).
    """
    if value.size < _ROUNDED_FROM:
        return {name: jnp.asarray(value.astype(np.float32))}
    if value.ndim < 2 or name.startswith(_UPSAMPLING):
        return {name: jnp.asarray(value.astype(jnp.bfloat16))}  # NumPy's need not be compiled
    largest = np.abs(value).max(axis=-2, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return {
        name: jnp.asarray(np.rint(value / scale).astype(np.int8)),
        name + _SCALE: jnp.asarray(scale),
    }


def restored_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Stored weights as a tree of float32 parameters.

    The inverse of `stored_weights`, but for what it rounds.
    """
    flat = {}
    for name, value in weights.items():
        if not name.endswith(_SCALE):
            full = np.asarray(value).astype(np.float32)
            scale = weights.get(name + _SCALE)
            flat[name] = full if scale is None else full * np.asarray(scale)
    return traverse_util.unflatten_dict(jax.device_put(flat), sep=".")
