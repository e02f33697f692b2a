"""Does a curve rise at all, and where is half of the rise? The parts of the definitions that need no fitted parameter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.stats import chi2

from dynamics.emergence.bound import draws_needed, simultaneous_bound
from dynamics.emergence.crossing import Crossing, crossing, half_level, interval, quantile
from dynamics.emergence.noise import Noise
from dynamics.emergence.shapes import Shape, gain, plausible, widest

__all__ = ["half_rise", "rise_p_values"]

FloatArray = npt.NDArray[np.float64]

STILL = 1.96
"""A difference of neighbours is no movement up to this many of its standard errors: for both sides of a gap, 95%."""

UNDECIDED = 1.5
"""Standard errors within which a level of two or more checkpoints may be half of the rise."""

STEEPER = 2.0
"""A rise in a gap of more than this many times the one in either neighbour may have been a jump.

This and :data:`UNDECIDED` were chosen by simulation (`calibration`): intervals cover 94% of curves with two steps, and 98% of
all shapes together; without them 91% and 97%. With 1 and 2 in their places it was 98% and 99%.
"""


def rise_p_values(shape: Shape, x: FloatArray, values: FloatArray, null: FloatArray) -> tuple[float, float]:
    """P values of "the curve follows its null", against a rise that lasts and against being far above somewhere.

    Two statistics are taken of the curve and of every null draw: what a shape explains, and the largest studentised
    excess over the null's mean, which a short-lived rise has too. Each is doubled, for being one of two (Bonferroni).

    Args:
        shape: which one.
        x: (checkpoint,) log10(step + 1).
        values: (checkpoint,) finite.
        null: (checkpoint, null_draw) curves of the null; draws with NaN are left out.
    """
    draws = null[:, np.isfinite(null).all(axis=0)]
    n = draws.shape[1]
    if n < draws_needed(0.95):
        return 1.0, 1.0
    # The mean of the null without the draw itself: a draw must not be nearer to it than the curve is.
    away = (draws - draws.mean(axis=1, keepdims=True)) * (n / (n - 1))
    variance = away.var(axis=1)
    weight = 1.0 / np.maximum(variance, max(0.25 * float(variance.mean()), 1e-18))
    shapes = widest(shape, x)[2]
    together = np.concatenate([(values - draws.mean(axis=1))[None], away.T])
    explained = gain(together, weight, shapes).max(axis=(1, 2))
    bound = simultaneous_bound(draws)
    height = (values - bound.mean) / np.where(bound.scale > 0, bound.scale, np.inf)
    farthest = np.concatenate([[height.max()], bound.largest])
    rise, far = (
        min(1.0, 2.0 * (1 + int((one[1:] >= one[0] - 1e-9 * abs(one[0])).sum())) / (1 + n))
        for one in (explained, farthest)
    )
    return rise, far


def half_rise(x: FloatArray, values: FloatArray, noise: Noise, *, level: float = 0.95) -> tuple[float, float, float]:
    """Place of half the rise and its interval, in x; infinite where it is open.

    The critical value of the interval is the largest over several curves that the measured one may be a sample of, one
    of which has no assumed shape (:func:`plausible`), so that a rise in two steps is not taken for a slope.

    Args:
        x: (checkpoint,) log10(step + 1).
        values: (checkpoint,) finite, rising.
        noise: of the curve.
        level: of the interval.
    """
    position = np.arange(x.size, dtype=np.float64)
    limit = 0.0
    supposed = plausible(x, values, noise, any_shape=True)
    supposed += _undecided(x, values, supposed[0][1])
    for mean, scale, place in supposed:
        drawn = mean + noise.residuals.T * scale
        found = _half(drawn, scale)
        true = np.interp(place, x, position)
        limit = max(limit, quantile(found.at(np.array([true]))[:, 0] - found.lowest, level))
    scale = supposed[0][1]
    measured = _half(values[None], scale)
    low, high = interval(measured, limit)
    estimate = float(np.interp(measured.position[0], position, x))
    last = x.size - 1.0
    low, high = _with_jumps(values, scale, supposed[0][0], low, high)
    low, high = _outward(values, noise.residuals * scale[:, None], low, high)
    return (
        estimate,
        -np.inf if low <= 0 else float(np.interp(low, position, x)),
        np.inf if high >= last else float(np.interp(high, position, x)),
    )


def _undecided(x: FloatArray, values: FloatArray, scale: FloatArray) -> list[tuple[FloatArray, FloatArray, float]]:
    """Curves that stand still at half of their rise, where the measured one may: (mean, noise, place) as `plausible`.

    A level that is half of the rise up to its error leaves open whether half is reached where the curve comes to it or
    where it goes on. The least favourable truth is half exactly, with the place at either end; a curve fitted to the
    values has taken a side, and varies too little about it.
    """
    fit = isotonic_regression(values, weights=1.0 / scale**2)
    middle = 0.5 * float(fit.x[0] + fit.x[-1])
    begin, end = np.asarray(fit.blocks[:-1]), np.asarray(fit.blocks[1:])
    error = 1.0 / np.sqrt(np.add.reduceat(1.0 / scale**2, begin))
    near = np.flatnonzero((np.abs(fit.x[begin] - middle) <= UNDECIDED * error) & (end - begin > 1))
    near = near[(near > 0) & (near < begin.size - 1)]
    if not near.size:
        return []
    longest = near[(end - begin)[near].argmax()]
    first, stop = int(begin[longest]), int(end[longest])
    mean = np.array(fit.x)
    mean[first:stop] = middle
    return [(mean, scale, float(x[first])), (mean, scale, float(x[stop - 1]))]


def _half(curves: FloatArray, scale: FloatArray) -> Crossing:
    floor, plateau = half_level(curves)
    return crossing((curves - 0.5 * (floor + plateau)[:, None]) / scale)


def _outward(values: FloatArray, away: FloatArray, low: float, high: float) -> tuple[float, float]:
    """The interval of positions, with the whole gap at either end if the curve may have jumped there.

    It may, if it stands still, up to noise, between the two checkpoints before the gap and between the two after it, or
    rises much more in the gap than in either neighbour: a jump next to a lesser one looks like that. A rise in several jumps
    is no single jump (:func:`_with_jumps`), and where in its gap each was, nobody measured.

    Args:
        values: (checkpoint,) the curve.
        away: (checkpoint, draw) its noise.
    """
    rise = np.concatenate([[0.0], np.diff(values), [0.0]])  # rise[c + 1]: between checkpoints c and c + 1
    moves = np.diff(values) > STILL * np.diff(away, axis=0).std(axis=1)
    moves = np.concatenate([[False], moves, [False]])

    def jump(gap: int) -> bool:
        sides = [gap, gap + 2]
        return not moves[sides].any() or bool(moves[gap + 1] and rise[gap + 1] > STEEPER * rise[sides].max())

    last = values.size - 2
    first, final = min(int(np.floor(low)), last), max(int(np.ceil(high)) - 1, 0)
    return float(first) if jump(first) else low, float(final + 1) if jump(final) else high


def _with_jumps(
    values: FloatArray, scale: FloatArray, mean: FloatArray, low: float, high: float
) -> tuple[float, float]:
    """The interval of positions with all gaps in which a jump fits as well: where in a gap it was, nobody measured."""
    checkpoints = values.size
    weight = 1.0 / scale**2
    jumps = (np.arange(checkpoints)[None] > np.arange(checkpoints - 1)[:, None]).astype(np.float64)[:, None, :]
    share = weight / weight.sum()
    total = float((weight * (values - values @ share) ** 2).sum())
    residual = total - gain(values[None], weight, jumps)[0, :, 0]
    kept = np.flatnonzero(residual <= float((weight * (values - mean) ** 2).sum()) + float(chi2.isf(0.05, 1)))
    return (min(low, float(kept[0])), max(high, float(kept[-1] + 1))) if kept.size else (low, high)
