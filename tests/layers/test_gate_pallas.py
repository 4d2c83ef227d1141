"""The fused kernels of the gate: interpreted on the CPU, and as they compile for a GPU."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.layers.kernels import gate_gpu
from llic_jax.layers.kernels.gate import fused_kernels, gated_projection
from llic_jax.transforms import blocks
from llic_jax.transforms.blocks import Gate
from tests.layers.test_depthwise_pallas import device_to_lower_for

pytestmark = pytest.mark.usefixtures("not_kept")


def interpreted(cut=None):
    """The module's kernels as functions that run anywhere."""
    return SimpleNamespace(
        forward=partial(gate_gpu.forward, interpret=True, blocks=cut),
        backward=partial(gate_gpu.backward, interpret=True, blocks=cut),
    )


def make_inputs(shape, dtype, levels):
    """Module-independent inputs: the gate's parameters, x, quality and an upstream gradient, such
    that some results exceed a limit of 3."""
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    quality = jnp.linspace(1.2, 2.6, shape[0])
    gate = Gate(levels=levels)
    params = gate.init(jax.random.key(0), x.astype(jnp.float32), quality=quality)
    params = jax.tree.map(
        lambda p: jnp.asarray(p + 0.2 * rng.standard_normal(p.shape), jnp.float32), params
    )
    return params, x, quality, dy


def value_and_gradients(gate, params, x, quality, dy):
    y, pull = jax.vjp(lambda params, x: gate.apply(params, x, quality=quality), params, x)
    return jax.tree.leaves((y, pull(dy.astype(y.dtype))))


SMALL = gate_gpu.Blocks(8, 8, 1)


@pytest.mark.parametrize(
    ("shape", "levels", "limit", "dtype", "cut"),
    [
        ((2, 3, 7, 17), 3, 3.0, jnp.float32, SMALL),  # odd in every way
        ((3, 1, 5, 16), 1, 0.0, jnp.float32, SMALL),
        ((1, 4, 4, 24), 3, 0.0, jnp.float32, SMALL),
        ((2, 3, 7, 17), 3, 3.0, jnp.bfloat16, SMALL),
        ((2, 9, 9, 20), 1, 3.0, jnp.bfloat16, None),  # blocks as on the device
    ],
)
def test_matches_xla_s_way(monkeypatch, shape, levels, limit, dtype, cut):
    """In value and in all gradients. In bfloat16 both round, in different places: the fused way is
    no further from float32 than XLA's is."""
    inputs = make_inputs(shape, dtype, levels)
    plain = value_and_gradients(Gate(levels=levels, activation_limit=limit, dtype=dtype), *inputs)
    wide = [a.astype(jnp.float32) for a in (inputs[1], inputs[3])]
    exact = value_and_gradients(
        Gate(levels=levels, activation_limit=limit), inputs[0], wide[0], inputs[2], wide[1]
    )
    if limit:
        assert np.any(np.abs(exact[0]) == limit) and np.any(np.abs(exact[0]) < limit)
    monkeypatch.setattr(blocks, "fused_kernels", lambda *_: interpreted(cut))
    fused = value_and_gradients(Gate(levels=levels, activation_limit=limit, dtype=dtype), *inputs)
    assert len(fused) == len(plain) == 6 + (levels > 1)
    for a, b, true in zip(fused, plain, exact, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b, true = (np.asarray(leaf, np.float32) for leaf in (a, b, true))
        norm = np.linalg.norm(true)
        if dtype == jnp.float32:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * norm)
        else:
            # One value near the limit may fall on the other side of it.
            assert np.linalg.norm(a - true) < 1.2 * np.linalg.norm(b - true) + 2.0**-9 * norm


def test_the_switch(monkeypatch):
    x = ((1, 8, 8, 16), jnp.bfloat16)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert fused_kernels(*x) is None, "off unless it is asked for"
    monkeypatch.setenv("LLIC_PALLAS_FUSED", "1")
    assert fused_kernels(*x) is gate_gpu
    too_narrow, too_large = ((1, 8, 8, 8), jnp.bfloat16), ((1, 2**13, 2**13, 16), jnp.bfloat16)
    empty, other_type = ((0, 8, 8, 16), jnp.bfloat16), ((1, 8, 8, 16), jnp.float16)
    assert not any(fused_kernels(*x) for x in (too_narrow, too_large, empty, other_type))
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert fused_kernels(*x) is None


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_lowers(dtype):
    """One kernel each way."""
    params, x, _, dy = make_inputs((2, 5, 9, 96), dtype, 1)
    weights = params["params"]
    arrays = [weights[n]["conv"][k] for n in ("expand", "project") for k in ("kernel", "bias")]

    def program(x, dy, *arrays):
        y, pull = jax.vjp(lambda *a: gated_projection(gate_gpu, *a, None, 4.0), x, *arrays)
        return y, pull(dy)

    with device_to_lower_for("gpu"):
        lowered = jax.jit(program).trace(x, dy, *arrays).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("custom_call @__gpu$xla.gpu.triton") == 2
