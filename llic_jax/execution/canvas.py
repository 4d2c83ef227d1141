"""Runs images of many sizes through few compiled programs.

XLA compiles a program for every shape, which takes longer than to code a photograph. So an image is
put into the corner of a larger array, its canvas. There are few sizes of canvas. The program is
told how much of the canvas the image covers.

The result is that of the image's own size, up to rounding:

* Before every layer, whatever lies beyond the image is set to zero. Zeros are what a layer's own
  padding puts there.
* Means are taken over the image alone.
* Attention sees positions of the image alone.

Only the image's part of the latent is coded. (All our choice.)

Arrays of NumPy are put onto the canvas on the host, which compiles nothing. Those of JAX are put
onto it where they lie, by a program for every size of image.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from llic_jax.execution.program_cache import cached_jit
from llic_jax.layers.chain import Local, mean_over_positions
from llic_jax.ops.shapes import to_float
from llic_jax.ops.sizes import HYPER_STRIDE, pad_to_multiple, round_up

_Result = TypeVar("_Result")


@flax.struct.dataclass
class Canvas:
    """How large the arrays are, and how much of them is image.

    Attributes:
        blocks: Height and width in blocks of `HYPER_STRIDE` pixels, the size of `z`. Part of a
            program's identity.
        used: Blocks that the image covers, two integers in an array, known when a program runs;
            None: all of them.
    """

    blocks: tuple[int, int] = flax.struct.field(pytree_node=False)
    used: Any = None

    @classmethod
    def of_size(cls, height: int, width: int) -> "Canvas":
        """The size of an image of `height` x `width` pixels, rounded up to whole blocks."""
        rows, columns = (round_up(side, HYPER_STRIDE) for side in (height, width))
        return cls((rows // HYPER_STRIDE, columns // HYPER_STRIDE))

    def unpadded(self) -> "Canvas":
        """The image without a canvas around it."""
        if self.used is None:
            return self
        height, width = map(int, self.used)
        return Canvas((height, width))

    def standard_size(self) -> "Canvas":
        """The smallest of the few canvases that an image of this size fits on."""
        height, width = map(_standard_length, self.blocks)
        if (height, width) == self.blocks:
            return self
        return Canvas((height, width), np.array(self.blocks, np.int32))

    def place_images(
        self, images: Sequence[UInt8[Array | np.ndarray, "_ _ 3"]]
    ) -> Float[Array | np.ndarray, "b h w 3"]:
        """Images in [0, 1] on the canvas, padded to whole blocks (`pad_to_multiple`).

        Args:
            images: Of sizes that are the canvas's image when rounded up to blocks.

        Returns:
            Of JAX if one of them is: then no pixel of JAX's arrays has been on the host.
        """
        on_host = [image for image in images if isinstance(image, np.ndarray)]
        if len(on_host) == len(images):
            padded = np.concatenate([pad_to_multiple(image[None]) for image in on_host])
            return self.place(to_float(padded))
        placed = [_place_image(self.blocks, jnp.asarray(image)) for image in images]
        return placed[0] if len(placed) == 1 else _concatenate(*placed)

    def place(self, x: Any) -> Any:
        """An array of the image's size, on the canvas, with zeros beyond.

        Args:
            x: `(B, h, w, C)`, at whatever resolution, of NumPy or JAX, as is the result.
        """
        if self.used is None:
            return x
        height, width = self._sizes(x.shape, self.used, self.blocks)
        if isinstance(x, Array):
            return _enlarge(x, height, width)
        whole = np.zeros((x.shape[0], height, width, x.shape[3]), x.dtype)
        whole[:, : x.shape[1], : x.shape[2]] = x
        return whole

    def crop(self, x: Any) -> Any:
        """The image's part of an array of the canvas's size.

        Args:
            x: `(B, H, W, C)`, at whatever resolution, of NumPy or JAX, as is the result.
        """
        if self.used is None:
            return x
        height, width = self._sizes(x.shape, self.blocks, self.used)
        return _cut(x, height, width) if isinstance(x, Array) else x[:, :height, :width]

    def mask(self, x: Array) -> Array:
        """`x`, zero wherever there is no image. Within a program, as are the following methods."""
        return x if self.used is None else jnp.where(self.covers(x), x, jnp.zeros_like(x))

    def covers(self, x: Array) -> Bool[Array, "1 h w 1"]:
        """Where there is image in an array of the canvas's size.

        Args:
            x: `(B, H, W, C)`, at whatever resolution.
        """
        inside = [
            jnp.arange(length) < used * length // blocks
            for length, used, blocks in zip(x.shape[1:3], self.used, self.blocks, strict=True)
        ]
        return (inside[0][:, None] & inside[1])[None, :, :, None]

    def apply(self, call: Callable[[], _Result]) -> _Result:
        """What `call` returns, the model's layers in it confined to the image.

        Each layer is confined as it declares (`Locality`). Layers that declare nothing, as those of
        other packages, may show what lies beyond the image: `LLIC.on_canvas`.
        """
        if self.used is None:
            return call()
        with nn.intercept_methods(self._confine):
            return call()

    def _confine(self, method: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if context.method_name != "__call__" or not isinstance(layer, Local):
            return method(*args, **kwargs)
        locality = layer.locality
        if locality.uses_global_mean:
            (x,) = args
            # The mean over the canvas, to that over the image: there is nothing else on it.
            share = jnp.prod(self.used / np.array(self.blocks, np.float32))
            args = (x, mean_over_positions(x) / share)
        if locality.takes_covered:
            args = (*args, self.covers(args[0]))
        out = method(*args, **kwargs)
        return self.mask(out) if locality.leaks else out

    @staticmethod
    def _sizes(shape: tuple[int, ...], found: Any, wanted: Any) -> tuple[int, int]:
        height, width = (
            int(length) * int(new) // int(old)
            for length, old, new in zip(shape[1:3], found, wanted, strict=True)
        )
        return height, width


def cut_image(
    images: UInt8[Array, "b h w 3"], i: int, height: int, width: int
) -> UInt8[Array, "height width 3"]:
    """One image of several on a canvas, on their device.

    Args:
        images: On the canvas.
        i: Number of the image.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    return _cut_image(images, np.int32(i), height, width)


@partial(cached_jit, static_argnums=(2, 3))
def _cut_image(images: Array, i: Array, height: int, width: int) -> Array:
    return jax.lax.dynamic_index_in_dim(images, i, keepdims=False)[:height, :width]


@partial(cached_jit, static_argnums=(0,))
def _place_image(
    blocks: tuple[int, int], image: UInt8[Array, "h w 3"]
) -> Float[Array, "1 canvas_h canvas_w 3"]:
    height, width, _ = image.shape
    padded = jnp.pad(
        image, ((0, -height % HYPER_STRIDE), (0, -width % HYPER_STRIDE), (0, 0)), "edge"
    )
    # XLA divides by a constant less exactly than NumPy does; a table has NumPy's own values.
    values = jnp.asarray(to_float(np.arange(256, dtype=np.uint8)))
    x = values.at[padded].get(mode="promise_in_bounds")[None]
    return _enlarge(x, *(HYPER_STRIDE * side for side in blocks))


@cached_jit
def _concatenate(*images: Array) -> Array:
    return jnp.concatenate(images)


@partial(cached_jit, static_argnums=(1, 2))
def _enlarge(x: Array, height: int, width: int) -> Array:
    return jnp.pad(x, ((0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]), (0, 0)))


@partial(cached_jit, static_argnums=(1, 2))
def _cut(x: Array, height: int, width: int) -> Array:
    return x[:, :height, :width]


def _standard_length(blocks: int) -> int:
    """1, 2, 3, 4, 6, 8 .. 16, 20 .. 32, 40 ..: four sizes or more to every octave."""
    step = 1 if blocks <= 4 else max(2, 1 << ((blocks - 1).bit_length() - 3))
    return round_up(blocks, step)
