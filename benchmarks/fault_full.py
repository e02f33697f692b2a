"""The disk is full at twenty sizes, while a trace is made, and while checkpoints, results, features or a report are written.

The command must say so and end (``StoppedError``), everything that reads the trace must work, and with room the same command
goes through; the trace is then file by file what it would have been.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.fault_figures import Figures, forked
from benchmarks.fault_traces import STEPS, Made, snapshot, workplace
from benchmarks.fault_writes import Change, watched

__all__ = ["run"]

SIZES = 20
GROWS = ("open", "mkdir")
"""Changes for which there must be room."""


def run() -> list[Figures]:
    """Fill, look, make room, go on, compare."""
    with workplace() as folder:
        made = Made(folder)
        return [
            _full(made, "a new trace", "nothing", made.collect(exclude=STEPS[1:])),
            _full(made, "checkpoints", "collected", made.collect()),
            _full(made, "the first results", "whole", made.analyse),
            _full(made, "results anew", "analysed", made.analyse),
            _full(made, "features anew", "learned", made.rewrite),
            _full(made, "a report", "analysed", made.report),
        ]


def _full(made: Made, what: str, stage: str, work: Callable[[Path], object]) -> Figures:
    at = made.copy(stage)
    most = at / "most"

    def measure() -> None:
        sizes = []
        with watched(lambda change: sizes.append(_size(at)) if change.verb in GROWS else None):
            work(at)
        most.write_text(json.dumps(sorted(sizes)), encoding="utf-8")

    if (ended := forked(measure)).code:
        raise RuntimeError(f"{what} failed without a fault: {ended.said[-500:]}")
    sizes = json.loads(most.read_text(encoding="utf-8"))
    most.unlink()
    expected = snapshot(at)
    survived = noticed = 0
    failures = []
    for number in range(SIZES):
        at = made.copy(stage)
        room = sizes[len(sizes) * number // SIZES]
        stopped = forked(lambda at=at, room=room: _filled(work, at, room))  # type: ignore[misc]
        seen, again = forked(lambda at=at: made.look(at)), forked(lambda at=at: work(at))  # type: ignore[misc]
        sound = not seen.code and not again.code and snapshot(at) == expected
        survived += sound
        noticed += stopped.code == 1 and "Traceback" not in stopped.said
        if not sound or stopped.code != 1 or "Traceback" in stopped.said:
            said = next((end.said for end in (seen, again, stopped) if "Traceback" in end.said), stopped.said)
            failures.append(
                f"room for {room} bytes: ended with {stopped.code}: {(said.strip().splitlines() or [''])[-1][:200]}"
            )
    return Figures(f"disk full while writing {what}", SIZES, survived, noticed, tuple(failures))


def _filled(work: Callable[[Path], object], at: Path, room: int) -> None:
    from checkpoints.errors import StoppedError

    def fault(change: Change) -> None:
        if change.verb in GROWS and _size(at) >= room:
            change.empty()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), change.path)

    try:
        with watched(fault):
            work(at)
    except StoppedError as error:
        print(error)
        raise SystemExit(1) from None


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except OSError:  # another thread has moved it
                continue
    return total
