"""Networks as chains of local layers, which can be computed band by band (`llic_jax/bands.py`)."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Locality(NamedTuple):
    """Output row `i` of a layer depends on input row `i * stride // up` and on `reach` rows to
    either side, with zeros beyond the image; columns likewise.

    features: channels of the output; None: as the input has.
    pools: the layer depends on the mean over all positions as well (`mean_over_positions`), and
        takes it as an optional second argument.
    """

    reach: int = 0
    stride: int = 1
    up: int = 1
    features: int | None = None
    pools: bool = False


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
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b out_h out_w out_c"]:
        for layer in self.layers():
            x = layer(x)
        return x


def flatten(chain: Chain, params: Any) -> Iterator[tuple[nn.Module, Any]]:
    """The layers of a chain of chains in order, nameless, each with its parameters."""
    for layer in chain.layers():
        inner = params.get(layer.name, {})
        if isinstance(layer, Chain):
            yield from flatten(layer, inner)
        else:
            # Without their names, layers of the same kind and shape share compiled programs.
            yield layer.clone(name=None), inner


def mean_over_positions(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """float32 whatever the type of `x`: it adds up the whole image."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
