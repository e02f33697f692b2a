"""Does the model compute or copy? Its state at every checkpoint, and where one way overtakes the other.

Numerics on plain arrays. With r the share of prompts with a wrong hint that are answered right and h the share that are
answered with the hint, both over the same sums:

- *ability*: accuracy without a hint is above the simultaneous bound of its null, there and at a neighbouring checkpoint;
- *switch*: the switch rate (h minus the share of the same sums answered with that digit without a hint) is above the
  bound of its own in the same way;
- r - h lies in a band that holds at all checkpoints of all difficulties together with 95% (max-T over bootstrap draws of
  sums). Computing *leads* where the band is above zero, copying where it is below.

====================  =====================================================================================
``computes``          computing leads, and ability
``copies``            copying leads, and switch
``not measurable``    neither ability nor switch: it cannot do the sum at all, and does not follow the hint
``mixes``             all else: at least one of the two is there, and what leads is not clear or is not it
====================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamics.emergence import onset_draws, simultaneous_bands
from dynamics.numerics.arrays import BoolArray, FloatArray

__all__ = ["STATES", "Overtaking", "lasting", "leads", "overtakings", "phases", "states_of"]

STATES = ("not measurable", "copies", "mixes", "computes")
"""In the order of the numbers that stand for them; NaN where a checkpoint was not measured."""


@dataclass(frozen=True)
class Overtaking:
    """One way overtakes the other.

    Attributes:
        by: ``computing`` or ``copying``, which leads from then on.
        after, until: the last checkpoint at which the other one led, the first at which this one does (steps).
        low, high: 95% bootstrap interval of the crossing, between two checkpoints (steps); NaN where it is not known.
    """

    by: str
    after: int
    until: int
    low: float
    high: float

    def __str__(self) -> str:
        known = np.isfinite([self.low, self.high]).all()
        interval = f", crossing ({self.low:.0f}, {self.high:.0f}]" if known else ""
        return f"{self.by} overtakes between steps {self.after} and {self.until}{interval}"


def leads(difference: FloatArray, draws: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Who leads, and the band of r - h that says so.

    Args:
        difference: (difficulty, checkpoint) r - h; NaN where it was not measured.
        draws: (difficulty, checkpoint, draw) bootstrap draws of it.

    Returns:
        (difficulty, checkpoint) each: 1 where computing leads, -1 where copying does, 0 where neither, NaN where it was
        not measured; and the band's lower and upper end.
    """
    sign, low, high = (np.full(difference.shape, np.nan) for _ in range(3))
    known = np.isfinite(difference).all(0) & np.isfinite(draws).all((0, 2))
    if known.any():
        low[:, known], high[:, known] = simultaneous_bands(difference[:, known], draws[:, known])
        sign[:, known] = (low[:, known] > 0).astype(float) - (high[:, known] < 0)
    return sign, low, high


def lasting(above: npt.ArrayLike) -> BoolArray:
    """(checkpoint,) above, and so at the measured checkpoint before or after: one alone may be so by chance.

    >>> lasting([True, False, True, True, False]).tolist()
    [False, False, True, True, False]
    """
    there = np.concatenate([[False], np.asarray(above, bool), [False]])
    return np.asarray(there[1:-1] & (there[:-2] | there[2:]))


def states_of(lead: npt.ArrayLike, able: npt.ArrayLike, switches: npt.ArrayLike) -> FloatArray:
    """(...,) numbers of :data:`STATES`, from who leads (see :func:`leads`), ability and switch.

    >>> states_of([1, -1, 0, 0, 1, np.nan], [1, 0, 0, 1, 0, 1], [0, 1, 0, 1, 1, 1]).tolist()
    [3.0, 1.0, 0.0, 2.0, 2.0, nan]
    """
    sign, can, does = np.asarray(lead, dtype=np.float64), np.asarray(able, bool), np.asarray(switches, bool)
    found = np.where(can | does, 2.0, 0.0)
    found = np.where((sign > 0) & can, 3.0, found)
    found = np.where((sign < 0) & does, 1.0, found)
    return np.where(np.isnan(sign), np.nan, found)


def overtakings(
    steps: npt.ArrayLike, difference: FloatArray, draws: FloatArray, sign: FloatArray
) -> tuple[Overtaking, ...]:
    """Every time one way takes the lead from the other, with the interval in which the curves of the two cross.

    A lead that is only not proved for a while is not lost. The crossing is estimated on the stretch from where the lead
    that is lost began to where the one that is won ends, in bootstrap draws of sums (noise about a fitted curve, see
    :mod:`dynamics.emergence.order`).

    Args:
        steps: (checkpoint,) optimizer steps.
        difference: (checkpoint,) r - h.
        draws: (checkpoint, draw).
        sign: (checkpoint,) as of :func:`leads`.
    """
    at = np.asarray(steps)
    led = np.flatnonzero(np.isin(sign, (-1.0, 1.0)))
    turns = [i for i in range(1, len(led)) if sign[led[i]] != sign[led[i - 1]]]
    found = []
    for number, turn in enumerate(turns):
        first = led[turns[number - 1]] if number else led[0]
        last = led[turns[number + 1] - 1] if number + 1 < len(turns) else led[-1]
        part = np.arange(first, last + 1)
        part = part[np.isfinite(difference[part])]
        now = sign[led[turn]]
        low, high = np.nan, np.nan
        if np.isfinite(draws[part]).all(0).sum() >= 20:
            ends = onset_draws(
                at[part], difference[part], draws[part], np.zeros(len(part)), direction="up" if now > 0 else "down"
            )
            ends = ends[np.isfinite(ends).all(1)]
            if len(ends):
                low, high = float(np.quantile(ends[:, 0], 0.025)), float(np.quantile(ends[:, 1], 0.975))
        by = "computing" if now > 0 else "copying"
        found.append(Overtaking(by, int(at[led[turn - 1]]), int(at[led[turn]]), low, high))
    return tuple(found)


def phases(steps: Sequence[int], states: FloatArray) -> list[tuple[str, int, int]]:
    """(state, first step, last step) of every run of checkpoints with one state, those not measured left out.

    >>> phases([0, 10, 20, 30], np.array([0.0, 1.0, np.nan, 1.0]))
    [('not measurable', 0, 0), ('copies', 10, 30)]
    """
    found: list[tuple[str, int, int]] = []
    for step, number in zip(steps, states, strict=True):
        if np.isnan(number):
            continue
        name = STATES[int(number)]
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], int(step))
        else:
            found.append((name, int(step), int(step)))
    return found
