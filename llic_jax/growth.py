"""Weights of a model for a larger one, which at first computes the same.

After Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer" (ICLR 2016); how the new
weights start is our choice. The transforms may have more channels in a stage, more blocks, and
branch gains:

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
        or old.ndim != fresh.ndim
        or any(fresh.shape[axis] != size for axis, size in kept.items())
        or any(fresh.shape[axis] < old.shape[axis] for axis in widened)
    ):
        raise _unfit(f"{name} is {old.shape} there and {fresh.shape} here")
    places = np.arange(fresh.shape[-1]).reshape(runs, -1)[:, : old.shape[-1] // runs].ravel()
    grown = np.array(fresh)
    if len(widened) == 1:
        grown[..., places] = old
    else:
        grown[..., places] = 0
        grown[..., : old.shape[-2], places] = old
    return jnp.asarray(grown)


def _runs(path: Path, params: dict[Path, Any]) -> int:
    """How many times a layer's output axis holds all channels, one run after the other: the halves
    of a gate, the four pixels of a subpixel convolution, the positions of a generated kernel."""
    if "expand" in path:
        return 2 if "gate" in path else 4
    if "fc2" in path and "scst" in path:
        generator = path.index("generator")
        values = params[*path[: generator + 1], "fc2", "bias"].shape[-1]
        return values // params[*path[:generator], "conv_in", "conv", "bias"].shape[-1]
    return 1


def _unfit(what: str) -> ConfigError:
    return ConfigError(
        f"train.start: these weights are not of this model: {what}. Use the config that they were "
        "trained with, or one whose transforms have more channels in a stage or more blocks."
    )
