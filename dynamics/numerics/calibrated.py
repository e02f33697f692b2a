"""Is a model as often right as it is sure? Reliability and the expected calibration error, on plain arrays.

For questions i with confidence c_i (the probability of what was said) and r_i = 1 where it was right, and bins B_b of
the confidences, the expected calibration error (Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using
Bayesian Binning"; Guo et al. 2017, "On Calibration of Modern Neural Networks") is

    ECE = sum over b of (n_b / n) |mean r in B_b - mean c in B_b| = sum over b of |sum over i in B_b of (r_i - c_i)| / n.

Bins are of equal width in [0, 1], as there, or of equal mass: as many questions in each (Nixon et al. 2019, "Measuring
Calibration in Deep Learning", their adaptive calibration error), which no bin of two questions can dominate.

The ECE of a finite sample is above zero for a perfectly calibrated model too, because it adds up absolute values of noise
(Kumar et al. 2019). The null is :func:`calibrated_null`, which draws r_i anew as a perfectly
calibrated model would (Broecker and Smith 2007, "consistency resampling").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from .arrays import FloatArray, IntArray
from .draws import FINE_DRAWS

__all__ = ["Reliability", "bins_of", "calibrated_null", "calibration_draws", "calibration_error", "reliability"]


@dataclass(frozen=True)
class Reliability:
    """A reliability curve; every array is (bin,), NaN where a bin holds no question.

    Attributes:
        count: questions in the bin.
        confidence: their mean confidence.
        accuracy: the share that was right.
        low, high: 95% interval of the accuracy (Wilson 1927).
    """

    count: IntArray
    confidence: FloatArray
    accuracy: FloatArray
    low: FloatArray
    high: FloatArray


def bins_of(confidence: npt.ArrayLike, *, bins: int = 10, equal_mass: bool = False) -> IntArray:
    """(question,) the bin of every confidence, 0 to ``bins - 1``; -1 where it is NaN.

    Bins of equal width are half-open to the left, (b/n, (b+1)/n], and the first holds 0. With ``equal_mass`` they hold
    numbers of questions that differ by at most one; ties are dealt out in the order of the questions.

    Raises:
        ValueError: a confidence outside [0, 1] (beyond rounding), or no bins.

    >>> bins_of([0.0, 0.1, 0.11, 1.0, np.nan]).tolist()
    [0, 0, 1, 9, -1]
    """
    c = np.asarray(confidence, dtype=np.float64)
    if c.ndim != 1 or bins < 1:
        raise ValueError(f"confidence has shape {c.shape}, in {bins} bins; expected (question,) and at least one bin")
    known = np.isfinite(c)
    if ((c[known] < -1e-6) | (c[known] > 1 + 1e-6)).any():
        raise ValueError(f"a confidence is {c[known].min():g} or {c[known].max():g}; expected probabilities")
    found = np.full(c.shape, -1, dtype=np.int64)
    if equal_mass:
        n = int(known.sum())
        rank = np.argsort(np.argsort(c[known], kind="stable"), kind="stable")
        found[known] = rank * bins // max(n, 1)
    else:
        found[known] = np.clip(np.ceil(c[known] * bins - 1e-9).astype(np.int64) - 1, 0, bins - 1)
    return found


def calibration_error(
    confidence: npt.ArrayLike, right: npt.ArrayLike, *, bins: int = 10, equal_mass: bool = False
) -> float:
    """The expected calibration error of one sample; NaN where no question has a confidence.

    Args:
        confidence: (question,) probabilities; NaN leaves a question out.
        right: (question,) 1 where the first choice was right, else 0.

    >>> calibration_error([0.9, 0.9, 0.9, 0.9], [1, 1, 0, 0])  # sure, and right half of the time
    0.4
    """
    bin_of = bins_of(confidence, bins=bins, equal_mass=equal_mass)
    return round(float(_error(_gaps(confidence, right, bin_of)[None], bin_of, np.ones((1, len(bin_of))))[0]), 12)


def calibration_draws(
    confidence: npt.ArrayLike,
    right: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike | None = None,
    bins: int = 10,
    equal_mass: bool = False,
    draws: int = FINE_DRAWS,
    seed: int = 0,
) -> FloatArray:
    """(draw,) bootstrap draws of the error over clusters of questions, moved so that their mean is the sample's error.

    A resample's error is larger than the sample's for the reason that a sample's is larger than the truth, so that
    the plain percentile interval lies too high; the spread of the draws is kept and that shift taken off. Bins stay as
    they are in the sample. Draws below zero are zero.

    Args:
        clusters: (question,) labels: questions with one label (of one entity) are resampled together, in the order of
            sorted labels, as :func:`dynamics.emergence.unit_bootstrap` does.
    """
    bin_of = bins_of(confidence, bins=bins, equal_mass=equal_mass)
    labels = np.arange(len(bin_of)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    count = int(labels.max()) + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)[:, labels]
    gaps = _gaps(confidence, right, bin_of)[None]
    drawn = _error(gaps, bin_of, times.astype(np.float64))
    own = float(_error(gaps, bin_of, np.ones((1, len(bin_of))))[0])
    return np.asarray(np.maximum(drawn - np.nanmean(drawn) + own, 0.0)) if np.isfinite(drawn).any() else drawn


def calibrated_null(
    confidence: npt.ArrayLike, *, bins: int = 10, equal_mass: bool = False, draws: int = FINE_DRAWS, seed: int = 1
) -> FloatArray:
    """(draw,) errors of a perfectly calibrated model with these confidences: each is right with its own probability.

    The same random numbers decide for every sample of as many questions, so that draw d is one curve over checkpoints.
    """
    c = np.asarray(confidence, dtype=np.float64)
    bin_of = bins_of(c, bins=bins, equal_mass=equal_mass)
    made = (np.random.default_rng(seed).random((draws, len(c))) < c).astype(np.float64)
    return _error(np.where(bin_of >= 0, made - np.nan_to_num(c), 0.0), bin_of, np.ones((draws, len(c))))


def reliability(
    confidence: npt.ArrayLike, right: npt.ArrayLike, *, bins: int = 10, equal_mass: bool = False
) -> Reliability:
    """The reliability curve: how often the first choice is right, by how probable it was."""
    c, r = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    bin_of = bins_of(c, bins=bins, equal_mass=equal_mass)
    count = np.bincount(bin_of[bin_of >= 0], minlength=bins)
    mean, accuracy, low, high = (np.full(bins, np.nan) for _ in range(4))
    for b in np.flatnonzero(count):
        mine = bin_of == b
        mean[b], accuracy[b] = c[mine].mean(), r[mine].mean()
        between = binomtest(int(r[mine].sum()), int(count[b])).proportion_ci(method="wilson")
        low[b], high[b] = between.low, between.high
    return Reliability(count, mean, accuracy, low, high)


def _gaps(confidence: npt.ArrayLike, right: npt.ArrayLike, bin_of: IntArray) -> FloatArray:
    """(question,) r - c; 0 where a question is left out."""
    c, r = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if r.shape != c.shape or not np.isin(r[bin_of >= 0], (0.0, 1.0)).all():
        raise ValueError(f"right has shape {r.shape} for {c.shape}; expected 0 or 1 for every question")
    return np.where(bin_of >= 0, np.nan_to_num(r) - np.nan_to_num(c), 0.0)


def _error(gaps: FloatArray, bin_of: IntArray, weights: FloatArray) -> FloatArray:
    """(draw,) the error for gaps (draw or 1, question) and weights (draw, question); NaN where nothing has weight."""
    weights = np.where(bin_of >= 0, weights, 0.0)
    weighted = gaps * weights
    total = sum(
        (np.abs(weighted[:, bin_of == b].sum(1)) for b in np.unique(bin_of[bin_of >= 0])), np.zeros(len(weighted))
    )
    size = weights.sum(1)
    return np.asarray(np.divide(total, size, out=np.full(len(size), np.nan), where=size > 0))
