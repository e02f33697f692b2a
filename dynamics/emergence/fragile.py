r"""Would another look have said the same? State and onset with other prompts, other draws of the null, and a checkpoint less.

A finding that hangs on a few questions, on the seed of its null or on one checkpoint is likely to differ on another machine, or in
the same model trained anew. Each of :data:`LOOKS` looks takes one bootstrap draw of the curve (which varies about the curve as
the mean over a random half of the prompts does: McCarthy 1969, half-samples), a bound of the null from as many of its draws taken
with replacement, and leaves out one checkpoint. A look *holds* where it has the same state and, for one that has an onset, the
same gap between checkpoints or a gap beside it.
"""

from __future__ import annotations

import numpy as np

from dynamics.emergence.assess import above_bound, standard_error
from dynamics.emergence.bound import simultaneous_bound
from dynamics.emergence.runs import CODES
from dynamics.emergence.types import Emergence, State
from dynamics.numerics.arrays import FloatArray, IntArray

__all__ = ["FRAGILE", "looks_that_hold"]

LOOKS = 100

NULLS = 20
"""Bounds that are made anew; every one serves several looks."""

LEVEL = 0.95
"""Of the bounds of the null, as in :func:`dynamics.emergence.assess`."""

FRAGILE = 0.9
"""A finding that holds in fewer looks than this is fragile."""


def looks_that_hold(steps: IntArray, draws: FloatArray | None, null: FloatArray, emergence: Emergence) -> float | None:
    """Share of looks in which state and onset are those of the curve; None where it cannot be looked at anew.

    Args:
        steps: (checkpoint,) optimizer steps.
        draws: (checkpoint, draw) bootstrap draws of the curve.
        null: (checkpoint, null_draw) curves of the null.
        emergence: what :func:`dynamics.emergence.assess` says of the curve.
    """
    if draws is None or emergence.state == "not measurable":
        return None
    valid = np.isfinite(emergence.null_upper)
    sign = 1.0 if emergence.direction == "up" else -1.0
    usable = sign * draws[valid][:, np.isfinite(draws[valid]).all(axis=0)]
    count = int(valid.sum())
    if usable.shape[1] < 20 or count < 3:
        return None
    rng = np.random.default_rng(0)
    against, positions = sign * null[valid], np.flatnonzero(valid)
    bounds = np.stack(
        [
            simultaneous_bound(
                against[:, rng.integers(against.shape[1], size=against.shape[1])],
                LEVEL,
                family=len(valid),
                positions=positions,
            ).upper
            for _ in range(NULLS)
        ]
    )
    curves = usable[:, rng.permutation(usable.shape[1])[np.arange(LOOKS) % usable.shape[1]]].T
    there = np.arange(count) != rng.integers(count, size=LOOKS)[:, None]
    runs = above_bound(curves, bounds[np.arange(LOOKS) % NULLS], standard_error(usable), there)
    state: State = emergence.state
    same = runs.state == CODES.index(state)
    if emergence.onset is not None and emergence.onset.by is not None and state != "present from start":
        index = int(np.searchsorted(steps[valid], emergence.onset.by))
        same &= np.abs(runs.start - index) <= 1
    return float(same.mean())
