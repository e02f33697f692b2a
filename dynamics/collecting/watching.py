"""Following a training job: its checkpoints are collected as they appear in their folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from checkpoints.errors import CheckpointError, UserError
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
from .collector import Collected, collect_once
from .opening import Digests

__all__ = ["watch"]

_GIVEN_UP = 300.0
"""Seconds after which an unreadable checkpoint counts as broken rather than as half written."""


class _Watched(Series):
    """A folder's checkpoints, and those that the trace knows from before they were deleted."""

    def __init__(self, folder: FolderSeries, checkpoints: list[Checkpoint]) -> None:
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
                f"step {checkpoint.step} was deleted before it was collected",
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

    A checkpoint counts as written when nothing in it has changed between two looks and its tensors can be listed.
    Checkpoints that the job deletes again after they were collected stay in the trace.

    Args:
        name: the run's name; without it, that of the folder.
        folder: in which the job saves its checkpoints, instead of that of the run.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file.
        analyses: for a series that no runs file mentions: these, instead of all that fit.
        poll: seconds between two looks.
        until: the step after which nothing more is expected.
        patience: seconds without anything new after which nothing more is expected; None waits for ever.
        reporter: progress and messages.
        sleep: waits.

    Returns:
        Everything that was collected, failed or masked.

    Raises:
        UserError: when the run is no local series, or its request is wrong.
    """
    folder = None if folder is None else absolute(as_path(folder, "folder"))
    as_number(poll, "poll", least=0, most=1e6, whole=False)
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
    seen: dict[Path, tuple[tuple[str, int, int], ...]] = {}
    digests: Digests = {}
    quiet = 0.0
    reporter.say(f"watching {run.series.path}; Ctrl-C ends it, and the same command goes on")
    while True:
        new = _look(name, run, run.series, traces, seen, digests, total, reporter)
        quiet = 0.0 if new else quiet + poll
        done = {*total.collected, *total.already, *total.failed, *total.masked}
        if until is not None and any(step >= until for step in done):
            return total
        if patience is not None and quiet >= patience:
            return total
        sleep(poll)


def _look(
    name: str,
    run: Run,
    config: FolderConfig,
    traces: Path,
    seen: dict[Path, tuple[tuple[str, int, int], ...]],
    digests: Digests,
    total: Collected,
    reporter: Reporter,
) -> bool:
    """Collect what is new and whole; whether there was anything."""
    if not config.path.is_dir():
        return False  # the job has not started to write
    try:
        folder = FolderSeries(config, name=name)
    except UserError as error:
        reporter.once(f"waiting: {error.observed}")
        return False
    path = trace_path(traces, name)
    before = Trace(path) if path.exists() else None
    known = {} if before is None else {c.step: c for c in before.checkpoints()}
    last = max(known, default=-1)
    for late in (c.step for c in folder.checkpoints if c.step < last and c.step not in known):
        reporter.once(f"step {late} came after later ones: it is left out, for a trace grows at its end only")
    # in order: a checkpoint that is still being written holds up those after it, or its position would be gone
    whole: list[Checkpoint] = []
    for checkpoint in folder.checkpoints:
        if not _settled(folder, checkpoint, seen):
            if checkpoint.step > last:
                break
            continue
        whole.append(checkpoint)
    fresh = [c for c in whole if c.step > last]
    unfinished = before is not None and "pending" in before.status
    if not fresh and not unfinished:
        return False
    series = _Watched(folder, [*known.values(), *fresh])
    done = collect_once(name, run, traces=traces, keep_going=True, series=series, digests=digests, reporter=reporter)
    total.collected += done.collected
    total.already = [s for s in done.already if s not in total.collected]
    total.failed |= done.failed
    for step in done.collected:
        total.failed.pop(step, None)
    total.masked = done.masked
    total.seconds += done.seconds
    return bool(done.collected)


def _settled(folder: FolderSeries, checkpoint: Checkpoint, seen: dict[Path, tuple[tuple[str, int, int], ...]]) -> bool:
    """Whether nothing in a checkpoint has changed since the last look, and its tensors can be listed."""
    path = folder.fetch(checkpoint)
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        now = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    except OSError:  # being deleted while we look
        return False
    before = seen.get(path)
    seen[path] = now
    if before != now:
        return False
    try:
        return folder.header(checkpoint) is not None
    except CheckpointError:  # half written, or broken: nothing writes to it any more
        newest = max((modified for *_, modified in now), default=0)
        return time.time() - newest / 1e9 > _GIVEN_UP
