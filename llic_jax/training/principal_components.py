"""Transforms that start as a cascade of principal component analyses (our choice).

From a random start a codec spends its first hours on finding what is known beforehand: that a
decorrelating transform compresses, and a smooth one first of all. Here each stage's resampling is
set to the best linear one: the blocks of the stage's input, as large as its stride, are projected
onto their principal components, and synthesis gets the transposed matrices. Residual branches start
near zero, so `g_s` after `g_a` is an orthogonal projection, and training sets out from a fair
linear codec.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from llic_jax.ops.shapes import space_to_depth, to_float

_REST = 0.05  # of the random start's size: what the other weights keep


def components(
    images: Iterable[np.ndarray], channels: Sequence[int], strides: Sequence[int]
) -> tuple[Float[np.ndarray, "3"], list[np.ndarray]]:
    """The mean colour, and for each stage an orthonormal matrix.

    Args:
        images: uint8 `(B, H, W, 3)` arrays, sides multiples of 16.
        channels: Of each stage.
        strides: Of each stage.

    Returns:
        The colour, in [0, 1], and matrices `(s^2 C_in, K)` for strides s. K is `channels[stage]`,
        or `s^2 C_in` where that is less; rows run over (row, column, channel).
    """
    features = [to_float(image) for image in images]
    mean = np.mean([f.mean((0, 1, 2)) for f in features], axis=0)
    features = [f - mean for f in features]
    matrices = []
    for most, stride in zip(channels, strides, strict=True):
        blocks = [space_to_depth(f, stride) for f in features]
        flat = np.concatenate([b.reshape(-1, b.shape[-1]) for b in blocks])
        _, vectors = np.linalg.eigh(flat.T.astype(np.float64) @ flat)
        matrix = vectors[:, ::-1][:, :most].astype(np.float32)
        matrices.append(matrix)
        features = [b @ matrix for b in blocks]
    return mean, matrices


def start_from_components(
    params: Any,
    images: Iterable[np.ndarray],
    channels: Sequence[int],
    strides: Sequence[int],
    lmbdas: Sequence[float],
) -> Any:
    """Sets the resampling layers and gains from principal components.

    The gains give each level the quantization step that is best at high rate: with M of the 768
    values of a 16x16 block coded, d(R + lambda 255^2 D) / d step = 0 at step^2 = 4e-4 / lambda.

    Args:
        params: Of `LLIC`; left as they are.
        images: uint8 `(B, H, W, 3)` arrays, sides multiples of 16.
        channels: Of each stage.
        strides: Of each stage.
        lmbdas: Of each quality level.

    Returns:
        The parameters to start from.
    """
    mean, matrices = components(images, channels, strides)
    gains = np.sqrt(np.asarray(lmbdas, np.float32) / 4e-4)
    params = _copy(params)
    for stage, (matrix, stride) in enumerate(zip(matrices, strides, strict=True)):
        rows, k = matrix.shape
        c = rows // stride**2
        down, up = _resampling(params, stage)
        down_kernel, up_kernel = _REST * np.array(down["kernel"]), _REST * np.array(up["kernel"])
        down_kernel[..., :k] = 0
        if stride == 2:
            # With a padding of 2, taps 2 and 3 of 5 see the 2x2 block.
            down_kernel[2:4, 2:4, :c, :k] = matrix.reshape(2, 2, c, k)
        else:
            patches = down_kernel.reshape(stride**2, -1, down_kernel.shape[-1])
            patches[:, :c, :k] = matrix.reshape(stride**2, c, k)
        blocks = up_kernel.reshape(*up_kernel.shape[:3], stride**2, -1)
        blocks[..., :c] = 0
        blocks[1, 1, :k, :, :c] = matrix.T.reshape(k, stride**2, c)
        if stage == len(matrices) - 1 and len(gains) == 1:
            down_kernel *= gains[0]
            blocks = blocks / gains[0]
        down["kernel"] = jnp.asarray(down_kernel)
        up["kernel"] = jnp.asarray(blocks.reshape(up_kernel.shape))
    down, up = _resampling(params, 0)
    k, colours = matrices[0].shape[1], np.tile(mean, strides[0] ** 2)
    down["bias"] = down["bias"].at[:k].set(-colours @ matrices[0])
    up["bias"] = jnp.asarray(colours)
    if len(gains) > 1:
        log_gain = jnp.log(jnp.asarray(gains))[:, None]
        shape = params["gain_y"]["log_gain"].shape
        params["gain_y"]["log_gain"] = jnp.broadcast_to(log_gain, shape)
        params["gain_y"]["log_inverse"] = jnp.broadcast_to(-log_gain, shape)
    return params


def _resampling(params: Any, stage: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kernel and bias of a stage's resampling layers, of `g_a` and of `g_s`."""
    down, up = params["g_a"][f"down_{stage}"], params["g_s"][f"up_{stage}"]
    return down.get("embed", down)["conv"], up["expand"]["conv"]


def _copy(tree: Any) -> Any:
    return {k: _copy(v) for k, v in tree.items()} if isinstance(tree, dict) else tree
