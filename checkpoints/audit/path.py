"""Do the weights of a series lie on a path, as training makes them, or is a checkpoint out of place?

Works on sketches (:mod:`.sketch`) after loading, and so finds what the digests of files cannot show: weights of another
step or another run that were stored in another dtype, divided into other files, or that no listed step holds. How:
:mod:`.order`. Weights of the step just before are remarked and not blamed, as training may have stood still. What it cannot
find: a checkpoint in the place of a neighbour that hardly differs from it (where the learning rate is almost zero), a wrong
first or last checkpoint (unless it is a step far from there; a jump is remarked), and a series that is another one from
some step on. Beyond 650 checkpoints each is compared with a share of the series and with its neighbours (:mod:`.order`), not
with all: a copy of a step farther away than those 32 neighbours, and yet so near that hardly any of the share lies in
between, would not show; where training moves evenly that takes thousands of checkpoints. Of several wrong ones it takes the explanation with the fewest wrong labels: where more steps in a row are
another run's than honest ones come before or after them, it blames those. A training that truly returns (all weights
confined to one basin, a learning rate restarted from high values) looks like a fault; if
it does so much, that is said instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .equal import Judge
from .findings import AuditFinding, Kind, name_steps
from .order import Misplaced, Order, order
from .returns import SAME
from .vectors import Indices, Vectors, apart, each

__all__ = ["JUMP", "NORM_JUMP", "audit_weights", "neighbours"]

Floats = npt.NDArray[np.floating]

JUMP = 10.0
"""Times the angle that the steps before and after go, in proportion to their number, that is no ordinary training.

In simulated and real trainings of all kinds it was at most 3.2; weights of another seed at step 0 of one gave 217."""

NORM_JUMP = 0.1
"""Distance of the logarithm of the norm from what is between the middle two of the four checkpoints around, for a remark.

It also has to be :data:`JUMP` times what is usual in the series. Training that only grows, however fast, gives zero."""

BFLOAT16_BITS, FLOAT16_TINY = 8, 2.0**-24
"""Significant bits of bfloat16, and the smallest number above zero in float16: a number nearer to zero is lost there."""

CROWD, CROWD_SHARE = 8, 0.25
"""So many points off the path, and such a share of all, are no accident of a few labels: it cannot be said what is wrong."""


def audit_weights(
    steps: Sequence[int] | npt.NDArray[np.integer],
    sketches: Vectors,
    norms: Sequence[float] | Floats,
    nonfinite: Sequence[int] | npt.NDArray[np.integer],
    digests: Sequence[str],
) -> list[AuditFinding]:
    """Faults of a series that its weights show.

    Args:
        steps: (checkpoint,) increasing.
        sketches: (checkpoint, sample) weights at the same coordinates, read some at a time; a row with a NaN is left out,
            but is known to be between others.
        norms: (checkpoint,) norms of all weights, NaN where there is none.
        nonfinite: (checkpoint,) how many weights are NaN or infinite.
        digests: (checkpoint,) digests of the weights; empty where there is none.

    Returns:
        By step; a checkpoint should be left out if ``mask`` is true for any of its findings.

    Raises:
        ValueError: when the arguments are not of one length, or steps do not increase.
    """
    rows = _Rows(steps, sketches)
    if not len(norms) == len(nonfinite) == len(digests) == len(rows.steps):
        raise ValueError("norms, nonfinite and digests must have one value for every step")
    found = [
        rows.finding(
            row, "not finite", f"{count} of its weights are NaN or infinite; it is kept, as the run went there"
        )
        for row, count in enumerate(nonfinite)
        if count > 0
    ]
    result = order(rows)
    found += _copies(rows, digests, {rows.steps[rows.valid[n]] for point in result.out for n in point.rows})
    known = {f.step for f in found if f.mask}
    found += [f for f in _out_of_order(rows, result) if f.step not in known]
    found += _stored_anew(rows, {f.step for f in found if f.mask}, {f.step for f in found})
    masked = {f.step for f in found if f.mask}
    found += _jumps(rows, [n for n, row in enumerate(rows.valid) if rows.steps[row] not in masked])
    found += _norm_jumps(rows, norms, masked)
    return sorted(found, key=lambda f: (f.step, f.kind))


def neighbours(steps: Sequence[int] | npt.NDArray[np.integer], sketches: Vectors) -> dict[str, npt.NDArray[np.float64]]:
    """Cosines of every checkpoint's weights with those of others, for tables.

    Args:
        steps: (checkpoint,) increasing.
        sketches: (checkpoint, sample); a row with a NaN is left out.

    Returns:
        ``previous`` and ``next``, the checkpoint before and after, and ``first``, the first one that has a sketch; each
        (checkpoint,), NaN where one of the two has none.

    >>> {name: values.round(3).tolist() for name, values in neighbours([0, 1], np.array([[1.0, 0.0], [3.0, 4.0]])).items()}
    {'previous': [nan, 0.6], 'next': [0.6, nan], 'first': [1.0, 0.6]}
    """
    rows = _Rows(steps, sketches)
    result = {name: np.full(len(rows.steps), np.nan) for name in ("previous", "next", "first")}
    first = before = np.empty(0)
    for number, (row, vector) in enumerate(zip(rows.valid.tolist(), each(rows), strict=True)):
        first = vector if not number else first
        result["first"][row] = np.cos(apart(first, vector)) if number else 1.0
        if number and rows.valid[number - 1] == row - 1:
            result["next"][row - 1] = result["previous"][row] = np.cos(apart(before, vector))
        before = vector
    return result


class _Rows:
    """The checkpoints to compare: those that have a sketch, read some at a time (:class:`.vectors.Vectors`).

    Attributes:
        steps: of all checkpoints.
        places: step to its index.
        valid: indices of those that have a sketch.
    """

    def __init__(self, steps: Iterable[int], sketches: Vectors) -> None:
        self.steps = [int(step) for step in steps]
        self.places = {step: index for index, step in enumerate(self.steps)}
        if len(sketches) != len(self.steps):
            raise ValueError(f"{len(self.steps)} steps and {len(sketches)} sketches")
        if any(a >= b for a, b in pairwise(self.steps)):
            raise ValueError("steps must increase")
        self._sketches = sketches
        usable = [i for i, row in enumerate(each(sketches)) if np.isfinite(row).all() and row.any()]
        self.valid: Indices = np.array(usable, dtype=np.intp)

    def __len__(self) -> int:
        return len(self.valid)

    def __getitem__(self, points: Any) -> npt.NDArray[Any]:
        """(point, sample) sketches of some of the valid ones."""
        return self._sketches[self.valid[points]]

    def apart(self, one: int, other: int) -> float:
        """The angle between two of the valid ones."""
        return apart(*self[np.array([one, other])])

    def finding(self, row: int, kind: Kind, reason: str, *, mask: bool = False) -> AuditFinding:
        """What to say about one row."""
        return AuditFinding(self.steps[row], "", kind, reason, mask)

    def step(self, point: int) -> int:
        """Step of one of the valid ones."""
        return self.steps[int(self.valid[point])]


def _copies(rows: _Rows, digests: Sequence[str], out_of_order: set[int]) -> list[AuditFinding]:
    """Steps with the same digest; where the path tells which of them is in its place, it decides."""
    groups: dict[str, list[int]] = defaultdict(list)
    for step, digest in zip(rows.steps, digests, strict=True):
        if digest:
            groups[digest].append(step)
    judge = Judge(dict.fromkeys(rows.steps, ""), rows.steps[-1] if rows.steps else -1)
    found: list[AuditFinding] = []
    for members in groups.values():
        at = [rows.places[step] for step in members]
        if len(members) > 1 and (at[-1] - at[0] >= len(members) or judge.designed(members) is not None):
            found += judge.findings(members, at_fault=out_of_order & {*members})
        elif len(members) > 1:
            reason = (
                f"{name_steps(members, rows.steps)} hold the same weights: training stood still, or a label is wrong"
            )
            found += [rows.finding(row, "shared weights", reason) for row in at]
    return found


def _stored_anew(rows: _Rows, masked: set[int], said: set[int]) -> list[AuditFinding]:
    """Steps in a row that are the same but for rounding, where those beside them are farther away than that.

    Angles cannot tell rounding from a step of training that was as small; single weights can, as no rounding to nearest
    in float16 or bfloat16 changes any of them by more than half a unit in bfloat16's last place (and once more the eighth
    of that, where both are rounded), and training does not spare the small ones. Where other steps are in between, which
    have no sketch or are masked, it is no standing still: as with equal digests, at most one label can be right.

    Args:
        rows: the checkpoints.
        masked: steps that are passed over.
        said: steps of which something was said already, masked or not.
    """
    kept = [n for n in range(len(rows.valid)) if rows.step(n) not in masked]
    groups: list[list[int]] = []
    first = np.empty(0)
    for here, vector in enumerate(each(rows, np.array(kept, dtype=np.intp))):
        single = vector.astype(np.float64)
        if groups and _rounded(first, single):
            groups[-1].append(here)
        else:
            groups.append([here])
            first = single
    found: list[AuditFinding] = []
    judge = Judge(dict.fromkeys(rows.steps, ""), max(rows.steps, default=-1))
    for group in (g for g in groups if len(g) > 1):
        members = [rows.step(kept[n]) for n in group]
        beside = [(n, m) for n, m in ((group[0], group[0] - 1), (group[-1], group[-1] + 1)) if 0 <= m < len(kept)]
        if not beside or any(rows.apart(kept[n], kept[m]) <= SAME for n, m in beside):
            continue
        if judge.designed(members) is not None or said & {*members}:
            continue
        at = [rows.places[step] for step in members]
        between = at[-1] - at[0] >= len(at)
        reason = f"{name_steps(members, rows.steps)} hold the same weights up to rounding"
        reason += ", and at most one label can be right" if between else ": training stood still, or a label is wrong"
        wrong = {*members} - {rows.steps[-1]} if between else set[int]()
        found += [rows.finding(row, "shared weights", reason, mask=rows.steps[row] in wrong) for row in at]
    return found


def _rounded(one: Floats, other: Floats) -> bool:
    """Whether two sketches, (sample,) each, are no farther apart than two roundings of the same weights."""
    size = np.maximum(np.abs(one), np.abs(other))
    unit = np.ldexp(1.0, np.frexp(size)[1] - BFLOAT16_BITS)
    return bool((np.abs(one - other) <= 0.5 * (1 + 1 / 8) * unit + FLOAT16_TINY).all())


def _out_of_order(rows: _Rows, result: Order) -> list[AuditFinding]:
    """What the order of the angles says; copies aside, single steps are called wrong only if they are few."""
    loose = [point for point in result.out if not point.exact]
    crowd = len(loose) >= CROWD and len(loose) > CROWD_SHARE * result.points
    found: list[AuditFinding] = []
    if crowd:
        steps = [rows.step(n) for point in loose for n in point.rows]
        reason = f"{name_steps(steps, rows.steps)} are off the path of the others, too many to call them wrong:"
        reason += " the labels are in no order, or the training returned to where it was"
        found.append(rows.finding(rows.places[steps[0]], "off the path", reason))
    out = {n for point in result.out for n in point.rows}
    for point in result.out:
        if crowd and not point.exact:
            continue
        kind: Kind = "off the path" if point.twin is None else "nearer to another step"
        reason = _why(rows, point, out)
        found += [rows.finding(int(rows.valid[n]), kind, reason, mask=True) for n in point.rows]
    return found


def _why(rows: _Rows, point: Misplaced, out: set[int]) -> str:
    """The reason for one point, the same for all of its rows."""
    here = point.rows[0]
    if point.twin is not None and point.exact:
        reason = f"holds the weights of step {rows.step(point.twin)} up to rounding"
        return reason + (", and at most one label can be right" if point.twin in out else "")
    beside = " and ".join(f"{rows.apart(here, n):.2g} from step {rows.step(n)}" for n in point.beside)
    if point.twin is not None:
        return f"is an angle of {rows.apart(here, point.twin):.2g} from step {rows.step(point.twin)}, but {beside}"
    if len(point.beside) < 2:
        return f"is not where the path of the others begins or ends: an angle of {beside}"
    return f"is an angle of {beside}, which are {rows.apart(*point.beside):.2g} apart"


def _jumps(rows: _Rows, kept: Sequence[int]) -> list[AuditFinding]:
    """Where the weights go far at once: from there on, or up to there, it may be another run."""
    if len(kept) < 4:  # of two ways one may well be much longer
        return []
    found: list[AuditFinding] = []
    ways = [apart(one, other) for one, other in pairwise(each(rows, np.array(kept, dtype=np.intp)))]
    gaps = [rows.step(b) - rows.step(a) for a, b in pairwise(kept)]
    for i, (way, gap) in enumerate(zip(ways, gaps, strict=True)):
        beside = [ways[k] * max(1.0, gap / gaps[k]) for k in (i - 1, i + 1) if 0 <= k < len(ways)]
        if beside and way > JUMP * max(*beside, SAME):
            row = kept[0] if i == 0 else kept[i + 1]
            reason = f"the weights jump by an angle of {way:.2g} from step {rows.step(kept[i])} to step {rows.step(kept[i + 1])}"
            reason += f", {way / max(*beside, SAME):.0f} times as far as beside: one side may be another run's"
            found.append(rows.finding(int(rows.valid[row]), "off the path", reason))
    return found


def _norm_jumps(rows: _Rows, norms: Sequence[float] | Floats, masked: set[int]) -> list[AuditFinding]:
    """Steps whose norm is not between those of the two steps before and the two after, outliers among those aside."""
    norm = np.asarray(norms, dtype=np.float64)
    known = [i for i, step in enumerate(rows.steps) if np.isfinite(norm[i]) and norm[i] > 0 and step not in masked]
    if len(known) < 5:
        return []
    log = np.log(norm[known])
    around = np.sort(np.stack([log[:-4], log[1:-3], log[3:-1], log[4:]]), axis=0)
    away = log[2:-2] - np.clip(log[2:-2], around[1], around[2])
    limit = max(NORM_JUMP, JUMP * float(np.median(np.abs(away))))
    return [
        rows.finding(known[i + 2], "odd norm", f"its norm is {np.exp(away[i]):.2f} times those of the steps around it")
        for i in np.flatnonzero(np.abs(away) > limit)
    ]
