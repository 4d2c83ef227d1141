"""The analysis and the synthesis transform, `g_a` and `g_s`, made of the blocks."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from llic_jax.layers.chain import Chain
from llic_jax.layers.convolutions import Conv, PatchEmbedding, SubpixelConv
from llic_jax.layers.quality import Quality
from llic_jax.layers.types import at_least_float32
from llic_jax.transforms.blocks import BasicBlock, BlockStyle


class _Transform(Chain):
    """The sizes of both transforms. All tuples run from the image to the latent.

    The layer that yields the latent or the image is computed in float32 whatever `dtype` is, unless
    it is a block: bfloat16 has steps of 1/256 near white, and of 1/4 where a latent is beyond 32.

    Attributes:
        channels: After each stage; the paper's N, N, N, M = 192, 192, 192, 320.
        kernel_sizes: Of the spatial transforms in each stage (paper).
        depths: Basic blocks in each stage; the paper's 1, 1, 3, 1 for both transforms.
        strides: Of each stage, 2 or more. At 2 (paper) it resamples by `Conv` 5x5 and
            `SubpixelConv`; beyond, by `PatchEmbedding` and `SubpixelConv` (our choice).
        style: Switches of the blocks.
        levels: Of quality, if it scales the residual branches (`BranchGain`); 1: it does not.
        remat: Recomputes each block in the backward pass instead of keeping its activations.
        dtype: Of the computation.
    """

    channels: tuple[int, ...] = (192, 192, 192, 320)
    kernel_sizes: tuple[int, ...] = (11, 11, 9, 9)
    depths: tuple[int, ...] = (1, 1, 3, 1)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    style: BlockStyle = BlockStyle()
    levels: int = 1
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.nowrap
    def _blocks(self, stage: int, inverse: bool) -> list[nn.Module]:
        block = nn.remat(BasicBlock) if self.remat else BasicBlock
        return [
            block(
                self.kernel_sizes[stage],
                inverse,
                self.style,
                self.levels,
                dtype=self.dtype,
                name=f"block_{stage}_{i}",
            )
            for i in range(self.depths[stage])
        ]


class AnalysisTransform(_Transform):
    """`g_a`: image `(B, H, W, 3)` in [0, 1] to latent `(B, H/16, W/16, M)`, float32."""

    @nn.nowrap
    def layers(self) -> Sequence[nn.Module]:
        layers: list[nn.Module] = []
        for stage, channels in enumerate(self.channels):
            stride, name = self.strides[stage], f"down_{stage}"
            last = stage == len(self.channels) - 1 and not self.depths[stage]
            dtype = at_least_float32(self.dtype) if last else self.dtype
            if stride == 2:
                layers.append(Conv(channels, 5, stride=2, dtype=dtype, name=name))
            else:
                layers.append(PatchEmbedding(channels, stride, dtype=dtype, name=name))
            layers += self._blocks(stage, inverse=False)
        return layers

    def __call__(
        self, x: Float[Array, "b h w 3"], quality: Quality | None = None
    ) -> Float[Array, "b h16 w16 m"]:
        return super().__call__(x, quality).astype(jnp.float32)


class SynthesisTransform(_Transform):
    """`g_s`: decoded latent `(B, H/16, W/16, M)` to image `(B, H, W, 3)`, float32, not clipped.

    `depths` runs from the image to the latent here too, so the paper's [1, 3, 1, 1] of decoding
    order is (1, 1, 3, 1).
    """

    @nn.nowrap
    def layers(self) -> Sequence[nn.Module]:
        layers: list[nn.Module] = []
        for stage in reversed(range(len(self.channels))):
            layers += self._blocks(stage, inverse=True)
            features = self.channels[stage - 1] if stage else 3
            dtype = self.dtype if stage else at_least_float32(self.dtype)
            up = SubpixelConv(features, self.strides[stage], dtype=dtype, name=f"up_{stage}")
            layers.append(up)
        return layers

    def __call__(
        self, y_hat: Float[Array, "b h16 w16 m"], quality: Quality | None = None
    ) -> Float[Array, "b h w 3"]:
        return super().__call__(y_hat, quality).astype(jnp.float32)
