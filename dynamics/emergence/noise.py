r"""How large is the sampling noise of a curve, and what would another sample have looked like?

Bootstrap draws of a curve scatter about the *measured* values, which already carry noise once. An interval from such
draws carries it twice. This module takes the noise off the draws: a variance, and residual curves
:math:`e_{cd} = (x_{cd} - \bar x_c) / s_c` of unit variance, with the dependence between checkpoints that the draws have
(shared prompts). Added to a *fitted* curve they carry the noise once.

Where the variance of the draws is a quadratic function of the mean (binomial, Poisson, or constant: Morris 1982, the
natural exponential families with quadratic variance functions), the function is used in place of the values at each
checkpoint, so that a checkpoint with no right answer is not taken for one without noise and a low value by luck is not
given more weight. Whether it is one is judged against the Monte Carlo error of a variance of as many draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numerics.arrays import FloatArray
from ..numerics.draws import FINE_DRAWS

__all__ = ["Noise", "noise_of"]


SMALLEST = 0.02
"""Smallest variance of a checkpoint as a share of the largest: bounds the weight that one checkpoint can have."""

MISFIT = 1.5
"""Largest mean squared error of the variance function, in Monte Carlo variances of the draws' variance."""


@dataclass(frozen=True)
class Noise:
    """The sampling noise of one curve.

    Attributes:
        residuals: (checkpoint, draw) noise curves of unit variance.
        measured: (checkpoint,) variances of the draws.
        variance: the same, none of them below a share of the largest.
        function: coefficients of 1, mean, mean squared in the variance; None where it is no such function.
    """

    residuals: FloatArray
    measured: FloatArray
    variance: FloatArray
    function: tuple[float, float, float] | None

    def scale(self, mean: FloatArray, least: FloatArray | None = None) -> FloatArray:
        """(checkpoint,) standard deviations if ``mean`` (checkpoint,) were the expectation.

        Args:
            mean: (checkpoint,) the supposed expectation.
            least: (checkpoint,) smallest standard deviations, such as those of the null; without, a share of the
                largest.
        """
        variance = self.measured
        if self.function is not None:
            one, two, three = self.function
            variance = one + two * mean + three * mean**2
        floor: FloatArray | float = SMALLEST * float(self.variance.max())
        if least is not None:
            floor = np.clip(least**2, 1e-6 * floor, floor)
        return np.asarray(np.sqrt(np.maximum(variance, floor)))


def noise_of(values: FloatArray, draws: FloatArray | None) -> Noise:
    """The noise of a curve from its bootstrap draws.

    Args:
        values: (checkpoint,) the curve, finite.
        draws: (checkpoint, draw) its bootstrap draws; columns with NaN are left out. None, or fewer than 20 usable
            draws: independent Gaussian noise of one size, estimated from second differences of the curve (Gasser,
            Sroka and Jennen-Steinmetz 1986), by their median, which does not see a few large steps.
    """
    rng = np.random.default_rng(0)
    checkpoints = values.size
    usable = None if draws is None else draws[:, np.isfinite(draws).all(axis=0)]
    if usable is None or usable.shape[1] < 20:
        second = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
        size = float(np.median(second)) / (0.6745 * np.sqrt(6.0)) if second.size else 0.0
        variance = np.full(checkpoints, max(size**2, _nothing(values)))
        return Noise(rng.normal(size=(checkpoints, FINE_DRAWS)), variance, variance, (float(variance[0]), 0.0, 0.0))
    centre = usable.mean(axis=1)
    away = usable - centre[:, None]
    variance = away.var(axis=1, ddof=1)
    function = _variance_function(values, variance, usable.shape[1])
    flat = variance <= 1e-18 * max(1.0, float(np.abs(values).max()) ** 2)
    residuals = np.where(
        flat[:, None], rng.normal(size=away.shape), away / np.sqrt(np.where(flat, 1.0, variance))[:, None]
    )
    measured = variance
    variance = np.maximum(variance, max(SMALLEST * float(variance.max()), _nothing(values)))
    return Noise(residuals, measured, variance, function)


def _nothing(values: FloatArray) -> float:
    """A variance that is nothing beside the curve's range, and yet can be divided by."""
    return float((1e-6 * max(float(np.ptp(values)), 1e-6 * float(np.abs(values).max()), 1e-12)) ** 2)


def _variance_function(values: FloatArray, variance: FloatArray, draws: int) -> tuple[float, float, float] | None:
    """The quadratic function of the mean that the variances follow, up to the error of ``draws`` draws."""
    largest = float(variance.max())
    if values.size < 6 or largest <= 0:
        return None
    middle, spread = float(values.mean()), float(np.ptp(values)) or 1.0
    at = (values - middle) / spread
    design = np.stack([np.ones_like(at), at, at**2], axis=1)
    fit = np.full(values.size, largest)
    coefficients = np.zeros(3)
    for _ in range(3):  # errors are proportional to the variance: weighted, with weights from the fit
        weight = 1.0 / np.maximum(fit, SMALLEST * largest)
        coefficients = np.linalg.lstsq(design * weight[:, None], variance * weight, rcond=None)[0]
        fit = design @ coefficients
    floored = np.maximum(fit, SMALLEST * largest)
    error = ((variance - fit) / floored) ** 2 * (draws - 1) / 2.0
    if error.sum() > MISFIT * values.size:
        return None
    a, b, c = coefficients
    return (
        float(a - b * middle / spread + c * middle**2 / spread**2),
        float(b / spread - 2.0 * c * middle / spread**2),
        float(c / spread**2),
    )
