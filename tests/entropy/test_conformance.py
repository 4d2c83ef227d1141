"""What every entropy model has to keep to, whatever is inside; and every range coder with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.coding.range_coders.registry import CODERS
from llic_jax.entropy.gaussian import SCALE_MIN, gaussian_bits, scale_index
from llic_jax.entropy.walk import EntropyModel, Walk, estimate, quantize
from llic_jax.training.loss import rate_distortion
from tests.entropy.conftest import BATCH, LATENT, Subject, latent, picture


def test_follows_the_protocol(subject: Subject):
    assert isinstance(subject.model, EntropyModel)
    hyper, y = subject.hyper(0), latent(0)
    for step, (mean, scale) in zip(subject.model.steps, subject.walk_along(hyper, y), strict=True):
        assert mean.shape == scale.shape == step.gather(y).shape
        assert mean.dtype == scale.dtype == jnp.float32
        assert scale.min() >= np.float32(SCALE_MIN)


def test_steps_partition_y(subject: Subject):
    numbered = jnp.arange(1, np.prod(LATENT) + 1, dtype=jnp.float32).reshape(LATENT)
    gathered = [step.gather(numbered) for step in subject.model.steps]
    everything = np.concatenate([np.ravel(values) for values in gathered])
    np.testing.assert_array_equal(np.sort(everything), np.ravel(numbered))

    filled = jnp.zeros(LATENT)
    for step, values in zip(subject.model.steps, gathered, strict=True):
        filled = step.scatter(filled, values)
    np.testing.assert_array_equal(filled, numbered)


def test_nothing_to_come_moves_the_parameters(subject: Subject):
    hyper, y = subject.hyper(1), latent(1)
    before = subject.walk_along(hyper, y)
    for k, step in enumerate(subject.model.steps):
        elsewhere = step.scatter(y, 3 * jnp.ones_like(step.gather(y)))
        after = subject.walk_along(hyper, elsewhere)
        for earlier in range(k + 1):
            np.testing.assert_array_equal(after[earlier], before[earlier])
        if k == 0:
            assert np.any(np.asarray(after[1][0]) != np.asarray(before[1][0]))


def test_gradients_reach_decoded_elements_only(subject: Subject):
    hyper, y = subject.hyper(2), latent(2)

    @jax.jit
    def jacobian(y):
        """How each step's parameters, in some combination, depend on `y`."""

        def combinations(y):
            flat = [
                jnp.concatenate([m.ravel(), s.ravel()]) for m, s in subject.walk_along(hyper, y)
            ]
            return jnp.stack([jnp.sum(jnp.sin(jnp.arange(f.size)) * f) for f in flat])

        return jax.jacrev(combinations)(y)

    rows = jacobian(y)
    order = jnp.zeros(LATENT)
    for k, step in enumerate(subject.model.steps):
        order = step.scatter(order, jnp.full_like(step.gather(y), k))
    for k, row in enumerate(rows):
        assert not np.any(np.asarray(row)[np.asarray(order) >= k]), f"step {k} sees the future"
        assert k == 0 or np.any(np.asarray(row)), f"step {k} has no context"


def test_likelihoods_sum_to_one(subject: Subject):
    steps = subject.walk_along(subject.hyper(3), latent(3))
    scales = np.concatenate([np.ravel(scale)[:50] for _, scale in steps])
    assert scales.max() < 20
    symbols = np.arange(-120.0, 121.0, dtype=np.float32)
    bits = jax.jit(gaussian_bits)(*np.broadcast_arrays(symbols, scales[:, None]))
    np.testing.assert_allclose(np.sum(2.0**-bits, axis=-1), 1, atol=1e-5)

    z = jnp.broadcast_to(jnp.arange(-1000.0, 1001.0)[:, None], (2001, 8))
    likelihoods = 2 ** -subject.bound.prior_bits(z)
    np.testing.assert_allclose(np.sum(likelihoods, axis=0), 1, atol=1e-5)


def test_training_decodes_what_coding_decodes(subject: Subject):
    hyper, y = subject.hyper(4), latent(4)

    def rounded(model, hyper):
        walk, bits = Walk(model, hyper, y.shape), 0.0
        for step, mean, scale in walk:
            symbols = jnp.round(step.gather(y) - mean)
            bits += jnp.sum(gaussian_bits(symbols, scale), axis=(1, 2, 3))
            walk.fill(symbols + mean)
        return walk.y_hat, bits

    @jax.jit
    def all_three(hyper):
        model, keys = subject.bound, jax.random.split(jax.random.key(0), 1)
        return estimate(model, hyper, y, keys), quantize(model, hyper, y), rounded(model, hyper)

    (y_hat_training, noisy_bits), (y_hat, coded_bits), (_, bits) = all_three(hyper)
    np.testing.assert_allclose(y_hat_training, y_hat, atol=1e-4)
    # Noise in place of rounding: the rate is another, but not by much.
    assert float(noisy_bits[0]) == pytest.approx(float(bits[0]), rel=0.1)
    # The coder's escape only ever saves bits where the Gaussian's tail is dear.
    assert float(coded_bits[0]) < 1.01 * float(bits[0])


def test_a_batch_is_its_samples(subject: Subject):
    hyper, y = subject.hyper(5, BATCH), latent(5, BATCH)
    together = subject.walk_along(hyper, y)
    for i in range(2):
        one = slice(i, i + 1)
        alone = subject.walk_along(jax.tree.map(lambda h, one=one: h[one], hyper), y[one])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[one], b, atol=1e-4)


@pytest.mark.slow
def test_every_parameter_has_a_finite_gradient(subject: Subject):
    x = jnp.asarray(picture(64, 128)[None], jnp.float32) / 255
    keys = jax.random.split(jax.random.key(0), 1)

    @jax.jit
    def gradients(params):
        def loss(params):
            out = subject.model.apply({"params": params}, x, None, keys)
            return rate_distortion(out, x, jnp.full(1, 0.01))[0]

        return jax.grad(loss)(params)

    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients(subject.params)):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(gradient).all(), name
        assert np.any(np.asarray(gradient)), f"{name} does nothing"


@pytest.mark.parametrize("size", [(1, 1), (37, 64), (64, 65)])
def test_decoding_yields_what_was_encoded(subject: Subject, coder: str, size: tuple[int, int]):
    codec, image = subject.codec_of(coder), picture(*size)
    compressed = codec.encode([image])[0]
    decoded = codec.decode([compressed.data])[0].image
    assert decoded.shape == image.shape
    np.testing.assert_array_equal(decoded, codec.reconstruct(compressed))


def test_the_stream_is_as_long_as_estimated(subject: Subject, coder: str):
    symbols, scales, bits = subject.dream
    tables = subject.codec.model.tables
    encoder = CODERS[coder].encoder(tables)
    for step_symbols, scale in zip(symbols, scales, strict=True):
        rows = np.asarray(scale_index(scale)) + tables.hyper_rows
        encoder.encode(np.asarray(step_symbols, np.int32), rows)
    stream = 8 * len(encoder.finish())
    assert bits > 10_000
    assert abs(stream - bits) < 0.01 * bits + 64
