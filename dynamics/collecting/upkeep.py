"""How far a run is, and whether its trace is intact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from checkpoints.errors import UserError
from checkpoints.paths import StrPath, as_flag, as_path, as_text

from ..names import CHECKPOINT
from ..progress import Reporter
from ..runs.config import Run
from ..runs.lookup import requested, trace_name
from ..runs.schedule import scheduled
from ..store import FEATURES, WEIGHTS, Trace, writer_lock
from ..store.journal import read_journal
from ..store.lock import doing_now
from ..store.paths import open_run_trace, trace_path
from ..store.writer import check_format, delete_slab, open_group, slab_files
from .rounds import collect

__all__ = ["Damage", "RunStatus", "status", "verify"]


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
    collecting = path.with_name(path.name + ".owner").exists() and _locked(path)
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
        collecting=collecting,
        doing=doing_now(path) if collecting else "",
    )


def _locked(path: Path) -> bool:
    try:
        with writer_lock(path):
            return False
    except UserError:
        return True


@dataclass(frozen=True)
class Damage:
    """One chunk that is missing or does not match its checksum.

    Attributes:
        step: of the checkpoint; None for what is not of one checkpoint: a coordinate, or an array of the root.
        variable: the array, as ``group/name``.
        problem: what is wrong with it.
        repaired: whether its checkpoint was measured again.
    """

    step: int | None
    variable: str
    problem: str
    repaired: bool = False


def verify(
    name: str,
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    repair: bool = False,
    reporter: Reporter | None = None,
) -> list[Damage]:
    """Read every coordinate and every chunk of every complete checkpoint, and compare their checksums.

    Args:
        name: the run's name.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file; of use with ``repair`` only.
        repair: delete the damaged checkpoints' data and measure them again. Coordinates are not repaired.
        reporter: progress and messages.

    Returns:
        What is damaged, at most one entry per checkpoint and variable. Nothing else is looked at where arrays of the
        root are.

    Raises:
        UserError: when there is no trace, or a repair is asked for and the run cannot be collected.
        StoppedError: when a repair has to stop in the middle; the next collection goes on with it.
    """
    repair = as_flag(repair, "repair")
    if runs is not None or run is not None:
        requested(name, run, runs=runs, traces=traces)  # a runs file that is not there is refused
    traces, trace = as_path(traces, "traces"), trace_name(as_text(name, "name"))
    found = _damaged(trace, traces)
    steps = {d.step for d in found if d.step is not None}
    if not repair or not steps:
        return found
    name, run, traces = requested(name, run, runs=runs, traces=traces)  # before anything is deleted
    _reset(open_run_trace(trace, traces), sorted(steps))
    done = collect(name, run=run, traces=traces, only=steps, reporter=reporter)
    return [replace(d, repaired=d.step in steps - done.failed.keys()) for d in found]


def _damaged(name: str, traces: Path) -> list[Damage]:
    path = trace_path(traces, name)
    found: list[Damage] = []
    if path.exists():
        root = open_group(path, mode="r")
        check_format(dict(root.attrs), path)
        found = _coordinates(path, root)
    if found:
        return found
    trace = open_run_trace(name, traces)
    root = open_group(trace.path, mode="r")
    for probe in _measured(trace):
        group = root[probe]
        assert isinstance(group, zarr.Group)
        found += _coordinates(trace.path / probe, group, probe)
        for variable, array in group.arrays():
            if array.metadata.dimension_names[0] != CHECKPOINT or variable == "step":  # type: ignore[union-attr,index]
                continue
            for index in np.flatnonzero(trace.complete):
                problem = _problem(trace.path / probe / variable, array, int(index))
                if problem:
                    found.append(Damage(int(trace.steps[index]), f"{probe}/{variable}", problem))
    if FEATURES in root:
        for features in _groups_in(root[FEATURES]):
            group = root[f"{FEATURES}/{features}"]
            assert isinstance(group, zarr.Group)
            found += _coordinates(trace.path / FEATURES / features, group, f"{FEATURES}/{features}")
    return found


def _groups_in(group: Any) -> list[str]:
    """Paths of all groups below."""
    return [str(name) for name, node in group.members(max_depth=None) if isinstance(node, zarr.Group)]


def _coordinates(folder: Path, group: zarr.Group, name: str = "") -> list[Damage]:
    """What is wrong with the arrays of a group that are not one slab a checkpoint; those of the root are none."""
    found = []
    for key, array in group.arrays():
        along = array.metadata.dimension_names[0] == CHECKPOINT  # type: ignore[union-attr,index]
        if name and along and key != "step":
            continue
        problem = ""
        flag = not name and array.chunks == (1,)  # in which only what was said has a chunk
        if not flag and array.size and not any(p.is_file() for p in (folder / key / "c").rglob("*")):
            problem = "its chunk is missing"
        try:
            array[:]
        except (ValueError, RuntimeError, OSError) as error:
            problem = (str(error).splitlines() or ["it cannot be read"])[0]
        if problem:
            found.append(Damage(None, f"{name}/{key}".removeprefix("/"), problem))
    return found


def _measured(trace: Trace) -> list[str]:
    """The groups that hold slabs."""
    return [*trace.probes, *({WEIGHTS} & set(trace.tree.children))]


def _problem(folder: Path, array: zarr.Array[Any], index: int) -> str:
    """What is wrong with one checkpoint's slab, or nothing."""
    stored = array.shards or array.chunks
    expected = int(np.prod([-(-n // c) for n, c in zip(array.shape[1:], stored[1:], strict=True)]))
    # an empty shard is read as if nothing had been written, without a complaint
    present = sum(1 for p in slab_files(folder, index) if p.suffix != ".partial" and p.stat().st_size)
    if present != expected:
        return f"{expected - present} of {expected} chunks are missing or empty"
    try:
        array[index]
    except (ValueError, RuntimeError, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def _reset(trace: Trace, steps: list[int]) -> None:
    with writer_lock(trace.path):
        root = open_group(trace.path, mode="r+")
        state, digests = root["status"], root["weights_digest"]
        assert isinstance(state, zarr.Array) and isinstance(digests, zarr.Array)
        position = {int(s): i for i, s in enumerate(trace.steps)}
        for step in steps:
            digests[position[step]] = ""  # first: it says that the slabs are whole
            state[position[step]] = "pending"
            for probe in _measured(trace):
                for variable in trace.tree[probe].data_vars:
                    delete_slab(trace.path / probe / str(variable), position[step])
