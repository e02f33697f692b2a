"""Pythia's steps with those at which pythia-2.8b is wrong, and what an audit found of which step."""

from __future__ import annotations

from collections.abc import Sequence

from checkpoints.audit import AuditFinding

PYTHIA = (0, *(2**k for k in range(10)), *range(1000, 144000, 1000))
STALE = (
    *(step for step in PYTHIA if step <= 53000),
    *(1000 * k for k in (55, 60, 65, 70, 80, 90, 100, 103, 110, 120, 130, 140)),
)
BLOB = tuple(1000 * k for k in (54, 56, 57, 58, 59, 61, 62, 63, 64, 143))
"""EleutherAI/pythia issue 205: of 154 steps of pythia-2.8b 76 serve main, ten another blob, and 68 their own."""


def kinds(findings: Sequence[AuditFinding]) -> dict[int, str]:
    assert len({f.step for f in findings}) == len(findings), "one finding a step is enough here"
    return {f.step: f.kind for f in findings}


def masked(findings: Sequence[AuditFinding]) -> set[int]:
    return {f.step for f in findings if f.mask}
