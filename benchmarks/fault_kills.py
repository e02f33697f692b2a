"""A process dies before every change of a file, and with every file that it opens empty or half written.

Checkpoints, results and features are written, a trace is made, and one is repaired. Afterwards everything that reads the trace
works (status, verify, xarray), the same command goes through, and the trace is file by file what it would have been.

What a process leaves is noted while one runs through (``fault_states``); at thirty moments of each work a process is killed in
earnest, and must leave just that.
"""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.fault_figures import Figures, forked
from benchmarks.fault_states import Moment, State, moments, put_state, state_of
from benchmarks.fault_traces import NAME, STEPS, Made, snapshot, workplace
from benchmarks.fault_writes import killed, watched

__all__ = ["run"]

KILLED = 30
"""Moments of each work at which a process is killed in earnest."""

BATCH = 20
"""States that one process goes on from, one after the other."""

Work = Callable[[Path], object]


def works(made: Made) -> list[tuple[str, str, Work]]:
    """What is written, from which stage, and how."""
    return [
        ("making a trace and its first checkpoint", "nothing", made.collect(exclude=STEPS[1:])),
        ("writing checkpoints", "collected", made.collect()),
        ("writing the first results", "whole", made.analyse),
        ("replacing results", "analysed", made.analyse),
        ("replacing features", "learned", made.rewrite),
        ("repairing a trace", "damaged", made.repair),
    ]


def run() -> list[Figures]:
    """Note, die, look, go on, compare."""
    with workplace() as folder:
        made = Made(folder)
        return [row for what, stage, work in works(made) for row in _kills(made, what, stage, work)]


def _kills(made: Made, what: str, stage: str, work: Work) -> list[Figures]:
    at, noted = made.copy(stage), made.folder / "noted"
    recorded = forked(lambda: noted.write_bytes(pickle.dumps(moments(lambda: _in_turn(work, at), at / "traces"))))
    if recorded.code:
        raise RuntimeError(f"{what} failed without a fault: {recorded.said[-1000:]}")
    found: list[Moment] = pickle.loads(noted.read_bytes())  # noqa: S301  (the process above wrote it)
    expected = snapshot(at)
    changes = max(moment.change for moment in found)
    states: dict[frozenset[tuple[str, bytes | None]], list[Moment]] = {}
    for moment in found:
        states.setdefault(frozenset(moment.state.items()), []).append(moment)
    same = list(states.values())
    failures: list[str] = []
    for start in range(0, len(same), BATCH):
        tried = [group[0] for group in same[start : start + BATCH]]
        failures += _survived(made, work, tried, expected, noted, damaged=stage == "damaged")
    lost = sum(len(group) for group in same if any(f.startswith(_called(group[0])) for f in failures))
    print(f"{what}: {changes} changes, {len(found)} moments, {len(same)} states, {lost} not survived", flush=True)
    row = Figures(f"death while {what}", len(found), len(found) - lost, None, tuple(failures))
    return [row, _in_earnest(made, what, stage, work, [moment for moment in found if moment.within != "half"])]


def _called(moment: Moment) -> str:
    return f"change {moment.change}{' ' + moment.within if moment.within else ''}: "


def _in_turn(work: Work, at: Path) -> None:
    """Do something with one change of a file at a time."""
    with import_module("zarr").config.set({"async.concurrency": 1, "threading.max_workers": 1}):
        work(at)


def _survived(
    made: Made, work: Work, tried: Sequence[Moment], expected: dict[str, str], noted: Path, *, damaged: bool
) -> list[str]:
    """A line for each state in which something cannot be read, or from which the same command does not go on."""
    at, failures = made.folder / "at", noted.with_name("failures")

    def go_on() -> None:
        lines = []
        for moment in tried:
            put_state(at / "traces", moment.state)
            try:
                made.look(at, damaged=damaged)
                work(at)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                lines.append(f"{_called(moment)}{error!r}"[:300] + f" ({where.filename}:{where.lineno})")
                continue
            after = snapshot(at)
            if wrong := sorted(name for name in {*expected, *after} if expected.get(name) != after.get(name)):
                lines.append(f"{_called(moment)}other files: {', '.join(wrong[:3])}")
        failures.write_text(json.dumps(lines), encoding="utf-8")

    ended = forked(go_on)
    if ended.code:
        return [f"{_called(moment)}{ended.said[-300:]}" for moment in tried]
    found: list[str] = json.loads(failures.read_text(encoding="utf-8"))
    return found


def _in_earnest(made: Made, what: str, stage: str, work: Work, found: Sequence[Moment]) -> Figures:
    """Whether killed processes leave what was noted."""
    failures, tried = [], found[:: max(1, len(found) // KILLED)][:KILLED]
    for moment in tried:
        at = made.copy(stage)
        ended = forked(lambda at=at, m=moment: _die(work, at, m))  # type: ignore[misc]
        left, noted = _of_trace(state_of(at / "traces")), _of_trace(moment.state)
        if ended.code != -9 or left != noted:
            other = sorted(name for name in {*left, *noted} if left.get(name) != noted.get(name))
            failures.append(f"{_called(moment)}ended with {ended.code}, other than noted: {', '.join(other[:3])}")
    return Figures(f"the same in earnest ({what})", len(tried), len(tried) - len(failures), None, tuple(failures))


def _of_trace(state: State) -> State:
    """Without the journal and the lock, which say times and processes."""
    return {
        path: content
        for path, content in state.items()
        if path.split("/")[0] in (f"{NAME}.zarr", f"{NAME}.zarr.partial")
    }


def _die(work: Work, at: Path, moment: Moment) -> None:
    with watched(killed(moment.change, within=bool(moment.within))):
        _in_turn(work, at)
