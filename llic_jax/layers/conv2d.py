"""Dense K x K convolutions, plain and transposed, and their gradients (our choice).

    forward     XLA's convolution; in training on a GPU the product of patches
    gradients   GPU: products of patches; CPU: products where they are faster; elsewhere XLA's

On a GPU, XLA hands a convolution to cuDNN, and chooses among its algorithms by trying them there:
minutes of compiling, and nothing that can be compiled ahead of time (docs/ahead_of_time.md). What
is trained on a GPU has no cuDNN in it therefore. Patches take K^2 times the memory of an image, so
what is only run forward, on images of any size, keeps XLA's convolution.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llic_jax.layers.platform import target_platform
from llic_jax.layers.types import at_least_float32
from llic_jax.ops.shapes import depth_to_space

_NHWC = ("NHWC", "HWIO", "NHWC")
# A transposed convolution's output o meets input i by tap a where o + a - _SHIFT = 2 i.
_SHIFT = 3
_LARGEST_BY_PARITY = 5  # side of a kernel that a 3x3 patch holds all taps of, at stride 2


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(
    x: Float[Array, "b h w c"], kernel: Any, stride: int = 1
) -> Float[Array, "b out_h out_w features"]:
    """K x K convolution, K odd, with zero padding `K // 2` on every side.

    Args:
        x: The input.
        kernel: `(K, K, C, features)`, of any array type: JAX's own lazy initialization hands
            NumPy's on.
        stride: In both directions.

    Returns:
        `(B, ceil(H / stride), ceil(W / stride), features)`.
    """
    return _direct(x, kernel, stride)


def _direct(x: Array, kernel: Any, stride: int) -> Array:
    pad = kernel.shape[0] // 2
    padding = ((pad, pad), (pad, pad))
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_NHWC
    )


def _conv2d_forward(x: Array, kernel: Any, stride: int) -> tuple[Array, tuple[Array, Any]]:
    if target_platform() == "gpu":
        return patch_product(x, kernel, stride), (x, kernel)
    return _direct(x, kernel, stride), (x, kernel)


def _conv2d_backward(stride: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    size, _, c, features = kernel.shape
    pad, platform = size // 2, target_platform()
    direct: Callable[[Array, Array], Array] = partial(_direct, stride=stride)
    even = stride == 2 and not (x.shape[1] % 2 or x.shape[2] % 2)
    if platform == "gpu" and (stride == 1 or (even and size <= _LARGEST_BY_PARITY)):
        if stride == 1:
            by_x = patch_product(g, kernel[::-1, ::-1].swapaxes(2, 3))
        else:
            by_x = _by_parity(g, kernel.swapaxes(2, 3), lambda p, d: p + pad - 2 * d)
        return by_x, _kernel_gradient(x, g, size, stride, (pad, pad))
    if platform == "cpu" and even:
        by_kernel = _strided_kernel_gradient(x, g, size, pad)
        return _strided_input_gradient(kernel, g), by_kernel
    if platform == "cpu" and stride == 1 and size**2 * features <= c:
        _, pull = jax.vjp(lambda x: direct(x, kernel), x)
        return *pull(g), _narrow_kernel_gradient(x, g, size)
    return jax.vjp(direct, x, kernel)[1](g)


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


@jax.custom_vjp
def conv2d_transpose(
    x: Float[Array, "b h w c"], kernel: Any
) -> Float[Array, "b out_h out_w features"]:
    """Transposed 5x5 convolution to twice the size.

    Output `o` meets input `i` by tap `a` where `o + a - 3 = 2 i`.

    Args:
        x: The input.
        kernel: `(5, 5, C, features)`.

    Returns:
        `(B, 2 H, 2 W, features)`.
    """
    return _transposed(x, kernel)


def _transposed(x: Array, kernel: Any) -> Array:
    return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=_NHWC)


def _conv2d_transpose_forward(x: Array, kernel: Any) -> tuple[Array, tuple[Array, Any]]:
    if target_platform() == "gpu":
        return _by_parity(x, kernel, lambda p, d: _SHIFT - p + 2 * d), (x, kernel)
    return _transposed(x, kernel), (x, kernel)


def _conv2d_transpose_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    size, platform = kernel.shape[0], target_platform()
    # Seen from the output it is a convolution of stride 2, its taps in reverse.
    if platform == "gpu":
        around = (size - 1 - _SHIFT, _SHIFT - 1)
        by_x = patch_product(g, kernel[::-1, ::-1].swapaxes(2, 3), 2, around)
        by_taps = _kernel_gradient(g, x, size, 2, around)
        return by_x, by_taps[::-1, ::-1].swapaxes(2, 3)
    if platform == "cpu":  # where XLA has a plain loop for the gradient by the kernel
        _, pull = jax.vjp(lambda x: _transposed(x, kernel), x)
        by_taps = _strided_kernel_gradient(g, x, size, pad=1)
        return *pull(g), by_taps[::-1, ::-1].swapaxes(2, 3)
    return jax.vjp(_transposed, x, kernel)[1](g)


conv2d_transpose.defvjp(_conv2d_transpose_forward, _conv2d_transpose_backward)


def patch_product(
    x: Float[Array, "b h w c"],
    kernel: Any,
    stride: int = 1,
    around: tuple[int, int] | None = None,
) -> Float[Array, "b out_h out_w features"]:
    """A convolution as one matrix product.

    Of the patches of `x` with the kernel. With few features it is the product of `x` with every
    tap, whose results are then shifted and added: less to write and read.

    Args:
        x: The input.
        kernel: `(K, K, C, features)`.
        stride: In both directions.
        around: Zeros before and behind, in both directions; `K // 2` by default.
    """
    size, _, c, features = kernel.shape
    around = around or (size // 2, size // 2)
    wide = at_least_float32(x.dtype)
    if stride == 1 and features * jnp.dtype(wide).itemsize < c * x.dtype.itemsize:
        taps = jnp.moveaxis(jnp.asarray(kernel), 2, 0).reshape(c, -1)
        flat = jnp.matmul(x.reshape(-1, c), taps, preferred_element_type=wide)
        products = flat.reshape(*x.shape[:3], size * size, features)
        h, w = (side + sum(around) - size + 1 for side in x.shape[1:3])
        products = jnp.pad(products, ((0, 0), around, around, (0, 0), (0, 0)))
        shifted = (
            products[:, i : i + h, j : j + w, size * i + j]
            for i, j in itertools.product(range(size), repeat=2)
        )
        return sum(shifted, start=jnp.zeros((), wide)).astype(x.dtype)
    columns = patches(x, size, stride, around)
    flat = columns.reshape(-1, size * size * c) @ jnp.asarray(kernel).reshape(-1, features)
    return flat.reshape(*columns.shape[:3], features)


def patches(
    x: Float[Array, "b h w c"], size: int, stride: int, around: tuple[int, int]
) -> Float[Array, "b out_h out_w patch"]:
    """The patch that each output of a convolution sees, as channels in the order of its kernel.

    Args:
        x: The input.
        size: Side of a patch.
        stride: In both directions.
        around: Zeros before and behind, in both directions.
    """
    padded = jnp.pad(x, ((0, 0), around, around, (0, 0)))
    h, w = (stride * ((side - size) // stride) + 1 for side in padded.shape[1:3])
    starts = itertools.product(range(size), repeat=2)
    shifted = [padded[:, i : i + h : stride, j : j + w : stride] for i, j in starts]
    return jnp.concatenate(shifted, axis=-1)


def _kernel_gradient(x: Array, g: Array, size: int, stride: int, around: tuple[int, int]) -> Array:
    """The gradient by the kernel, as one product over all positions."""
    c, features = x.shape[-1], g.shape[-1]
    if stride == 1 and features < c:
        return _narrow_kernel_gradient(x, g, size)
    columns = patches(x, size, stride, around).reshape(-1, size * size * c)
    gradient = columns.T @ g.reshape(-1, features)
    return gradient.reshape(size, size, c, features)


def _by_parity(x: Array, kernel: Array, tap: Callable[[int, int], int]) -> Array:
    """Twice the size, as one product: the 3x3 patch around an input gives 2x2 outputs.

    Args:
        x: `(B, H, W, C)`.
        kernel: `(K, K, C, features)`, K at most `_LARGEST_BY_PARITY`.
        tap: By which output `2 i + p` meets input `i + d`, for parity p and d of -1, 0 and 1; none
            if it is not from 0 to K - 1.
    """
    size, _, c, features = kernel.shape
    met = np.array([[tap(p, d) for p in (0, 1)] for d in (-1, 0, 1)])
    met[(met < 0) | (met >= size)] = size  # a tap of zeros
    with_zeros = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    # (row d, column d, row p, column p, C, features) to (row d, column d, C, row p, column p, ...)
    spread = with_zeros[met[:, None, :, None], met[None, :, None, :]].transpose(0, 1, 4, 2, 3, 5)
    return depth_to_space(patch_product(x, spread.reshape(3, 3, c, 4 * features)))


def _strided_input_gradient(kernel: Array, g: Array) -> Array:
    """The gradient by the input of a convolution of stride 2.

    One dense convolution of `g` for each of the four parities of an input position, with the taps
    that meet it. XLA's own spreads `g` out with zeros in between and multiplies with those too.
    """
    pad = kernel.shape[0] // 2
    kernel = kernel.swapaxes(2, 3)
    parts = []
    for parity in itertools.product((0, 1), repeat=2):
        # Input 2 i + p meets output o by tap a where 2 o + a - pad = 2 i + p.
        taps: Sequence[range] = [range((p + pad) % 2, kernel.shape[0], 2) for p in parity]
        padding = [
            ((a[-1] - p - pad) // 2, (p + pad - a[0]) // 2)
            for p, a in zip(parity, taps, strict=True)
        ]
        met = kernel[taps[0].start :: 2, taps[1].start :: 2][::-1, ::-1]
        parts.append(jax.lax.conv_general_dilated(g, met, (1, 1), padding, dimension_numbers=_NHWC))
    return depth_to_space(jnp.concatenate(parts, axis=-1))


def _strided_kernel_gradient(x: Array, g: Array, size: int, pad: int) -> Array:
    """The gradient by the kernel of a convolution of stride 2: a product for every tap.

    There are `pad` zeros before the first row and column.
    """
    _, h, w, features = g.shape
    c = x.shape[-1]
    around = (pad, size - 1 - pad)
    padded = jnp.pad(x, ((0, 0), around, around, (0, 0)))
    # Of each parity of a position, so that a tap's inputs lie side by side.
    even_odd = [[padded[:, i::2, j::2] for j in (0, 1)] for i in (0, 1)]
    flat = g.reshape(-1, features)

    def of_tap(i: int, j: int) -> Array:
        met = even_odd[i % 2][j % 2][:, i // 2 : i // 2 + h, j // 2 : j // 2 + w]
        return met.reshape(-1, c).T @ flat

    taps = [of_tap(i, j) for i in range(size) for j in range(size)]
    return jnp.stack(taps).reshape(size, size, c, features)


def _narrow_kernel_gradient(x: Array, g: Array, size: int) -> Array:
    """The gradient by the kernel of a convolution to few features.

    One product of `x` with `g` at all its `size^2` shifts, side by side.
    """
    b, h, w, c = x.shape
    pad = size // 2
    padded = jnp.pad(g, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    starts = [2 * pad - i for i in range(size)]
    shifted = [padded[:, i : i + h, j : j + w] for i in starts for j in starts]
    columns = jnp.concatenate(shifted, axis=-1).reshape(b * h * w, -1)
    gradient = (x.reshape(-1, c).T @ columns).reshape(c, size, size, -1)
    return gradient.transpose(1, 2, 0, 3)
