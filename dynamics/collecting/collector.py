"""Collecting: every scheduled checkpoint through every probe, into the trace, resumable at any moment."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.ahead import ReadAhead
from checkpoints.errors import CheckpointError, StoppedError, first_line, stopped_by_disk
from checkpoints.hub.cache import without_cache_path
from checkpoints.series import Checkpoint, Series

from ..auditing.masking import Before, apply_masks, known_before
from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..runs.resolve import Resolved
from ..store import TraceWriter, writer_lock
from ..store.journal import write_journal
from ..store.lock import say_doing
from ..store.paths import trace_path
from ..store.unused import discard_unused
from ..wording import left_out_lines
from .gains import gains_of, require_reused, takeovers_of
from .measuring import require_wired, take_checkpoint, write_checkpoint
from .opening import (
    Digests,
    open_run,
    require_same_weights,
    require_some,
    require_space,
    resident_for,
    unusable,
    visited,
)

if TYPE_CHECKING:
    from checkpoints.loading import Prepared, ResidentModel

    from .taking import Takeover

__all__ = ["Collected", "collect_once"]

FIRST_PICTURES = 10
"""Checkpoints from which on it is worth while to look at a trace that is being collected: a shape needs five that are valid."""


@dataclass
class Collected:
    """What a collection did.

    Attributes:
        trace: the trace.
        collected: steps collected by this call, or measured before and complete from this call on.
        already: steps that were complete before, and lacked nothing.
        gained: steps that were complete before, at which this call measured what the run asks for besides.
        taken: name of a trace to the steps at which something was taken from it; without a name: from the trace itself.
        waiting: probes that the trace is to gain, and does not list before they are at all its complete checkpoints.
        pending: steps that were measured, by this call or before, and stay pending until the trace lists those probes.
        failed: step to reason.
        masked: step to reason.
        missing: step to why it was not tried at all, of a job that was followed.
        nonfinite: step to how many NaN or infinite values the model returned, where there were any.
        seconds: time in the loop over checkpoints.
    """

    trace: Path
    collected: list[int] = field(default_factory=list)
    already: list[int] = field(default_factory=list)
    gained: list[int] = field(default_factory=list)
    taken: dict[str, list[int]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    masked: dict[int, str] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)
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
    digests: Digests | None = None,
    gains: bool = True,
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
        digests: of weights that were read before; those that are read now are added, so that calls one after the other
            read nothing twice.
        gains: whether the trace may gain probes and lose others; a repair leaves them as they are.
        reporter: progress and messages.

    Raises:
        UserError: when the request is wrong, before anything is computed.
        StoppedError: when the disk is full or memory is short; run it again after making room.
    """
    reporter = reporter or Reporter(quiet=True)
    trace = trace_path(traces, name)
    usable_device(run.device)  # a wrong one must not cost a training
    with stopped_by_disk(f"the trace {trace}, or what it is made of,"), writer_lock(trace):
        resolved = open_run(name, run, trace, reporter, series=series)
        assert resolved.series is not None
        checkpoints = resolved.declaration.checkpoints
        before = known_before(resolved.run, resolved.series)
        for step, reason in before.unlisted.items():
            reporter.once(f"step {step}: its files could not be listed: {reason}")
        for line in left_out_lines(resolved.series.left_out):  # of a hub it is known by now
            reporter.once(line)
        reasons = before.reasons
        indices = visited(resolved, growing=series is not None)
        if only is not None:
            indices = [i for i, c in enumerate(checkpoints) if c.step in only and c.step not in run.exclude]
        indices = [i for i in indices if checkpoints[i].step not in reasons]
        require_some(name, run, indices, reasons)
        bad = unusable(resolved, indices, keep_going=keep_going)
        require_space(trace, resolved, len(indices))
        discard_unused(trace, resolved.declaration)
        require_reused(name, run, trace)
        changes = gains_of(trace, resolved.declaration) if gains and trace.exists() else []
        writer = TraceWriter(trace, resolved.declaration, durable=run.durable, gains=gains)
        for gain in changes:
            reporter.say(f"{trace.name} changes, {gain}")
        return _visit(resolved, writer, indices, bad, before, {} if digests is None else digests, reporter, only)


def _visit(
    resolved: Resolved,
    writer: TraceWriter,
    indices: list[int],
    bad: dict[Checkpoint, str],
    before: Before,
    digests: Digests,
    reporter: Reporter,
    only: Collection[int] | None,
) -> Collected:
    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    assert series is not None
    done = Collected(writer.path)
    _forget_replaced(writer, checkpoints, before)
    done.masked = apply_masks(resolved, writer, before)
    status = writer.status()
    owed = [i for i, state in enumerate(status) if state in ("complete", "masked") and writer.owed(i)]
    owed = [i for i in owed if checkpoints[i].step not in before.reasons and (only is None or i in indices)]
    done.already = [checkpoints[i].step for i in indices if status[i] == "complete" and i not in owed]
    takeovers = takeovers_of(resolved, writer.path, writer.places)
    waited = [i for i in range(len(status)) if writer.waits(i)]
    owed = _taken(resolved, writer, owed, takeovers, done)
    if entered := writer.exchange():  # nothing was lacking, or what lacked it is masked by now
        reporter.say(f"{writer.path} has {_named(entered)} now, at every checkpoint that is complete")
        takeovers = takeovers_of(resolved, writer.path, writer.places)
        status = writer.status()  # what waited for it is complete
    if owed:
        bad |= unusable(resolved, [i for i in owed if i not in indices], keep_going=True)
    for checkpoint, reason in bad.items():
        index = checkpoints.index(checkpoint)
        if status[index] != "complete":  # what was measured while the files were good stays
            done.failed[checkpoint.step] = reason
            writer.mark(index, "failed", reason)
        elif index in owed:
            done.failed[checkpoint.step] = f"{reason}; what was measured there stays"
    complete = [i for i in indices if status[i] == "complete" and checkpoints[i] not in bad]
    todo = [i for i in owed if checkpoints[i] not in bad]
    todo += [
        i
        for i in indices
        if status[i] not in ("complete", "masked") and checkpoints[i] not in bad and not writer.waits(i)
    ]
    if todo or writer.attributes.get("origin") != series.origin:
        for index in {*complete[:1], *complete[-1:]} - {*owed}:
            require_same_weights(writer.path, writer.digest(index), series, checkpoints[index], digests)
    if todo:
        write_journal(writer.path, "start", todo=len(todo), already=len(done.already))
        started = time.perf_counter()
        _collect(resolved, writer, todo, done, digests, takeovers, reporter)
        done.seconds = time.perf_counter() - started
        done.masked = apply_masks(resolved, writer, before)  # by now their neighbours are there to compare with
    done.waiting, status = writer.growing, writer.status()
    done.pending = [c.step for i, c in enumerate(checkpoints) if writer.waits(i)]
    now = {checkpoints[i].step for i in waited if status[i] == "complete"}
    done.collected = sorted({*done.collected, *now})
    done.collected = [step for step in done.collected if step not in done.masked]
    done.already = [step for step in done.already if step not in done.masked]
    done.gained = [step for step in done.gained if step not in done.masked]
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


def _collect(
    resolved: Resolved,
    writer: TraceWriter,
    todo: list[int],
    done: Collected,
    digests: Digests,
    takeovers: Mapping[str, Takeover],
    reporter: Reporter,
) -> None:
    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    assert series is not None
    # a download that was cut off goes on, whichever of them it was
    series.sweep([checkpoints[i].revision for i in todo])
    resident = resident_for(resolved.run, resolved.model)
    status = writer.status()
    checked = False
    # before they are read
    states = {index: None if series.pinned else series.state(checkpoints[index]) for index in todo}
    with (
        ReadAhead(series, [checkpoints[i] for i in todo], series.read) as ahead,
        reporter.bar(f"collecting {resolved.name}", len(todo), unit="checkpoints") as bar,
    ):
        for count, index in enumerate(todo, 1):
            step = checkpoints[index].step
            began = time.perf_counter()
            failure = installed = None
            try:
                installed = _install(resident, ahead)
            except CheckpointError as error:
                failure = without_cache_path(error.observed)
            ahead.release()
            known = writer.digest(index)
            if installed is not None and known and installed[0] != known:
                failure = (
                    f"its weights are others by now (sha256 {known[:12]}..., now {installed[0][:12]}...): "
                    "what was measured there stays, and nothing is mixed in"
                )
                installed = None
            if installed is not None:
                digest, stored_dtype = installed
                if not checked:
                    require_wired(resolved, resident.model)
                    checked = True

                def said(what: str, step: int = step) -> None:
                    bar.note(f"step {step}, {what}")
                    say_doing(writer.path, f"step {step}, {what}")

                flags = {"digest": digest, "stored_dtype": stored_dtype}
                broken = write_checkpoint(
                    resolved, writer, resident.model, index, **flags, said=said, takeovers=takeovers, used=done.taken
                )
                if broken:
                    done.nonfinite[step] = broken
                if (state := states[index]) is not None:
                    digests[state] = digest
                (done.gained if status[index] in ("complete", "masked") else done.collected).append(step)
                event = "gained" if known else "complete"
                write_journal(writer.path, event, step=step, seconds=time.perf_counter() - began)
                there = len(done.already) + len(done.collected)
                if there >= FIRST_PICTURES and count < len(todo):
                    reporter.once(
                        f"`dynamics report {resolved.name}` draws what was measured by now, also while this goes on"
                    )
            elif failure is not None:
                done.failed[step] = failure
                if not known:
                    writer.mark(index, "failed", failure)
                    writer.clear(index)
                write_journal(writer.path, "failed", step=step, reason=failure)
            if entered := writer.exchange():
                reporter.say(f"{writer.path} has {_named(entered)} now, at every checkpoint that is complete")
                takeovers = takeovers_of(resolved, writer.path, writer.places)
            bar.update(count, f"step {step}")


def _taken(
    resolved: Resolved, writer: TraceWriter, owed: Sequence[int], takeovers: Mapping[str, Takeover], done: Collected
) -> list[int]:
    """Fill what needs no weights, as it was measured elsewhere; returns the checkpoints that still lack something."""
    left = []
    for index in owed:
        flags = {"digest": writer.digest(index), "stored_dtype": writer.stored_dtype(index)}
        whole = take_checkpoint(resolved, writer, index, takeovers, **flags, used=done.taken)
        if whole:
            done.gained.append(resolved.declaration.checkpoints[index].step)
        else:
            left.append(index)
    return left


def _named(probes: Sequence[str]) -> str:
    shown = ", ".join(probes[:4]) + (f" and {len(probes) - 4} more" if len(probes) > 4 else "")
    return f"{'probe' if len(probes) == 1 else 'probes'} {shown}"


def _install(resident: ResidentModel, ahead: ReadAhead[Prepared]) -> tuple[str, str]:
    """Make the next weights resident; returns their digest and stored dtype, and keeps no reference to them."""
    import torch

    prepared = ahead.take()
    try:
        resident.install(prepared)
    except torch.OutOfMemoryError as error:
        raise StoppedError(
            f"out of memory while loading {prepared.folder}: {first_line(error)}",
            remedy="free memory on the device or choose another one, then run the same command again",
            expected="memory for the model",
        ) from error
    return prepared.digest, prepared.stored_dtype
