import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from llic_jax.entropy import gaussian
from llic_jax.errors import ConfigError


@pytest.mark.parametrize("scale", [0.11, 0.5, 1.0, 7.3, 256.0])
def test_bits_against_scipy(scale):
    values = np.arange(-int(6 * scale) - 2, int(6 * scale) + 3)
    distribution = stats.norm(scale=scale)
    magnitude = np.abs(values)
    expected = -np.log2(distribution.cdf(0.5 - magnitude) - distribution.cdf(-0.5 - magnitude))
    bits = gaussian.gaussian_bits(jnp.asarray(values, jnp.float32), jnp.full(len(values), scale))
    # At the largest scale neighbouring values of the cumulative agree to five digits.
    np.testing.assert_allclose(bits, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.11, 1.0, 40.0, 256.0])
def test_probabilities_of_all_integers_sum_to_one(scale):
    values = jnp.arange(-3000.0, 3001.0)
    total = jnp.sum(2.0 ** -gaussian.gaussian_bits(values, jnp.full(values.shape, scale)))
    np.testing.assert_allclose(total, 1, rtol=1e-4)


@pytest.mark.parametrize("scale", [0.11, 1.0, 40.0])
def test_coded_bits_are_the_gaussian_s_within_a_row_and_grow_slowly_beyond(scale):
    values = jnp.arange(0.0, 3000.0)
    scales = jnp.full(values.shape, scale)
    bits = np.asarray(gaussian.coded_bits(values, scales))
    ideal = np.asarray(gaussian.gaussian_bits(values, scales))
    near = values < 3 * scale
    np.testing.assert_allclose(bits[near], np.minimum(ideal, gaussian.PRECISION)[near], 1e-5, 1e-6)
    assert bits.max() < gaussian.PRECISION + 1 + 2 * np.log2(6000) and ideal.max() > 1000
    np.testing.assert_array_equal(bits, gaussian.coded_bits(-values, scales))
    assert 2 * np.sum(2.0**-bits) - 2.0 ** -bits[0] < 1.01  # nothing is promised twice


@pytest.mark.parametrize("scale", [0.11, 0.7, 5.0, 200.0])
def test_a_mixture_costs_what_its_parts_promise_together(scale):
    mixture = ((0.4, 0.8), (0.6, 1.3))
    values = jnp.arange(0.0, 3000.0)
    scales = jnp.full(values.shape, scale)
    promised = sum(
        weight * 2.0 ** -np.asarray(gaussian.gaussian_bits(values, by * scales), np.float64)
        for weight, by in mixture
    )
    coded = np.asarray(gaussian.coded_bits(values, scales, mixture))
    near = values < 2 * scale
    expected = -np.log2(np.maximum(promised[near], 2.0**-gaussian.PRECISION))
    np.testing.assert_allclose(coded[near], expected, 1e-5, 1e-6)
    assert 2 * np.sum(2.0**-coded) - 2.0 ** -coded[0] < 1.01
    by_symbol = jax.grad(lambda v: gaussian.coded_bits(v, scales, mixture).sum())(values)
    assert jnp.isfinite(by_symbol).all()


def test_a_config_states_the_mixture():
    stated = [[0.25, 0.5], [0.75, 1.5]]
    assert gaussian.mixture_of(stated) == ((0.25, 0.5), (0.75, 1.5))
    assert gaussian.mixture_of(()) == gaussian.GAUSSIAN


@pytest.mark.parametrize(
    "mixture", [((0.5, 1.0),), ((0.5, 0.8), (0.6, 1.2)), ((1.5, 1.0), (-0.5, 2.0)), ((1.0,),)]
)
def test_what_is_no_mixture_is_refused(mixture):
    with pytest.raises(ConfigError, match=r"model\.mixture is .*give pairs"):
        gaussian.mixture_of(mixture)


def test_far_away_everything_stays_finite():
    residual = jnp.array([-1e5, -300.0, -1.0, 0.0, 0.5, 20.0, 1e5])
    for scale in (0.11, 1.0, 256.0):
        scales = jnp.full(residual.shape, scale)
        bits = gaussian.gaussian_bits(residual, scales)
        by_residual, by_scale = jax.grad(
            lambda r, s: gaussian.gaussian_bits(r, s).sum(), argnums=(0, 1)
        )(residual, scales)
        assert jnp.isfinite(bits).all() and (bits >= 0).all()
        assert jnp.isfinite(by_residual).all() and jnp.isfinite(by_scale).all()


def test_limits_of_the_scale():
    # A scale towards nothing makes zero certain; a large one approaches log2 of the density.
    zero = jnp.zeros(1)
    assert gaussian.gaussian_bits(zero, jnp.full(1, 0.11)) < 1e-4
    large = gaussian.gaussian_bits(zero, jnp.full(1, 256.0))
    np.testing.assert_allclose(large, np.log2(256 * np.sqrt(2 * np.pi)), rtol=1e-4)


@pytest.mark.parametrize("weight", [0.5, 8.7, 24.0])
def test_chosen_symbols_cost_least_of_all_towards_zero(weight):
    residual, scale = np.meshgrid(np.linspace(-6, 6, 241), [0.11, 0.3, 1.0, 4.0, 60.0])
    chosen = np.asarray(gaussian.quantize_rdo(*map(jnp.asarray, (residual, scale)), weight))
    nearest = np.round(residual)
    costs = []
    for symbols in (nearest, nearest - np.sign(nearest)):
        upper, lower = (stats.norm.cdf((np.abs(symbols) + d) / scale) for d in (0.5, -0.5))
        bits = -np.log2(np.maximum(upper - lower, 2.0**-16))
        costs.append(bits + weight * (residual - symbols) ** 2)
    best = np.where(costs[0] <= costs[1], nearest, nearest - np.sign(nearest))
    clear = np.abs(costs[0] - costs[1]) > 1e-3
    np.testing.assert_array_equal(chosen[clear], best[clear])
    assert (chosen != nearest).any() and not chosen[nearest == 0].any()


def test_without_a_weight_the_nearest_integer_is_chosen():
    residual, scale = jnp.linspace(-3, 3, 61), jnp.full(61, 0.3)
    np.testing.assert_array_equal(gaussian.quantize_rdo(residual, scale), jnp.round(residual))


def test_ladder_and_index():
    ladder = jnp.asarray(gaussian.scale_table())
    assert (
        len(ladder) == 64 and ladder[0] == pytest.approx(0.11) and ladder[-1] == pytest.approx(256)
    )
    np.testing.assert_array_equal(gaussian.scale_index(ladder), np.arange(64))
    np.testing.assert_array_equal(gaussian.scale_index(jnp.array([0.01, 1e6])), [0, 63])
    # Nearest in the logarithmic domain: the boundary is the geometric mean.
    middle = jnp.sqrt(ladder[:-1] * ladder[1:])
    np.testing.assert_array_equal(gaussian.scale_index(middle * 0.999), np.arange(63))
    np.testing.assert_array_equal(gaussian.scale_index(middle * 1.001), np.arange(1, 64))


def test_scale_is_positive_and_keeps_a_gradient_at_the_bound():
    raw = jnp.array([-50.0, -3.0, 0.0, 5.0])
    assert (gaussian.positive_scale(raw) >= gaussian.SCALE_MIN).all()
    rising = jax.grad(lambda r: -gaussian.positive_scale(r).sum())(raw)
    assert (rising[1:] < 0).all()
