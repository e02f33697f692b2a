"""Collecting: every scheduled checkpoint through every probe, into the trace, resumable at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from checkpoints.ahead import ReadAhead
from checkpoints.errors import stopped_by_disk
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
from .measuring import take_checkpoint
from .opening import (
    Digests,
    open_run,
    require_same_training,
    require_same_weights,
    require_some,
    require_space,
    unusable,
    visited,
)
from .taking import Takeover
from .visiting import Collected, Visitor

__all__ = ["Beginning", "Collected", "ask", "begin", "collect_once", "open_writer"]

FIRST_PICTURES = 10
"""Checkpoints from which on it is worth while to look at a trace that is being collected: a shape needs five that are valid."""


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
    weigh: bool = True,
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
        weigh: whether to compare the weights of all checkpoints with one another, which takes longer the more there are;
            without, nothing new is masked by its weights.
        reporter: progress and messages.

    Raises:
        UserError: when the request is wrong, before anything is computed.
        StoppedError: when the disk is full or memory is short; run it again after making room.
    """
    reporter = reporter or Reporter(quiet=True)
    trace = trace_path(traces, name)
    usable_device(run.device)  # a wrong one must not cost a training
    with stopped_by_disk(f"the trace {trace}, or what it is made of,"), writer_lock(trace):
        asked = ask(name, run, trace, keep_going=keep_going, only=only, series=series, reporter=reporter)
        digests = {} if digests is None else digests
        writer = open_writer(name, asked, trace, digests, gains=gains, reporter=reporter)
        return _visit(asked, writer, digests, reporter, only, weigh)


@dataclass(frozen=True)
class Beginning:
    """What is to be collected.

    Attributes:
        resolved: the run beside its series.
        before: what is known of the checkpoints before any is loaded.
        indices: the checkpoints to visit.
        bad: those whose files are bad, with the reasons.
    """

    resolved: Resolved
    before: Before
    indices: list[int]
    bad: dict[Checkpoint, str]


def ask(
    name: str,
    run: Run,
    trace: Path,
    *,
    keep_going: bool,
    only: Collection[int] | None = None,
    series: Series | None = None,
    reporter: Reporter,
) -> Beginning:
    """Open a run and look at its checkpoints; the arguments are those of :func:`collect_once`.

    Raises:
        UserError: when the request is wrong.
    """
    resolved = open_run(name, run, trace, reporter, series=series)
    assert resolved.series is not None
    checkpoints = resolved.declaration.checkpoints
    before = known_before(resolved.run, resolved.series)
    for step, reason in before.unlisted.items():
        reporter.once(f"step {step}: its files could not be listed: {reason}")
    for line in left_out_lines(resolved.series.left_out):  # of a hub it is known by now
        reporter.once(line)
    indices = visited(resolved, growing=series is not None)
    if only is not None:
        indices = [i for i, c in enumerate(checkpoints) if c.step in only and c.step not in run.exclude]
    indices = [i for i in indices if checkpoints[i].step not in before.reasons]
    require_some(name, run, indices, before.reasons)
    bad = unusable(resolved, indices, keep_going=keep_going)
    require_space(trace, resolved, len(indices))
    return Beginning(resolved, before, indices, bad)


def open_writer(
    name: str, asked: Beginning, trace: Path, digests: Digests, *, gains: bool = True, reporter: Reporter
) -> TraceWriter:
    """Make a trace that holds what is asked, or that is to gain it; nobody else writes it.

    Raises:
        UserError: when the trace that is there is another; it does not grow by the checkpoints of another training then.
    """
    declaration, run = asked.resolved.declaration, asked.resolved.run
    discard_unused(trace, declaration)
    require_same_training(
        trace, asked.resolved, [i for i in asked.indices if declaration.checkpoints[i] not in asked.bad], digests
    )
    require_reused(name, run, trace)
    changes = gains_of(trace, declaration) if gains and trace.exists() else []
    writer = TraceWriter(trace, declaration, durable=run.durable, gains=gains)
    for gain in changes:
        reporter.say(f"{trace.name} changes, {gain}")
    return writer


def _visit(
    asked: Beginning,
    writer: TraceWriter,
    digests: Digests,
    reporter: Reporter,
    only: Collection[int] | None,
    weigh: bool,
) -> Collected:
    resolved, before, checkpoints = asked.resolved, asked.before, asked.resolved.declaration.checkpoints
    done = Collected(writer.path)
    waited = [i for i in range(len(checkpoints)) if writer.waits(i)]
    todo, takeovers = begin(asked, writer, done, digests, reporter, only, weigh=weigh)

    def entered(names: list[str]) -> Mapping[str, Takeover]:
        reporter.say(f"{writer.path} has {_named(names)} now, at every checkpoint that is complete")
        return takeovers_of(resolved, writer.path, writer.places)

    if todo:
        write_journal(writer.path, "start", todo=len(todo), already=len(done.already))
        started = time.perf_counter()
        doing = partial(say_doing, writer.path)
        _collect(Visitor(resolved, writer, done, digests, takeovers, doing), todo, entered, reporter)
        done.seconds = time.perf_counter() - started
        done.masked = apply_masks(resolved, writer, before, weigh=weigh)  # by now their neighbours are there, too
    done.waiting, status = writer.growing, writer.status()
    done.pending = [c.step for i, c in enumerate(checkpoints) if writer.waits(i)]
    now = {checkpoints[i].step for i in waited if status[i] == "complete"}
    done.collected = sorted({*done.collected, *now})
    done.collected = [step for step in done.collected if step not in done.masked]
    done.already = [step for step in done.already if step not in done.masked]
    done.gained = [step for step in done.gained if step not in done.masked]
    return done


def begin(
    asked: Beginning,
    writer: TraceWriter,
    done: Collected,
    digests: Digests,
    reporter: Reporter,
    only: Collection[int] | None = None,
    *,
    together: bool = False,
    weigh: bool = True,
) -> tuple[list[int], Mapping[str, Takeover]]:
    """What comes before the loop over checkpoints, of a trace that nobody else writes.

    Args:
        asked: what is to be collected.
        writer: of the trace.
        done: what is known by now is added.
        digests: of weights that were read.
        reporter: progress and messages.
        only: these steps instead of those of the schedule.
        together: several processes will go on: nothing is masked by weights before all are there, and each tells of its own
            checkpoints that their files are bad.
        weigh: see :func:`collect_once`.

    Returns:
        Indices of the checkpoints whose weights are needed, and of each probe what others have of it.
    """
    resolved, indices, bad, before = asked.resolved, asked.indices, asked.bad, asked.before
    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    assert series is not None
    _forget_replaced(writer, checkpoints, before)
    done.masked = apply_masks(resolved, writer, before, weigh=weigh and not together)
    status = writer.status()
    owed = [i for i, state in enumerate(status) if state in ("complete", "masked") and writer.owed(i)]
    owed = [i for i in owed if checkpoints[i].step not in before.reasons and (only is None or i in indices)]
    done.already = [checkpoints[i].step for i in indices if status[i] == "complete" and i not in owed]
    takeovers = takeovers_of(resolved, writer.path, writer.places)
    owed = _taken(resolved, writer, owed, takeovers, done)
    if entered := writer.exchange():  # nothing was lacking, or what lacked it is masked by now
        reporter.say(f"{writer.path} has {_named(entered)} now, at every checkpoint that is complete")
        takeovers = takeovers_of(resolved, writer.path, writer.places)
        status = writer.status()  # what waited for it is complete
    if owed:
        bad |= unusable(resolved, [i for i in owed if i not in indices], keep_going=True)
    for checkpoint, reason in {} if together else bad.items():
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
    return todo, takeovers


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
    visitor: Visitor, todo: list[int], entered: Callable[[list[str]], Mapping[str, Takeover]], reporter: Reporter
) -> None:
    resolved, writer, done = visitor.resolved, visitor.writer, visitor.done
    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    assert series is not None
    # a download that was cut off goes on, whichever of them it was
    series.sweep([checkpoints[i].revision for i in todo])
    # before they are read
    states = {index: visitor.file_state(index) for index in todo}
    with (
        ReadAhead(series, [checkpoints[i] for i in todo], series.read) as ahead,
        reporter.bar(f"collecting {resolved.name}", len(todo), unit="checkpoints") as bar,
    ):
        for count, index in enumerate(todo, 1):
            measured = visitor.visit(index, ahead.take, ahead.release, state=states[index], note=bar.note)
            there = len(done.already) + len(done.collected)
            if measured and there >= FIRST_PICTURES and count < len(todo):
                reporter.once(
                    f"`dynamics report {resolved.name}` draws what was measured by now, also while this goes on"
                )
            if names := writer.exchange():
                visitor.takeovers = entered(names)
            bar.update(count, f"step {checkpoints[index].step}")


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
