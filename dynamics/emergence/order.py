"""Which of two circuits came first, and where do several curves lie together?

An onset is an interval between two checkpoints, so that two onsets can be *not distinguishable* on the checkpoints at
hand, however precise each is. :func:`before` gives all three probabilities. Where the curves were measured on the same
units and resampled with the same indices (:func:`unit_bootstrap` with one seed), their draws are compared pair by pair:
what is easy for both in a draw moves both. Otherwise every draw of one is compared with every draw of the other.

The draws are of the noise about a fitted curve (:mod:`dynamics.emergence.noise`), since draws about the values carry the
noise twice. The probabilities are bootstrap confidence (Efron and Tibshirani 1998, "the problem of regions").

Of the 276 pairs of 24 circuits, some lie apart in 95% of the draws by chance: :func:`in_order` calls pairs ordered at a
false discovery rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynamics.emergence.crossing import crossing, first_above
from dynamics.emergence.discovery import discover
from dynamics.emergence.noise import noise_of
from dynamics.emergence.shapes import plausible
from dynamics.emergence.types import Emergence, Trend
from dynamics.numerics.arrays import FloatArray

__all__ = [
    "OnsetOrder",
    "Ordering",
    "before",
    "in_order",
    "onset_draws",
    "onset_ends",
    "onset_intervals",
    "simultaneous_bands",
]


Ordering = Literal["before", "after", "cannot be ordered"]

FEWEST_DRAWS = 20
"""Bootstrap draws below which nothing is said about onsets in draws."""


@dataclass(frozen=True)
class OnsetOrder:
    """Probabilities that add up to 1: A before B, B before A, and that their intervals share training time.

    Attributes:
        draws: how many they are shares of; where every draw was compared with every draw, the fewer of the two.
    """

    before: float
    after: float
    not_distinguishable: float
    draws: int


def onset_draws(
    steps: npt.ArrayLike,
    values: npt.ArrayLike,
    draws: npt.ArrayLike,
    upper: npt.ArrayLike,
    *,
    direction: Trend = "up",
) -> FloatArray:
    """(draw, 2) steps after which and by which each draw was first above its null; infinite where censored.

    Args:
        steps: (checkpoint,) optimizer steps.
        values: (checkpoint,) the curve.
        draws: (checkpoint, draw) its bootstrap draws, in the order of their indices; a draw with NaN gives NaN.
        upper: (checkpoint,) the null's bound, such as :attr:`Emergence.null_upper`; NaN where not valid.
        direction: of emergence.
    """
    sign = 1.0 if direction == "up" else -1.0
    at, v, bound = np.asarray(steps), sign * np.asarray(values, float), sign * np.asarray(upper, float)
    table = sign * np.asarray(draws, dtype=np.float64)
    valid = np.isfinite(v) & np.isfinite(bound)
    if valid.sum() < 2:
        raise ValueError(f"{valid.sum()} valid checkpoints; expected at least 2")
    at, v, bound, table = at[valid], v[valid], bound[valid], table[valid]
    usable = np.isfinite(table).all(axis=0)
    if usable.sum() < FEWEST_DRAWS:
        raise ValueError(f"{usable.sum()} draws without NaN; expected at least {FEWEST_DRAWS}")
    noise = noise_of(v, table)
    mean, scale, _ = plausible(np.log10(at + 1.0), v, noise, bound)[0]
    found = crossing((mean + noise.residuals.T * scale - bound) / scale)
    first = first_above(found).argmin(axis=1)
    # The fitted curve need not have the onset of the measured one: the draws are moved to it.
    shift = int(first_above(crossing(((v - bound) / scale)[None]))[0].argmin()) - int(
        first_above(crossing(((mean - bound) / scale)[None]))[0].argmin()
    )
    first = np.clip(first + shift, 0, at.size)
    ends = np.concatenate([[-np.inf], at, [np.inf]])
    result = np.full((usable.size, 2), np.nan)
    result[usable] = np.stack([ends[first], ends[first + 1]], axis=1)
    return result


def onset_ends(steps: npt.ArrayLike, values: npt.ArrayLike, draws: npt.ArrayLike, emergence: Emergence) -> FloatArray:
    """(draw,) steps by which each draw was above its null, as :func:`onset_intervals` takes them.

    Args:
        steps, values, draws: as of :func:`onset_draws`.
        emergence: of the curve. What comes after a loss says nothing about the rise, and is left out.

    Returns:
        Infinite for a draw that never was above, NaN for one that cannot be used; empty where nothing can be said (too
        few draws or checkpoints, no null).
    """
    at, v, table = np.asarray(steps), np.asarray(values, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    upper = np.array(emergence.null_upper)
    if emergence.loss is not None and emergence.loss.after is not None:
        upper[at > emergence.loss.after] = np.nan
    valid = np.isfinite(v) & np.isfinite(upper)
    if valid.sum() < 2 or np.isfinite(table[valid]).all(axis=0).sum() < FEWEST_DRAWS:
        return np.empty(0)
    return np.asarray(onset_draws(at, v, table, upper, direction=emergence.direction)[:, 1])


def onset_intervals(by: npt.ArrayLike, steps: npt.ArrayLike) -> FloatArray:
    """(draw, 2) onset intervals, as of :func:`onset_draws`, from their ends alone, which is how they are stored.

    Args:
        by: (draw,) steps by which each draw was above its null; infinite for never, NaN for a draw that cannot be used.
        steps: (checkpoint,) the valid checkpoints of the curve: an interval starts at the one before its end.

    >>> onset_intervals([0, 20, np.inf], [0, 10, 20]).tolist()
    [[-inf, 0.0], [10.0, 20.0], [20.0, inf]]
    """
    end, at = np.asarray(by, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    starts = np.concatenate([[-np.inf], at])[np.searchsorted(at, end, side="left")]
    return np.stack([np.where(np.isnan(end), np.nan, starts), end], axis=1)


def before(draws_a: npt.ArrayLike, draws_b: npt.ArrayLike, *, shared: bool) -> OnsetOrder:
    """The probability that A's onset came before B's.

    Args:
        draws_a, draws_b: (draw, 2) onset intervals (after, by] in steps, of :func:`onset_draws`.
        shared: whether draw d of both has the same resampled units.

    Returns:
        A is before B in a draw where A's interval ends by the start of B's; two that overlap, and two that never
        emerged, are not distinguishable.

    Raises:
        ValueError: shapes do not fit.

    >>> before([[0, 10], [10, 20]], [[10, 20], [10, 20]], shared=True)
    OnsetOrder(before=0.5, after=0.0, not_distinguishable=0.5, draws=2)
    """
    a, b = np.asarray(draws_a, dtype=np.float64), np.asarray(draws_b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1:] != (2,) or b.shape[1:] != (2,) or (shared and len(a) != len(b)):
        raise ValueError(f"shapes are {a.shape}, {b.shape}; expected (draw, 2), as many of both where units are shared")
    if shared:
        usable = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
        a, b = a[usable], b[usable]
        if not len(a):
            raise ValueError("no draw has both onsets; expected at least one")
        first, second = float((a[:, 1] <= b[:, 0]).mean()), float((b[:, 1] <= a[:, 0]).mean())
    else:
        a, b = a[~np.isnan(a).any(axis=1)], b[~np.isnan(b).any(axis=1)]
        if not (len(a) and len(b)):
            raise ValueError("one of the two has no onset draws; expected at least one of each")
        first = float((a[:, None, 1] <= b[None, :, 0]).mean())
        second = float((b[None, :, 1] <= a[:, None, 0]).mean())
    return OnsetOrder(before=first, after=second, not_distinguishable=1.0 - first - second, draws=min(len(a), len(b)))


def in_order(pairs: Sequence[OnsetOrder], *, rate: float = 0.05) -> list[Ordering]:
    """Which pairs are in order: of those that are called so, at most a share of ``rate`` is expected to be wrong.

    The p value of a pair is twice the share of draws in which the likelier side is not first, (1 + k)/(1 + n) of n
    (Phipson and Smyth 2010), and the rate is held as by Benjamini and Hochberg (1995). Pairs that share a circuit depend
    on each other in ways that no theorem covers; simulated circuits keep the rate. n draws have no p value below 2/(1 + n),
    so that nothing is called unless a share of 2/(rate (1 + n)) of all pairs (at a rate of 5% a fifth for 200 draws, a tenth
    for 400) is about as clear as can be.

    Args:
        pairs: of :func:`before`.
        rate: the false discovery rate over all of them.

    >>> clear = OnsetOrder(before=1.0, after=0.0, not_distinguishable=0.0, draws=200)
    >>> in_order([clear, OnsetOrder(before=0.1, after=0.8, not_distinguishable=0.1, draws=200)])
    ['before', 'cannot be ordered']
    """
    p = [min(1.0, 2.0 * (1.0 + o.draws * (1.0 - max(o.before, o.after))) / (1.0 + o.draws)) for o in pairs]
    sides: list[Ordering] = ["before" if o.before > o.after else "after" for o in pairs]
    return [side if found else "cannot be ordered" for side, found in zip(sides, discover(p, rate=rate), strict=True)]


def simultaneous_bands(values: npt.ArrayLike, draws: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Bands that hold all curves at all checkpoints together with a probability of 95%.

    The critical value is the quantile of the largest studentised deviation over curves and checkpoints (max-T: Westfall
    and Young 1993), in the draws about their own mean.

    Args:
        values: (curve, checkpoint).
        draws: (curve, checkpoint, draw), resampled with the same indices where units are shared.

    Returns:
        Lower and upper band, (curve, checkpoint) each; NaN where there are no draws.
    """
    v, table = np.asarray(values, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if table.ndim != 3 or v.shape != table.shape[:2]:
        raise ValueError(
            f"shapes are {v.shape}, {table.shape}; expected (curve, checkpoint) and (curve, checkpoint, draw)"
        )
    away = table - table.mean(axis=2, keepdims=True)
    error = away.std(axis=2, ddof=1)
    ratio = np.abs(away) / np.where(error > 0, error, np.inf)[..., None]
    largest = np.sort(np.where(np.isfinite(ratio), ratio, 0.0).max(axis=(0, 1)))
    rank = min(int(np.ceil(0.95 * (largest.size + 1) - 1e-9)), largest.size)
    z = float(largest[rank - 1])
    return np.asarray(v - z * error), np.asarray(v + z * error)
