"""How long after it answers does the model know what it knows? The gap between two onsets, with its interval.

Every onset is an interval (after, by] between two checkpoints, so that the gap from onset A to onset B lies in
(after_B - by_A, by_B - after_A). The 95% interval is that of bootstrap draws of entities, from the 2.5% quantile of the
lower ends to the 97.5% quantile of the upper ones. Draws in which either never
emerged have no gap; their share is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynamics.analysis import Finding
from dynamics.emergence import before

__all__ = ["Gap", "gap_between"]

_THERE = ("emerged", "transient", "present from start")


@dataclass(frozen=True)
class Gap:
    """From the onset of one finding to that of another, in optimizer steps.

    Attributes:
        low, high: 95% interval; positive where the second came later.
        first, second: probability that the first (second) onset came before the other; the rest is a tie.
        missing: share of draws in which one of the two never emerged.
    """

    low: float
    high: float
    first: float
    second: float
    missing: float


def gap_between(one: Finding, other: Finding) -> Gap | None:
    """The gap from ``one`` to ``other``; None where it is not measurable.

    Findings on one sample are compared draw by draw, others every draw with every draw.
    """
    if any(f.emergence.state not in _THERE for f in (one, other)):
        return None
    a, b = one.onset_intervals(), other.onset_intervals()
    shared = bool(one.sample) and one.sample == other.sample and len(a) == len(b)
    a, b = (x[~np.isnan(x).any(1)] if not shared else x for x in (a, b))
    if not (len(a) and len(b)):
        return None
    if shared:
        usable = ~(np.isnan(a).any(1) | np.isnan(b).any(1))
        a, b = a[usable], b[usable]
    order = before(a, b, shared=shared)
    there = [np.isfinite(x[:, 1]) for x in (a, b)]
    # an onset before the first checkpoint is one at the start of training
    a, b = (np.where(np.isfinite(x), x, 0.0) for x in (a, b))
    if shared:
        both = there[0] & there[1]
        low, high = (b[:, 0] - a[:, 1])[both], (b[:, 1] - a[:, 0])[both]
        missing = 1 - both.mean()
    else:  # every draw with every draw
        a, b = a[there[0]], b[there[1]]
        low, high = (b[None, :, 0] - a[:, None, 1]).ravel(), (b[None, :, 1] - a[:, None, 0]).ravel()
        missing = 1 - there[0].mean() * there[1].mean()
    if not low.size:
        return None
    ends = np.quantile(low, 0.025), np.quantile(high, 0.975)
    return Gap(float(ends[0]), float(ends[1]), order.before, order.after, float(missing))
