"""The gate as one fused kernel each way, on GPUs that are asked for it.

XLA writes and reads what lies between a gate's two products: six arrays of the input's size going
forward, some twenty going backward. `gate_gpu.py` does not. `LLIC_PALLAS_FUSED=1` in the
environment turns it on; it is off until a GPU has shown that it is right and faster there
(`benchmarks/first_minute.py` times a step both ways).
"""

import math
import os
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from llic_jax.layers.platform import target_platform
from llic_jax.layers.types import Feature
from llic_jax.ops.quantization import clip_values


def fusing() -> bool:
    """Whether gates that are traced now may be fused."""
    return os.environ.get("LLIC_PALLAS_FUSED", "0") == "1" and target_platform() == "gpu"


def fused_kernels(shape: tuple[int, ...], dtype: DTypeLike) -> ModuleType | None:
    """The module of fused kernels for the platform that is traced for.

    A tile takes 16 channels at least, and offsets have 32 bits.

    Args:
        shape: Of the gate's input, `(B, H, W, C)`.
        dtype: Of the gate's input.

    Returns:
        The module. None where there is none, where it does not take an input of this shape and
        type, or unless `LLIC_PALLAS_FUSED=1`.
    """
    fits = shape[-1] >= 16 and 0 < 2 * math.prod(shape) < 2**31
    if not fusing() or not fits or dtype not in (jnp.float32, jnp.bfloat16):
        return None
    try:
        from llic_jax.layers.kernels import gate_gpu
    except ImportError:  # a JAX without Pallas for this platform
        return None
    return gate_gpu


@partial(jax.custom_vjp, nondiff_argnums=(0, 7))
def gated_projection(
    kernels: Any,
    x: Feature,
    expand: Float[Array, "c c2"],
    expand_bias: Float[Array, "c2"],
    project: Float[Array, "c c"],
    project_bias: Float[Array, "c"],
    gain: Float[Array, "b c"] | None,
    limit: float,
) -> Feature:
    """A whole gate in one kernel: `x + gain (project(u v) + project_bias)`.

    `u` and `v` are the halves of `expand(x) + expand_bias`.

    Args:
        kernels: From `fused_kernels`.
        x: The input; the products are of its type.
        expand: Matrix to both halves, float32 like all that follow.
        expand_bias: Of both halves.
        project: Matrix of the halves' product.
        project_bias: Added to it.
        gain: Factors by sample and channel; None for one.
        limit: The result is clipped to `[-limit, limit]`; 0: it is not.

    Returns:
        Of the shape and type of `x`.
    """
    flat = x.reshape(len(x), -1, x.shape[-1])
    expand, project = expand.astype(x.dtype), project.astype(x.dtype)
    y = kernels.forward(flat, expand, expand_bias, project, project_bias, gain, limit)
    return y.reshape(x.shape)


def _forward(kernels, x, expand, expand_bias, project, project_bias, gain, limit):
    y = gated_projection(kernels, x, expand, expand_bias, project, project_bias, gain, limit)
    return y, (x, expand, expand_bias, project, project_bias, gain, y if limit else None)


def _backward(kernels, limit, saved, dy):
    x, expand, expand_bias, project, project_bias, gain, y = saved
    if limit:  # what is held within it stays as it is
        dy = jax.vjp(partial(clip_values, limit=limit), y)[1](dy)[0]
    shape = (len(x), -1, x.shape[-1])
    flat, dy = x.reshape(shape), dy.reshape(shape)
    matrices = expand.astype(x.dtype), expand_bias, project.astype(x.dtype)
    found = kernels.backward(flat, dy, *matrices, gain)
    by_expand = _sum_over("bpc,bph->ch", flat, found.inner)
    bias_sums = found.outer_sums
    if gain is None:
        by_project, by_gain = _sum_over("bpk,bpc->kc", found.product, dy), None
    else:
        # A sum over the kernel's rows for each sample, in place of one over all positions, for
        # which the gate's output would be needed again.
        by_sample = _sum_over("bpk,bpc->bkc", found.product, dy)
        by_project = jnp.sum(by_sample * gain[:, None], 0)
        by_gain = jnp.sum(by_sample * project, 1) + project_bias * bias_sums
        bias_sums = bias_sums * gain
    gradients = by_expand, found.inner_sums.sum(0), by_project, bias_sums.sum(0), by_gain
    return found.x.reshape(x.shape), *gradients


gated_projection.defvjp(_forward, _backward)


def _sum_over(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)
