from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.layers.depthwise import depthwise_conv_reference
from llic_jax.layers.initializers import init_params
from llic_jax.transforms.blocks import (
    SCCT,
    SCST,
    BasicBlock,
    BlockStyle,
    DepthRB,
    Gate,
    multiply_halves,
)
from llic_jax.transforms.transforms import AnalysisTransform, SynthesisTransform

KEY = jax.random.key(0)


def count(module, *shape) -> int:
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def pointwise(a: int, b: int) -> int:
    return a * b + b


def block_parameters(c: int, k: int) -> int:
    """One basic block, counted by hand from the paper's description."""
    depth_rb = 2 * pointwise(c, c) + 9 * c + c
    gate = pointwise(c, 2 * c) + pointwise(c, c)
    scst = pointwise(c, c // 4) + pointwise(c // 4, k * k * c) + 2 * pointwise(c, c)
    scct = pointwise(c, c // 4) + pointwise(c // 4, c) + 2 * pointwise(c, c)
    return 2 * depth_rb + 2 * gate + scst + scct


def test_full_size_parameters_against_hand_counts():
    n, m = 192, 320
    blocks = 2 * block_parameters(n, 11) + 3 * block_parameters(n, 9) + block_parameters(m, 9)
    down = sum(25 * a * b + b for a, b in ((3, n), (n, n), (n, n), (n, m)))
    up = sum(9 * a * 4 * b + 4 * b for a, b in ((m, n), (n, n), (n, n), (n, 3)))
    assert count(AnalysisTransform(), 1, 64, 64, 3) == blocks + down
    assert count(SynthesisTransform(), 1, 4, 4, m) == blocks + up
    # The figures of an independent rendering.
    assert round((blocks + down) / 1e6, 2) == 14.33
    assert round((blocks + up) / 1e6, 2) == 15.83


def run(module, x, seed=0):
    params = module.init(jax.random.key(seed), x)["params"]
    # Away from the initialization, where residual branches and generated weights are tiny.
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(np.float32), params
    )
    return params, module.apply({"params": params}, x)


@pytest.fixture
def features() -> jax.Array:
    return jnp.asarray(np.random.default_rng(3).standard_normal((2, 7, 6, 8)), jnp.float32)


def dense(params, x):
    return x @ params["conv"]["kernel"] + params["conv"]["bias"]


def leaky(x):
    return jnp.where(x > 0, x, 0.01 * x)


def generated(params, x):
    h = jax.nn.gelu(x.mean((1, 2)) @ params["fc1"]["kernel"] + params["fc1"]["bias"])
    return h @ params["fc2"]["kernel"] + params["fc2"]["bias"]


def test_depth_rb_is_its_formula(features):
    p, out = run(DepthRB(), features)
    h = leaky(dense(p["conv_in"], features))
    h = depthwise_conv_reference(h, p["depthwise"]["kernel"]) + p["depthwise"]["bias"]
    expected = features + dense(p["conv_out"], leaky(h))
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_scst_is_its_formula_and_conditions_each_sample_on_itself(features):
    p, out = run(SCST(5), features)
    kernel = generated(p["generator"], features).reshape(2, 5, 5, 8)
    assert not np.allclose(kernel[0], kernel[1])
    h = depthwise_conv_reference(dense(p["conv_in"], features), kernel)
    np.testing.assert_allclose(out, features + dense(p["conv_out"], h), rtol=1e-4, atol=1e-4)


def test_scst_starts_from_a_static_kernel(features):
    module = SCST(5)
    params = module.init(jax.random.key(0), features)["params"]
    _, seen = module.apply({"params": params}, features, mutable="intermediates")
    kernel = seen["intermediates"]["kernel"][0]
    np.testing.assert_allclose(kernel[0], kernel[1], atol=0.05)
    assert 0.1 < float(kernel.std()) * 5 < 2


def test_scct_is_its_formula(features):
    p, out = run(SCCT(), features)
    factors = jax.nn.sigmoid(generated(p["generator"], features))
    h = dense(p["conv_in"], features) * factors[:, None, None]
    np.testing.assert_allclose(out, features + dense(p["conv_out"], h), rtol=1e-4, atol=1e-5)


def test_gate_is_its_formula(features):
    p, out = run(Gate(), features)
    u, v = jnp.split(dense(p["expand"], features), 2, axis=-1)
    np.testing.assert_allclose(out, features + dense(p["project"], u * v), rtol=1e-4, atol=1e-5)


def test_inverse_block_swaps_the_order(features):
    _, forward = run(BasicBlock(3), features)
    _, inverse = run(BasicBlock(3, inverse=True), features)
    assert not np.allclose(forward, inverse)


@pytest.mark.parametrize(
    ("switch", "gone", "there"),
    [
        ("self_conditioned", "stb/scst/generator", "stb/scst/kernel"),
        ("channel_transform", "ctb/scct", "ctb/gate"),
        ("depth_rb", "stb/embed/depthwise", "stb/embed/conv_in"),
    ],
)
def test_ablation_switches_remove_what_they_name(features, switch, gone, there):
    params, out = run(BasicBlock(3, style=BlockStyle(**{switch: False})), features)
    names = {
        "/".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    assert out.shape == features.shape
    assert not any(name.startswith(gone) for name in names)
    assert any(name.startswith(there) for name in names)


def test_ungated_feed_forward_has_no_product(features):
    p, out = run(Gate(gated=False), features)
    h = jax.nn.gelu(dense(p["expand"], features))
    assert h.shape[-1] == 16
    np.testing.assert_allclose(out, features + dense(p["project"], h), rtol=1e-4, atol=1e-5)


def test_transforms_mirror_each_other_and_stay_tame_at_the_start():
    sizes = dict(channels=(4, 6, 8, 10), kernel_sizes=(5, 5, 3, 3), depths=(1, 1, 1, 1))
    x = jnp.asarray(np.random.default_rng(0).random((1, 64, 96, 3)), jnp.float32)
    analysis, synthesis = AnalysisTransform(**sizes), SynthesisTransform(**sizes)
    a = analysis.init(jax.random.key(0), x)
    y = jax.jit(analysis.apply)(a, x)
    s = synthesis.init(jax.random.key(1), y)
    x_hat = jax.jit(synthesis.apply)(s, y)
    assert y.shape == (1, 4, 6, 10) and x_hat.shape == x.shape
    assert 0.01 < float(y.std()) < 10 and float(jnp.abs(x_hat).max()) < 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AnalysisTransform, SynthesisTransform])
def test_a_limit_keeps_what_explodes_finite_and_leaves_the_rest_alone(kind):
    sizes = dict(channels=(4, 4, 4, 8), kernel_sizes=(5, 5, 3, 3), depths=(1, 1, 1, 1))
    free, held = kind(**sizes), kind(**sizes, style=BlockStyle(activation_limit=16.0))
    shape = (1, 32, 32, 3) if kind is AnalysisTransform else (1, 2, 2, 8)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    params = init_params(free, 0, jax.ShapeDtypeStruct(shape, jnp.float32))
    values = [jax.jit(t.apply)({"params": params}, x) for t in (free, held)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5, atol=1e-6)

    def loss(t, params):
        return jnp.mean(t.apply({"params": params}, x))

    # Each block more than squares what it is given.
    params = jax.tree.map(lambda p: 20 * p, params)
    found = [jax.jit(jax.value_and_grad(partial(loss, t)))(params) for t in (free, held)]
    finite = [all(bool(np.isfinite(v).all()) for v in jax.tree.leaves(f)) for f in found]
    assert finite == [False, True]


def test_stages_of_larger_strides_against_hand_counts():
    """Patches of 8 x 8 and their mirror image, then the paper's resampling; narrow generators."""
    sizes = dict(channels=(24, 20), kernel_sizes=(7, 5), depths=(2, 1), strides=(8, 2))
    style, width = BlockStyle(generator_width=3), 3
    analysis, synthesis = (t(**sizes, style=style) for t in (AnalysisTransform, SynthesisTransform))

    def block(c, k):
        wide = pointwise(c, c // 4) + pointwise(c // 4, k * k * c)
        wide += pointwise(c, c // 4) + pointwise(c // 4, c)
        narrow = pointwise(c, width) + pointwise(width, k * k * c)
        narrow += pointwise(c, width) + pointwise(width, c)
        return block_parameters(c, k) - wide + narrow

    blocks = 2 * block(24, 7) + block(20, 5)
    down = pointwise(8 * 8 * 3, 24) + 25 * 24 * 20 + 20
    up = 9 * 20 * 4 * 24 + 4 * 24 + 9 * 24 * 64 * 3 + 64 * 3
    assert count(analysis, 1, 64, 64, 3) == blocks + down
    assert count(synthesis, 1, 4, 4, 20) == blocks + up
    for strides, channels in (((4, 4), (8, 8)), ((2, 4, 2), (8, 8, 8)), ((16,), (8,))):
        some = dict(channels=channels, kernel_sizes=(3,) * len(strides), strides=strides)
        some["depths"] = (1,) * len(strides)
        x = jnp.zeros((1, 32, 64, 3))
        y, _ = jax.eval_shape(AnalysisTransform(**some).init_with_output, KEY, x)
        x_hat, _ = jax.eval_shape(SynthesisTransform(**some).init_with_output, KEY, y)
        assert y.shape == (1, 2, 4, 8) and x_hat.shape == x.shape


def gradients(module, params, x, quality):
    def loss(params, x):
        out = module.apply(params, x, quality).astype(jnp.float32)
        return jnp.vdot(out, jnp.cos(jnp.arange(out.size)).reshape(out.shape))

    return jax.tree.leaves(jax.value_and_grad(loss, (0, 1))(params, x))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "levels"), [("float32", 1), ("float32", 3), ("bfloat16", 3)])
def test_an_accelerator_s_way_has_the_values_and_gradients_of_the_plain_one(
    monkeypatch, dtype, levels
):
    """Kernels per sample, halves multiplied at once, biases summed; XLA's plain way is the oracle.
    In bfloat16 both round, differently: neither is further than the other from float32."""
    monkeypatch.setenv("LLIC_PALLAS", "0")
    rng = np.random.default_rng(0)
    quality = jnp.array([1.3, 2.7])
    x = jnp.asarray(2 * rng.standard_normal((2, 6, 7, 8)), dtype)
    style = BlockStyle(activation_limit=4.0)  # which some values exceed
    module = BasicBlock(3, style=style, levels=levels, dtype=dtype)
    params = jax.tree.map(
        lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(np.float32),
        module.init(jax.random.key(1), x, quality),
    )
    plain = gradients(module, params, x, quality)
    exact = gradients(BasicBlock(3, style=style, levels=levels), params, x, quality)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    text = str(jax.make_jaxpr(lambda x: module.apply(params, x, quality))(x))
    assert "2,42,8" in text.replace(" ", ""), "no product sample by sample"
    found = gradients(module, params, x, quality)
    for a, b, true in zip(found, plain, exact, strict=True):
        a, b, true = (np.asarray(leaf, np.float32) for leaf in (a, b, true))
        norm = np.linalg.norm(true)
        if dtype == "float32":
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * norm)
        else:
            assert np.linalg.norm(a - true) < 1.5 * np.linalg.norm(b - true) + 0.02 * norm


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_product_of_halves_and_its_gradient(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(0)
    h, g = (jnp.asarray(rng.standard_normal((2, 3, c)), jnp.float32) for c in (10, 5))
    u, v = h[..., :5], h[..., 5:]
    y, pull = jax.vjp(multiply_halves, h)
    np.testing.assert_array_equal(y, u * v)
    np.testing.assert_array_equal(pull(g)[0], jnp.concatenate([g * v, g * u], -1))
