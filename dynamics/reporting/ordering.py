"""Which circuits came before which: every pair of headline findings, with bootstrap probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..analysis.findings import Finding
from ..emergence import before, in_order

__all__ = ["order_content"]

RATE = 0.05
"""Of the pairs that are said to be in order, the share that may be expected to be wrong."""

SHARED = 39
"""Draws that two findings need in common to be compared draw by draw: fewer order no pair (2/(1 + n) is above 5%)."""

_ORDERED = ("emerged", "transient", "present from start")


def order_content(findings: Sequence[Finding]) -> dict[str, Any]:
    """The order of findings, as JSON values.

    A before B is the share of bootstrap draws in which the onset interval of A ends where or before that of B begins.
    Two onsets between the same checkpoints are a tie, which counts for neither; a draw that is never above its null is
    later than all that are, and ties with another that never is. Findings on one sample are compared draw by draw,
    others, and those that share fewer than :data:`SHARED` usable draws, every draw with every draw
    (:func:`dynamics.emergence.before`).

    Returns:
        ``false_discovery_rate``; ``circuits``, those that can be compared, by their onset; ``pairs`` of them (``first``
        stands before ``second`` in that order; ``before``, ``after`` and ``tied`` add up to 1; ``order`` is ``"before"``,
        ``"after"`` or ``"cannot be ordered"``, of all pairs together (:func:`dynamics.emergence.in_order`); ``paired``
        says how draws were compared); ``unresolved``, how many pairs are apart in every draw and yet not called, because
        there are too few draws for so many pairs; ``left_out``, with reasons.
    """
    left_out = [{"key": f.key, "title": f.title, "reason": reason} for f in findings if (reason := _unfit(f))]
    kept = sorted((f for f in findings if not _unfit(f)), key=_onset_and_midpoint)
    draws = {f.key: f.onset_intervals() for f in kept}
    compared = []
    for one, other in combinations(kept, 2):
        a, b = draws[one.key], draws[other.key]
        n = min(len(a), len(b))
        shared = int((~(np.isnan(a[:n]) | np.isnan(b[:n])).any(axis=1)).sum())
        paired = bool(one.sample) and one.sample == other.sample and shared >= SHARED
        compared.append(
            (one, other, paired, before(a[:n], b[:n], shared=True) if paired else before(a, b, shared=False))
        )
    orders = in_order([found for *_, found in compared], rate=RATE)
    return {
        "false_discovery_rate": RATE,
        "circuits": [{"key": f.key, "title": f.title} for f in kept],
        "pairs": [
            {
                "first": one.key,
                "second": other.key,
                "before": round(found.before, 6),
                "after": round(found.after, 6),
                "tied": round(found.not_distinguishable, 6),
                "order": order,
                "paired": paired,
            }
            for (one, other, paired, found), order in zip(compared, orders, strict=True)
        ],
        "unresolved": sum(
            order == "cannot be ordered" and max(found.before, found.after) == 1.0
            for (*_, found), order in zip(compared, orders, strict=True)
        ),
        "left_out": left_out,
    }


def _unfit(finding: Finding) -> str:
    """Why a finding cannot be put in order; empty if it can."""
    state = finding.emergence.state
    if state not in _ORDERED:
        return state
    return "" if np.isfinite(finding.onset_by).any() else "no bootstrap draws of its onset"


def _onset_and_midpoint(finding: Finding) -> tuple[float, float]:
    """Onset, then midpoint; what was there from the start is first."""
    e = finding.emergence
    by = e.onset.by if e.onset is not None and e.onset.by is not None else np.inf
    return (-1.0 if e.state == "present from start" else float(by), np.inf if e.midpoint is None else e.midpoint)
