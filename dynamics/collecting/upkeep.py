"""How far a run is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.paths import StrPath

from ..runs.config import Run
from ..runs.lookup import requested
from ..runs.schedule import scheduled
from ..store import Trace
from ..store.claims import Claims
from ..store.groups import records_of, shelved
from ..store.journal import read_journal
from ..store.lock import doing_now, is_locked, living_members
from ..store.paths import trace_path
from ..wording import steps_text

__all__ = ["RunStatus", "status"]


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        trace: the trace, or None when it has not been started.
        steps: status to steps; scheduled checkpoints that are not done are ``pending``, others ``not scheduled``.
        reasons: step to reason, for failed and masked checkpoints.
        rounds: of an adaptive schedule: step to the keys of the curves whose onset it was to narrow, one per round.
        seconds_per_checkpoint: median of the last session, or None.
        seconds_left: estimate, or None.
        collecting: whether a process is writing the trace now.
        left_out: what lies beside the checkpoints of a local series and is not taken, name to reason.
        doing: what that process is measuring.
        shards: a line on each living process that collects the trace together with others: what it is measuring, and
            which checkpoints it has claimed and not ended.
        unlisted: a line on each group of measurements that the trace has and does not list: one that it is to gain, or one
            that is not asked for any more.
    """

    trace: Path | None
    steps: dict[str, list[int]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    rounds: tuple[dict[int, list[str]], ...] = ()
    seconds_per_checkpoint: float | None = None
    seconds_left: float | None = None
    collecting: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    doing: str = ""
    shards: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


def status(name: str, *, runs: StrPath | None = None, traces: StrPath = "traces", run: Run | None = None) -> RunStatus:
    """What is complete, failed, masked or pending, and about how long is left.

    Raises:
        UserError: for an unknown run, or a folder that is no trace.
    """
    name, run, traces = requested(name, run, runs=runs, traces=traces)
    path = trace_path(traces, name)
    if not path.exists():
        return RunStatus(None, left_out=run.series.left_out())
    trace = Trace(path)
    wanted = set(scheduled(trace.steps.tolist(), run.schedule, run.checkpoints, run.budget))
    last: Any = trace.attributes.get("run_config") or {}  # with what the command line said instead
    if {"schedule", "checkpoints"} <= last.keys():
        wanted |= set(scheduled(trace.steps.tolist(), last["schedule"], last["checkpoints"], last.get("budget")))
    steps: dict[str, list[int]] = {}
    for index, (step, state) in enumerate(zip(trace.steps.tolist(), trace.status, strict=True)):
        known = state if state != "pending" or index in wanted else "not scheduled"
        steps.setdefault(known, []).append(step)
    events = read_journal(path)
    times = [e["seconds"] for e in events if e.get("event") == "complete"][-50:]
    each = float(np.median(times)) if times else None
    left = len(steps.get("pending", ()))
    collecting = is_locked(path)
    shards = tuple(_shards(path, trace))
    return RunStatus(
        trace=path,
        steps=steps,
        reasons={
            int(s): r
            for s, r, state in zip(trace.steps, trace.reasons, trace.status, strict=True)
            if r and state != "pending"
        },
        rounds=tuple({int(s): k for s, k in e["purposes"].items()} for e in events if e.get("event") == "round"),
        seconds_per_checkpoint=each,
        seconds_left=each * left if each is not None else None,
        left_out=run.series.left_out(),
        collecting=collecting or bool(shards),
        doing=doing_now(path) if collecting else "",
        shards=shards,
        unlisted=tuple(_unlisted(path, trace)),
    )


def _shards(path: Path, trace: Trace) -> Iterator[str]:
    """A line on each living process that writes the trace with others."""
    for member in living_members(path):
        claimed = [i for i in Claims.owned(path, member.id) if trace.status[i] == "pending"]
        steps = steps_text([int(trace.steps[i]) for i in claimed])
        doing = Claims.doing_of(path, member.id) or ("beginning" if not member.working else "loading")
        yield f"shard {member}: {doing}" + (f"; has claimed {steps}" if claimed else "")


def _unlisted(path: Path, trace: Trace) -> Iterator[str]:
    """A line on each group on the shelf: at which checkpoints it is."""
    growing: Any = trace.attributes.get("growing") or {}
    complete = {int(i) for i in np.flatnonzero(trace.complete)}
    for folder in shelved(path):
        name, _, asked = folder.name.rpartition(".")
        there = {i for i, record in records_of(folder).items() if record.get("weights_digest") == trace.digests[i]}
        if growing.get(name) == asked:
            lacking = [int(trace.steps[i]) for i in sorted(complete - there)]
            yield f"{name}: at {len(there & complete)} of {len(complete)} complete checkpoints; lacking {steps_text(lacking)}"
        else:
            yield f"{name}, no longer asked for: at {len(there)} checkpoints, kept unlisted (`dynamics verify --prune` deletes it)"
