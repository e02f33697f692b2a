"""Effects on numbers of which only intervals are known: estimate, 95% interval and p value of a contrast, for many problems.

The interval holds the values that the likelihood ratio does not refuse (:mod:`.censored`), so that it has no end on a side on
which nothing bounds the effect: where all observations of one group are censored, for instance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .arrays import FloatArray
from .censored import CensoredFit, Observed, fit_censored, profile, t_of

__all__ = ["ContrastEstimate", "estimable", "estimate_contrast", "precision", "seeds_needed"]

_REACH = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 11.0, 18.0, 30.0])
"""At which distances from the estimate, in standard errors, an end of the interval is looked for."""

FAR = 32.0
"""An end that is farther than this from the estimate is open: a training is no 2^32 times longer than another."""

_FLAT = 0.1
"""A t statistic below this at the farthest value says that the likelihood goes on without an end."""

_FINE = 9


@dataclass(frozen=True)
class ContrastEstimate:
    """A contrast of the coefficients, one entry per problem.

    Attributes:
        estimate: where the likelihood is largest; infinite where nothing bounds it, NaN where nothing can be said.
        low, high: the interval; infinite where it has no end.
        p_value: of "the contrast is 0"; NaN where it cannot be tested.
        freedom: degrees of freedom behind the spread.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray
    freedom: FloatArray


def estimable(design: FloatArray, contrast: FloatArray) -> bool:
    """Whether observations of this design say anything about a contrast: it is a combination of their rows.

    >>> estimable(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0.0, 1.0]))
    False
    """
    if not len(design):
        return False
    return bool(np.linalg.matrix_rank(np.vstack([design, contrast])) == np.linalg.matrix_rank(design))


def estimate_contrast(
    observed: Observed, design: FloatArray, contrast: FloatArray, fit: CensoredFit | None = None, level: float = 0.95
) -> ContrastEstimate:
    """Estimate a contrast, with its interval and p value.

    Args:
        observed: what is known; the same observations are there in all problems.
        design: (observation, coefficient) of full rank.
        contrast: (coefficient,) weights.
        fit: of the same, where there is one.
        level: of the interval.
    """
    fit = fit or fit_censored(observed, design)
    closed = observed.closed
    n = closed.sum(axis=1).astype(np.float64)
    rank = np.array([np.linalg.matrix_rank(design[row]) if row.any() else 0 for row in closed])
    freedom = n - rank
    known = freedom >= 1
    found = fit.coefficients @ contrast
    bounded = np.abs(found) < FAR / 1.5
    anchor = np.clip(found, -FAR / 1.5, FAR / 1.5)
    scale = np.maximum(fit.spread, 0.02) * np.sqrt(float(contrast @ np.linalg.pinv(design.T @ design) @ contrast))
    critical = np.where(known, stats.t.ppf(0.5 + level / 2.0, np.maximum(freedom, 1.0)), np.inf)

    def statistic(values: FloatArray) -> FloatArray:
        ratio = 2.0 * (fit.likelihood[:, None] - profile(observed, design, contrast, values))
        return t_of(ratio, n[:, None], freedom[:, None])

    at_zero = statistic(np.zeros((len(found), 1)))[:, 0]
    ends, flat = [], []
    for side in (-1.0, 1.0):
        reach = np.minimum(_REACH * np.maximum(scale, 0.02)[:, None], FAR)
        reach = np.where(bounded[:, None], reach, np.linspace(0.0, 2.0 * FAR, len(_REACH)))
        reach[:, -1] = np.maximum(reach[:, -1], FAR)
        coarse = statistic(anchor[:, None] + side * reach)
        beyond = coarse > critical[:, None]
        flat.append(coarse[:, -1] < _FLAT)
        first = np.where(beyond.any(axis=1), beyond.argmax(axis=1), -1)
        inner = np.take_along_axis(reach, np.maximum(first - 1, 0)[:, None], 1)
        outer = np.take_along_axis(reach, np.maximum(first, 0)[:, None], 1)
        fine = inner + (outer - inner) * np.linspace(0.0, 1.0, _FINE)[None]
        t = np.maximum.accumulate(statistic(anchor[:, None] + side * fine), axis=1)
        end = np.array(
            [
                np.interp(c, row, offset) if np.isfinite(c) else np.inf
                for c, row, offset in zip(critical, t, fine, strict=True)
            ]
        )
        ends.append(np.where(first >= 0, anchor + side * end, side * np.inf))
    estimate = np.where(flat[0] & flat[1], np.nan, np.where(flat[0], -np.inf, np.where(flat[1], np.inf, found)))
    p = 2.0 * stats.t.sf(at_zero, np.maximum(freedom, 1.0))
    return ContrastEstimate(
        np.where(known, estimate, np.nan),
        np.where(known, ends[0], np.nan),
        np.where(known, ends[1], np.nan),
        np.where(known, p, np.nan),
        freedom,
    )


def precision(design: FloatArray, contrast: FloatArray) -> tuple[float, int]:
    """Variance of a contrast's estimate where observations have variance 1, c'(X'X)^-1 c, and the rank of the design.

    >>> precision(np.eye(4), np.array([0.5, 0.5, -0.5, -0.5]))
    (1.0, 4)
    """
    return float(contrast @ np.linalg.pinv(design.T @ design) @ contrast), int(np.linalg.matrix_rank(design))


def seeds_needed(
    effect: float,
    spread: float,
    design: FloatArray,
    contrast: FloatArray,
    *,
    power: float = 0.8,
    level: float = 0.05,
    most: int = 200,
) -> int | None:
    """How many seeds each combination of a design needs for an effect to be found, by the noncentral t distribution.

    Args:
        effect: the contrast.
        spread: standard deviation between seeds of one combination.
        design: (combination, coefficient).
        contrast: (coefficient,) weights.
        power: probability of finding it.
        level: of the two-sided test.
        most: more than this are not tried.

    Returns:
        Seeds of each combination; None where more than ``most`` would be needed.

    >>> seeds_needed(1.0, 1.0, np.eye(2), np.array([1.0, -1.0]))  # the textbook's two groups of 17
    17
    """
    variance, rank = precision(design, contrast)
    for seeds in range(2, most + 1):
        freedom = len(design) * seeds - rank
        shift = abs(effect) / (spread * np.sqrt(variance / seeds)) if spread > 0 else np.inf
        critical = stats.t.ppf(1.0 - level / 2.0, freedom)
        if not np.isfinite(shift) or stats.nct.sf(critical, freedom, shift) >= power:
            return seeds
    return None
