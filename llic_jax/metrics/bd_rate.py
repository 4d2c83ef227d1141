"""Comparing rate-distortion curves: BD-rate, BD-PSNR, and rate saving over PSNR.

Bjontegaard, "Calculation of average PSNR differences between RD-curves" (VCEG-M33, 2001): the mean
over the common range of the difference of two interpolated curves, with rates on a logarithmic
scale. VCEG-M33 fits one cubic polynomial to all points; later practice interpolates piecewise
(PCHIP), which passes through every point and does not swing between them.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy import interpolate

from llic_jax.errors import CurveError

# A common range below this, or below half of the shorter curve, says little about either codec.
MIN_OVERLAP_DB = 1.0
MIN_OVERLAP_SHARE = 0.5
Values = Sequence[float] | np.ndarray
_SAMPLES = 512  # for finding where curves cross


@dataclasses.dataclass(frozen=True)
class Points:
    """Measured points of a codec.

    Attributes:
      name: The codec's.
      rates: In bits per pixel.
      quality: In dB: PSNR, or MS-SSIM as `-10 log10(1 - MS-SSIM)`.
    """

    name: str
    rates: tuple[float, ...]
    quality: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Curve(Points):
    """Points that can be interpolated, sorted by rate.

    Raises:
      CurveError: There are fewer than two points, values that are not finite, rates that are not
        above zero, or a quality that does not rise with the rate.
    """

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.quality) or len(self.rates) < 2:
            raise CurveError(
                f"{self.name}: {len(self.rates)} rates and {len(self.quality)} qualities; a curve "
                "needs as many of both, two or more. Measure more qualities."
            )
        if not all(map(math.isfinite, (*self.rates, *self.quality))) or min(self.rates) <= 0:
            raise CurveError(
                f"{self.name}: rates must be above zero and everything finite; found rates "
                f"{list(self.rates)}, qualities {list(self.quality)}."
            )
        pairs = sorted(zip(self.rates, self.quality, strict=True))
        for (rate_a, quality_a), (rate_b, quality_b) in itertools.pairwise(pairs):
            if rate_a == rate_b or quality_a >= quality_b:
                raise CurveError(
                    f"{self.name} is not monotone: {quality_a:.4f} dB at {rate_a:.5f} bpp, then "
                    f"{quality_b:.4f} dB at {rate_b:.5f} bpp. Leave out the worse of the two."
                )
        object.__setattr__(self, "rates", tuple(rate for rate, _ in pairs))
        object.__setattr__(self, "quality", tuple(quality for _, quality in pairs))

    @property
    def log_rates(self) -> Float[np.ndarray, "n"]:
        """Natural logarithms of the rates."""
        return np.log(np.asarray(self.rates))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The mean difference of two curves.

    Attributes:
      value: In per cent (BD-rate) or dB (BD-PSNR).
      low: Begin of the common range, in dB (BD-rate) or bits per pixel (BD-PSNR).
      high: Its end.
      remarks: What weakens the value, in words; empty if nothing does.
    """

    value: float
    low: float
    high: float
    remarks: tuple[str, ...] = ()


@runtime_checkable
class Fit(Protocol):
    """A curve through points, or near them."""

    def __call__(self, x: np.ndarray) -> np.ndarray: ...

    def integrate(self, low: float, high: float) -> float:
        """The integral from `low` to `high`."""


class _Polynomial:
    """A least-squares cubic with the two methods that scipy's interpolators have."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        # Centred and scaled: powers of raw PSNRs would lose half of the digits.
        self.fit = np.polynomial.Polynomial.fit(x, y, 3)
        self.integral = self.fit.integ()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.fit(x)

    def integrate(self, low: float, high: float) -> float:
        return float(self.integral(high) - self.integral(low))


# Each with the number of points that it needs.
METHODS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Fit], int]] = {
    "pchip": (interpolate.PchipInterpolator, 2),
    "spline": (interpolate.CubicSpline, 4),
    "polynomial": (_Polynomial, 4),
}


def bd_rate(anchor: Curve, test: Curve, method: str = "pchip") -> Comparison:
    """Computes the mean change of rate at equal quality (VCEG-M33).

    Args:
      anchor: The curve to compare with.
      test: The curve that is compared.
      method: "pchip" (piecewise cubic), "spline" (cubic spline), or "polynomial" (VCEG-M33).

    Returns:
      Per cent: negative where `test` needs less.

    Raises:
      CurveError: The curves have too few points for the method or no common range, or the method
        is not known.
    """
    low, high = _common(anchor, test, anchor.quality, test.quality, "dB")
    a = _fit(anchor.name, anchor.quality, anchor.log_rates, method)
    b = _fit(test.name, test.quality, test.log_rates, method)
    mean = (b.integrate(low, high) - a.integrate(low, high)) / (high - low)
    return Comparison(100 * math.expm1(mean), low, high, _remarks(anchor, test, a, b, low, high))


def bd_psnr(anchor: Curve, test: Curve, method: str = "pchip") -> Comparison:
    """Computes the mean change of quality at equal rate (VCEG-M33).

    Args:
      anchor: The curve to compare with.
      test: The curve that is compared.
      method: As for `bd_rate`.

    Returns:
      dB: positive where `test` is better.

    Raises:
      CurveError: As for `bd_rate`.
    """
    low, high = _common(anchor, test, anchor.log_rates, test.log_rates, "log bpp")
    a = _fit(anchor.name, anchor.log_rates, anchor.quality, method)
    b = _fit(test.name, test.log_rates, test.quality, method)
    mean = (b.integrate(low, high) - a.integrate(low, high)) / (high - low)
    return Comparison(mean, math.exp(low), math.exp(high))


def rate_saving(
    anchor: Curve, test: Curve, method: str = "spline", samples: int = 100
) -> tuple[Float[np.ndarray, "samples"], Float[np.ndarray, "samples"]]:
    """Computes the rate saved at each quality (paper, fig. 4-6: cubic splines through the points).

    Args:
      anchor: The curve to compare with.
      test: The curve that is compared.
      method: As for `bd_rate`.
      samples: Number of qualities, evenly spread over the common range.

    Returns:
      Qualities in dB, and the per cent of the anchor's rate that `test` saves there.

    Raises:
      CurveError: As for `bd_rate`.
    """
    low, high = _common(anchor, test, anchor.quality, test.quality, "dB")
    a = _fit(anchor.name, anchor.quality, anchor.log_rates, method)
    b = _fit(test.name, test.quality, test.log_rates, method)
    at = np.linspace(low, high, samples)
    return at, -100 * np.expm1(b(at) - a(at))


def _fit(name: str, x: Values, y: Values, method: str) -> Fit:
    if method not in METHODS:
        raise CurveError(f"method is {method!r}; known are {', '.join(METHODS)}.")
    kind, needed = METHODS[method]
    if len(x) < needed:
        raise CurveError(
            f"{name} has {len(x)} points; {method} needs {needed}. Measure more qualities or take "
            "pchip."
        )
    return kind(np.asarray(x, np.float64), np.asarray(y, np.float64))


def _common(anchor: Curve, test: Curve, a: Values, b: Values, unit: str) -> tuple[float, float]:
    low, high = float(max(a[0], b[0])), float(min(a[-1], b[-1]))
    if low >= high:
        raise CurveError(
            f"{anchor.name} ({a[0]:.2f} to {a[-1]:.2f} {unit}) and {test.name} ({b[0]:.2f} to "
            f"{b[-1]:.2f} {unit}) have no range in common. Measure qualities that meet."
        )
    return low, high


def _remarks(
    anchor: Curve, test: Curve, a: Fit, b: Fit, low: float, high: float
) -> tuple[str, ...]:
    remarks = []
    shorter = min(curve.quality[-1] - curve.quality[0] for curve in (anchor, test))
    if high - low < max(MIN_OVERLAP_DB, MIN_OVERLAP_SHARE * shorter):
        remarks.append(
            f"the common range, {low:.2f} to {high:.2f} dB, is too short to mean much: the shorter "
            f"curve spans {shorter:.2f} dB"
        )
    at = np.linspace(low, high, _SAMPLES)
    difference = np.asarray(b(at) - a(at))
    sign = np.sign(np.where(np.abs(difference) < 1e-9, 0.0, difference))
    at, sign = at[sign != 0], sign[sign != 0]
    crossings = at[1:][sign[1:] != sign[:-1]]
    if crossings.size:
        places = ", ".join(f"{place:.1f}" for place in crossings)
        remarks.append(f"the curves cross at {places} dB: the mean hides a change of sign")
    return tuple(remarks)
