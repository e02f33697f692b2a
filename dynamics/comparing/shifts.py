r"""By how much one run's onset lies apart from another's, as far as measuring leaves that open.

Two onsets :math:`(a_1, b_1]` and :math:`(a_2, b_2]` in log2 of training allow the shifts from :math:`a_2 - b_1` to
:math:`b_2 - a_1`. The 95% interval runs from the 2.5% quantile of the former to the 97.5% quantile of the latter over bootstrap
draws: draw by draw where both runs asked the same prompts (draw d of both resampled the same ones, so that what is hard about
them moves both), else every draw of one against every draw of the other. It is open where an onset is censored.

Pairs are called apart as circuits of one run are called in order (:func:`dynamics.emergence.in_order`), at a false discovery
rate over all circuits and runs. That says that these two trainings differ, and not what of their configurations did it: another
seed would differ as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..emergence import OnsetOrder, before, in_order
from ..numerics.arrays import FloatArray
from .loading import ComparedRun, OnsetKnown, Unit

__all__ = ["RATE", "Shift", "Verdict", "shifts"]

RATE = 0.05
"""Of the shifts and effects that are called, the share that may be expected to be wrong."""

Verdict = Literal["later", "earlier", "cannot be told"]

_SHARED = 39
"""Draws that two runs need in common to be compared draw by draw: fewer call no pair (2/(1 + n) is above 5%)."""


@dataclass(frozen=True)
class Shift:
    """One circuit in one run against the same in another.

    Attributes:
        key: of the circuit.
        run, against: which runs.
        between: least and largest shift that the checkpoints around both onsets allow, in log2 of the unit.
        interval: of 95%, see the module; infinite where open.
        paired: whether draws were compared one by one.
        earlier, later: shares of draws in which it lies wholly before, or after.
        verdict: at a false discovery rate.
    """

    key: str
    run: str
    against: str
    between: tuple[float, float]
    interval: tuple[float, float]
    paired: bool
    earlier: float
    later: float
    verdict: Verdict


def shifts(runs: Sequence[ComparedRun], keys: Sequence[str], *, unit: Unit = "steps") -> list[Shift]:
    """Every circuit of every run against the same in the first run, where both have an onset that was seen."""
    made: list[tuple[ComparedRun, str, tuple[OnsetKnown, OnsetKnown], bool, OnsetOrder | None]] = []
    base = runs[0]
    for run in runs[1:]:
        for key in keys:
            one, other = base.known(key, unit), run.known(key, unit)
            if one is None or other is None:
                continue
            paired = same_draws(base, run, key, one, other)
            order = None
            if all(np.isfinite(k.draws).any() for k in (one, other)):
                order = before(one.draws, other.draws, shared=paired)
            made.append((run, key, (one, other), paired, order))
    called = iter(in_order([order for *_, order in made if order is not None], rate=RATE))
    words: dict[str, Verdict] = {"before": "later", "after": "earlier"}
    found = []
    for run, key, (one, other), paired, order in made:
        verdict = "cannot be ordered" if order is None else next(called)
        found.append(
            Shift(
                key=key,
                run=run.name,
                against=base.name,
                between=(_less(other.low, one.high), _less(other.high, one.low)),
                interval=_interval(one, other, paired),
                paired=paired,
                earlier=0.0 if order is None else order.after,
                later=0.0 if order is None else order.before,
                verdict=words.get(verdict, "cannot be told"),
            )
        )
    return found


def same_draws(one: ComparedRun, other: ComparedRun, key: str, a: OnsetKnown, b: OnsetKnown) -> bool:
    """Whether draw d of two runs resampled the same prompts."""
    sample = one.findings[key].sample
    if not sample or sample != other.findings[key].sample or len(a.draws) != len(b.draws):
        return False
    common = one.prompts.keys() & other.prompts.keys()
    if not common or any(one.prompts[probe] != other.prompts[probe] for probe in common):
        return False
    return int((~(np.isnan(a.draws) | np.isnan(b.draws)).any(axis=1)).sum()) >= _SHARED


def _interval(one: OnsetKnown, other: OnsetKnown, paired: bool) -> tuple[float, float]:
    low, high, weight = shift_draws(one, other, paired)
    return _quantile(low, weight, 0.025, up=False), _quantile(high, weight, 0.975, up=True)


def shift_draws(one: OnsetKnown, other: OnsetKnown, paired: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Least and largest shift of every draw (or pair of draws), with their weights; unbounded where both are censored."""
    if paired:
        usable = ~(np.isnan(one.draws) | np.isnan(other.draws)).any(axis=1)
        a, b = one.draws[usable], other.draws[usable]
        weight = np.full(len(a), 1.0 / len(a))
    else:
        (p, share_a), (q, share_b) = one.spread_out(), other.spread_out()
        a, b = np.repeat(p, len(q), axis=0), np.tile(q, (len(p), 1))
        weight = np.repeat(share_a, len(q)) * np.tile(share_b, len(p))
    with np.errstate(invalid="ignore"):
        low, high = b[:, 0] - a[:, 1], b[:, 1] - a[:, 0]
    return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high), weight


def _less(one: float, other: float) -> float:
    return one - other if np.isfinite(one) or np.isfinite(other) else (-np.inf if one < 0 or other > 0 else np.inf)


def _quantile(values: FloatArray, weight: FloatArray, share: float, *, up: bool) -> float:
    """A quantile of weighted values, the one that is farther out where it falls between two.

    >>> _quantile(np.arange(40.0), np.full(40, 1 / 40), 0.025, up=False), _quantile(np.arange(40.0), np.full(40, 1 / 40), 0.975, up=True)
    (0.0, 39.0)
    """
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    index = int(np.searchsorted(total, share + 1e-12 if up else share - 1e-12, side="right" if up else "left"))
    return float(values[order][min(index, len(values) - 1)])
