import numpy as np
import pytest
from scipy import stats

from llic_jax.coding.table_design import build_tables, quantize_pmf
from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import PRECISION, scale_table


@pytest.fixture(scope="module")
def tables(tiny_model, tiny_params) -> Tables:
    return build_tables(tiny_model.prior, tiny_params["prior"])


def test_rows_are_cumulative_frequencies(tables):
    assert len(tables) == tables.hyper_rows + 64
    for i in range(len(tables)):
        row = tables.row(i)
        assert row[0] == 0 and row[-1] == 1 << PRECISION
        assert (np.diff(row) >= 1).all()


@pytest.mark.parametrize("level", [0, 10, 31, 50, 63])
def test_a_gaussian_row_costs_hardly_more_than_the_entropy(tables, level):
    scale = scale_table()[level]
    row, low = (
        tables.row(tables.hyper_rows + level),
        tables.first_symbols[tables.hyper_rows + level],
    )
    values = np.arange(low, low + len(row) - 2)
    p = stats.norm.cdf((values + 0.5) / scale) - stats.norm.cdf((values - 0.5) / scale)
    frequencies = np.diff(row)[:-1] / 2.0**PRECISION
    used = p > 1e-12
    entropy = -np.sum(p[used] * np.log2(p[used]))
    cost = -np.sum(p * np.log2(frequencies))
    assert cost >= entropy * (1 - 1e-3) - 1e-3  # a code cannot beat the entropy
    assert cost <= entropy * 1.005 + 0.002
    assert 1 - p.sum() < 2**-11  # what is left to the escape


@pytest.mark.parametrize("level", [0, 20, 40, 63])
def test_a_mixture_s_row_costs_hardly_more_than_its_entropy(tiny_model, tiny_params, level):
    mixture = ((0.5, 0.7), (0.5, 1.25))
    tables = build_tables(tiny_model.prior, tiny_params["prior"], mixture)
    i, scale = tables.hyper_rows + level, scale_table()[level]
    values = tables.first_symbols[i] + np.arange(len(tables.row(i)) - 2)
    assert values[0] == -values[-1]
    p = sum(
        weight * np.diff(stats.norm.cdf((np.append(values, values[-1] + 1) - 0.5) / (scale * by)))
        for weight, by in mixture
    )
    used = p > 1e-12
    entropy = -np.sum(p[used] * np.log2(p[used]))
    cost = np.sum(p * tables.row_bits(i)[:-1])
    assert entropy * (1 - 1e-3) - 1e-3 <= cost <= entropy * 1.005 + 0.002
    assert 1 - p.sum() < 2**-11


def test_quantized_probabilities_spend_counts_where_they_pay():
    rng = np.random.default_rng(0)
    pmf = rng.dirichlet(np.full(300, 0.1))
    frequencies = quantize_pmf(pmf, precision=12)
    assert frequencies.sum() == 1 << 12 and frequencies.min() >= 1

    def cost(f):
        return -np.sum(pmf * np.log2(f / 4096))

    best = cost(frequencies)
    for _ in range(200):  # no move of a single count helps
        i, j = rng.choice(300, 2, replace=False)
        if frequencies[i] > 1:
            moved = frequencies.copy()
            moved[i] -= 1
            moved[j] += 1
            assert cost(moved) >= best - 1e-9


def test_damaged_tables_are_refused(tables):
    arrays = {k: np.array(v) for k, v in tables.arrays().items()}
    assert len(Tables.from_arrays(arrays)) == len(tables)
    arrays["cdf"][3] = arrays["cdf"][2]
    with pytest.raises(ValueError, match="not a cumulative frequency table"):
        Tables.from_arrays(arrays)
