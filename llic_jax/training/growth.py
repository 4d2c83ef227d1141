"""Weights of a model for a larger one, which at first computes the same.

After Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer" (ICLR 2016); how the new
weights start is our choice. The transforms may have more channels in a stage, more blocks, wider
weight generators, and branch gains; their strides stay:

    kernel of a layer       to old channels    to new channels
    from old channels       as it was          fresh
    from new channels       zero               fresh

So old channels never see the new ones at first, and hold what they held; the zeros learn from the
first step on, since what they multiply is not zero. Blocks and branch gains that are new start
fresh: a fresh block is next to nothing beside its residual connection (`RESIDUAL_SCALE`), a fresh
gain is one.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from llic_jax.errors import ConfigError

Path = tuple[str, ...]


def grow(fresh: Any, weights: Any) -> Any:
    """`weights` in a model whose fresh parameters are `fresh`: the larger or the same.

    Raises:
      ConfigError: the model is not one that the weights can grow to.
    """
    fresh, weights = flatten_dict(fresh), flatten_dict(weights)
    if odd := [path for path in weights if path not in fresh]:
        raise _unfit(f"they have {'.'.join(odd[0])}, which this model has not")
    return unflatten_dict({path: _grown(path, fresh, weights) for path in fresh})


def _grown(path: Path, larger: dict[Path, Any], weights: dict[Path, Any]) -> Any:
    """The parameter at `path`, of the larger model's shape."""
    fresh, old = larger[path], weights.get(path)
    transform, name = path[0] in ("g_a", "g_s"), ".".join(path)
    if old is None:
        if path[-1] == "branch_gain" or (transform and path[1].startswith("block_")):
            return fresh
        raise _unfit(f"they have no {name}")
    if old.shape == fresh.shape:
        return old
    widened = [-1, -2] if path[-1] == "kernel" and path[-2] in ("conv", "fc1", "fc2") else [-1]
    kept = {axis: size for axis, size in enumerate(old.shape, -old.ndim) if axis not in widened}
    if (
        not transform
        or _runs(path, larger) != (runs := _runs(path, weights))
        or _patch(path, larger) != (patch := _patch(path, weights))
        or old.ndim != fresh.ndim
        or any(fresh.shape[axis] != size for axis, size in kept.items())
        or any(fresh.shape[axis] < old.shape[axis] for axis in widened)
    ):
        raise _unfit(f"{name} is {old.shape} there and {fresh.shape} here")
    places = _first_of_each(runs, old.shape[-1], fresh.shape[-1])
    grown = np.array(fresh)
    if len(widened) == 1:
        grown[..., places] = old
    else:
        grown[..., places] = 0
        rows = _first_of_each(patch, old.shape[-2], fresh.shape[-2])
        grown[..., rows[:, None], places] = old
    return jnp.asarray(grown)


def _first_of_each(runs: int, old: int, new: int) -> np.ndarray:
    """Where an axis of `runs` runs has its `old` places when it grows to `new`.

    They are at the beginning of each run.
    """
    return np.arange(new).reshape(runs, -1)[:, : old // runs].ravel()


def _runs(path: Path, params: dict[Path, Any]) -> int:
    """How many times a layer's output axis holds all channels, one run after the other.

    Runs are the halves of a gate, the pixels of a subpixel convolution, the positions of a
    generated kernel.
    """
    if "expand" in path:
        return 2 if "gate" in path else _pixels(path[1], params)
    if "fc2" in path and "scst" in path:
        generator = path.index("generator")
        values = params[*path[: generator + 1], "fc2", "bias"].shape[-1]
        return values // params[*path[:generator], "conv_in", "conv", "bias"].shape[-1]
    return 1


def _patch(path: Path, params: dict[Path, Any]) -> int:
    """How many times a layer's input axis holds all channels: the pixels of a patch embedding."""
    embeds = path[1].startswith("down_") and "embed" in path
    return _pixels(path[1], params) if embeds else 1


def _pixels(layer: str, params: dict[Path, Any]) -> int:
    """The square of the stride of the resampling layer `down_I` or `up_I`."""
    stage = int(layer.rpartition("_")[2])
    kernel = params.get(("g_a", f"down_{stage}", "embed", "conv", "kernel"))
    if kernel is None:
        return 4
    before = ("g_a", f"down_{stage - 1}")
    channels = [p.shape[-1] for path, p in params.items() if path[:2] == before]
    return kernel.shape[-2] // (channels[0] if stage else 3)


def _unfit(what: str) -> ConfigError:
    return ConfigError(
        f"train.start: these weights are not of this model: {what}. Use the config that they were "
        "trained with, or one of the same model.strides whose transforms have more channels in a "
        "stage or more blocks."
    )
