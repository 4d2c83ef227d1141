"""Counts of the full-size models against counts by hand, from the layer tables."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from llic_jax.configs import (
    llic_elic,
    llic_elic_eighth,
    llic_elic_small,
    llic_stf,
    llic_stf_small,
    llic_tcm,
    llic_tcm_small,
    smoke,
    smoke_eighth,
)
from llic_jax.layers.depthwise import depthwise_conv
from llic_jax.models.build import build_model
from llic_jax.models.cost import Summary, count_macs, summarize

N, M = 192, 320
POSITIONS = 64 * 64 // 16**2  # of y, for the image that is summarized
CONFIGS = {"stf": llic_stf, "elic": llic_elic, "tcm": llic_tcm}


def conv(size: int, *widths: int) -> int:
    """Parameters of convolutions in a row, biases included."""
    return sum(size**2 * a * b + b for a, b in itertools.pairwise(widths))


def up(a: int, b: int) -> int:
    """Of a sub-pixel convolution to twice the size."""
    return conv(3, a, 4 * b)


def generator(c: int, weights: int) -> int:
    return conv(1, c, c // 4, weights)


def basic_block(c: int, size: int) -> int:
    depth_rb = 2 * conv(1, c, c) + 3 * 3 * c + c
    gate = conv(1, c, 2 * c) + conv(1, c, c)
    scst = 2 * conv(1, c, c) + generator(c, size**2 * c)
    scct = 2 * conv(1, c, c) + generator(c, c)
    return 2 * depth_rb + 2 * gate + scst + scct


BLOCKS = 2 * basic_block(N, 11) + 3 * basic_block(N, 9) + basic_block(M, 9)
G_A = BLOCKS + conv(5, 3, N) + 2 * conv(5, N, N) + conv(5, N, M)
G_S = BLOCKS + up(M, N) + 2 * up(N, N) + up(N, 3)
PRIOR = N * (3 * (1 + 3 + 3 + 1) + 3 * (1 + 1 + 1) + 1 + 3 * 3)  # matrices, biases, factors


def swin(c: int, window: int, head_dim: int) -> int:
    norms, attention = 2 * 2 * c, conv(1, c, 3 * c) + conv(1, c, c)
    return norms + attention + (2 * window - 1) ** 2 * (c // head_dim) + conv(1, c, 4 * c, c)


def mixed_block(c: int) -> int:
    return 2 * conv(1, c, c) + conv(3, c // 2, c // 2, c // 2) + swin(c // 2, 4, 32)


def swatten(c: int) -> int:
    inner = 128
    units = 6 * (conv(1, inner, inner // 2) + conv(3, 64, 64) + conv(1, inner // 2, inner))
    return conv(1, c, inner, c) + 2 * swin(inner, 8, 16) + units + conv(1, inner, inner)


def stf_steps() -> list[int]:
    chain = (224, 176, 128, 64, 32)
    known = [M + 32 * min(i, 5) for i in range(10)]
    return [2 * conv(3, c, *chain) + conv(3, c + 32, *chain) for c in known]


def tcm_steps() -> list[int]:
    chain = (224, 128, 64)
    known = [M + 64 * i for i in range(5)]
    return [2 * (swatten(c) + conv(3, c, *chain)) + conv(3, c + 64, *chain) for c in known]


def elic_groups() -> list[int]:
    groups, total = (16, 16, 32, 64, 192), []
    for i, g in enumerate(groups):
        g_ch = conv(5, sum(groups[:i]), 224, 128, 2 * g) if i else 0
        known = 2 * N + 2 * g + (2 * g if i else 0)
        third = (known - 2 * g) // 3
        inner = known - third, known - 2 * (known - 2 * g) // 3
        total.append(g_ch + conv(5, g, 2 * g) + conv(1, known, *inner, 2 * g))
    return total


ENTROPY = {
    "stf": {
        "h_a": conv(3, M, M, 288, 256, 224, N),
        "h_s": 2
        * (conv(3, N, N) + up(N, 224) + conv(3, 224, 256) + up(256, 288) + conv(3, 288, M)),
        "walk": sum(stf_steps()),
    },
    "elic": {
        "h_a": conv(3, M, N) + 2 * conv(5, N, N),
        "h_s": conv(5, N, N, 288) + conv(3, 288, 2 * N),
        "walk": sum(elic_groups()),
    },
    "tcm": {
        "h_a": conv(3, M, 256, 256) + conv(1, M, 256) + 2 * mixed_block(256) + conv(3, 256, N),
        "h_s": 2 * (2 * up(N, 256) + conv(3, 256, 256) + 2 * mixed_block(256) + up(256, M)),
        "walk": sum(tcm_steps()),
    },
}


SLOW = {"tcm"}  # to trace


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in sorted(CONFIGS)
    ],
)
def counted(request: pytest.FixtureRequest) -> tuple[str, Summary]:
    model = build_model(CONFIGS[request.param].get_config().model)
    return request.param, summarize(model, 50, 64)


def test_parameters_of_the_paper_size_models(counted: tuple[str, Summary]):
    name, summary = counted
    hand = ENTROPY[name]
    assert summary.g_a.parameters == G_A
    assert summary.g_s.parameters == G_S
    assert summary.h_a.parameters == hand["h_a"]
    assert summary.h_s.parameters == hand["h_s"]
    assert summary.walk.parameters == hand["walk"]
    assert summary.total_parameters == G_A + G_S + PRIOR + sum(hand.values())


def test_a_step_costs_what_its_own_channels_cost(counted: tuple[str, Summary]):
    name, summary = counted
    assert summary.walk_ratio == pytest.approx(1, abs=0.15)
    if name == "stf":
        chain = (224, 176, 128, 64, 32)
        for i, step in enumerate(summary.steps):
            known = M + 32 * min(i, 5)
            lrp = conv(3, known + 32, *chain) - sum(chain)
            assert step.macs == POSITIONS * (2 * (conv(3, known, *chain) - sum(chain)) + lrp)
    if name == "elic":
        # By hand: 5x5 contexts at every position, 1x1 aggregation at either half of them.
        g, before = 192, 128
        g_ch = 25 * (before * 224 + 224 * 128 + 128 * 2 * g)
        known, third = 2 * N + 4 * g, (2 * N + 2 * g) // 3
        inner = known - third, known - 2 * third
        aggregate = known * inner[0] + inner[0] * inner[1] + inner[1] * 2 * g
        anchors, rest = summary.steps[-2:]
        assert anchors.macs == POSITIONS * g_ch + POSITIONS // 2 * aggregate
        assert rest.macs == POSITIONS * 25 * g * 2 * g + POSITIONS // 2 * aggregate


def test_transforms_multiply_what_their_kernels_say(counted: tuple[str, Summary]):
    summary = counted[1]

    def block(c: int, size: int) -> int:
        return 2 * 2 * c**2 + 2 * 3 * c**2 + 2 * 2 * c**2 + (size**2 + 2 * 9) * c

    blocks = block(N, 11) / 4 + block(N, 11) / 16 + 3 * block(N, 9) / 64 + block(M, 9) / 256
    down = 25 * (3 * N / 4 + N * N / 16 + N * N / 64 + N * M / 256)
    # The generators of the weights work once an image, which is much for one of 64 x 64.
    generators = sum(n * generator(c, k**2 * c) for n, c, k in [(2, N, 11), (3, N, 9), (1, M, 9)])
    assert summary.g_a.macs == pytest.approx((blocks + down) * 64 * 64 + generators, rel=0.01)


def test_counts_products_convolutions_and_loops():
    x, kernel = jnp.ones((1, 8, 6, 4)), jnp.ones((5, 5, 4))

    def macs(function, *args) -> int:
        return count_macs(jax.make_jaxpr(function)(*args).jaxpr)

    assert macs(lambda x: x @ jnp.ones((4, 7)), x) == 8 * 6 * 4 * 7
    assert macs(jax.jit(lambda x: x @ jnp.ones((4, 7))), x) == 8 * 6 * 4 * 7
    assert macs(depthwise_conv, x, kernel) == 8 * 6 * 4 * 25
    assert macs(depthwise_conv, x, kernel[None]) == 8 * 6 * 4 * 25
    assert macs(lambda x: jax.lax.map(lambda row: row @ jnp.ones((4, 7)), x[0]), x) == 8 * 6 * 4 * 7


@pytest.mark.slow
def test_the_model_at_an_eighth_against_counts_by_hand():
    summary = summarize(build_model(llic_elic_eighth.get_config().model), 512, 768)
    c, latent, size, width, levels = 256, 320, 11, 32, 8
    generators = conv(1, c, width, size**2 * c) + conv(1, c, width, c)
    gains = 6 * levels * c  # of the residual branches
    block = basic_block(c, size) - generator(c, size**2 * c) - generator(c, c) + generators + gains
    # `analyze` and `synthesize` read the gain of y, too.
    assert summary.g_a.parameters == (
        4 * block + conv(1, 8 * 8 * 3, c) + conv(5, c, latent) + levels * latent
    )
    assert summary.g_s.parameters == (
        4 * block + up(latent, c) + conv(3, c, 8 * 8 * 3) + levels * latent
    )
    at_eighth = 4 * (14 * c**2 + (size**2 + 2 * 9) * c) / 8**2
    ends = {"g_a": 192 * c / 8**2 + 25 * c * latent / 16**2}
    ends["g_s"] = 9 * 192 * c / 8**2 + 9 * latent * 4 * c / 16**2
    for part in (summary.g_a, summary.g_s):
        expected = (at_eighth + ends[part.name]) * summary.pixels + 4 * generators
        assert part.macs == pytest.approx(expected, rel=0.005)
    # About the small model's work.
    small = summarize(build_model(llic_elic_small.get_config().model), 512, 768)
    assert summary.macs == pytest.approx(small.macs, rel=0.1)


@pytest.mark.parametrize(
    "config",
    [
        llic_elic_small,
        llic_stf_small,
        pytest.param(llic_tcm_small, marks=pytest.mark.slow),
        smoke,
        smoke_eighth,
    ],
)
def test_small_configs_make_models_that_suit_a_cpu(config):
    model = build_model(config.get_config().model)
    small = summarize(model, 64, 64)
    # Less than a third of the full-size model's work, and no more than 24 MB in 8 bits.
    assert small.total_parameters < 24e6 and small.macs / small.pixels < 200e3
    assert small.walk_ratio < 1.15
