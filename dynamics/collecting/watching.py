"""Following a training job: its checkpoints are collected as they appear in their folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checkpoints.errors import CheckpointError, StoppedError, UserError
from checkpoints.files.owned import FilesState, files_state
from checkpoints.files.tensors import TensorInfo
from checkpoints.loading import Prepared
from checkpoints.local import FolderConfig, FolderSeries
from checkpoints.paths import StrPath, absolute, as_number, as_path
from checkpoints.series import Checkpoint, Series, WeightFile

from ..progress import Reporter
from ..runs.config import Run
from ..runs.lookup import requested
from ..store import Trace
from ..store.paths import trace_path
from ..wording import left_out_lines
from .collector import Collected, collect_once
from .opening import Digests

__all__ = ["WatchedSeries", "watch"]

_TENTH = 10
"""Which part of the checkpoints has to be new before the weights of all are compared again."""

_GIVEN_UP = 300.0
"""Seconds after which an unreadable checkpoint counts as broken rather than as half written."""


class WatchedSeries(Series):
    """A folder's checkpoints, and those that the trace knows from before they were deleted."""

    def __init__(self, folder: FolderSeries, checkpoints: Sequence[Checkpoint]) -> None:
        self._folder = folder
        self._there = {c.step: c for c in folder.checkpoints}
        self.name, self.origin = folder.name, folder.origin
        self.checkpoints = tuple(checkpoints)

    @property
    def tokenizer_folder(self) -> Path:
        return self._folder.tokenizer_folder

    @property
    def config_folder(self) -> Path:
        return self._folder.config_folder

    def _own(self, checkpoint: Checkpoint) -> Checkpoint:
        if checkpoint.step not in self._there:
            raise CheckpointError(
                f"step {checkpoint.step} was deleted",
                expected="checkpoints that stay until they are collected",
                remedy="let the training keep more checkpoints (save_total_limit)",
            )
        return self._there[checkpoint.step]

    def weight_files(self, checkpoint: Checkpoint) -> tuple[WeightFile, ...]:
        return self._folder.weight_files(self._own(checkpoint))

    def fetch(self, checkpoint: Checkpoint) -> Path:
        return self._folder.fetch(self._own(checkpoint))

    def header(self, checkpoint: Checkpoint) -> dict[str, TensorInfo] | None:
        return self._folder.header(self._own(checkpoint))

    def read(self, fetched: Path) -> Prepared:
        return self._folder.read(fetched)

    def contradictions(self) -> dict[Checkpoint, str]:
        return self._folder.contradictions()


@dataclass
class _Job:
    """What is known of a job from one look to the next.

    Attributes:
        folder: its checkpoints as of the last look; None before the first.
        problem: why they could not be listed at the last look.
        seen: revision to the files that it had then.
        since: revision to when these were first seen, by a clock that nobody sets.
        tried: step to the files with which it failed, or was masked.
        met: revision to step of everything that was ever there.
        waiting: step to why it is not collected yet.
        settling: whether the files of such a one have changed since the last look.
        unsettled: whether any such is not whole yet.
        weighed: how many checkpoints the trace had when their weights were last compared.
        unweighed: whether it has got more since.
    """

    folder: FolderSeries | None = None
    problem: UserError | None = None
    seen: dict[str, FilesState] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    tried: dict[int, FilesState] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)
    waiting: dict[int, str] = field(default_factory=dict)
    settling: bool = False
    unsettled: bool = False
    weighed: int = 0
    unweighed: bool = False
    digests: Digests = field(default_factory=dict)


def watch(
    name: str | None = None,
    *,
    folder: StrPath | None = None,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    analyses: Sequence[str] = (),
    poll: float = 10.0,
    until: int | None = None,
    patience: float | None = None,
    reporter: Reporter | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Collected:
    """Collect checkpoints as a training job writes them, until it is over; the trace grows with them.

    A checkpoint counts as written when nothing in it has changed between two looks and its tensors can be listed: parts that
    its index names, or their numbers, are waited for. One that holds up those after it is named. One that failed is tried
    again when its files have changed. When nothing more is expected, everything that is there is tried. Checkpoints that
    the job deletes again after they were collected stay in the trace.

    Args:
        name: the run's name; without it, that of the folder.
        folder: in which the job saves its checkpoints, instead of that of the run.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file.
        analyses: for a series that no runs file mentions: these, instead of all that fit.
        poll: seconds between two looks, at least 0.1.
        until: the step after which nothing more is expected.
        patience: seconds without any change after which nothing more is expected; None waits for ever.
        reporter: progress and messages.
        sleep: waits.

    Returns:
        Everything that was collected, failed or masked, and what was there and is not among them.

    Raises:
        UserError: when the run is no local series, its request is wrong, or there never was a checkpoint.
    """
    folder = None if folder is None else absolute(as_path(folder, "folder"))
    as_number(poll, "poll", least=0.1, most=1e6, whole=False)  # it is what the time is counted in
    if until is not None:
        as_number(until, "until")
    if patience is not None:
        as_number(patience, "patience", least=0, whole=False)
    if name is None and folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = str(folder)
    if name is None:
        raise UserError(
            "there is nothing to watch", expected="a run, or a folder", remedy='dynamics.watch(folder="...")'
        )
    name, run, traces = requested(name, run, runs=runs, traces=traces, analyses=analyses)
    if folder is not None:  # the run's other settings hold for this folder too
        anew = FolderConfig(path=folder)
        if isinstance(run.series, FolderConfig):
            anew = run.series.model_copy(update={"path": folder})
        run = run.model_copy(update={"series": anew})
    if not isinstance(run.series, FolderConfig):
        raise UserError(
            f"run {name!r} cannot be watched: its series is of kind {run.series.kind!r}",
            expected="a folder in which a training job saves its checkpoints",
            remedy="dynamics collect --watch FOLDER, with the folder that it writes to",
        )
    reporter = reporter or Reporter(quiet=True)
    total = Collected(trace_path(traces, name))
    job = _Job()
    quiet = 0.0
    reporter.say(f"watching {run.series.path}; Ctrl-C ends it, and the same command goes on")
    while True:
        over = patience is not None and quiet >= patience
        new = _look(name, run, run.series, traces, job, total, reporter, over=over)
        quiet = 0.0 if new else quiet + poll
        done = {*total.collected, *total.already, *total.pending, *total.failed, *total.masked}
        if over or (until is not None and any(step >= until for step in done) and not job.settling):
            if job.unweighed:
                _look(name, run, run.series, traces, job, total, reporter, over=over, last=True)
            return _ended(run.series, job, total, until, reporter)
        sleep(poll)


def _look(
    name: str,
    run: Run,
    config: FolderConfig,
    traces: Path,
    job: _Job,
    total: Collected,
    reporter: Reporter,
    *,
    over: bool,
    last: bool = False,
) -> bool:
    """Collect what is new and whole, or when it is ``over`` whatever is there; whether anything has changed.

    The weights of all checkpoints are compared with one another when there are a tenth more than the last time, and at the
    ``last`` look: at each they would take time that grows with the square of their number.
    """
    if not config.path.is_dir():
        if job.folder is not None:
            reporter.once(f"waiting: {config.path} is gone")
        return False  # the job has not started to write
    try:
        folder = job.folder = FolderSeries(config, name=name)
        job.problem = None
    except UserError as error:
        job.problem = error
        reporter.once(f"waiting: {error.observed}")
        return False
    before_look, job.seen = job.seen, {c.revision: _files(folder, c) for c in folder.checkpoints}
    if before_look == job.seen and not (over or last or job.waiting or job.unsettled or total.pending):
        return False  # nor does the trace need to be read
    path = trace_path(traces, name)
    before = Trace(path) if path.exists() else None
    known = {} if before is None else {c.step: c for c in before.checkpoints()}
    unused = set() if before is None else before.steps_of("failed") | before.steps_of("masked")
    newest = max(known, default=-1)
    now = time.monotonic()
    job.since = {r: job.since.get(r, now) if before_look.get(r) == state else now for r, state in job.seen.items()}
    job.met |= {c.revision: c.step for c in folder.checkpoints}
    job.waiting, job.settling, job.unsettled = {}, False, False
    total.already = [] if before is None else sorted(before.steps_of("complete") - {*total.collected})
    fresh: list[Checkpoint] = []
    held: int | None = None
    again = False
    for checkpoint in folder.checkpoints:
        step, state = checkpoint.step, job.seen[checkpoint.revision]
        if step <= newest and step not in known:
            job.waiting[step] = "it came after later ones, and a trace grows at its end only"
            reporter.once(f"step {step} is left out: {job.waiting[step]}")
        elif held is not None:
            # in order: one that is still being written holds up those after it, or its position would be gone
            job.waiting[step] = f"step {held} before it is not whole"
        elif step > newest or (step in unused and state != job.tried.get(step)):
            reason = "" if over else _unfinished(folder, checkpoint, job, before_look.get(checkpoint.revision))
            if step <= newest:
                again, job.settling = again or not reason, job.settling or reason == _CHANGING
                job.unsettled = job.unsettled or bool(reason)
            elif not reason:
                fresh.append(checkpoint)
            else:
                held, job.waiting[step] = step, reason
                if reason != _CHANGING:
                    reporter.once(f"waiting for step {step}, which holds up those after it: {reason}")
    changed = before_look != job.seen
    if not (fresh or again or last or (before is not None and "pending" in before.status)):
        return changed
    count = len(fresh) + (0 if before is None else sum(map(bool, before.digests)))
    weigh = last or over or count - job.weighed >= max(1, job.weighed // _TENTH)
    series = WatchedSeries(folder, [*known.values(), *fresh])
    done = collect_once(
        name, run, traces=traces, keep_going=True, series=series, digests=job.digests, weigh=weigh, reporter=reporter
    )
    job.weighed, job.unweighed = (count, False) if weigh else (job.weighed, True)
    total.collected += [step for step in done.collected if step not in total.collected]
    total.already = [s for s in done.already if s not in total.collected]
    total.waiting, total.pending = done.waiting, done.pending
    total.failed |= done.failed
    total.masked = done.masked
    total.nonfinite |= done.nonfinite
    total.seconds += done.seconds
    job.tried |= {
        c.step: job.seen[c.revision] for c in folder.checkpoints if c.step in done.failed.keys() | done.masked.keys()
    }
    return changed or bool(done.collected)


def _ended(config: FolderConfig, job: _Job, total: Collected, until: int | None, reporter: Reporter) -> Collected:
    """The total as the trace has it, with what is not in it and was there, or was to come."""
    done: set[int] = set()
    if total.trace.exists():
        trace = Trace(total.trace)
        reasons = dict(zip(trace.steps.tolist(), trace.reasons, strict=True))
        total.failed, total.masked = ({s: reasons[s] for s in trace.steps_of(state)} for state in ("failed", "masked"))
        total.already = sorted(trace.steps_of("complete") - {*total.collected})
        done = {*total.collected, *total.already, *total.pending, *total.failed, *total.masked}
    if not done and job.problem is not None:
        raise job.problem
    if not done and not job.waiting:
        raise UserError(
            f"no checkpoint was saved in {config.path}",
            expected="at least one before the patience ended",
            remedy="name the folder that the job saves its checkpoints in, or wait longer (--patience)",
        )
    if job.problem is not None:  # what was there before is collected
        raise StoppedError(job.problem.observed, expected=job.problem.expected, remedy=job.problem.remedy)
    there = set() if job.folder is None else {c.revision for c in job.folder.checkpoints}
    gone = {s: "it was deleted before it was whole" for revision, s in job.met.items() if revision not in there}
    missing = gone | job.waiting
    if until is not None:
        missing = {s: r for s, r in missing.items() if s <= until}
        if all(step < until for step in {*done, *missing}):
            missing[until] = "it never came, nor did a later one"
    total.missing = {s: r for s, r in sorted(missing.items()) if s not in done}
    if job.folder is not None:
        for line in left_out_lines(job.folder.left_out):
            reporter.once(line)
    return total


_CHANGING = "it is still being written"


def _files(folder: FolderSeries, checkpoint: Checkpoint) -> FilesState:
    """What changes when anything in a checkpoint does; empty while it is being deleted."""
    path = folder.fetch(checkpoint)
    try:
        return files_state(sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    except OSError:
        return ()


def _unfinished(folder: FolderSeries, checkpoint: Checkpoint, job: _Job, before: FilesState | None) -> str:
    """Why a checkpoint is not whole yet; empty once nothing in it changed between two looks and its tensors can be listed."""
    state = job.seen[checkpoint.revision]
    if not state or state != before:
        return _CHANGING
    try:
        folder.header(checkpoint)
    except CheckpointError as error:
        # half written, or broken: nothing has written to it for long. Copied files may have old times of modification,
        # and a clock that was set back, or another machine's, gives them times that are still to come
        newest = max(changed for *_, changed, _inode in state)
        unchanged = max(time.time() - newest / 1e9, time.monotonic() - job.since[checkpoint.revision])
        return "" if unchanged > _GIVEN_UP else error.observed
    return ""
