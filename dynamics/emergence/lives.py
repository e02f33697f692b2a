r"""When is a feature there, shown against the sampling error of its strength? The statistics that tracks have in common.

A strength curve (of a decoder's norm, of a mean activation) is *there* where it exceeds what a feature of a quarter of the
curve's peak would show with the curve's sampling error, by the bound that holds at all checkpoints together of
:mod:`dynamics.emergence`, with the false discovery rate held over the curves. The share is needed because with enough
tokens any small leak of another feature is significant. A birth is the onset of such a run and a death its end, both
intervals between two checkpoints, and absence has to be shown as well: before its birth (after its death) a feature must be
less than half as strong as in between by more than the sampling error, with the false discovery rate held over all such
changes. A feature that only grows, or that noise hides at first, is not born.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from dynamics.emergence import assess_many, discover
from dynamics.emergence.runs import CODES
from dynamics.numerics.arrays import BoolArray, FloatArray, IntArray

__all__ = ["FLOOR", "NONE", "Lives", "live"]


NONE = -1
"""No such checkpoint."""

FLOOR = 0.25
"""A feature of less than this share of its largest strength counts as absent."""

HALF = 0.5
"""A feature that was at least this share as strong before (after) is not born (dead) but grows (fades)."""


@dataclass(frozen=True)
class Lives:
    """One entry per curve; checkpoints are positions in the series.

    Attributes:
        state: (curve,) position in ``dynamics.emergence.runs.CODES``.
        found: (curve,) whether it is beyond its null somewhere, at the false discovery rate.
        born: (curve, 2) absent at the first, present at the second; -1 and -1 where it is not born in the series.
        died: (curve, 2) present at the first, absent at the second; -1 and -1 where it does not die.
        present: (curve, checkpoint) from birth to death.
        p_value: (curve,) of "never beyond its null"; NaN where it was not measured.
    """

    state: IntArray
    found: BoolArray
    born: IntArray
    died: IntArray
    present: BoolArray
    p_value: FloatArray

    @property
    def births(self) -> IntArray:
        """Curves that are born in the series."""
        return np.flatnonzero(self.born[:, 1] >= 0)

    @property
    def deaths(self) -> IntArray:
        """Curves that die in the series."""
        return np.flatnonzero(self.died[:, 1] >= 0)


def live(
    steps: npt.ArrayLike,
    strength: FloatArray,
    errors: FloatArray,
    *,
    null: Callable[[IntArray], FloatArray],
    independent: bool,
) -> Lives:
    """Births and deaths of strength curves.

    Args:
        steps: (checkpoint,) optimizer steps, increasing.
        strength: (curve, checkpoint), at least 0; NaN where it was not measured.
        errors: (curve, checkpoint) its standard errors; a curve with one that is NaN is not measured.
        null: from numbers of curves to (curve, checkpoint, null_draw): what each would show if it were as weak as counts
            as absent.
        independent: whether the errors of one curve at different checkpoints are; if not, nothing is gained from averaging
            over checkpoints.
    """
    curves, checkpoints = strength.shape
    state = np.full(curves, CODES.index("not measurable"), dtype=np.int64)
    found = np.zeros(curves, dtype=np.bool_)
    born, died = np.full((curves, 2), NONE, dtype=np.int64), np.full((curves, 2), NONE, dtype=np.int64)
    present = np.zeros((curves, checkpoints), dtype=np.bool_)
    p_value = np.full(curves, np.nan)
    known = np.flatnonzero(np.isfinite(errors).all(axis=1) & (np.nan_to_num(strength).max(axis=1) > 0))
    if not known.size:
        return Lives(state, found, born, died, present, p_value)
    many = assess_many(
        steps,
        strength[known],
        null=lambda piece: null(known[piece]),
        errors=errors[known],
    )
    state[known] = many.state
    p_value[known] = np.where(many.state == CODES.index("not measurable"), np.nan, many.p_value)
    found[known] = discover(p_value[known])
    there = found[known] & np.isin(many.state, [CODES.index(s) for s in ("emerged", "present from start", "transient")])
    begins, ends = there & (many.before >= 0), there & (many.after >= 0)
    born[known[begins]] = np.stack([many.before, many.start], axis=1)[begins]
    died[known[ends]] = np.stack([many.stop, many.after], axis=1)[ends]
    _keep_shown(born, died, strength, errors, independent)
    present[known[there]] = _between(born, died, checkpoints)[known[there]]
    return Lives(state, found, born, died, present, p_value)


def _between(born: IntArray, died: IntArray, checkpoints: int) -> BoolArray:
    """(curve, checkpoint) from birth (or the start) to death (or the end)."""
    at = np.arange(checkpoints)
    begun = at >= np.where(born[:, 1] >= 0, born[:, 1], 0)[:, None]
    return np.asarray(begun & (at <= np.where(died[:, 1] >= 0, died[:, 0], checkpoints)[:, None]))


def _keep_shown(born: IntArray, died: IntArray, strength: FloatArray, errors: FloatArray, independent: bool) -> None:
    """Take back births and deaths before (after) which the feature is not shown to be below :data:`HALF` of its mean."""
    checkpoints = strength.shape[1]
    at = np.arange(checkpoints)
    sides = [(born, np.flatnonzero(born[:, 1] >= 0)), (died, np.flatnonzero(died[:, 1] >= 0))]
    p = []
    for table, rows in sides:
        run = _between(born[rows], died[rows], checkpoints)
        absent = at < table[rows, 1:] if table is born else at >= table[rows, 1:]
        difference, variance = np.zeros(len(rows)), np.zeros(len(rows))
        for part, weight in ((run, HALF), (absent, -1.0)):
            part = part & np.isfinite(strength[rows])
            size = np.maximum(part.sum(axis=1), 1)
            difference += weight * np.where(part, strength[rows], 0.0).sum(axis=1) / size
            squared = np.where(part, errors[rows] ** 2, 0.0).sum(axis=1) / size
            variance += weight**2 * squared / (size if independent else 1)
        p.append(ndtr(-difference / np.sqrt(np.maximum(variance, 1e-300))))
    shown = discover(np.concatenate(p))
    for (table, rows), kept in zip(sides, np.split(shown, [len(p[0])]), strict=True):
        table[rows[~kept]] = NONE
