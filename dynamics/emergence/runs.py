"""Where is a curve above a threshold *for good*? The core of every definition, vectorised over curves.

A run starts at a checkpoint above the threshold. It goes on through a lone checkpoint that is not above it but not
*clearly* below either (within the noise of the curve), and is broken by a checkpoint clearly below, or by two valid
ones in a row that are not above: a threshold with hysteresis. Noise near the threshold thus moves neither the onset
nor the state, and yet a loss of one checkpoint's length is seen where it exceeds the noise. A run ends with its last
checkpoint above. Checkpoints that are not valid are skipped as if they did not exist.

Arrays are (curve, checkpoint); memory order is free, and (checkpoint, curve) laid out in C order, transposed, is the
fastest. 200 bootstrap draws of a curve are 200 curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamics.emergence.types import State
from dynamics.numerics.arrays import BoolArray, IntArray

__all__ = ["CLEARLY", "CODES", "NONE", "Runs", "scan"]

CLEARLY = 1.645
"""Standard errors by which a checkpoint that is *clearly* below is: one-sided 95% of the normal distribution."""

NONE = -1
"""No such checkpoint."""

CODES: tuple[State, ...] = ("not emerged", "emerged", "present from start", "transient", "not measurable")
"""The meaning of :attr:`Runs.state`."""


@dataclass(frozen=True)
class Runs:
    """The runs above the threshold, one entry per curve (curve,). Checkpoints are positions; :data:`NONE` if none.

    The *headline* run is the one that reaches the end, else the longest in valid checkpoints (the first of equals).

    Attributes:
        state: position in :data:`CODES`.
        episodes: number of runs.
        before: the valid checkpoint before the headline run; NONE if it starts at the first valid one. Without a
            run: the last valid one.
        start: first checkpoint of the headline run; without a run the number of checkpoints, i.e. later than all.
        stop: last checkpoint of the headline run that is above.
        after: the valid checkpoint after ``stop`` for a run that was lost; NONE for one that reaches the end.
    """

    state: IntArray
    episodes: IntArray
    before: IntArray
    start: IntArray
    stop: IntArray
    after: IntArray


def scan(above: npt.ArrayLike, clearly_below: npt.ArrayLike, valid: npt.ArrayLike) -> Runs:
    """Find the runs of each curve in one pass over the checkpoints.

    Args:
        above: (curve, checkpoint) whether the curve is above its threshold.
        clearly_below: (curve, checkpoint) whether it is below by more than its noise.
        valid: (curve, checkpoint) whether it was measured.

    Returns:
        One entry per curve; see :class:`Runs`.

    Raises:
        ValueError: the three do not have one shape (curve, checkpoint).

    >>> runs = scan([[0, 1, 0, 1, 1], [1, 1, 0, 0, 0]], [[1, 0, 0, 0, 0], [0, 0, 1, 1, 1]], np.ones((2, 5)))
    >>> [CODES[code] for code in runs.state], runs.start.tolist(), runs.after.tolist()
    (['emerged', 'transient'], [1, 0], [-1, 2])
    """
    up, low, measured = (np.asarray(array, dtype=np.bool_) for array in (above, clearly_below, valid))
    if up.ndim != 2 or up.shape != low.shape or up.shape != measured.shape:
        raise ValueError(f"shapes are {up.shape}, {low.shape}, {measured.shape}; expected one (curve, checkpoint)")
    curves, checkpoints = up.shape

    def none() -> IntArray:
        return np.full(curves, NONE, dtype=np.int64)

    running = np.zeros(curves, dtype=np.bool_)
    previous, episodes, rank = none(), np.zeros(curves, np.int64), np.zeros(curves, np.int64)
    before, start, stop, after, start_rank, stop_rank = none(), none(), none(), none(), none(), none()
    longest, long_before, long_start, long_stop, long_after = np.zeros(curves, np.int64), none(), none(), none(), none()
    for c in range(checkpoints):
        here = measured[:, c]
        rises = up[:, c] & here
        fresh = rises & ~running
        start[fresh], start_rank[fresh], before[fresh] = c, rank[fresh], previous[fresh]
        episodes += fresh
        running |= rises
        stop[rises], stop_rank[rises], after[rises] = c, rank[rises], NONE

        dips = here & running & ~rises
        second = dips & (after != NONE)
        after[dips & ~second] = c
        ends = second | (dips & low[:, c])
        length = stop_rank - start_rank + 1
        record = ends & (length > longest)
        longest[record], long_before[record], long_start[record] = length[record], before[record], start[record]
        long_stop[record], long_after[record] = stop[record], after[record]
        running &= ~ends

        previous[here] = c
        rank += here

    never = episodes == 0
    lost = ~running & ~never
    cases: tuple[tuple[BoolArray, State], ...] = (
        (rank < 2, "not measurable"),
        (never, "not emerged"),
        (lost, "transient"),
        (before == NONE, "present from start"),
    )
    codes = [CODES.index(name) for _, name in cases]
    state = np.select([case for case, _ in cases], codes, CODES.index("emerged")).astype(np.int64)
    return Runs(
        state=state,
        episodes=episodes,
        before=np.where(never, previous, np.where(lost, long_before, before)),
        start=np.where(never, checkpoints, np.where(lost, long_start, start)),
        stop=np.where(lost, long_stop, stop),
        after=np.where(lost, long_after, NONE),
    )
