"""The depth-wise convolution against XLA's grouped convolution, in value and gradients.

`formulation` runs a test with the native kernel, where it was built, and without it.
"""

import hashlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.layers.depthwise import depthwise_conv, depthwise_conv_reference
from llic_jax.layers.kernels import depthwise_cpu
from llic_jax.native import library as native

needs_native = pytest.mark.skipif(
    not native.enabled(), reason="the native kernel was not built, or LLIC_NATIVE=0"
)


@pytest.fixture(params=["native", "jax"])
def formulation(request, monkeypatch):
    if request.param == "native" and not native.enabled():
        pytest.skip("the native kernel was not built, or LLIC_NATIVE=0")
    if request.param == "jax":
        monkeypatch.setenv("LLIC_NATIVE", "0")
    return request.param


def make_inputs(shape, kernel_size, per_sample, dtype=jnp.float32):
    """x, kernel and an output gradient."""
    rng = np.random.default_rng(kernel_size)
    lead = shape[:1] if per_sample else ()
    kernel_shape = (*lead, kernel_size, kernel_size, shape[-1])
    return tuple(
        jnp.asarray(rng.standard_normal(s, np.float32), dtype) for s in (shape, kernel_shape, shape)
    )


def value_and_gradients(conv, x, kernel, dy):
    # A function of its own for every call: JAX would remember what it traced with another setting.
    def run(x, kernel, dy):
        y, pullback = jax.vjp(conv, x, kernel)
        return (y, *pullback(dy))

    return jax.jit(run)(x, kernel, dy)


def assert_close(actual, expected, tolerance=1e-5):
    """Within `tolerance` of the largest value expected; same shapes and types."""
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape and a.dtype == e.dtype
        a, e = np.asarray(a, np.float32), np.asarray(e, np.float32)
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max())


@pytest.mark.parametrize(
    ("kernel_size", "image", "per_sample"),
    [
        (1, (2, 3), False),
        (3, (17, 6), False),
        (3, (4, 4), True),
        (5, (8, 5), True),
        (7, (3, 20), True),
        (9, (1, 1), True),
        (9, (1, 1), False),
        (11, (13, 9), True),
    ],
)
def test_matches_reference(formulation, kernel_size, image, per_sample):
    inputs = make_inputs((2, *image, 5), kernel_size, per_sample)
    expected = value_and_gradients(depthwise_conv_reference, *inputs)
    assert_close(value_and_gradients(depthwise_conv, *inputs), expected)


@needs_native
@pytest.mark.parametrize("instruction_set", ["baseline", "avx2", None])
def test_native_instruction_sets(instruction_set):
    """Every specialization, over several tiles, bands, strips and groups of channels."""
    native.limit_instruction_set(instruction_set)
    try:
        for kernel_size in (3, 5, 7, 9, 11, 13):
            x, kernel, dy = make_inputs((2, 18, 35, 203), kernel_size, per_sample=True)
            check_at_one_pixel(
                depthwise_cpu.convolve(x, kernel),
                depthwise_cpu.correlate(x, dy, kernel_size),
                x,
                kernel,
                dy,
            )
    finally:
        native.limit_instruction_set(None)


def check_at_one_pixel(y, dkernel, x, kernel, dy):
    """Against sums in NumPy: every channel, at corners, edges and in the middle."""
    y, dkernel, x, kernel, dy = (np.asarray(a, np.float64) for a in (y, dkernel, x, kernel, dy))
    (_, height, width, _), size = x.shape, kernel.shape[1]
    p = size // 2
    x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    for h, w in ((0, 0), (15, 31), (16, 32), (height - 1, width - 1)):
        expected = (x[:, h : h + size, w : w + size] * kernel).sum((1, 2))
        np.testing.assert_allclose(y[:, h, w], expected, rtol=0, atol=1e-5 * np.abs(y).max())
    for i, j in ((0, 0), (p, p), (size - 1, 0), (size - 1, size - 1)):
        expected = (x[:, i : i + height, j : j + width] * dy).sum((1, 2))
        np.testing.assert_allclose(
            dkernel[:, i, j], expected, rtol=0, atol=1e-5 * np.abs(dkernel).max()
        )


def digest_of_results() -> str:
    inputs = make_inputs((2, 40, 50, 40), 9, per_sample=False)
    results = value_and_gradients(depthwise_conv, *inputs)
    return hashlib.sha256(b"".join(np.asarray(r).tobytes() for r in results)).hexdigest()


X, KERNEL = (2, 20, 7, 6), (2, 3, 3, 6)


@needs_native
@pytest.mark.parametrize(
    ("target", "first", "second", "result", "complaint"),
    [
        ("convolve", X, (2, 3, 3, 5), X, "channels"),
        ("convolve", X, (2, 3, 3, 64), X, "channels"),
        ("convolve", X, (2, 3, 5, 6), X, "K x K"),
        ("convolve", X, (2, 4, 4, 6), X, "K odd"),
        ("convolve", X, (3, 3, 3, 6), X, "number of kernels"),
        ("convolve", X, (0, 3, 3, 6), X, "number of kernels"),
        ("convolve", X, KERNEL, (2, 20, 7, 5), "the result differs"),
        ("convolve", X, KERNEL, (2, 20, 6, 6), "the result differs"),
        ("convolve", X, KERNEL, (1, 20, 7, 6), "the result differs"),
        ("convolve", (2, 20, 7, 60), KERNEL, X, "the result differs"),
        ("convolve", X, (3, 6), X, "three dimensions"),
        ("correlate", X, (2, 20, 7, 5), (2, 2, 3, 3, 6), "the gradient differs"),
        ("correlate", X, (2, 20, 6, 6), (2, 2, 3, 3, 6), "the gradient differs"),
        ("correlate", X, (1, 20, 7, 6), (2, 2, 3, 3, 6), "the gradient differs"),
        ("correlate", X, X, (2, 2, 3, 3, 5), "channels"),
        ("correlate", X, X, (2, 2, 3, 5, 6), "K x K"),
        ("correlate", X, X, (2, 1, 3, 3, 6), "one kernel gradient"),
    ],
)
def test_native_refuses_dimensions_that_do_not_go_together(
    target, first, second, result, complaint
):
    shape = jax.ShapeDtypeStruct(result, jnp.float32)
    call = jax.ffi.ffi_call(f"llic_depthwise_{target}", shape)
    with pytest.raises(Exception, match=complaint):
        jax.block_until_ready(call(jnp.ones(first), jnp.ones(second)))


@needs_native
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs thread affinity")
def test_native_is_deterministic():
    """The same bits again, and in a process that has one thread."""
    expected = digest_of_results()
    assert digest_of_results() == expected
    program = (
        "import os, sys; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "from test_depthwise import digest_of_results; print(digest_of_results())"
    )
    paths = [os.path.dirname(__file__), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [expected]


def test_library_that_does_not_load(monkeypatch, tmp_path):
    library = tmp_path / "_depthwise_native.so"
    library.write_bytes(b"of another machine")
    spec = importlib.machinery.ModuleSpec("_depthwise_native", None, origin=str(library))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.warns(RuntimeWarning, match="does not load"):
        assert native._library.__wrapped__() is None


def test_bfloat16(formulation):
    inputs = make_inputs((2, 9, 8, 6), 5, True, jnp.bfloat16)
    expected = value_and_gradients(depthwise_conv_reference, *inputs)
    assert_close(value_and_gradients(depthwise_conv, *inputs), expected, 2.0**-8)


def test_mixed_types_are_promoted():
    x, kernel, _ = make_inputs((1, 4, 4, 2), 3, False)
    assert depthwise_conv(x.astype(jnp.bfloat16), kernel).dtype == jnp.float32


@pytest.mark.parametrize("kernel_axis", [None, 0])
def test_vmap(formulation, kernel_axis):
    xs, kernels, dys = make_inputs((3, 6, 7, 4), 3, kernel_axis == 0)

    def run(x, kernel, dy):
        y, pullback = jax.vjp(depthwise_conv, x[None], kernel)
        dx, dkernel = pullback(dy[None])
        return y[0], dx[0], dkernel

    actual = jax.jit(jax.vmap(run, in_axes=(0, kernel_axis, 0)))(xs, kernels, dys)
    if kernel_axis is None:  # the gradients of one kernel, per sample
        kernels = jnp.stack(3 * [kernels])
    assert_close(actual, value_and_gradients(depthwise_conv_reference, xs, kernels, dys))


def test_checkpoint_and_pmap(formulation):
    x, kernel, _ = make_inputs((1, 6, 7, 4), 3, True)

    def loss(conv, x, kernel):
        return jnp.sum(conv(x, kernel) ** 2)

    def gradients(x, kernel):
        return jax.grad(jax.checkpoint(lambda *a: loss(depthwise_conv, *a)), (0, 1))(x, kernel)

    expected = jax.jit(jax.grad(lambda *a: loss(depthwise_conv_reference, *a), (0, 1)))(x, kernel)
    parallel = jax.pmap(gradients)(x[None], kernel[None])
    assert_close([g[0] for g in parallel], expected)


def test_empty_batch(formulation):
    inputs = make_inputs((0, 5, 4, 3), 3, False)
    y, dx, dkernel = value_and_gradients(depthwise_conv, *inputs)
    assert y.shape == dx.shape == (0, 5, 4, 3)
    assert not dkernel.any()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_their_own_convolution(platform):
    """Seen in the lowered program, for which no accelerator is needed."""
    inputs = make_inputs((2, 8, 8, 4), 3, True)
    traced = jax.jit(lambda *a: value_and_gradients(depthwise_conv, *a)).trace(*inputs)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.convolution" in program
    # Old JAX lowers all branches, behind a `case` on a constant that XLA removes.
    assert "llic_depthwise" not in program or "stablehlo.case" in program


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "message"),
    [
        ((4, 4, 3), (3, 3, 3), r"x has shape \(4, 4, 3\); expected \(B, H, W, C\)"),
        ((2, 4, 4, 3), (3, 3), r"kernel has shape \(3, 3\); expected \(K, K, C\) or"),
        ((2, 4, 4, 3), (4, 4, 3), "kernel is 4x4; expected a square of odd side"),
        ((2, 4, 4, 3), (3, 5, 3), "kernel is 3x5; expected a square of odd side"),
        ((2, 4, 4, 3), (3, 3, 2), "kernel has 2 channels; expected 3"),
        ((2, 4, 4, 3), (1, 3, 3, 3), "1 samples' kernels; expected 2"),
    ],
)
@pytest.mark.parametrize("conv", [depthwise_conv, depthwise_conv_reference])
def test_errors(conv, x_shape, kernel_shape, message):
    with pytest.raises(ValueError, match=message):
        conv(jnp.zeros(x_shape), jnp.zeros(kernel_shape))
