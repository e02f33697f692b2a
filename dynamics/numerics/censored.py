r"""Normal linear regression of numbers of which only intervals are known, for many problems at once.

Observation i is :math:`y_i = x_i\beta + \sigma\epsilon_i`, and what is known of it are intervals :math:`(a_{ik}, b_{ik}]` with
weights :math:`w_{ik}` that add up to 1: one interval where it was seen between two looks (*interval-censored*), one without an
upper end where it was never seen (*right-censored*), several where looking has an error of its own (one for each outcome of
it). The likelihood is :math:`\prod_i \sum_k w_{ik}\,[\Phi((b_{ik} - x_i\beta)/\sigma) - \Phi((a_{ik} - x_i\beta)/\sigma)]`, so that
:math:`\sigma` is the spread between observations alone (Tobin 1958; Turnbull 1976 for intervals).

Few observations are the rule, and the likelihood ratio :math:`\Lambda` of few is too large for its limiting distribution. Where
everything is known exactly, :math:`t^2 = d\,(e^{\Lambda/n} - 1)` is the squared t statistic of least squares, with n observations and d
degrees of freedom; :func:`t_of` takes this for the general case, with n and d of the observations that have an upper and a
lower end. It is exact without censoring; ``benchmarks/compare.py`` has how often its intervals hold the truth with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from .arrays import FloatArray

__all__ = ["CensoredFit", "Observed", "fit_censored", "profile", "t_of"]

ITERATIONS = 40
"""Steps of the maximisation; two dozen are enough but where it runs to infinity, whose likelihood it nears."""

FARTHEST = 60.0
"""Coefficients are kept within this of zero: one that is not bounded by the data would run away."""

LEAST_SPREAD, LARGEST_SPREAD = 1e-3, 30.0


@dataclass(frozen=True)
class Observed:
    """What is known of the observations, each (problem, observation, interval).

    Attributes:
        low, high: ends of the intervals; infinite where open.
        weight: of the intervals; they add up to 1 over an observation, or to 0 where there is none.
    """

    low: FloatArray
    high: FloatArray
    weight: FloatArray

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        """(problem, observation) which observations there are."""
        return np.asarray(self.weight.sum(axis=-1) > 0)

    @property
    def closed(self) -> npt.NDArray[np.bool_]:
        """(problem, observation) which have both ends, in more than half of their weight."""
        ends = np.isfinite(self.low) & np.isfinite(self.high)
        return np.asarray((self.weight * ends).sum(axis=-1) > 0.5)

    def middles(self) -> FloatArray:
        """(problem, observation) mean of the middles; of an interval with one end that end; NaN where there is none."""
        low = np.where(np.isfinite(self.low), self.low, self.high)
        high = np.where(np.isfinite(self.high), self.high, low)
        low = np.where(np.isfinite(low), low, high)
        middle = np.where(self.weight > 0, (low + high) / 2.0, 0.0)
        total = self.weight.sum(axis=-1)
        return np.where(total > 0, (self.weight * middle).sum(axis=-1) / np.where(total > 0, total, 1.0), np.nan)

    def shifted(self, by: FloatArray) -> Observed:
        """The same, less ``by`` (problem or 1, observation)."""
        return Observed(self.low - by[..., None], self.high - by[..., None], self.weight)

    def repeated(self, times: int) -> Observed:
        """Each problem so many times, one after the other."""
        return Observed(*(np.repeat(a, times, axis=0) for a in (self.low, self.high, self.weight)))


@dataclass(frozen=True)
class CensoredFit:
    """The likelihood's maximum, one entry per problem.

    Attributes:
        coefficients: (problem, coefficient).
        spread: (problem,) sigma.
        likelihood: (problem,) the logarithm of it.
    """

    coefficients: FloatArray
    spread: FloatArray
    likelihood: FloatArray


def fit_censored(observed: Observed, design: FloatArray) -> CensoredFit:
    """Maximise the likelihood, by Newton steps that are held back where they would make it worse.

    Args:
        observed: what is known.
        design: (observation, coefficient), of full rank over the observations that are there; may have no column.

    >>> known = Observed(np.array([[[0.9], [2.9]]]), np.array([[[1.1], [3.1]]]), np.ones((1, 2, 1)))
    >>> fit_censored(known, np.ones((2, 1))).coefficients.round(3).tolist()
    [[2.0]]
    """
    problems, columns = len(observed.weight), design.shape[1]
    start = _start(observed, design)
    theta, damping = start, np.full(problems, 1e-3)
    value, gradient, curvature = _derivatives(observed, design, theta)
    steady = np.zeros(problems, dtype=np.bool_)
    for _ in range(ITERATIONS):
        active = np.flatnonzero(~steady)
        if not active.size:
            break
        sizes, vectors = np.linalg.eigh(-curvature[active])
        scaled = np.abs(sizes) + damping[active, None] * (1.0 + np.abs(sizes))
        along = np.einsum("pij,pi->pj", vectors, gradient[active]) / scaled
        step = np.clip(np.einsum("pij,pj->pi", vectors, along), -4.0, 4.0)
        new = theta[active] + step
        new[:, :columns] = np.clip(new[:, :columns], -FARTHEST, FARTHEST)
        new[:, columns] = np.clip(new[:, columns], np.log(LEAST_SPREAD), np.log(LARGEST_SPREAD))
        chosen = Observed(*(a[active] for a in (observed.low, observed.high, observed.weight)))
        there = _derivatives(chosen, design, new)
        better = there[0] >= value[active] - 1e-12
        steady[active[better & (np.abs(there[0] - value[active]) < 1e-7)]] = True
        steady[active[~better & (damping[active] > 1e6)]] = True
        up = active[better]
        theta[up], value[up], gradient[up], curvature[up] = (a[better] for a in (new, *there))
        damping[active] = np.where(better, np.maximum(damping[active] / 5.0, 1e-9), damping[active] * 8.0)
    return CensoredFit(theta[:, :columns], np.exp(theta[:, columns]), value)


def profile(observed: Observed, design: FloatArray, contrast: FloatArray, values: FloatArray) -> FloatArray:
    """(problem, value) the largest log-likelihood at which a contrast of the coefficients has each value.

    Args:
        observed, design: as of :func:`fit_censored`.
        contrast: (coefficient,) weights; the contrast is their sum over the coefficients.
        values: (problem, value).
    """
    count = values.shape[1]
    size = float(contrast @ contrast)
    rest = np.linalg.svd(contrast[None])[2][1:].T  # (coefficient, coefficient - 1) what leaves the contrast as it is
    fixed = values.reshape(-1, 1) * (design @ contrast / size)[None]
    fit = fit_censored(observed.repeated(count).shifted(fixed), design @ rest)
    return np.asarray(fit.likelihood.reshape(-1, count))


def t_of(ratio: FloatArray, observations: FloatArray, freedom: FloatArray) -> FloatArray:
    """The t statistic (without sign) for a likelihood ratio, which is twice a difference of log-likelihoods.

    Args:
        ratio: any shape; not below 0.
        observations, freedom: n and d of the module's docstring, of a shape that fits.

    >>> float(t_of(np.array(0.0), np.array(6.0), np.array(4.0)))
    0.0
    """
    n = np.maximum(observations, 1.0)
    return np.asarray(np.sqrt(np.maximum(freedom, 0.0) * np.expm1(np.minimum(np.maximum(ratio, 0.0) / n, 500.0))))


def _start(observed: Observed, design: FloatArray) -> FloatArray:
    """(problem, coefficient + 1) least squares of the middles, and the logarithm of their spread."""
    middles = observed.middles()
    there = observed.there
    y = np.where(there, np.nan_to_num(middles), 0.0)
    gram = np.einsum("pn,ni,nj->pij", there.astype(float), design, design) + 1e-9 * np.eye(design.shape[1])
    beta = np.linalg.solve(gram, np.einsum("pn,ni->pi", y * there, design)[..., None])[..., 0]
    beta = np.clip(beta, -FARTHEST, FARTHEST)
    left = np.where(there, y - beta @ design.T, 0.0)
    spread = np.sqrt((left**2).sum(axis=1) / np.maximum(there.sum(axis=1), 1))
    width = observed.high - observed.low
    known = np.isfinite(width) & (observed.weight > 0)
    typical = np.where(known, width, 0.0).sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1)
    return np.concatenate([beta, np.log(np.clip(spread + 0.3 * typical, 0.02, 8.0))[:, None]], axis=1)


def _derivatives(
    observed: Observed, design: FloatArray, theta: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log-likelihood (problem,), gradient (problem, coefficient + 1) and second derivatives, in the coefficients and log sigma."""
    columns = design.shape[1]
    spread = np.exp(theta[:, columns])[:, None]
    mean = theta[:, :columns] @ design.T
    weight, there = observed.weight, observed.there

    def at(ends: FloatArray) -> tuple[FloatArray, ...]:
        """phi, z phi, z^2 phi, z^3 phi, and z, at standardised ends; what is infinite has no density."""
        z = (ends - mean[..., None]) / spread[..., None]
        finite = np.where(np.isfinite(z), z, 0.0)
        density = np.where(np.isfinite(z), np.exp(-0.5 * np.minimum(finite**2, 1400.0)), 0.0) / np.sqrt(2.0 * np.pi)
        return density, finite * density, finite**2 * density, finite**3 * density, z

    upper, lower = at(observed.high), at(observed.low)
    swap = lower[4] > 0  # in the upper tail differences of small numbers, not of numbers near 1
    with np.errstate(invalid="ignore"):
        mass = np.where(swap, ndtr(-lower[4]) - ndtr(-upper[4]), ndtr(upper[4]) - ndtr(lower[4]))
    p = np.where(there, np.maximum((weight * mass).sum(axis=-1), 1e-290), 1.0)

    def total(power: int) -> FloatArray:
        return np.asarray((weight * (upper[power] - lower[power])).sum(axis=-1))

    density, first, second, third = (total(power) for power in range(4))
    by_mean, by_spread = -density / spread / p, -first / p
    mean_mean = -first / spread**2 / p - by_mean**2
    mean_spread = (density - second) / spread / p - by_mean * by_spread
    spread_spread = (first - third) / p - by_spread**2
    gradient = np.concatenate([by_mean @ design, by_spread.sum(axis=1, keepdims=True)], axis=1)
    curvature = np.empty((len(theta), columns + 1, columns + 1))
    curvature[:, :columns, :columns] = np.einsum("pn,ni,nj->pij", mean_mean, design, design)
    curvature[:, :columns, columns] = curvature[:, columns, :columns] = mean_spread @ design
    curvature[:, columns, columns] = spread_spread.sum(axis=1)
    return np.log(p).sum(axis=1), gradient, curvature
