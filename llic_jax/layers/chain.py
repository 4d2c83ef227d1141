"""Networks as chains of local layers, which can be computed band by band (`execution/bands.py`)."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llic_jax.layers.platform import target_platform
from llic_jax.layers.quality import Quality


class Locality(NamedTuple):
    """Output row `i` of a layer depends on input row `i * stride // up` and on `reach` rows to
    either side, with zeros beyond the image; columns likewise.

    features: channels of the output; None: as the input has.
    pools: the layer depends on the mean over all positions as well (`mean_over_positions`), and
        takes it as an optional second argument.
    takes_quality: it depends on the quality as well, and takes it as `quality=`.
    """

    reach: int = 0
    stride: int = 1
    up: int = 1
    features: int | None = None
    pools: bool = False
    takes_quality: bool = False


class Local(nn.Module):
    """A layer, NHWC, that can be computed from a part of the image. Its `dtype` is its output's."""

    @property
    def locality(self) -> Locality:
        """Position by position, if a layer says nothing else."""
        return Locality()


class Chain(nn.Module):
    """Layers one after the other."""

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
    """The quality, for a layer that takes it."""
    takes = layer.locality.takes_quality if isinstance(layer, Local) else isinstance(layer, Chain)
    return {"quality": quality} if takes else {}


def flatten(chain: Chain, params: Any) -> Iterator[tuple[nn.Module, Any]]:
    """The layers of a chain of chains in order, nameless, each with its parameters."""
    for layer in chain.layers():
        inner = params.get(layer.name, {})
        if isinstance(layer, Chain):
            yield from flatten(layer, inner)
        else:
            # Without their names, layers of the same kind and shape share compiled programs.
            yield layer.clone(name=None), inner


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
