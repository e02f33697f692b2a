"""The verb ``collect``: everything that a schedule visits, or round by round what is worth a look."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from checkpoints.errors import UserError, stopped_by_disk
from checkpoints.paths import StrPath, as_flag, as_number, as_numbers, as_text

from ..analyser import analyse
from ..progress import Reporter
from ..runs.config import Run
from ..runs.lookup import requested
from ..store import Trace, remark, writer_lock
from ..store.journal import write_journal
from ..store.mirror import require_folder
from ..store.paths import trace_path
from .adaptive import Wanted, next_checkpoints
from .collector import Collected, collect_once
from .opening import require_aim
from .sharding import collect_shard, parse_shard

__all__ = ["collect"]


def collect(
    name: str,
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    analyses: Sequence[str] = (),
    keep_going: bool = False,
    only: Collection[int] | None = None,
    shard: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    reporter: Reporter | None = None,
) -> Collected:
    """Collect a run: train or open its series, visit every scheduled checkpoint, write the trace.

    Running it again goes on where it was left: complete checkpoints are kept, half-written ones are written anew,
    failed ones are tried again. If the series has got longer since, the trace grows. With ``schedule: adaptive`` a
    coarse grid is visited first, then, round by round, the checkpoints that most narrow the onsets of the headline
    curves (:mod:`dynamics.collecting.adaptive`), until they are as narrow as the series allows or the budget is spent.

    Args:
        name: a run of the runs file, the name of a published series, or the path of a folder of checkpoints.
        runs: the runs file (``runs.yaml`` in the current folder if None).
        traces: folder of traces; the trace is ``NAME.zarr`` in it.
        run: the run itself, instead of reading the runs file.
        analyses: for a series that no runs file mentions: these, instead of all that fit.
        keep_going: record checkpoints whose files are bad as failed and collect the others, instead of refusing to
            start. Checkpoints that a hub cannot deliver never stop the others.
        only: visit these steps instead of those of the schedule.
        shard: ``K/N``: begin with this part, as one of N processes that collect the run into one trace
            (:mod:`dynamics.collecting.sharding`).
        workers: compute in so many processes on this machine (:mod:`dynamics.collecting.cluster`).
        scheduler: compute on the workers of this scheduler of dask, such as ``tcp://node1:8786``.
        reporter: progress and messages.

    Raises:
        UserError: when the request is wrong, before anything is computed.
        StoppedError: when the disk is full or memory is short; run it again after making room.
    """
    reporter = reporter or Reporter(quiet=True)
    keep_going, only = as_flag(keep_going, "keep_going"), None if only is None else as_numbers(only, "only")
    shard = None if shard is None else as_text(shard, "shard")
    workers = None if workers is None else as_number(workers, "workers", least=1, most=1024)
    scheduler = None if scheduler is None else as_text(scheduler, "scheduler")
    name, run, traces = requested(name, run, runs=runs, traces=traces, analyses=analyses)
    _require_one_way(traces, shard=shard, workers=workers, scheduler=scheduler)
    if shard is not None:
        if only is not None:
            raise UserError(
                "shard and only together",
                expected="one of the two: a shard is a part of what the schedule visits",
                remedy="leave one of the two out",
            )
        part = parse_shard(shard)
        return collect_shard(name, run, part, traces=traces, keep_going=keep_going, reporter=reporter)
    if run.schedule == "adaptive" and only is None:
        require_aim(name, run)
    with _way(workers, scheduler, reporter) as way:
        once = partial(way, name, run, traces=traces, keep_going=keep_going, reporter=reporter)
        if run.schedule != "adaptive" or only is not None:
            return once(only=only)
        once = partial(once, digests={})
        total = once()  # the coarse grid
        if total.waiting:  # what the analyses ask for is not there everywhere
            return total
        with stopped_by_disk(f"the trace {trace_path(traces, name)}"):
            return _rounds(name, run, traces, once, total, reporter)


def _require_one_way(traces: Path, **ways: object) -> None:
    """Refuse two ways of sharing checkpoints out, and any where traces are in an object store."""
    given = [name for name, value in ways.items() if value is not None]
    if given:
        require_folder(traces, "sharing the checkpoints of a run out")
    if len(given) > 1:
        raise UserError(
            f"{' and '.join(given)} together",
            expected="one of them: each says who collects",
            remedy="leave the others out",
        )


@contextmanager
def _way(workers: int | None, scheduler: str | None, reporter: Reporter) -> Iterator[Callable[..., Collected]]:
    """How checkpoints are visited once: here, or on a cluster."""
    if workers is None and scheduler is None:
        yield collect_once
        return
    from .cluster import cluster_client, collect_on_cluster

    with cluster_client(workers, scheduler, reporter) as client:
        yield partial(collect_on_cluster, client)


def _rounds(
    name: str, run: Run, traces: Path, once: Callable[..., Collected], total: Collected, reporter: Reporter
) -> Collected:
    """All rounds after the coarse grid."""
    path = trace_path(traces, name)
    number = 0
    while wanted := _wanted(name, run, traces, path, reporter):
        number += 1
        trace = Trace(path)
        steps = [int(trace.steps[w.index]) for w in wanted]
        purposes = {str(s): list(w.reasons) for s, w in zip(steps, wanted, strict=True)}
        reporter.say(f"round {number}: {_purpose(wanted)}")
        with writer_lock(path):
            write_journal(path, "round", number=number, steps=steps, purposes=purposes)
        done = once(only=steps)
        total.collected += done.collected
        total.failed |= done.failed
        total.masked = done.masked
        total.nonfinite |= done.nonfinite
        total.seconds += done.seconds
    trace = Trace(path)
    left = [i for i, state in enumerate(trace.status) if state == "pending"]
    with writer_lock(path):
        remark(path, left, "not visited: the adaptive schedule ended before")
    reporter.say(_end(run, trace))
    return total


def _wanted(name: str, run: Run, traces: Path, path: Path, reporter: Reporter) -> list[Wanted]:
    """The next round; empty when there is nothing to gain, or nothing left of the budget."""
    trace = Trace(path)
    # one that failed or is masked has been looked at: asking for it again would not end
    visited = np.flatnonzero([state != "pending" for state in trace.status]).tolist()
    if not trace.complete.any():
        return []
    room = len(trace.steps) if run.budget is None else run.budget - _spent(trace)
    if room <= 0:
        return []
    results = analyse(name, traces=traces, run=run, fresh=False, reporter=Reporter(quiet=True))
    usable = [i for i, step in enumerate(trace.steps.tolist()) if step not in run.exclude]
    return next_checkpoints(results.headlines, visited, usable)[:room]


def _purpose(wanted: list[Wanted]) -> str:
    """What a round is for, in one line."""
    keys = list(dict.fromkeys(key for w in wanted for key in w.reasons))
    shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
    number = "1 checkpoint that narrows" if len(wanted) == 1 else f"{len(wanted)} checkpoints that narrow"
    return f"{number} the onset of {shown}"


def _spent(trace: Trace) -> int:
    return sum(state in ("complete", "failed") for state in trace.status)


def _end(run: Run, trace: Trace) -> str:
    spent = _spent(trace)
    share = f"{spent} of {len(trace.steps)} checkpoints visited ({spent / len(trace.steps):.0%})"
    if run.budget is not None and spent >= run.budget:
        return f"{share}; the budget is spent"
    return f"{share}; every onset is as narrow as the series allows"
