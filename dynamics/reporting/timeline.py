"""The timeline of a report as data: circuits, and for each of their findings when it rose, was half and was done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..analysis.findings import Finding
from ..emergence import FRAGILE, Interval
from .story import dated

__all__ = ["timeline_rows"]

_FIRST = ("represented", "used", "done")
"""What of a circuit stands first, in this order: from a step to the next it takes more of the model."""


def timeline_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Headline findings by circuit: those of one analysis whose titles begin with the same words before a colon.

    Returns:
        For each circuit ``title``, ``analysis`` and ``rows``; a row has the finding's ``key``, ``title`` (what stands after
        the colon), ``state``, ``fragile``, ``text`` (a sentence), the intervals ``onset`` and ``range`` ([after, by], None
        where there is none), ``midpoint`` and ``end``: the step by which it was complete, or lost again.
    """
    circuits: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        circuit, _, rest = finding.title.partition(": ")
        circuits.setdefault((finding.key.split(".")[0], circuit if rest else ""), []).append(finding)
    return [
        {
            "title": circuit[:1].upper() + circuit[1:] if circuit else "Other curves",
            "analysis": analysis,
            "rows": [_row(f) for f in sorted(members, key=_rank)],
        }
        for (analysis, circuit), members in circuits.items()
    ]


def _rank(finding: Finding) -> int:
    word = finding.title.rpartition(": ")[2]
    return _FIRST.index(word) if word in _FIRST else len(_FIRST)


def _row(finding: Finding) -> dict[str, Any]:
    e = finding.emergence
    happened = e.state in ("emerged", "transient") and e.onset is not None
    end = e.loss if e.state == "transient" else e.completion
    return {
        "key": finding.key,
        "title": finding.title.partition(": ")[2] or finding.title,
        "state": e.state,
        "fragile": finding.holds is not None and finding.holds < FRAGILE,
        "text": dated(finding),
        "onset": _ends(e.onset) if happened else None,
        "range": _ends(e.onset_range) if happened else None,
        "midpoint": e.midpoint if happened else None,
        "end": end.by if happened and end is not None else None,
    }


def _ends(interval: Interval | None) -> list[int | None] | None:
    return None if interval is None or (interval.after, interval.by) == (None, None) else [interval.after, interval.by]
