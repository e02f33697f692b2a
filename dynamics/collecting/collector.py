"""Collecting: every scheduled checkpoint through every probe, into the trace, resumable at any moment."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.ahead import ReadAhead
from checkpoints.errors import CheckpointError, StoppedError, UserError
from checkpoints.hub import HubConfig, HubSeries
from checkpoints.hub.cache import without_cache_path
from checkpoints.hub.files import is_commit
from checkpoints.organism import OrganismConfig, is_trained
from checkpoints.series import Checkpoint, Series

from ..auditing.masking import Before, apply_masks, before_loading
from ..auditing.preflight import preflight
from ..auditing.sketches import files_state
from ..models.architecture import architecture
from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..runs.resolve import Model, Resolved, resolve
from ..runs.schedule import scheduled
from ..store import Trace, TraceWriter, writer_lock
from ..store.journal import write_journal
from ..store.paths import trace_path
from .measuring import write_checkpoint

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from checkpoints.loading import Prepared, ResidentModel

__all__ = ["Collected", "collect_once", "open_run", "require_aim", "resident_for", "resident_model", "visited"]


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


def collect_once(
    name: str,
    run: Run,
    *,
    traces: Path = Path("traces"),
    keep_going: bool = False,
    only: Collection[int] | None = None,
    series: Series | None = None,
    reporter: Reporter | None = None,
) -> Collected:
    """Visit checkpoints once, in order: those of the run's schedule, or some of them.

    Args:
        name: the run's name.
        run: the run.
        traces: folder of traces; the trace is ``NAME.zarr`` in it.
        keep_going: see :func:`dynamics.collect`.
        only: visit these steps instead of those of the schedule.
        series: the checkpoints, instead of opening what the run says.
        reporter: who tells the user.

    Raises:
        UserError: when the request is wrong, before anything is computed.
        StoppedError: when the disk is full or memory is short; run it again after making room.
    """
    reporter = reporter or Reporter(quiet=True)
    trace = trace_path(traces, name)
    usable_device(run.device)  # a wrong one must not cost a training
    with writer_lock(trace):
        resolved = open_run(name, run, trace, reporter, series=series)
        assert resolved.series is not None
        checkpoints = resolved.declaration.checkpoints
        before = before_loading(resolved)
        for step, reason in before.unlisted.items():
            reporter.once(f"step {step}: its files could not be listed: {reason}")
        reasons = before.reasons
        indices = visited(resolved, growing=series is not None)
        if only is not None:
            indices = [i for i, c in enumerate(checkpoints) if c.step in only and c.step not in run.exclude]
        indices = [i for i in indices if checkpoints[i].step not in reasons]
        if not indices:
            raise UserError(
                f"every checkpoint that run {name!r} visits{' first' if run.schedule == 'adaptive' else ''} is masked:\n    "
                + "\n    ".join(f"step {s}: {r}" for s, r in list(reasons.items())[:6]),
                expected="at least one to measure",
                remedy="--include-masked collects those that are known or found to be wrong, too",
            )
        # what a hub serves is not the user's to mend: it is recorded as failed when it comes
        hub = isinstance(resolved.series, HubSeries)
        bad = {} if hub else preflight(resolved.series, [checkpoints[i] for i in indices])
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
            return _visit(resolved, writer, indices, bad, before, reporter)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                raise
            raise StoppedError(
                f"{trace} cannot be written any further: {error.strerror}",
                remedy="make room, then run the same command again; what is complete stays",
            ) from error


def require_aim(name: str, run: Run) -> None:
    """Refuse an adaptive schedule that has nothing to look for."""
    if run.schedule == "adaptive" and not run.analyses:
        raise UserError(
            f"run {name!r} cannot be collected adaptively: it has no analyses whose onsets could be narrowed",
            expected="`analyses`, or another schedule",
        )


def open_run(
    name: str, run: Run, trace: Path, reporter: Reporter, *, train: bool = True, series: Series | None = None
) -> Resolved:
    """Resolve a run beside what its trace already says: collected commits stay pinned, unless they were masked."""
    pins: dict[int, Checkpoint] = {}
    masked: set[int] = set()
    if isinstance(run.series, HubConfig) and trace.exists():
        before = Trace(trace)
        pins = {c.step: c for c, d in zip(before.checkpoints(), before.digests, strict=True) if d}
        masked = {s for s, state in zip(before.steps.tolist(), before.status, strict=True) if state == "masked"}
    if not train or not isinstance(run.series, OrganismConfig) or is_trained(name, run.series):
        resolved = resolve(name, run, series=series, pins=pins, train=train, say=reporter.once)
        if isinstance(resolved.series, HubSeries):
            moved = {c.step: c.revision for c in resolved.series.moved}
            # what was out of place may have been put right
            if anew := {s for s, revision in moved.items() if is_commit(revision)} & masked - {*run.exclude}:
                pins = {step: pin for step, pin in pins.items() if step not in anew}
                resolved = resolve(name, run, pins=pins, train=train)
            for step in sorted(moved):
                what = "it was masked, so that one is taken" if step in anew else "the collected one is kept"
                reporter.once(f"step {step}: the hub has another commit by now; {what}")
            assert isinstance(resolved.series, HubSeries)
            for checkpoint in resolved.series.vanished:
                reporter.once(f"step {checkpoint.step}: the hub does not list it any more; what was collected is kept")
        return resolved
    with reporter.bar(f"training {name}", run.series.steps, unit="steps") as bar:
        return resolve(
            name, run, training=lambda done, _total, loss: bar.update(done, f"loss {loss:.2f}"), say=reporter.once
        )


def visited(resolved: Resolved, *, growing: bool = False) -> list[int]:
    """Indices of the checkpoints that a run's schedule visits, without those that it excludes.

    Raises:
        UserError: when it excludes what is not there (unless the series is ``growing``), or everything.
    """
    run, checkpoints = resolved.run, resolved.declaration.checkpoints
    unknown = set(run.exclude) - {c.step for c in checkpoints}
    if unknown and not growing:
        raise UserError(
            f"run {resolved.name!r} excludes step {min(unknown)}, which the series does not have",
            expected=f"steps from {checkpoints[0].step} to {checkpoints[-1].step}",
        )
    chosen = scheduled([c.step for c in checkpoints], run.schedule, run.checkpoints, run.budget)
    left = [i for i in chosen if checkpoints[i].step not in run.exclude]
    if not left:
        raise UserError(f"run {resolved.name!r} excludes every checkpoint", expected="at least one to measure")
    return left


def resident_model(resolved: Resolved) -> ResidentModel:
    """The model of a run, still without weights."""
    return resident_for(resolved.run, resolved.model)


def resident_for(run: Run, model: Model) -> ResidentModel:
    """The same of a run that has not been planned. Weights of another architecture are a ``CheckpointError``."""
    from checkpoints.loading import ResidentModel

    adapter, shape = model.adapter, model.architecture.shape

    def check(config: PretrainedConfig) -> None:
        try:
            mine = asdict(architecture(config, run.sites).shape)
        except UserError as error:  # the series is of a known family, or it would not have come here
            raise CheckpointError(f"its config is that of another model: {error.observed}") from error
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(f"its config says nonsense: {type(error).__name__}: {error}") from error
        wrong = [f"{k} {mine[k]}, not {v}" for k, v in asdict(shape).items() if k != "context" and mine[k] != v]
        if wrong:
            raise CheckpointError(
                f"its config is that of another model: {', '.join(wrong)}", expected="one architecture in a series"
            )

    return ResidentModel(usable_device(run.device), run.dtype, None if adapter is None else adapter.build, check)


def _require_space(trace: Path, resolved: Resolved, count: int) -> None:
    needed = resolved.declaration.bytes_per_checkpoint() * count
    free = shutil.disk_usage(trace.parent).free
    if not trace.exists() and needed > free:
        raise UserError(
            f"the trace needs {needed / 1e6:,.0f} MB, and {trace.parent} has {free / 1e6:,.0f} MB free",
            remedy="choose another folder with --traces, trace_dtype: float16, or schedule: log",
        )


def _visit(
    resolved: Resolved,
    writer: TraceWriter,
    indices: list[int],
    bad: dict[Checkpoint, str],
    before: Before,
    reporter: Reporter,
) -> Collected:
    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    assert series is not None
    done = Collected(writer.path)
    _forget_replaced(writer, checkpoints, before)
    done.masked = apply_masks(resolved, writer, before)
    status = writer.status()
    done.already = [checkpoints[i].step for i in indices if status[i] == "complete"]
    for checkpoint, reason in bad.items():
        index = checkpoints.index(checkpoint)
        if status[index] != "complete":  # what was measured while the files were good stays
            done.failed[checkpoint.step] = reason
            writer.mark(index, "failed", reason)
    complete = [i for i in indices if status[i] == "complete" and checkpoints[i] not in bad]
    todo = [i for i in indices if status[i] not in ("complete", "masked") and checkpoints[i] not in bad]
    if todo or writer.attributes.get("origin") != series.origin:
        for index in {*complete[:1], *complete[-1:]}:
            _same_weights(writer, index, series, checkpoints[index])
    if todo:
        write_journal(writer.path, "start", todo=len(todo), already=len(done.already))
        started = time.perf_counter()
        _collect(resolved, writer, todo, done, reporter)
        done.seconds = time.perf_counter() - started
        done.masked = apply_masks(resolved, writer, before)  # by now their neighbours are there to compare with
    done.collected = [step for step in done.collected if step not in done.masked]
    done.already = [step for step in done.already if step not in done.masked]
    return done


def _forget_replaced(writer: TraceWriter, checkpoints: Sequence[Checkpoint], before: Before) -> None:
    """What was measured on weights that were masked, and are others by now, is to be measured again."""
    status, digests, revisions = writer.status(), writer.digests(), writer.revisions()
    for index, checkpoint in enumerate(checkpoints):
        if status[index] != "masked" or not digests[index] or checkpoint.step in before.reasons:
            continue
        kept = before.kept.get(checkpoint.step)
        if revisions[index] != checkpoint.revision or (kept is not None and kept.digest != digests[index]):
            writer.clear(index)
            writer.mark(index, "pending")


def _collect(resolved: Resolved, writer: TraceWriter, todo: list[int], done: Collected, reporter: Reporter) -> None:
    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    assert series is not None
    if isinstance(series, HubSeries):
        # a download that was cut off goes on, whichever of them it was
        series.sweep([checkpoints[i].revision for i in todo])
    resident = resident_model(resolved)
    states = {index: files_state(series, checkpoints[index]) for index in todo}  # before they are read
    with (
        ReadAhead(series, [checkpoints[i] for i in todo], series.read) as ahead,
        reporter.bar(f"collecting {resolved.name}", len(todo), unit="checkpoints") as bar,
    ):
        for place, index in enumerate(todo):
            step = checkpoints[index].step
            began = time.perf_counter()
            failure = installed = None
            try:
                installed = _install(resident, ahead)
            except CheckpointError as error:
                failure = without_cache_path(error.observed)
            ahead.let_go()
            if installed is not None:
                digest, stored_dtype = installed
                broken = write_checkpoint(
                    resolved, writer, resident.model, index, digest=digest, stored_dtype=stored_dtype
                )
                if broken:
                    done.nonfinite[step] = broken
                if (state := states[index]) is not None:
                    _digests[state] = digest
                done.collected.append(step)
                write_journal(writer.path, "complete", step=step, seconds=time.perf_counter() - began)
            elif failure is not None:
                done.failed[step] = failure
                writer.mark(index, "failed", failure)
                writer.clear(index)
                write_journal(writer.path, "failed", step=step, reason=failure)
            bar.update(place + 1, f"step {step}")


def _install(resident: ResidentModel, ahead: ReadAhead[Prepared]) -> tuple[str, str]:
    """Make the next weights resident; returns their digest and stored dtype. Nobody keeps the weights."""
    import torch

    prepared = ahead.take()
    try:
        resident.install(prepared)
    except torch.OutOfMemoryError as error:
        raise StoppedError(
            f"out of memory while loading {prepared.folder}: {str(error).splitlines()[0]}",
            remedy="free memory on the device or choose another one, then run the same command again",
        ) from error
    return prepared.digest, prepared.stored_dtype


_digests: dict[tuple[str, ...], str] = {}
"""Digests of files that this process has read, by their state: whoever follows a training job looks again and again."""


def _same_weights(writer: TraceWriter, index: int, series: Series, checkpoint: Checkpoint) -> None:
    """Refuse to go on with other weights than the trace was begun with; two hashes stand for all."""
    if isinstance(series, HubSeries):  # a commit is pinned and cannot change
        return
    known, state = writer.digest(index), files_state(series, checkpoint)
    found = _digests.get(state, "") if state is not None else ""
    if not found:
        found = series.read(series.fetch(checkpoint)).digest
        if state is not None:
            _digests[state] = found
    if known and known != found:
        raise UserError(
            f"the weights in {series.fetch(checkpoint)} are not those that {writer.path} was collected from",
            expected=f"sha256 {known[:12]}..., found {found[:12]}...",
            remedy="give back the old weights, or move the trace away and collect again (nothing was deleted)",
        )
