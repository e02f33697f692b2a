"""Do the definitions of emergence agree about one curve? Said in numbers and in a sentence.

Two definitions agree if their 95% intervals share training time; without an interval, the checkpoints around the onset
stand for it. That they mean different moments of one rise (its first sign, its kink, its middle) is why they may not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dynamics.emergence.definitions import Onset
from dynamics.emergence.types import Interval

__all__ = ["Agreement", "agreement_of"]


@dataclass(frozen=True)
class Agreement:
    """How far the definitions agree.

    Attributes:
        states: which say that it emerged (or was there from the start, or was transient), and which that it did not.
        agreeing: pairs whose intervals overlap.
        disagreeing: pairs whose intervals do not.
        earliest, latest: the definitions with the earliest and the latest estimate; empty with fewer than two.
        spread_decades: log10(step + 1) of the latest onset minus that of the earliest; None with fewer than two.
        sentence: the same in words.
    """

    states: Mapping[str, str]
    agreeing: tuple[tuple[str, str], ...]
    disagreeing: tuple[tuple[str, str], ...]
    earliest: str
    latest: str
    spread_decades: float | None
    sentence: str

    @property
    def unanimous(self) -> bool:
        """Whether every definition that can be applied finds an onset, and no two of them contradict each other."""
        states = set(self.states.values()) - {"not measurable"}
        return bool(states) and "not emerged" not in states and not self.disagreeing

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the states are with the onsets."""
        return {
            "unanimous": self.unanimous,
            "agreeing": [list(pair) for pair in self.agreeing],
            "disagreeing": [list(pair) for pair in self.disagreeing],
            "spread_decades": self.spread_decades,
            "sentence": self.sentence,
        }


def agreement_of(onsets: Mapping[str, Onset]) -> Agreement:
    """Compare the definitions of one curve, see :func:`dynamics.emergence.definitions`."""
    there = {n: o for n, o in onsets.items() if o.state not in ("not emerged", "not measurable") and o.between}
    agreeing: list[tuple[str, str]] = []
    disagreeing: list[tuple[str, str]] = []
    for one, other in combinations(there, 2):
        pair = (one, other)
        (agreeing if _overlap(_span(there[one]), _span(there[other])) else disagreeing).append(pair)
    positions = {name: at for name, onset in there.items() if (at := _log_step(onset)) is not None}
    ordered = sorted(positions, key=lambda name: positions[name]) if len(positions) > 1 else []
    earliest, latest = (ordered[0], ordered[-1]) if ordered else ("", "")
    spread = positions[latest] - positions[earliest] if ordered else None
    absent = [name for name, onset in onsets.items() if onset.state == "not emerged"]
    unfit = [name for name, onset in onsets.items() if onset.state == "not measurable" and there]
    pairs = len(agreeing) + len(disagreeing)
    if not there:
        parts = ["no definition finds an onset"]
    elif not disagreeing and not absent and not unfit:
        parts = [f"all {len(there)} definitions agree"]
    else:
        parts = [f"{len(there)} of {len(onsets)} definitions find an onset"]
        if absent:
            parts.append("not found by " + ", ".join(absent))
        if unfit:
            parts.append(", ".join(unfit) + (" do not fit" if len(unfit) > 1 else " does not fit"))
        if disagreeing:
            parts.append(f"{len(agreeing)} of {pairs} pairs agree")
    if spread is not None:
        where = f" ({earliest} first, {latest} last)" if disagreeing else ""
        parts.append(f"estimates within {spread:.2f} decades{where}")
    return Agreement(
        states={n: o.state for n, o in onsets.items()},
        agreeing=tuple(agreeing),
        disagreeing=tuple(disagreeing),
        earliest=earliest,
        latest=latest,
        spread_decades=spread,
        sentence="; ".join(parts),
    )


def _span(onset: Onset) -> Interval:
    """The interval that stands for the onset, with the observed one in it."""
    between, span = onset.between or Interval(None, None), onset.range
    if span is None:
        return between
    after = None if between.after is None or span.after is None else min(between.after, span.after)
    by = None if between.by is None or span.by is None else max(between.by, span.by)
    return Interval(after, by)


def _overlap(one: Interval, other: Interval) -> bool:
    starts = one.by is None or other.after is None or other.after < one.by
    return starts and (other.by is None or one.after is None or one.after < other.by)


def _log_step(onset: Onset) -> float | None:
    """log10(step + 1) of the estimate: interpolated, else the checkpoint by which it had happened."""
    step = onset.step
    if step is None and onset.between is not None:
        step = onset.between.by
    return None if step is None else math.log10(step + 1.0)
