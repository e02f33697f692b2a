"""A process dies at every change of a file while results, features or checkpoints are written, and halfway through each.

Afterwards everything that reads the trace works (status, verify, xarray), the same command goes through, and the trace is
file by file what it would have been. ``FAULTS_EVERY=10`` tries every tenth.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.fault_figures import Figures, forked
from benchmarks.fault_traces import Made, look, snapshot
from benchmarks.fault_writes import killed, watched

__all__ = ["run"]

EVERY = int(os.environ.get("FAULTS_EVERY", "1"))


def run() -> list[Figures]:
    """Kill, look, go on, compare."""
    with tempfile.TemporaryDirectory() as folder:
        made = Made(Path(folder))
        return [
            _kills(made, "writing the first results", "whole", made.analyse),
            _kills(made, "replacing results", "analysed", made.analyse),
            _kills(made, "replacing features", "learned", made.rewrite),
            _kills(made, "writing checkpoints", "collected", made.collect()),
        ]


def _kills(made: Made, what: str, stage: str, work: Callable[[Path], object]) -> Figures:
    at = made.copy(stage)
    counted = at / "count"

    def count() -> None:
        with watched() as changes:
            work(at)
        counted.write_text(json.dumps([change.empties for change in changes.seen]), encoding="utf-8")

    if forked(count).code:
        raise RuntimeError(f"{what} failed without a fault")
    empties = json.loads(counted.read_text(encoding="utf-8"))
    expected = snapshot(at)
    tried, failures = 0, []
    for number in range(1, len(empties) + 1, EVERY):
        for within in (False, True)[: 1 + empties[number - 1]]:
            at = made.copy(stage)
            if forked(lambda at=at, n=number, w=within: _die(work, at, n, w)).code >= 0:  # type: ignore[misc]
                continue  # fewer changes than when they were counted
            tried += 1
            after = forked(lambda at=at: (look(at), work(at)))  # type: ignore[misc]
            found = snapshot(at)
            wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            if after.code or wrong:
                said = after.said.strip().splitlines() if after.code else [f"other files: {', '.join(wrong[:3])}"]
                failures.append(f"change {number}{' within' if within else ''}: {said[-1][:200]}")
    return Figures(f"death while {what} ({len(empties)} changes)", tried, tried - len(failures), None, tuple(failures))


def _die(work: Callable[[Path], object], at: Path, number: int, within: bool) -> None:
    with watched(killed(number, within=within)):
        work(at)
