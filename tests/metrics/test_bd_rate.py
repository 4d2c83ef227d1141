"""BD-rate: published figures come out again, and the laws that any mean difference keeps."""

import numpy as np
import pytest

from llic_jax.errors import CurveError
from llic_jax.evaluation import published
from llic_jax.metrics.bd_rate import METHODS, Curve, bd_psnr, bd_rate, rate_saving

BASE = Curve("base", (0.1, 0.2, 0.4, 0.7, 1.1), (28.0, 30.4, 33.1, 35.2, 37.0))
OTHER = Curve("other", (0.12, 0.19, 0.35, 0.66, 1.2), (28.9, 30.5, 33.0, 35.6, 38.1))


def scaled(curve: Curve, factor: float) -> Curve:
    return Curve("scaled", tuple(rate * factor for rate in curve.rates), curve.quality)


@pytest.mark.parametrize("codec", ["MLIC", "MLIC+", "MLIC++", "LIC-TCM large", "STF", "WACNN"])
@pytest.mark.parametrize("method", METHODS)
def test_published_points_give_published_bd_rates(codec, method):
    kodak = published.curves("kodak")
    found = bd_rate(kodak[published.ANCHOR].curve(), kodak[codec].curve(), method)
    assert found.value == pytest.approx(published.bd_rates()[codec], abs=0.5)


def test_the_published_figures_are_those_of_the_papers():
    expected = {"MLIC": -8.05, "MLIC+": -11.39, "MLIC++": -13.39}
    expected |= {"LIC-TCM large": -10.14, "STF": -2.48, "WACNN": -2.95}
    expected |= {"LLIC-STF": -9.49, "LLIC-ELIC": -9.47, "LLIC-TCM": -10.94}
    assert published.bd_rates() == expected


@pytest.mark.parametrize("dataset", ["kodak", "clic_pro_valid", "tecnick"])
def test_every_published_curve_is_whole_and_has_a_source(dataset):
    curves = published.curves(dataset)
    assert len(curves) >= 4
    for entry in curves.values():
        assert entry.source and entry.curve().name == entry.codec
        assert entry.ms_ssim is None or len(entry.ms_ssim) == len(entry.bpp)
    assert published.curves("another") == published.curves(None) == {}


@pytest.mark.parametrize("method", METHODS)
def test_a_curve_against_itself_is_zero(method):
    assert bd_rate(BASE, BASE, method).value == pytest.approx(0, abs=1e-9)
    assert bd_psnr(BASE, BASE, method).value == pytest.approx(0, abs=1e-9)
    assert bd_rate(BASE, BASE, method).remarks == ()


@pytest.mark.parametrize("method", METHODS)
def test_half_of_all_rates_is_minus_fifty_per_cent(method):
    assert bd_rate(BASE, scaled(BASE, 0.5), method).value == pytest.approx(-50, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_swapping_anchor_and_test_inverts(method):
    there, back = bd_rate(BASE, OTHER, method), bd_rate(OTHER, BASE, method)
    assert there.value < -1
    assert (1 + there.value / 100) * (1 + back.value / 100) == pytest.approx(1, abs=1e-9)
    assert (there.low, there.high) == (back.low, back.high) == (28.9, 37.0)
    assert bd_psnr(BASE, OTHER, method).value == pytest.approx(
        -bd_psnr(OTHER, BASE, method).value, abs=1e-9
    )


@pytest.mark.parametrize("method", METHODS)
def test_quality_that_is_higher_by_a_constant_is_that_bd_psnr(method):
    better = Curve("better", BASE.rates, tuple(quality + 0.7 for quality in BASE.quality))
    assert bd_psnr(BASE, better, method).value == pytest.approx(0.7, abs=1e-9)


def test_pchip_equals_the_integral_of_a_line():
    """Straight lines in log-rate: the difference is linear, its mean the middle."""
    psnr = np.array([30.0, 32.0, 34.0, 36.0])
    a = Curve("a", tuple(np.exp(0.2 * psnr - 7)), tuple(psnr))
    b = Curve("b", tuple(np.exp(0.25 * psnr - 9)), tuple(psnr))
    expected = 100 * np.expm1(0.05 * 33 - 2)
    for method in METHODS:
        assert bd_rate(a, b, method).value == pytest.approx(expected, rel=1e-9)


def test_the_order_of_points_does_not_matter():
    shuffled = Curve("shuffled", BASE.rates[::-1], BASE.quality[::-1])
    assert bd_rate(shuffled, OTHER).value == bd_rate(BASE, OTHER).value


def test_rate_saving_is_a_per_cent_at_each_quality():
    psnr, saving = rate_saving(BASE, scaled(BASE, 0.8), samples=7)
    np.testing.assert_allclose(psnr, np.linspace(28, 37, 7))
    np.testing.assert_allclose(saving, 20, atol=1e-9)


def test_curves_that_cross_are_reported():
    flat = Curve("flat", (0.11, 0.2, 0.39, 0.6, 0.9), (28.0, 30.0, 33.1, 35.2, 37.0))
    assert any("cross at" in remark for remark in bd_rate(BASE, flat).remarks)


def test_a_short_common_range_is_reported():
    high = Curve("high", (1.0, 1.4, 2.0, 2.6), (36.5, 38.0, 40.0, 41.5))
    assert any("too short" in remark for remark in bd_rate(BASE, high).remarks)
    assert not any("too short" in remark for remark in bd_rate(BASE, OTHER).remarks)


def test_no_common_range_is_an_error():
    high = Curve("high", (2.0, 3.0), (40.0, 42.0))
    with pytest.raises(CurveError, match="no range in common"):
        bd_rate(BASE, high)


@pytest.mark.parametrize(
    ("rates", "quality", "message"),
    [
        ((0.1, 0.2, 0.3), (30.0, 29.0, 31.0), "not monotone: 30.0000 dB at 0.10000 bpp, then 29"),
        ((0.1, 0.1), (30.0, 31.0), "not monotone"),
        ((0.1,), (30.0,), "two or more"),
        ((0.1, 0.2), (30.0, 31.0, 32.0), "as many of both"),
        ((0.0, 0.2), (30.0, 31.0), "above zero"),
        ((0.1, 0.2), (30.0, float("inf")), "finite"),
    ],
)
def test_points_that_make_no_curve_are_an_error(rates, quality, message):
    with pytest.raises(CurveError, match=message):
        Curve("broken", rates, quality)


def test_a_method_says_how_many_points_it_needs():
    short = Curve("short", (0.1, 0.4), (28.0, 33.0))
    assert bd_rate(short, short).value == 0
    with pytest.raises(CurveError, match="2 points; polynomial needs 4"):
        bd_rate(short, short, "polynomial")
    with pytest.raises(CurveError, match="known are pchip"):
        bd_rate(BASE, OTHER, "linear")
