"""The Pallas kernels of the depth-wise convolution: interpreted on the CPU, and as they lower.

Interpreted blocks are small ones, which compile faster; what they leave over is as ragged.
"""

import contextlib
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from llic_jax.layers import depthwise
from llic_jax.layers.depthwise import depthwise_conv, depthwise_conv_reference
from llic_jax.layers.kernels import depthwise_gpu, depthwise_tpu
from tests.layers.test_depthwise import assert_close, make_inputs, value_and_gradients

pytestmark = pytest.mark.usefixtures("not_kept")

MODULES = {"cuda": depthwise_gpu, "tpu": depthwise_tpu}


def interpreted(platform, **blocks):
    """The platform's two kernels as functions that run anywhere."""
    module = MODULES[platform]
    return SimpleNamespace(
        convolve=partial(module.convolve, interpret=True, **blocks),
        correlate=partial(module.correlate, interpret=True, **blocks),
    )


ONE_ROW = dict(blocks=depthwise_gpu.Blocks(4, 2, 2, rows=1))
TWO_ROWS = dict(blocks=depthwise_gpu.Blocks(4, 2, 2, rows=2))


@pytest.mark.parametrize(
    ("platform", "blocks", "size", "image", "channels", "per_sample", "dtype"),
    [
        ("cuda", TWO_ROWS, 3, (17, 7), 5, False, jnp.float32),
        ("cuda", ONE_ROW, 9, (4, 11), 6, True, jnp.bfloat16),
        ("cuda", ONE_ROW, 11, (1, 1), 3, False, jnp.float32),
        ("cuda", ONE_ROW, 11, (9, 5), 4, True, jnp.float32),
        ("tpu", {}, 9, (4, 11), 6, True, jnp.bfloat16),
        ("tpu", {}, 11, (17, 5), 4, False, jnp.float32),
    ],
)
def test_matches_reference(monkeypatch, platform, blocks, size, image, channels, per_sample, dtype):
    """In value and, through the custom gradient, in both gradients."""
    kernels = {"cpu": interpreted(platform, **blocks)}
    monkeypatch.setattr(depthwise, "_accelerator_kernels", lambda *_: kernels)
    inputs = make_inputs((2, *image, channels), size, per_sample, dtype)
    expected = value_and_gradients(depthwise_conv_reference, *inputs)
    tolerance = 1e-5 if dtype == jnp.float32 else 2.0**-8
    assert_close(value_and_gradients(depthwise_conv, *inputs), expected, tolerance)


@pytest.mark.parametrize("platform", MODULES)
def test_own_blocks(platform):
    """As they are on the device: several of them, cut off at every side."""
    x, kernel, dy = make_inputs((1, 19, 67, 70), 3, True)
    y, _, dkernel = value_and_gradients(depthwise_conv_reference, x, kernel, dy)
    kernels = interpreted(platform)
    assert_close([kernels.convolve(x, kernel), kernels.correlate(x, dy, 3)], [y, dkernel])


def test_vmap():
    xs, kernels, _ = make_inputs((3, 6, 7, 4), 3, True)
    convolve = interpreted("cuda", **ONE_ROW).convolve
    actual = jax.vmap(lambda x, kernel: convolve(x[None], kernel)[0])(xs, kernels)
    assert_close([actual], [depthwise_conv_reference(xs, kernels)])


def device_to_lower_for(backend):
    """From JAX 0.11 on Pallas has to be told, where there is none, which GPU it lowers for."""
    if backend != "gpu" or not hasattr(jax.sharding, "AbstractDevice"):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    return jax.sharding.use_abstract_mesh(
        jax.sharding.AbstractMesh((1,), ("_",), abstract_device=device)
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("platform", "backend", "target"),
    [("cuda", "gpu", "__gpu$xla.gpu.triton"), ("tpu", "tpu", "tpu_custom_call")],
)
def test_lowers(monkeypatch, platform, backend, target, dtype):
    """Forward and both gradients, for which no accelerator is needed."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    inputs = make_inputs((2, 20, 40, 70), 9, True, dtype)

    def program():
        traced = jax.jit(lambda *a: value_and_gradients(depthwise_conv, *a)).trace(*inputs)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    with device_to_lower_for(backend):
        # The forward pass and the gradient by x may share a function.
        assert program().count(f"custom_call @{target}") in (2, 3)
    monkeypatch.setenv("LLIC_PALLAS", "0")
    assert target not in program()


def test_what_does_not_fit_is_left_to_the_platform(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    small = ((1, 8, 8, 4), jnp.bfloat16)
    too_large = ((1, 2**15, 2**15, 2), jnp.bfloat16)
    empty = ((0, 8, 8, 4), jnp.bfloat16)
    other_type = ((1, 8, 8, 4), jnp.float16)
    found = [depthwise._accelerator_kernels(*x) for x in (small, too_large, empty, other_type)]
    assert found == [{"cuda": depthwise_gpu}, {}, {}, {}]
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert not depthwise._accelerator_kernels(*small)
