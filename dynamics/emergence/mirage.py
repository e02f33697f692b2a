"""Is a sharp rise the model's, or the metric's? The check of Schaeffer, Miranda and Koyejo (2023).

A thresholded metric (accuracy, exact match) can jump while the probability beneath it moves smoothly. Each is paired
with its continuous twin (log-probability, bits per byte, logit difference) on the same questions, and the width of the
rise, from 10% to 90% in decades of log10(step + 1), is compared: by the midpoint-and-scale fit of
:mod:`dynamics.emergence.shapes`, with its 95% interval.

- ``survives``: the twin is less than twice as wide, by the estimates, and by the upper ends of the intervals unless
  these overlap.
- ``does not survive``: the twin's interval lies above the thresholded one's, and it is at least twice as wide.
- ``undecided``: neither; ``not measurable``: one of them does not rise.

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

from dynamics.emergence.crossing import half_level
from dynamics.emergence.noise import Noise, noise_of
from dynamics.emergence.shapes import ShapeFit, fit_shape
from dynamics.emergence.types import Trend, finite_ends
from dynamics.numerics.arrays import FloatArray

__all__ = ["Mirage", "mirage"]

MirageVerdict = Literal["survives", "does not survive", "undecided", "not measurable"]

WIDTH = 2.0 * float(np.log(9.0))
"""Scales of a logistic between 10% and 90%."""

FACTOR = 2.0
"""How much wider the twin must be, before anything is called a mirage: any threshold narrows a little."""

LEAST = 4.0
"""A rise must exceed this many standard errors of the noise to have a width at all."""


@dataclass(frozen=True)
class Mirage:
    """Sharpness of a thresholded metric and of its continuous twin.

    Attributes:
        verdict: whether the sharpness survives in the twin.
        width, width_range: decades of the thresholded metric's rise.
        twin_width, twin_range: of the twin's.
        moved_before: share of the twin's rise that lay before 10% of the thresholded one's.
        sentence: the same in words.
    """

    verdict: MirageVerdict
    width: float | None
    width_range: tuple[float, float] | None
    twin_width: float | None
    twin_range: tuple[float, float] | None
    moved_before: float | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values; an end of a range that is open is null."""
        data = dict(vars(self))
        for name in ("width_range", "twin_range"):
            data[name] = None if data[name] is None else finite_ends(data[name])
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Mirage:
        """The inverse of :meth:`to_json`."""
        values = dict(data)
        for name in ("width_range", "twin_range"):
            if values[name] is not None:
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
    fits = []
    for name, values, table, way, level in (
        ("thresholded metric", sharp, draws, direction, base[0]),
        ("continuous twin", smooth, twin_draws, twin_direction, base[1]),
    ):
        drawn = None
        if table is not None:
            drawn = _sign(way) * np.asarray(table, dtype=np.float64)[valid] - level[valid, None]
        noise = noise_of(values[valid], drawn)
        fit = fit_shape("logistic", x, values[valid], noise)
        if not _rises(fit, noise, values[valid]):
            return _unknown(f"the {name} does not rise")
        fits.append(fit)
    one, twin = fits
    width, twin_width = WIDTH * one.scale, WIDTH * twin.scale
    low, high = (WIDTH * end for end in one.scale_range)
    twin_low, twin_high = (WIDTH * end for end in twin.scale_range)
    if twin_low > high and twin_width >= FACTOR * width:
        verdict: MirageVerdict = "does not survive"
    elif twin_width < FACTOR * width and (
        twin_high < FACTOR * max(high, width) or (twin_low <= high and low <= twin_high)
    ):
        verdict = "survives"
    else:
        verdict = "undecided"
    # The twin's own course, not its fit: its level at 10% of the thresholded rise, between its floor and plateau.
    begin = one.location - float(np.log(9.0)) * one.scale
    start = smooth[valid][: max(1, x.size // 20)].mean()
    top = float(half_level(smooth[valid][None])[1][0])
    moved = float((np.interp(begin, x, smooth[valid]) - start) / (top - start)) if top > start else None
    gone = "" if moved is None else f", which had gone {100 * moved:.0f}% of its way before"
    says = "may or may not survive" if verdict == "undecided" else verdict
    return Mirage(
        verdict=verdict,
        width=width,
        width_range=(low, high),
        twin_width=twin_width,
        twin_range=(twin_low, twin_high),
        moved_before=moved,
        sentence=f"the sharpness {says}: {width:.2f} decades {_range(low, high)} by the thresholded metric, "
        f"{twin_width:.2f} {_range(twin_low, twin_high)} by its continuous twin{gone}",
    )


def _reached(null: npt.ArrayLike | None, at: npt.NDArray[np.generic], direction: Trend) -> FloatArray:
    """(checkpoint,) the best that the null's mean had reached by each checkpoint, turned; 0 where there is no null."""
    if null is None:
        return np.zeros(at.shape)
    mean = _sign(direction) * np.asarray(null, dtype=np.float64)
    best = np.maximum.accumulate(np.where(np.isfinite(mean), mean, -np.inf))
    return np.asarray(np.where(np.isfinite(best), best, 0.0 if not np.isfinite(mean).any() else np.nan))


def _range(low: float, high: float) -> str:
    return f"[{low:.2f}, {high:.2f}]" if np.isfinite(high) else f"[{low:.2f} or more]"


def _rises(fit: ShapeFit, noise: Noise, values: FloatArray) -> bool:
    error = np.sqrt(fit.overdispersion) * float(np.median(noise.scale(fit.mean)))
    return bool(np.ptp(fit.mean) > LEAST * error and values.size)


def _unknown(reason: str) -> Mirage:
    return Mirage("not measurable", None, None, None, None, None, reason)


def _sign(direction: Trend) -> float:
    if direction not in ("up", "down"):
        raise ValueError(f"direction is {direction!r}; expected 'up' or 'down'")
    return 1.0 if direction == "up" else -1.0
