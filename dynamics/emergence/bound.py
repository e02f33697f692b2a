r"""How high can a curve of the null reach *anywhere*? A bound that is simultaneous over checkpoints.

A curve is looked at in every checkpoint, so that a pointwise 95% bound would be crossed by most null curves of forty
checkpoints. With null draws :math:`x_{cd}` (checkpoint c, draw d), the maximum studentised excess is

.. math:: M_d = \max_c \frac{x_{cd} - \bar x_{c,-d}}{s_{c,-d}},  \qquad  u_c = \bar x_c + z s_c

with z the ``level`` quantile of M (the max-T of Westfall and Young 1993). A new curve that follows the null exceeds u
somewhere with probability at most about 1 - level. Three things keep that true for few or skewed draws:

- mean and scale in :math:`M_d` leave out draw d (``-d``): a draw judged by statistics that contain it looks tamer than
  a new curve does, and cannot exceed :math:`(n-1)/\sqrt n` however wild it is;
- z is the :math:`\lceil \text{level} (n+1) \rceil`-th smallest of the n maxima (the conformal quantile: Vovk et al.
  2005), not an interpolated one. There is none for n < level/(1 - level), i.e. below 19 draws at 95%
  (:func:`draws_needed`): no assumption-free bound can be had from so few;
- the scale is floored, :math:`s_c = \max(\mathrm{sd}_c, \tfrac34 \mathrm{rms}_c(\mathrm{sd}))`, as the fudge factor of
  SAM (Tusher et al. 2001): with rare events (accuracy of 1/1000 on 100 prompts) a checkpoint's own sd is 0 by luck.
  The quantile is calibrated for whatever scale, so the floor shapes the bound and does not loosen it.

Where every draw has the same value at every checkpoint, the scale is 0 and the bound is that value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..numerics.arrays import FloatArray

__all__ = ["Bound", "draws_needed", "simultaneous_bound"]


SCALE_FLOOR = 0.75
"""Smallest scale of a checkpoint, as a share of the root mean square of the null's sd over checkpoints.

Chosen by simulation: with 39 draws of binomial(120, 0.001) at 40 checkpoints a null curve exceeds a 95% bound in 6% of
cases at 0.5, in 5% at 0.75 and in 4% at 1; larger costs power where the noise differs between checkpoints.
"""

NOISE = 2.0
"""Correlations of n draws below NOISE / sqrt(n) are taken to be none."""

WILD = 3.0
"""Studentised excesses beyond this say nothing about how alike two checkpoints are."""

SIMULATED = 2000
"""Normal curves from which the number of further checkpoints that matter is estimated."""

ROUNDING = 1e-9
"""Relative: deviations smaller than this are rounding of the mean, not a spread."""


@dataclass(frozen=True)
class Bound:
    """The null in three curves, each (..., checkpoint), NaN where the null has too few finite draws.

    Attributes:
        mean: the null's mean.
        scale: its floored standard deviation: the sampling noise of one checkpoint.
        upper: its simultaneous upper bound.
        largest: (..., null_draw) the largest studentised excess of every draw, judged without itself; what the same of
            a curve, ``max((v - mean) / scale)``, is compared with. -inf for a draw that is NaN throughout.
    """

    mean: FloatArray
    scale: FloatArray
    upper: FloatArray
    largest: FloatArray


def draws_needed(level: float) -> int:
    """Fewest null draws from which a bound at ``level`` can be read without assuming a distribution.

    >>> draws_needed(0.95), draws_needed(0.99)
    (19, 99)
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; expected a number between 0 and 1, such as 0.95")
    return max(3, math.ceil(level / (1.0 - level) - ROUNDING))


def simultaneous_bound(
    null: npt.ArrayLike, level: float = 0.95, *, family: int | None = None, positions: npt.ArrayLike | None = None
) -> Bound:
    """The bound that a curve of the null exceeds somewhere with probability at most about ``1 - level``.

    Args:
        null: (..., checkpoint, null_draw) curves of the null; NaN draws are left out. Leading axes are separate
            curves, each with a bound of its own.
        level: simultaneous over the checkpoints of a curve.
        family: how many checkpoints the curve would have if all were measured. Where fewer are, the bound is raised to
            what it would be for all, so that an onset does not depend on how many others were looked at; at most to the
            largest single excess of the draws, so that few draws at few checkpoints (fewer values together than about
            ``family / (1 - level)``) do not raise it enough.
        positions: (checkpoint,) where those that are measured stand among the ``family``, increasing; evenly spread if not
            given. Each counts for the part of the series that it is nearest to: a search visits many checkpoints where
            curves rise, and their noise is not that of the others. Checkpoints between two that were measured are taken to
            share their null draws as far as these two are correlated.

    Returns:
        Mean, scale and upper bound, each (..., checkpoint).

    Raises:
        ValueError: ``null`` has fewer than two axes, ``level`` is not in (0, 1), ``positions`` do not increase within the
            ``family``, or it is smaller than what was measured.

    >>> simultaneous_bound(np.full((3, 20), 0.25)).upper
    array([0.25, 0.25, 0.25])
    """
    needed = draws_needed(level)
    x = np.asarray(null, dtype=np.float64)
    if x.ndim < 2:
        raise ValueError(f"null has shape {x.shape}; expected (checkpoint, null_draw)")
    x = np.where(np.isfinite(x), x, np.nan)
    n = np.isfinite(x).sum(axis=-1)
    x = np.where((n >= needed)[..., None], x, np.nan)
    n = np.maximum(n, needed)[..., None].astype(np.float64)

    mean = np.nansum(x, axis=-1, keepdims=True) / n
    away = x - mean
    away = np.where(np.abs(away) <= ROUNDING * np.abs(mean), 0.0 * away, away)
    squares = np.nansum(away**2, axis=-1, keepdims=True)
    valid = np.isfinite(x).any(axis=-1, keepdims=True)
    variance = np.where(valid, squares / (n - 1), np.nan)
    at = _positions(x.shape[-2], family, positions)
    share = _shares(at, family)[:, None] * valid
    share = share / np.maximum(share.sum(axis=-2, keepdims=True), 1e-300)
    floor = SCALE_FLOOR * np.sqrt(np.nansum(share * variance, axis=-2, keepdims=True))
    scale = np.maximum(np.sqrt(variance), floor)

    # Mean, variance and floor without the draw itself, in closed form.
    away_out = away * n / (n - 1)
    rest = squares - away**2 * n / (n - 1)
    variance_out = np.where(rest <= ROUNDING * squares, 0.0 * rest, rest) / (n - 2)
    floor_out = SCALE_FLOOR * np.sqrt(np.nansum(share * variance_out, axis=-2, keepdims=True))
    # The only draw that varies at all would have nothing to be measured by: it is given the floor that it makes.
    scale_out = np.maximum(np.sqrt(variance_out), np.where(floor_out > 0, floor_out, floor))
    excess = np.divide(away_out, scale_out, out=0.0 * away, where=scale_out > 0)
    largest = np.where(np.isfinite(excess), excess, -np.inf).max(axis=-2, initial=-np.inf)

    counted = np.isfinite(largest)
    rank = np.ceil(level * (counted.sum(axis=-1, keepdims=True) + 1) - ROUNDING).astype(np.int64)
    ordered = np.sort(np.where(counted, largest, np.inf), axis=-1)
    last = np.maximum(counted.sum(axis=-1, keepdims=True), 1) - 1
    z = np.take_along_axis(ordered, np.clip(rank - 1, 0, last), axis=-1) if ordered.shape[-1] else np.zeros_like(n)
    if family is not None:
        z = np.maximum(z, _widened(excess, share, z, level, at, family))
    mean = np.where(valid, mean, np.nan)[..., 0]
    upper = mean + np.where(np.isfinite(z), z, 0.0) * scale[..., 0]
    return Bound(mean=mean, scale=scale[..., 0], upper=upper, largest=largest)


def _positions(checkpoints: int, family: int | None, positions: npt.ArrayLike | None) -> FloatArray:
    """(checkpoint,) where the measured checkpoints stand among the family."""
    size = checkpoints if family is None else family
    if size < checkpoints:
        raise ValueError(f"family is {size} with {checkpoints} checkpoints measured; expected at least as many")
    if positions is None:
        return np.linspace(0.0, size - 1.0, checkpoints)
    at = np.asarray(positions, dtype=np.float64)
    if (
        at.shape != (checkpoints,)
        or (np.diff(at) <= 0).any()
        or (at.size and (at[0] < 0 or (family and at[-1] > family - 1)))
    ):
        raise ValueError(
            f"positions have shape {at.shape}; expected {(checkpoints,)}, increasing, within a family of {size}"
        )
    return at


def _shares(at: FloatArray, family: int | None) -> FloatArray:
    """(checkpoint,) how much of the series every measured checkpoint stands for."""
    if family is None or at.size < 2:
        return np.full(at.size, 1.0 / max(at.size, 1))
    between = 0.5 * (at[:-1] + at[1:])
    return np.asarray(np.diff(np.concatenate([[-0.5], between, [family - 0.5]])) / family)


def _widened(
    excess: FloatArray, share: FloatArray, z: FloatArray, level: float, at: FloatArray, family: int
) -> FloatArray:
    """(..., 1) the quantile for ``family`` checkpoints, from draws at fewer of them, (..., checkpoint, 1) their shares.

    With q the share of single excesses above z, as many independent checkpoints as ``log(level) / log(1 - q)`` would
    give the same maximum; :func:`_more` says how many times as many all would be. The quantile is that of the draws, all
    checkpoints together: a normal tail from z on would be less uncertain, and too low where draws are skewed or have
    heavy tails.
    """
    result = np.array(z)
    flat = excess.reshape(-1, *excess.shape[-2:])
    shares = np.broadcast_to(share, (*excess.shape[:-1], 1)).reshape(-1, excess.shape[-2], 1)
    for curve, (values, bound) in enumerate(zip(flat, z.reshape(-1), strict=True)):
        finite = np.isfinite(values)
        rows = finite.any(axis=-1)
        if not 1 < rows.sum() < family or not np.isfinite(bound):
            continue
        pooled, weight = values[finite], np.broadcast_to(shares[curve], values.shape)[finite]
        weight = weight / weight.sum()
        single = max(float(weight[pooled > bound].sum()), 1.0 / (pooled.size + 1))
        alike = max(1.0, math.log(level) / math.log1p(-single))
        alike = min(alike * _more(values[rows], at[rows], level, family), max(alike, float(family)))
        wanted = -math.expm1(math.log(level) / alike)
        result.reshape(-1)[curve] = np.quantile(pooled, 1.0 - wanted, weights=weight, method="inverted_cdf")
    return result


def _more(values: FloatArray, at: FloatArray, level: float, family: int) -> float:
    """How many times as many independent checkpoints all of the family are as those that were measured, at least 1.

    A draw is taken to be the sum of noise that each checkpoint has for itself and of what lasts, which is forgotten evenly
    between two measured neighbours (Markov): if r is their correlation, n checkpoints apart, and v the share of the variance
    that lasts, by (r/v)^(1/n) from one checkpoint to the next. Of three measured in a row, r12 r23 / r13 is v. Where r is
    within its noise, every checkpoint between is new; before the first and after the last the nearest gap goes on. Where a
    model no longer changes its mind all checkpoints share one draw, where it is learning each has its own, and a search
    visits more of the latter. The ratio is that of normal curves with these correlations, and with the standard deviations
    of the excesses, interpolated between the positions; excesses beyond :data:`WILD` are cut off, for one wild draw would hide
    all others.

    Args:
        values: (checkpoint, null_draw) studentised excesses.
        at: (checkpoint,) their positions among the ``family``, at least two.
        level: of the quantile of the maximum at which it is estimated.
        family: how many checkpoints there are.
    """
    cut = np.clip(values, -WILD, WILD)
    r, n = _correlation(cut[:-1], cut[1:])
    across, m = _correlation(cut[:-2], cut[2:])
    clear = across > 2.0 * NOISE / np.sqrt(m)
    lasting = float(np.clip((r[:-1] * r[1:])[clear].sum() / across[clear].sum(), 0.05, 1.0)) if clear.any() else 1.0
    step = np.where(r > NOISE / np.sqrt(n), np.clip(r / lasting, 0.0, 1.0), 0.0) ** (1.0 / np.diff(at))
    positions = np.arange(family)
    # The correlation of every checkpoint with the one before it: that of the gap it ends or lies in.
    kept = step[np.clip(np.searchsorted(at, positions, side="left") - 1, 0, step.size - 1)]
    new = np.sqrt(1.0 - kept**2)
    first, own = _noise(family)
    curves = new[:, None] * first
    curves[0] = first[0]
    for position in range(1, family):
        curves[position] += kept[position] * curves[position - 1]
    if lasting < 1.0:
        curves = np.sqrt(lasting) * curves + np.sqrt(1.0 - lasting) * own
    curves *= np.interp(positions, at, np.nanstd(cut, axis=1))[:, None]
    limit = np.quantile(curves[np.round(at).astype(np.int64)].max(axis=0), level)
    above = min(float((curves.max(axis=0) > limit).mean()), 1.0 - 1.0 / SIMULATED)
    return max(1.0, math.log1p(-above) / math.log(level))


@lru_cache(maxsize=2)
def _noise(family: int) -> FloatArray:
    """(2, checkpoint, curve) normal noise, the same for every bound; kept, as a finding has some twenty bounds."""
    noise = np.random.default_rng(0).standard_normal((2, family, SIMULATED))
    noise.flags.writeable = False
    return noise


def _correlation(one: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(row,) correlation over draws of two arrays (row, null_draw), 0 for a constant, and the number of draws, at least 1."""
    both = np.isfinite(one) & np.isfinite(other)
    n = np.maximum(both.sum(axis=1), 1)
    a, b = (np.where(both, side, 0.0) for side in (one, other))
    a, b = (np.where(both, side - side.sum(axis=1, keepdims=True) / n[:, None], 0.0) for side in (a, b))
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), spread, out=np.zeros(len(spread)), where=spread > 0), n.astype(np.float64)
