r"""Is a sharp rise the model's, or the metric's? The check of Schaeffer, Miranda and Koyejo (2023).

A thresholded metric (accuracy, exact match) can jump while the probability beneath it moves smoothly. Each is paired
with its continuous twin (log-probability, bits per byte, logit difference) on the same questions, and the *widths* of the two
rises are compared: the least training, in decades of log10(step + 1), in which half of the rise is gained. No shape is
assumed: a jump that slow growth follows is sharp, which a width from 10% to 90% would not say. It is taken of the isotonic
regression of the curve (Barlow et al. 1972), of which two bounds are known whatever lies between checkpoints: with the
monotone values :math:`g_i` and a rise of :math:`\Delta`, over pairs :math:`g_j - g_i \ge \Delta / 2`,

.. math:: \min_{i, j} \max(x_{j-1} - x_{i+1}, 0) \le w \le \min_{i, j} (x_j - x_i),

so that fewer checkpoints make a width less known and not another one. Of the twin, only stretches count that reach into the
rise of the thresholded metric, from 10% to 90% of it: what happened long before is another event. The 95% interval of a width also takes in what that of curves
varies by that have the isotonic regression for truth and the noise of the draws, or the scatter about it where that is larger.

With the ratio of the twin's width to that of the thresholded metric, and its interval from those of the two (Zou and Donner
2008, on the logarithms):

- ``survives``: the ratio is below 2, or the twin is sharp itself: it gains half of its rise within a doubling of training.
- ``does not survive``: the ratio is above 2, and the twin is not sharp.
- ``undecided``: neither is sure at 95%; ``not measurable``: one of them does not rise.

:attr:`Mirage.moved_before` needs no shape: how much of its way the twin had gone before the thresholded metric's own
10%. A model that suddenly can would show little of it.

With the nulls' means, a level counts only as far as it lies beyond the best that the null had reached by then: the
log-probability of the right digit rises long before any sum is learned, because the model learns that a digit comes
here, and the answers of other sums gain as much. The *running* best, because the null falls again when other answers
become improbable, which is the ability and not its absence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.special import gammaincinv

from dynamics.emergence.crossing import half_level
from dynamics.emergence.noise import noise_of
from dynamics.emergence.types import Trend, finite_ends
from dynamics.numerics.arrays import FloatArray
from dynamics.numerics.draws import DRAWS

__all__ = ["Mirage", "MirageVerdict", "mirage"]

MirageVerdict = Literal["survives", "does not survive", "undecided", "not measurable"]

SHARP = float(np.log10(2.0))
"""A width in decades below which a rise is sharp by itself: a doubling of training."""

FACTOR = 2.0
"""How much wider the twin must be, for anything to be called a mirage: any threshold narrows a little."""

RANGES = "width_range", "twin_range", "ratio_range"

LEAST = 4.0
"""A rise must exceed this many standard errors of the noise to have a width at all."""

MEDIAN = 2.0 * float(gammaincinv(0.5, 0.5))
"""Of the square of a standard normal variable."""

NOTHING = 1e-6
"""A width in decades that is none."""


@dataclass(frozen=True)
class Mirage:
    """Sharpness of a thresholded metric and of its continuous twin.

    Attributes:
        verdict: whether the sharpness survives in the twin.
        width, width_range: decades in which the thresholded metric gains half of its rise.
        twin_width, twin_range: of the twin's.
        moved_before: share of the twin's rise that lay before 10% of the thresholded one's.
        sentence: the same in words.
        ratio_range: 95% interval of the twin's width over the thresholded metric's.
    """

    verdict: MirageVerdict
    width: float | None
    width_range: tuple[float, float] | None
    twin_width: float | None
    twin_range: tuple[float, float] | None
    moved_before: float | None
    sentence: str
    ratio_range: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values; an end of a range that is open is null."""
        data = dict(vars(self))
        for name in RANGES:
            data[name] = None if data[name] is None else finite_ends(data[name])
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Mirage:
        """The inverse of :meth:`to_json`."""
        values = dict(data)
        for name in RANGES:
            if values.get(name) is not None:
                low, high = values[name]
                values[name] = (low, np.inf if high is None else high)
        return cls(**values)


def mirage(
    steps: npt.ArrayLike,
    thresholded: npt.ArrayLike,
    continuous: npt.ArrayLike,
    *,
    draws: npt.ArrayLike | None = None,
    twin_draws: npt.ArrayLike | None = None,
    direction: Trend = "up",
    twin_direction: Trend = "up",
    null: npt.ArrayLike | None = None,
    twin_null: npt.ArrayLike | None = None,
) -> Mirage:
    """Does the sharpness of a thresholded metric survive in its continuous twin?

    Args:
        steps: (checkpoint,) optimizer steps.
        thresholded, continuous: (checkpoint,) the two curves; checkpoints where one is NaN are left out of both.
        draws, twin_draws: (checkpoint, draw) bootstrap draws of each; without, the noise is estimated from second
            differences of the curve.
        direction, twin_direction: of emergence (a loss falls).
        null, twin_null: (checkpoint,) mean of each one's null, NaN where there is none; what it had reached is taken
            off the curve. Without, the curves are taken as they are.
    """
    at = np.asarray(steps)
    sharp = _sign(direction) * np.asarray(thresholded, dtype=np.float64)
    smooth = _sign(twin_direction) * np.asarray(continuous, dtype=np.float64)
    if sharp.shape != at.shape or smooth.shape != at.shape:
        raise ValueError(f"shapes are {at.shape}, {sharp.shape}, {smooth.shape}; expected one (checkpoint,)")
    base = _reached(null, at, direction), _reached(twin_null, at, twin_direction)
    sharp, smooth = sharp - base[0], smooth - base[1]
    valid = np.isfinite(sharp) & np.isfinite(smooth)
    x = np.log10(at[valid] + 1.0)
    if x.size < 6:
        return _unknown(f"{x.size} checkpoints have both metrics; at least 6 are needed")
    widths: list[_Width] = []
    for name, values, table, way, level in (
        ("thresholded metric", sharp, draws, direction, base[0]),
        ("continuous twin", smooth, twin_draws, twin_direction, base[1]),
    ):
        drawn = None
        if table is not None:
            drawn = _sign(way) * np.asarray(table, dtype=np.float64)[valid] - level[valid, None]
        found = _width(x, values[valid], drawn, widths[0].rise if widths else None)
        if found is None:
            return _unknown(f"the {name} does not rise")
        widths.append(found)
    one, twin = widths
    ratio = _ratio(twin, one)
    if ratio[1] < FACTOR or twin.high <= SHARP:
        verdict: MirageVerdict = "survives"
    elif ratio[0] > FACTOR and twin.low > SHARP:
        verdict = "does not survive"
    else:
        verdict = "undecided"
    # The twin's own course: its level at 10% of the thresholded rise, between its floor and plateau.
    start = smooth[valid][: max(1, x.size // 20)].mean()
    top = float(half_level(smooth[valid][None])[1][0])
    moved = float((np.interp(one.rise[0], x, smooth[valid]) - start) / (top - start)) if top > start else None
    gone = "" if moved is None else f", which had gone {100 * moved:.0f}% of its way before"
    says = "may or may not survive" if verdict == "undecided" else verdict
    return Mirage(
        verdict=verdict,
        width=one.width,
        width_range=(one.low, one.high),
        twin_width=twin.width,
        twin_range=(twin.low, twin.high),
        moved_before=moved,
        sentence=f"the sharpness {says}: half of the rise within {one.width:.2f} decades {_range(one.low, one.high)} by the "
        f"thresholded metric, {twin.width:.2f} {_range(twin.low, twin.high)} by its continuous twin{gone}",
        ratio_range=ratio,
    )


@dataclass(frozen=True)
class _Width:
    """Decades in which half of a rise is gained, their interval, and where the rise is from 10% to 90%, in x."""

    width: float
    low: float
    high: float
    rise: tuple[float, float]


def _width(
    x: FloatArray, values: FloatArray, draws: FloatArray | None, reaching: tuple[float, float] | None
) -> _Width | None:
    """The width of a rise, of stretches that reach into a part of x; None where there is no rise beyond noise."""
    noise = noise_of(values, draws)
    rise = np.asarray(isotonic_regression(values).x)
    scale = noise.scale(rise)
    # Training has noise of its own; what falls, and does not come back, is none.
    spread = max(1.0, float(np.sqrt(np.median(((values - rise) / scale) ** 2) / MEDIAN)))
    floor, plateau = half_level(values[None])
    if plateau[0] - floor[0] <= LEAST * spread * float(np.median(scale)):
        return None
    tenth, ninth = rise[0] + np.array([0.1, 0.9]) * (rise[-1] - rise[0])
    own = float(np.interp(tenth, rise, x)), float(np.interp(ninth, rise, x))
    within = reaching or (float(x[0]), float(x[-1]))
    shortest, width, longest = _halves(x, rise, within)
    drawn = rise + noise.residuals.T[:DRAWS] * (spread * scale)
    away = [_halves(x, np.asarray(isotonic_regression(curve).x), within)[1] / max(width, NOTHING) for curve in drawn]
    above, below = np.quantile(np.maximum(away, NOTHING), [0.975, 0.025])
    return _Width(width, shortest / max(float(above), 1.0), longest / min(float(below), 1.0), own)


def _halves(x: FloatArray, rise: FloatArray, within: tuple[float, float]) -> tuple[float, float, float]:
    """Least and most that the width may be, and in between that of the line through the values."""
    begin, end = within
    half = 0.5 * (rise[-1] - rise[0])
    first = np.flatnonzero((rise + half <= rise[-1] + 1e-12 * half) & (x <= end))
    last = np.maximum(np.searchsorted(rise, rise[first] + half - 1e-12 * half), np.searchsorted(x, begin))
    longest = float((x[last] - x[first]).min())
    inner = np.minimum(x[np.minimum(first + 1, x.size - 1)], end), np.maximum(x[np.maximum(last - 1, 0)], begin)
    shortest = float(np.maximum(inner[1] - inner[0], 0.0).min())
    # On a line between checkpoints, the shortest stretch begins or ends at one of them, or at an end of the part.
    strict = rise + np.linspace(0.0, 1e-9 * max(half, 1e-300), x.size)
    ends = np.maximum(np.interp(rise[first] + half, strict, x), begin) - x[first]
    stop = np.unique(np.append(x, begin))
    stop = stop[(stop >= begin) & (np.interp(stop, x, rise) - half >= rise[0])]
    starts = stop - np.minimum(np.interp(np.interp(stop, x, rise) - half, strict, x), end)
    width = float(np.concatenate([ends, starts]).min())
    return shortest, min(max(width, shortest), longest), longest


def _ratio(one: _Width, other: _Width) -> tuple[float, float]:
    """95% interval of the ratio of two widths, from theirs; a width that may be nothing leaves it open."""

    def distance(far: float, near: float) -> float:
        return abs(float(np.log(max(far, NOTHING) / max(near, NOTHING)))) if 0 < far < np.inf else np.inf

    middle = float(np.log(max(one.width, NOTHING) / max(other.width, NOTHING)))
    down = np.hypot(distance(one.low, one.width), distance(other.high, other.width))
    up = np.hypot(distance(one.high, one.width), distance(other.low, other.width))
    return float(np.exp(middle - down)), float(np.exp(middle + up))


def _reached(null: npt.ArrayLike | None, at: npt.NDArray[np.generic], direction: Trend) -> FloatArray:
    """(checkpoint,) the best that the null's mean had reached by each checkpoint, turned; 0 where there is no null."""
    if null is None:
        return np.zeros(at.shape)
    mean = _sign(direction) * np.asarray(null, dtype=np.float64)
    best = np.maximum.accumulate(np.where(np.isfinite(mean), mean, -np.inf))
    return np.asarray(np.where(np.isfinite(best), best, 0.0 if not np.isfinite(mean).any() else np.nan))


def _range(low: float, high: float) -> str:
    return f"[{low:.2f}, {high:.2f}]" if np.isfinite(high) else f"[{low:.2f} or more]"


def _unknown(reason: str) -> Mirage:
    return Mirage("not measurable", None, None, None, None, None, reason)


def _sign(direction: Trend) -> float:
    if direction not in ("up", "down"):
        raise ValueError(f"direction is {direction!r}; expected 'up' or 'down'")
    return 1.0 if direction == "up" else -1.0
