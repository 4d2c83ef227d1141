"""Networks as chains of local layers, which can be computed band by band (`execution/bands.py`)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llic_jax.layers.platform import target_platform
from llic_jax.layers.quality import Quality


class Locality(NamedTuple):
    """How a layer is confined to a part of an array, for bands and canvases (`execution/`).

    Output row `i` depends on input row `i * stride // upsampling` and on `radius` rows to either
    side, with zeros beyond the image; columns likewise.

    Attributes:
        radius: In input rows.
        stride: Input rows for each output row.
        upsampling: Output rows for each input row.
        features: Channels of the output; None: as the input has.
        uses_global_mean: It depends on the mean over all positions as well
            (`mean_over_positions`), and takes it as an optional second argument.
        takes_quality: It depends on the quality as well, and takes it as `quality=`.
        leaks: Its output can be non-zero beyond the image although its input is zero there, because
            of a bias or of neighbouring pixels. Layers within it speak for themselves.
        takes_covered: It depends on where in the image a position lies, and takes as an optional
            second argument which positions there are. It cannot be computed in bands.
    """

    radius: int = 0
    stride: int = 1
    upsampling: int = 1
    features: int | None = None
    uses_global_mean: bool = False
    takes_quality: bool = False
    leaks: bool = False
    takes_covered: bool = False


class Local(nn.Module):
    """A layer, NHWC, that declares how it is confined. Its `dtype` is its output's."""

    @property
    def locality(self) -> Locality:
        """Position by position, zero where the input is, if a layer says nothing else."""
        return Locality()


class Chain(nn.Module):
    """Layers one after the other, `(B, H, W, C)` to `(B, H', W', C')`.

    A call takes the quality of each sample, `(B,)`, for the layers that depend on it.
    """

    @nn.nowrap
    def layers(self) -> Sequence[nn.Module]:
        """The layers in order, each with the name that its parameters go by."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], quality: Quality | None = None
    ) -> Float[Array, "b out_h out_w out_c"]:
        for layer in self.layers():
            x = layer(x, **quality_argument(layer, quality))
        return x


def quality_argument(layer: nn.Module, quality: Quality | None) -> dict[str, Any]:
    """The keyword arguments that hand a layer the quality, if it depends on it.

    Args:
        layer: Of a chain, or a chain itself.
        quality: Of each sample; None for a model of one rate.
    """
    takes = layer.locality.takes_quality if isinstance(layer, Local) else isinstance(layer, Chain)
    return {"quality": quality} if takes else {}


def flatten(chain: Chain, params: Any) -> list[tuple[nn.Module, Any]]:
    """Flattens a chain of chains.

    Args:
        chain: The chain.
        params: Its parameters.

    Returns:
        The layers in order, without names, each with its parameters.
    """
    return with_params(flat_layers(chain), params)


def flat_layers(
    chain: Chain, path: tuple[str, ...] = ()
) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """The layers of a chain of chains in order.

    Args:
        chain: The chain.
        path: Of the chain's own parameters within a larger tree.

    Yields:
        Each layer, without its name, and the path of its parameters.
    """
    for layer in chain.layers():
        inner = (*path, layer.name or "")
        if isinstance(layer, Chain):
            yield from flat_layers(layer, inner)
        else:
            # Without their names, layers of the same kind and shape share compiled programs.
            yield layer.clone(name=None), inner


def with_params(
    layers: Iterable[tuple[nn.Module, tuple[str, ...]]], params: Any
) -> list[tuple[nn.Module, Any]]:
    """Joins layers and their parameters.

    Args:
        layers: From `flat_layers`.
        params: The chain's parameters.

    Returns:
        Each layer with its parameters; {} for a layer that has none.
    """

    def at(path: tuple[str, ...]) -> Any:
        found = params
        for name in path:
            found = found.get(name, {})
        return found

    return [(layer, at(path)) for layer, path in layers]


@jax.custom_vjp
def mean_over_positions(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """float32 whatever the type of `x`: it adds up the whole image."""
    if target_platform() != "cpu":
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
    # A product with ones: as fast as memory, where XLA's own sum takes three times as long.
    flat = x.reshape(len(x), -1, x.shape[-1])
    ones = jnp.ones((len(x), 1, flat.shape[1]), x.dtype)
    total = jnp.matmul(ones, flat, preferred_element_type=jnp.float32)
    return total[:, 0] / flat.shape[1]


def _mean_forward(x: Array) -> tuple[Array, Array]:
    return mean_over_positions(x), jnp.empty((x.shape[1], x.shape[2], 0), x.dtype)


def _mean_backward(like: Array, g: Array) -> tuple[Array]:
    height, width, _ = like.shape
    each = (g / (height * width)).astype(like.dtype)[:, None, None]
    return (jnp.broadcast_to(each, (len(g), height, width, g.shape[-1])),)


mean_over_positions.defvjp(_mean_forward, _mean_backward)
