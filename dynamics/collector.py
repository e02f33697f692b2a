"""Collecting: every scheduled checkpoint through every probe, into the trace, resumable at any moment."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from checkpoints.errors import CheckpointError, UserError
from checkpoints.organism import OrganismConfig, is_trained
from checkpoints.series import Checkpoint

from .config import Run, load_run
from .journal import write_journal
from .progress import Reporter
from .resolve import Resolved, preflight, resolve, trace_path
from .schedule import scheduled
from .store import TraceWriter, writer_lock

if TYPE_CHECKING:
    from checkpoints.loading import Prepared, ResidentModel

__all__ = ["Collected", "Estimate", "StoppedError", "collect", "estimate"]


class StoppedError(UserError):
    """Collection had to stop in the middle (disk full, out of memory); what is complete stays."""

    exit_code = 1


@dataclass
class Collected:
    """What a collection did.

    Attributes:
        trace: the trace.
        collected: steps collected by this call.
        already: steps that were complete before.
        failed: step to reason.
        masked: step to reason.
        nonfinite: step to how many NaN or infinite values the model returned, where there were any.
        seconds: time in the loop over checkpoints.
    """

    trace: Path
    collected: list[int] = field(default_factory=list)
    already: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    masked: dict[int, str] = field(default_factory=dict)
    nonfinite: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """What a collection would do; nothing is written or trained.

    Attributes:
        checkpoints: checkpoints to visit, and how many the series has.
        prompts: prompts per checkpoint, all probes together.
        trace_bytes: uncompressed size of the finished trace.
        seconds: expected time, or None where no checkpoint is there yet to try.
        to_train: optimizer steps of training needed first (organisms only).
    """

    checkpoints: int
    of: int
    prompts: int
    trace_bytes: int
    seconds: float | None
    to_train: int


def estimate(name: str, run: Run) -> Estimate:
    """How many checkpoints, bytes and seconds; times one checkpoint on the spot where there is one."""
    _device(run.device)
    resolved = resolve(name, run, train=False)
    indices = _visited(resolved)
    seconds = None
    if resolved.series is not None and indices:
        from checkpoints.loading import ResidentModel, prepare

        resident = ResidentModel(_device(run.device), run.dtype)
        checkpoint = resolved.declaration.checkpoints[indices[-1]]
        prepared = prepare(resolved.series.fetch(checkpoint))
        resident.install(prepared)
        started = time.perf_counter()
        for _ in _measure(resolved, resident):
            pass
        seconds = (time.perf_counter() - started) * len(indices)
    return Estimate(
        checkpoints=len(indices),
        of=len(resolved.declaration.checkpoints),
        prompts=sum(len(probe.ids) for _, probe in resolved.probes),
        trace_bytes=resolved.declaration.bytes_per_checkpoint() * len(indices),
        seconds=seconds,
        to_train=getattr(run.series, "steps", 0) if resolved.series is None else 0,
    )


def collect(
    name: str,
    *,
    runs: Path | None = None,
    traces: Path = Path("traces"),
    run: Run | None = None,
    keep_going: bool = False,
    only: Collection[int] | None = None,
    reporter: Reporter | None = None,
) -> Collected:
    """Collect a run: train or open its series, visit every scheduled checkpoint, write the trace.

    Running it again goes on where it was left: complete checkpoints are kept, half-written ones are written anew,
    failed ones are tried again.

    Args:
        name: the run's name.
        runs: the runs file (``runs.yaml`` in the current folder if None).
        traces: folder of traces; the trace is ``NAME.zarr`` in it.
        run: the run itself, instead of reading the runs file.
        keep_going: record checkpoints whose files are bad as failed and collect the others, instead of refusing to
            start.
        only: visit no other steps than these (of those that the run's schedule visits or that were visited before).
        reporter: who tells the user.

    Raises:
        UserError: when the request is wrong, before anything is computed.
        StoppedError: when the disk is full or memory is short; run it again after making room.
    """
    reporter = reporter or Reporter(quiet=True)
    run = run or load_run(name, runs)
    trace = trace_path(traces, name)
    _device(run.device)  # a wrong one must not cost a training
    with writer_lock(trace):
        resolved = _resolve(name, run, reporter)
        assert resolved.series is not None
        checkpoints = resolved.declaration.checkpoints
        indices = _visited(resolved)
        if only is not None:
            indices = [i for i, c in enumerate(checkpoints) if c.step in only and c.step not in run.exclude]
        bad = preflight(resolved.series, [checkpoints[i] for i in indices])
        if bad and not keep_going:
            lines = [f"step {c.step}: {reason}" for c, reason in list(bad.items())[:6]]
            raise UserError(
                f"{len(bad)} of {len(indices)} checkpoints cannot be used:\n    " + "\n    ".join(lines),
                expected="the same complete set of tensors in every checkpoint",
                remedy="save them again, leave them out with `exclude` in the runs file, "
                "or record them as failed with --keep-going",
            )
        _require_space(trace, resolved, len(indices))
        try:
            writer = TraceWriter(trace, resolved.declaration, durable=run.durable)
            return _visit(resolved, writer, indices, bad, reporter)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                raise
            raise StoppedError(
                f"{trace} cannot be written any further: {error.strerror}",
                remedy="make room, then run the same command again; what is complete stays",
            ) from error


def _resolve(name: str, run: Run, reporter: Reporter) -> Resolved:
    if not isinstance(run.series, OrganismConfig) or is_trained(name, run.series):
        return resolve(name, run)
    steps = run.series.steps
    with reporter.bar(f"training {name}", steps, unit="steps") as bar:
        return resolve(name, run, training=lambda done, _total, loss: bar.update(done, f"loss {loss:.2f}"))


def _visited(resolved: Resolved) -> list[int]:
    run, checkpoints = resolved.run, resolved.declaration.checkpoints
    unknown = set(run.exclude) - {c.step for c in checkpoints}
    if unknown:
        raise UserError(
            f"run {resolved.name!r} excludes step {min(unknown)}, which the series does not have",
            expected=f"steps from {checkpoints[0].step} to {checkpoints[-1].step}",
        )
    chosen = scheduled([c.step for c in checkpoints], run.schedule, run.checkpoints)
    visited = [i for i in chosen if checkpoints[i].step not in run.exclude]
    if not visited:
        raise UserError(f"run {resolved.name!r} excludes every checkpoint", expected="at least one to measure")
    return visited


def _require_space(trace: Path, resolved: Resolved, count: int) -> None:
    needed = resolved.declaration.bytes_per_checkpoint() * count
    free = shutil.disk_usage(trace.parent).free
    if not trace.exists() and needed > free:
        raise UserError(
            f"the trace needs {needed / 1e6:,.0f} MB, and {trace.parent} has {free / 1e6:,.0f} MB free",
            remedy="choose another folder with --traces, trace_dtype: float16, or schedule: log",
        )


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"device {wanted!r} cannot be used: {str(error).splitlines()[0]}", expected="cpu, cuda, cuda:N or mps"
        ) from error
    return wanted


def _visit(
    resolved: Resolved, writer: TraceWriter, indices: list[int], bad: dict[Checkpoint, str], reporter: Reporter
) -> Collected:
    from checkpoints.loading import ResidentModel, prepare

    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    assert series is not None
    status = writer.status()
    done = Collected(writer.path)
    for index, checkpoint in enumerate(checkpoints):
        if checkpoint.step in resolved.run.exclude:
            reason = done.masked[checkpoint.step] = "excluded in the runs file"
            if status[index] != "masked":
                writer.mark(index, "masked", reason)  # what was measured stays on disk: masked is not read
    done.already = [checkpoints[i].step for i in indices if status[i] == "complete"]
    for checkpoint, reason in bad.items():
        index = checkpoints.index(checkpoint)
        if status[index] != "complete":  # what was measured while the files were good stays
            done.failed[checkpoint.step] = reason
            writer.mark(index, "failed", reason)
    complete = [i for i in indices if status[i] == "complete" and checkpoints[i] not in bad]
    todo = [i for i in indices if status[i] != "complete" and checkpoints[i] not in bad]
    for index in {*complete[:1], *complete[-1:]} if todo else set():
        _same_weights(writer, index, series.fetch(checkpoints[index]))
    if not todo:
        return done
    resident = ResidentModel(_device(resolved.run.device), resolved.run.dtype)

    def ready(checkpoint: Checkpoint) -> Prepared:
        return prepare(series.fetch(checkpoint))

    write_journal(writer.path, "start", todo=len(todo), already=len(done.already))
    started = time.perf_counter()
    # one thread reads the next checkpoint while this one computes; it starts when the weights of this one have been
    # copied into the model and let go, so that there are at most two sets of weights in memory
    with (
        ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool,
        reporter.bar(f"collecting {resolved.name}", len(todo), unit="checkpoints") as bar,
    ):
        upcoming: list[Future[Prepared]] = [pool.submit(ready, checkpoints[todo[0]])]
        for place, index in enumerate(todo):
            checkpoint = checkpoints[index]
            began = time.perf_counter()
            failure = installed = None
            try:
                installed = _install(resident, upcoming.pop())
            except CheckpointError as error:
                failure = error.observed
            if place + 1 < len(todo):
                upcoming.append(pool.submit(ready, checkpoints[todo[place + 1]]))
            if installed is not None:
                broken = _collect_one(resolved, writer, resident, index, *installed)
                if broken:
                    done.nonfinite[checkpoint.step] = broken
                done.collected.append(checkpoint.step)
                write_journal(writer.path, "complete", step=checkpoint.step, seconds=time.perf_counter() - began)
            elif failure is not None:
                done.failed[checkpoint.step] = failure
                writer.mark(index, "failed", failure)
                writer.clear(index)
                write_journal(writer.path, "failed", step=checkpoint.step, reason=failure)
            bar.update(place + 1, f"step {checkpoint.step}")
    done.seconds = time.perf_counter() - started
    return done


def _same_weights(writer: TraceWriter, index: int, folder: Path) -> None:
    """Refuse to go on with other weights than the trace was begun with; two hashes stand for all."""
    from checkpoints.weights import weights_digest

    known, found = writer.digest(index), weights_digest(folder)
    if known and known != found:
        raise UserError(
            f"the weights in {folder} are not those that {writer.path} was collected from",
            expected=f"sha256 {known[:12]}..., found {found[:12]}...",
            remedy="give back the old weights, or move the trace away and collect again (nothing was deleted)",
        )


def _install(resident: ResidentModel, upcoming: Future[Prepared]) -> tuple[str, str]:
    """Make the prepared weights resident; returns their digest and stored dtype. The caller keeps no reference."""
    import torch

    prepared = upcoming.result()
    try:
        resident.install(prepared)
    except torch.OutOfMemoryError as error:
        raise StoppedError(
            f"out of memory while loading {prepared.folder}: {str(error).splitlines()[0]}",
            remedy="free memory on the device or choose another one, then run the same command again",
        ) from error
    return prepared.digest, prepared.stored_dtype


def _collect_one(
    resolved: Resolved, writer: TraceWriter, resident: ResidentModel, index: int, digest: str, stored_dtype: str
) -> int:
    """Measure and write the resident checkpoint; the status is set last, and nothing half-written is left.

    Returns how many values were not finite because the model said so.
    """
    writer.clear(index)
    nonfinite = overflowed = 0
    try:
        for group, values in _measure(resolved, resident):
            broken, large = writer.write(index, group, values)
            nonfinite, overflowed = nonfinite + broken, overflowed + large
    except BaseException:  # Ctrl-C or a full disk
        writer.clear(index)
        raise
    writer.commit(index, digest=digest, stored_dtype=stored_dtype, nonfinite=nonfinite, overflowed=overflowed)
    return nonfinite


def _measure(resolved: Resolved, resident: ResidentModel) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(probe, its variables), one probe at a time."""
    import torch

    from .forward import measure

    for plan, probe in resolved.probes:
        try:
            values = measure(
                resident.model,
                probe,
                plan.measurements,
                table=resolved.table,
                shape=resolved.shape,
                batch_tokens=resolved.run.batch_tokens,
            )
        except torch.OutOfMemoryError as error:
            raise StoppedError(
                f"out of memory on probe {plan.probe.name!r}: {str(error).splitlines()[0]}",
                remedy="lower `batch_tokens` in the runs file, then run the same command again",
            ) from error
        yield plan.probe.name, values
