r"""When did a curve leave its null for good? The definition *excess over null*.

With a curve :math:`v_c` at checkpoints c, and the simultaneous upper bound :math:`u_c` of its null
(:mod:`dynamics.emergence.bound`), c is *above* where :math:`v_c > u_c`, and *clearly below* where
:math:`v_c \le u_c - 1.645 e_c` with :math:`e_c` the bootstrap standard error of the curve (without bootstrap draws:
the null's own scale). Runs of checkpoints above (:mod:`dynamics.emergence.runs`) tolerate a lone checkpoint that is
not above if it is not clearly below. Then

- **emerged**: a run reaches the last valid checkpoint. Its onset is (the valid checkpoint before it, its first]. A
  curve that is above at the first checkpoint, is lost and comes back is *emerged* with the onset of its return,
  because the onset is the time from which it *stays*; ``episodes`` says that there was an earlier one.
- **present from start**: that run starts at the first valid checkpoint. The onset is left-censored.
- **transient**: there were runs, none reaches the end. Onset and loss are those of the longest (the first of equals).
- **not emerged**: never above. The onset is right-censored.
- **not measurable**: no null, too few null draws, fewer than two valid checkpoints, or floor and ceiling coincide: the
  null fills the metric's range, or (where the range is not known) curve and null are one constant.

A checkpoint is valid where the curve and the null are finite; all intervals lie between valid neighbours. Rising and
lasting are measured on the values themselves:

- floor F: median of the valid values before the onset; without any, the null's mean at the first valid checkpoint
  (``not emerged``: median of all). Plateau P: median of the last tenth of the valid values (at least one, and none
  from before the onset), or of the last part of it in which the curve has stopped rising: the part is halved while its
  later half lies above the earlier by more than noise and more than a tenth of P - F, which completion does not ask for
  either. For *transient* the largest value of the run.
- midpoint: the upward crossing of F + 0.5 (P - F) from which the curve stays at or above that level until the end
  (transient: until its peak), with the same tolerance of noise as above; interpolated linearly in
  x = log10(step + 1), which puts step 0 at x = 0.
- completion: the first checkpoint at F + 0.9 (P - F) or above, not before the midpoint, from which the curve is never
  clearly below that level twice in a row. A plateau wavers around nine tenths of itself, so that the stricter rule of
  the midpoint would put completion at the last chance dip. Where the last checkpoint is still above the one before it by as
  much, the curve is *still rising*: completion is right-censored, and the midpoint that of the rise so far.
- width: x(0.9) - x(0.1) in decades, with x(0.1) defined as the midpoint is and x(0.9) as completion is.

If P <= F (the null fell, rather than the curve rose), there are none of the three.

``onset_range`` is a 95% interval for the *true* onset, the first checkpoint whose expected value is above the bound
(which is taken as known): a test inversion with noise taken off the draws (:mod:`dynamics.emergence.crossing`), and the
observed onset with it. ``confidence`` is the share of bootstrap draws that have the state of the curve, each put
through the same procedure. A draw carries the sampling noise twice, in the sample and in its resampling, so that it
crosses the bound by chance more often than the curve: confidence in ``not emerged`` is pessimistic, the more so with
many checkpoints.

**What the null MUST be.** A null draw is a whole curve, made in the way the measured curve was made, *with the sampling
noise of the same number of units*: a shuffle of the answers, a random component scored on the same prompts, a binomial
sample at the chance rate. Draws of the null's expectation (chance = 0.1 at every draw, a mean over many random heads)
are too narrow, and their bound would call noise emergence. The error rate holds for whatever dependence between
checkpoints the draws have, if they have that of the curve.

Example:
    >>> from dynamics.emergence import unit_bootstrap
    >>> rng = np.random.default_rng(0)
    >>> steps = [0, 64, 128, 256, 512, 1000, 2000, 4000]
    >>> rate = np.where(np.array(steps) >= 1000, 0.7, 0.1)
    >>> correct = rng.random((8, 100)) < rate[:, None]
    >>> null = rng.binomial(100, 0.1, size=(8, 200)) / 100
    >>> found = assess(steps, correct.mean(axis=1), draws=unit_bootstrap(correct), null=null, null_name="chance")
    >>> found.state, str(found.onset), str(found.onset_range), found.confidence
    ('emerged', '(512, 1000]', '(512, 1000]', 1.0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dynamics.emergence.bound import draws_needed, simultaneous_bound
from dynamics.emergence.crossing import first_above_range, summit
from dynamics.emergence.noise import noise_of
from dynamics.emergence.runs import CLEARLY, CODES, NONE, Runs, scan
from dynamics.emergence.shapes import plausible
from dynamics.emergence.types import Emergence, Interval, State, Trend, tokens_of
from dynamics.numerics.arrays import BoolArray, FloatArray, IntArray

__all__ = ["above_bound", "assess", "standard_error"]


RANGE = 0.95
"""Level of the bootstrap interval of the onset."""

ROUNDING = 1e-9
"""Relative: a curve that equals its bound up to this is not above it (accuracies are rounded quotients)."""

RISING = 2.33
"""Standard errors by which a curve must still rise for its end to be no plateau: one-sided 99%."""

SHARES = (0.1, 0.5, 0.9)
"""Shares of the rise: start of the width, midpoint, completion."""


def assess(
    steps: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    draws: npt.ArrayLike | None = None,
    null: npt.ArrayLike | None,
    null_name: str,
    tokens: npt.ArrayLike | None = None,
    level: float = 0.95,
    direction: Trend = "up",
    limits: tuple[float, float] | None = None,
) -> Emergence:
    """The emergence of one curve, by excess over its null (see the module's docstring).

    Args:
        steps: (checkpoint,) optimizer steps, strictly increasing.
        values: (checkpoint,) the curve; NaN where it was not measured.
        draws: (checkpoint, draw) bootstrap draws of the curve, e.g. of :func:`unit_bootstrap`.
        null: (checkpoint, null_draw) curves of the null. They MUST carry the sampling noise of the curve. None says
            that there is no null, and the curve is ``not measurable``.
        null_name: what the null is, for the reader.
        tokens: (checkpoint,) tokens seen; NaN where not known.
        level: of the null's bound, simultaneous over checkpoints: a curve of the null is reported as ever above it
            with probability at most about ``1 - level``.
        direction: ``"down"`` where emergence is a fall (a loss); results keep the original sign.
        limits: lowest and highest value that the metric can take, where it has any (an accuracy: 0 and 1). A curve
            that never leaves the floor is then ``not emerged``; without limits it is not known whether a curve that
            equals its constant null could have left it, and it is ``not measurable``.

    Returns:
        State, intervals, levels and confidence.

    Raises:
        ValueError: shapes do not fit, steps do not increase, ``level`` or ``direction`` is none.
    """
    series = _Series.checked(steps, values, draws, null, tokens, direction)
    needed = draws_needed(level)
    finite = np.isfinite(series.values)
    curve = series.values[finite]
    known: dict[str, Any] = {"null": null_name, "direction": direction}
    if curve.size:
        known |= {"peak": series.signed(curve.max()), "final": series.signed(curve[-1])}

    valid = finite & (np.isfinite(series.null).sum(axis=1) >= needed)
    reason = _unmeasurable(series, valid, needed, limits)
    if reason:
        unknown = (math.nan,) * len(series.steps)
        return Emergence(state="not measurable", reason=reason, null_upper=unknown, **known)

    at, v = series.steps[valid], series.values[valid]
    bound = simultaneous_bound(series.null[valid], level, family=len(valid), positions=np.flatnonzero(valid))
    if limits is not None and (bound.upper >= _ceiling(series, limits)).all():
        limit = max(limits) if series.sign > 0 else min(limits)
        reason = f"no room above the null: its bound is at the metric's limit {limit:g} throughout"
        return Emergence(state="not measurable", reason=reason, null_upper=(math.nan,) * len(series.steps), **known)
    resampled = None if series.draws is None else series.draws[valid]
    noise = bound.scale if resampled is None else standard_error(resampled)
    runs = above_bound(v[None, :], bound.upper, noise)
    state: State = CODES[runs.state[0]]
    onset = _interval(at, runs.before[0], runs.start[0])

    upper = np.full(len(series.steps), np.nan)
    upper[valid] = [series.signed(value) for value in bound.upper]
    known |= {
        "state": state,
        "null_upper": tuple(upper.tolist()),
        "onset": onset,
        "onset_tokens": tokens_of(onset, series.steps, series.tokens),
        "episodes": int(runs.episodes[0]),
        "loss": _interval(at, runs.stop[0], runs.after[0]) if state == "transient" else None,
    }
    known["fall"] = _fall(series, v, noise if resampled is None else resampled)
    if resampled is not None:
        drawn = above_bound(resampled.T, bound.upper, noise)
        known["confidence"] = float((drawn.state == runs.state[0]).mean())
        known["onset_range"] = _onset_range(at, v, resampled, bound.upper, bound.scale, runs)
    if state == "not emerged":
        return Emergence(floor=series.signed(np.median(v)), **known)

    floor = float(np.median(v[: runs.start[0]])) if runs.start[0] > 0 else float(bound.mean[0])
    run = v[runs.start[0] : runs.stop[0] + 1]
    rising = False
    if state == "transient":
        top = int(runs.start[0] + run.argmax())
        plateau = float(v[top])
    else:
        top = len(v) - 1
        first = max(int(runs.start[0]), len(v) - math.ceil(0.1 * len(v)))
        plateau, rising = _plateau(v, noise, floor, first)
    known |= {"floor": series.signed(floor), "plateau": series.signed(plateau)}
    if plateau > floor:
        known |= _rise(at[: top + 1], v[: top + 1], noise[: top + 1], floor, plateau)
        if rising:
            known |= {"completion": _interval(at, top, len(v)), "width_decades": None}
    return Emergence(**known)


@dataclass(frozen=True)
class _Series:
    """The checked arguments, turned so that emergence is a rise."""

    steps: IntArray
    values: FloatArray
    draws: FloatArray | None
    null: FloatArray
    tokens: FloatArray | None
    sign: float

    @classmethod
    def checked(
        cls,
        steps: npt.ArrayLike,
        values: npt.ArrayLike,
        draws: npt.ArrayLike | None,
        null: npt.ArrayLike | None,
        tokens: npt.ArrayLike | None,
        direction: Trend,
    ) -> _Series:
        if direction not in ("up", "down"):
            raise ValueError(f"direction is {direction!r}; expected 'up' or 'down'")
        sign = 1.0 if direction == "up" else -1.0
        at = np.asarray(steps)
        if at.ndim != 1 or (at.size and not np.issubdtype(at.dtype, np.integer)):
            raise ValueError(f"steps have shape {at.shape} and type {at.dtype}; expected integers (checkpoint,)")
        wrong = np.flatnonzero(np.diff(at) <= 0)
        if wrong.size:
            pair = at[wrong[0]], at[wrong[0] + 1]
            raise ValueError(f"steps go from {pair[0]} to {pair[1]}; expected strictly increasing steps")
        if at.size and at[0] < 0:
            raise ValueError(f"the first step is {at[0]}; expected 0 or more")
        checkpoints = at.size
        return cls(
            steps=at.astype(np.int64),
            values=sign * _array("values", values, checkpoints),
            draws=None if draws is None else sign * _table("draws", draws, checkpoints, least=1),
            null=np.empty((checkpoints, 0)) if null is None else sign * _table("null", null, checkpoints, least=0),
            tokens=None if tokens is None else _array("tokens", tokens, checkpoints),
            sign=sign,
        )

    def signed(self, value: float | np.float64) -> float:
        """``value`` in the sign that the caller knows; adding 0.0 turns -0.0 into 0.0."""
        return float(self.sign * value) + 0.0


def _array(name: str, array: npt.ArrayLike, checkpoints: int) -> FloatArray:
    checked = np.asarray(array, dtype=np.float64)
    if checked.shape != (checkpoints,):
        raise ValueError(f"{name} have shape {checked.shape}; expected {(checkpoints,)}: one per step")
    return checked


def _table(name: str, array: npt.ArrayLike, checkpoints: int, *, least: int) -> FloatArray:
    checked = np.asarray(array, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[0] != checkpoints or checked.shape[1] < least:
        raise ValueError(f"{name} has shape {checked.shape}; expected ({checkpoints}, draw): one row per step")
    return checked


def _unmeasurable(series: _Series, valid: BoolArray, needed: int, limits: tuple[float, float] | None) -> str:
    """Why nothing can be said about the curve; empty if something can."""
    available = series.null.shape[1]
    if available == 0:
        return "there is no null" if np.isfinite(series.values).any() else "it has no value at any checkpoint"
    if available < needed:
        return f"the null has {available} draws; its bound needs at least {needed}"
    if valid.sum() < 2:
        return f"{valid.sum()} of {valid.size} checkpoints have a finite value and null; at least 2 are needed"
    if limits is not None:
        ceiling = _ceiling(series, limits)
        if np.nanmin(series.null[valid]) >= ceiling:
            limit = max(limits) if series.sign > 0 else min(limits)
            return f"floor and ceiling coincide: the null is at the metric's limit {limit:g} throughout"
        return ""
    everything = np.concatenate([series.values[valid], series.null[valid].ravel()])
    low, high = np.nanmin(everything), np.nanmax(everything)
    if high - low <= ROUNDING * max(abs(low), abs(high)):
        return f"floor and ceiling coincide: the curve and its null are {series.signed(low):g} throughout"
    return ""


def _ceiling(series: _Series, limits: tuple[float, float]) -> float:
    """The best value that the metric can take, in the curve's own sign, up to rounding."""
    ceiling = max(series.sign * limits[0], series.sign * limits[1])
    return ceiling - ROUNDING * max(1.0, abs(ceiling))


def standard_error(draws: FloatArray) -> FloatArray:
    """Standard deviation over finite draws (checkpoint,); 0 where there are fewer than two."""
    finite = np.isfinite(draws)
    n = finite.sum(axis=1)
    mean = np.where(finite, draws, 0.0).sum(axis=1) / np.maximum(n, 1)
    squares = np.where(finite, (draws - mean[:, None]) ** 2, 0.0).sum(axis=1)
    return np.asarray(np.sqrt(squares / np.maximum(n - 1, 1)))


def above_bound(
    curves: FloatArray, threshold: FloatArray, noise: FloatArray, valid: BoolArray | None = None, at_least: bool = False
) -> Runs:
    """Runs of curves (curve, checkpoint) above a threshold (checkpoint,) or of each; with ``at_least``, at it or above."""
    excess = curves - threshold
    rounding = ROUNDING * np.abs(threshold)
    above = excess >= -rounding if at_least else excess > rounding
    return scan(above, excess <= -CLEARLY * noise, np.isfinite(curves) if valid is None else valid)


def _onset_range(
    at: IntArray, v: FloatArray, draws: FloatArray, upper: FloatArray, least: FloatArray, runs: Runs
) -> Interval:
    """Confidence interval of the first checkpoint that is above in expectation, together with the observed onset.

    A rate of 0 seems to have no noise; it is given ``least`` (checkpoint,), the noise of the null.
    """
    # What comes after a loss says nothing about the rise.
    until = summit(v, int(runs.start[0]), int(runs.stop[0])) + 1 if CODES[runs.state[0]] == "transient" else at.size
    first, last = int(runs.before[0]), int(runs.start[0])
    if until < 2:
        return _interval(at, first, last)
    noise = noise_of(v[:until], draws[:until])
    x = np.log10(at[:until] + 1.0)
    fitted = [(mean, noise.scale(mean, least[:until])) for mean, _, _ in plausible(x, v[:until], noise, upper[:until])]
    earliest, latest = first_above_range(v[:until], upper[:until], fitted, noise.residuals, RANGE)
    return _interval(at, min(first, earliest - 1), max(last, latest if latest < until else at.size))


def _fall(series: _Series, v: FloatArray, noise: FloatArray) -> float | None:
    """Peak minus final value, where the largest of as many checkpoints would not exceed the last by as much by chance.

    Args:
        series: for the sign of the result.
        v: (checkpoint,) the valid values.
        noise: (checkpoint, draw) bootstrap draws, or (checkpoint,) standard errors.
    """
    peak = int(v.argmax())
    height = float(v[peak] - v[-1])
    if noise.ndim == 1:
        chance = 2.0 * math.sqrt(2.0 * math.log(max(v.size, 2))) * float(noise.max())
    else:
        away = noise[:, np.isfinite(noise).all(axis=0)]
        if away.shape[1] < 20:
            return None
        # Only what is near the peak could be the peak by chance; the plateau is as noisy as its noisiest checkpoint.
        away = away - away.mean(axis=1, keepdims=True)
        chance = float(np.quantile(away[peak:].max(axis=0) - away[-1], RANGE, method="higher")) if height > 0 else 0.0
    return series.signed(height) if height > chance else None


def _plateau(v: FloatArray, noise: FloatArray, floor: float, first: int) -> tuple[float, bool]:
    """The level at which the curve (checkpoint,) has stopped rising, and whether it has not.

    It begins at ``first`` at the earliest. ``noise`` are standard errors; errors in common would only make them smaller.
    """

    def rises(begin: int) -> bool:
        middle = begin + (v.size - begin) // 2
        parts = slice(begin, middle), slice(middle, None)
        early, late = (float(np.median(v[part])) for part in parts)
        error = math.sqrt(sum(float((noise[part] ** 2).mean()) / v[part].size for part in parts))
        return late - early > max(RISING * error, (1.0 - SHARES[2]) * (late - floor))

    while v.size - first > 1 and rises(first):
        first += (v.size - first + 1) // 2
    return float(np.median(v[first:])), first == v.size - 1 and rises(first - 1)


def _rise(at: IntArray, v: FloatArray, noise: FloatArray, floor: float, plateau: float) -> dict[str, Any]:
    """Midpoint, completion and width of the rise from ``floor`` to ``plateau``, held until the last of ``v``."""
    low, middle, high = floor + np.array(SHARES) * (plateau - floor)
    begun = _first_held(v, low, noise)
    halfway = _first_held(v, middle, noise)
    # A plateau wavers around 90% of itself: from half of the rise on, only what is clearly below counts against it.
    back = scan([v >= high - CLEARLY * noise], [np.zeros(v.size, dtype=np.bool_)], [np.ones(v.size, dtype=np.bool_)])
    settled = v.size if back.after[0] != NONE else max(int(back.start[0]), halfway)
    reached = np.flatnonzero(v[settled:] >= high)
    complete = settled + int(reached[0]) if reached.size else v.size

    def crossing(level: float, start: int) -> float | None:
        """log10(step + 1) where the line between two checkpoints meets ``level``."""
        if not 0 < start < v.size:
            return None
        x0, x1 = np.log10(at[start - 1 : start + 1] + 1.0)
        return float(x0 + (level - v[start - 1]) / (v[start] - v[start - 1]) * (x1 - x0))

    x_low, x_middle, x_high = crossing(low, begun), crossing(middle, halfway), crossing(high, complete)
    return {
        "midpoint": None if x_middle is None else 10.0**x_middle - 1.0,
        "midpoint_interval": _interval(at, halfway - 1, halfway),
        "completion": _interval(at, complete - 1, complete),
        "width_decades": None if x_low is None or x_high is None else x_high - x_low,
    }


def _first_held(v: FloatArray, level: float, noise: FloatArray) -> int:
    """First position from which ``v`` stays at or above ``level`` until its end; its size if there is none."""
    runs = above_bound(v[None, :], np.full(v.size, level), noise, at_least=True)
    return int(runs.start[0]) if runs.after[0] == NONE else v.size


def _interval(at: IntArray, before: int | np.int64, by: int | np.int64) -> Interval:
    """Positions as steps; NONE before the first checkpoint, and the number of checkpoints after the last."""
    return Interval(None if before == NONE else int(at[before]), None if by >= len(at) else int(at[by]))
