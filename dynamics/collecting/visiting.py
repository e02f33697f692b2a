"""One checkpoint after the other: load it, measure what the trace lacks of it, note how that went."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.errors import CheckpointError, StoppedError, first_line
from checkpoints.hub.cache import without_cache_path

from ..runs.resolve import Resolved
from ..store import TraceWriter
from ..store.journal import write_journal
from .measuring import require_wired, write_checkpoint
from .opening import Digests, resident_for
from .taking import Takeover

if TYPE_CHECKING:
    from checkpoints.loading import Prepared, ResidentModel

__all__ = ["Collected", "Visitor"]


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
        shard: which part this was, such as ``3/16``; empty for a collection by one process.
        others: processes that still write the trace, in words.
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
    shard: str = ""
    others: list[str] = field(default_factory=list)


class Visitor:
    """Has a model in memory, of whose weights each checkpoint's take the place.

    Args:
        resolved: the run.
        writer: of its trace.
        done: what was done is added to it.
        digests: of weights that were read; those that are read now are added.
        takeovers: of each probe what others have of it.
        say_doing: takes what is being measured, for others to read.
        journal: where to note it, instead of the trace's journal.
        resident: the model that is in memory already.
    """

    def __init__(
        self,
        resolved: Resolved,
        writer: TraceWriter,
        done: Collected,
        digests: Digests,
        takeovers: Mapping[str, Takeover],
        say_doing: Callable[[str], None],
        journal: Path | None = None,
        resident: ResidentModel | None = None,
    ) -> None:
        self.resolved, self.writer, self.done, self.takeovers = resolved, writer, done, takeovers
        self.say_doing, self.journal = say_doing, journal
        self._digests, self._checked = digests, False
        self._resident = resident or resident_for(resolved.run, resolved.model)

    def file_state(self, index: int) -> tuple[str, ...] | None:
        """The state of a checkpoint's files, to be asked for before they are read (:meth:`checkpoints.series.Series.state`)."""
        series = self.resolved.series
        assert series is not None
        return None if series.pinned else series.state(self.resolved.declaration.checkpoints[index])

    def visit(
        self,
        index: int,
        take: Callable[[], Prepared],
        release: Callable[[], None],
        *,
        state: tuple[str, ...] | None,
        note: Callable[[str], None],
    ) -> bool:
        """Measure one checkpoint and write it; whether that could be done.

        Args:
            index: of the checkpoint.
            take: gives its weights, or raises CheckpointError.
            release: called as soon as they are in the model.
            state: of its files (:meth:`file_state`).
            note: called about once a second with what is being measured.

        Raises:
            StoppedError: when the disk is full or memory is short.
        """
        writer, done, step = self.writer, self.done, self.resolved.declaration.checkpoints[index].step
        began = time.perf_counter()
        failure = installed = None
        try:
            installed = _install(self._resident, take)
        except CheckpointError as error:
            failure = without_cache_path(error.observed)
        release()
        known = writer.digest(index)
        if installed is not None and known and installed[0] != known:
            failure = (
                f"its weights are others by now (sha256 {known[:12]}..., now {installed[0][:12]}...): "
                "what was measured there stays, and nothing is mixed in"
            )
            installed = None
        if installed is not None:
            digest, stored_dtype = installed
            if not self._checked:
                require_wired(self.resolved, self._resident.model)
                self._checked = True
            before = writer.state(index)

            def said(what: str) -> None:
                note(f"step {step}, {what}")
                self.say_doing(f"step {step}, {what}")

            flags = {"digest": digest, "stored_dtype": stored_dtype}
            broken = write_checkpoint(
                self.resolved,
                writer,
                self._resident.model,
                index,
                **flags,
                said=said,
                takeovers=self.takeovers,
                used=done.taken,
            )
            if broken:
                done.nonfinite[step] = broken
            if state is not None:
                self._digests[state] = digest
            (done.gained if before in ("complete", "masked") else done.collected).append(step)
            event = "gained" if known else "complete"
            write_journal(writer.path, event, into=self.journal, step=step, seconds=time.perf_counter() - began)
        elif failure is not None:
            done.failed[step] = failure
            if not known:
                writer.mark(index, "failed", failure)
                writer.clear(index)
            write_journal(writer.path, "failed", into=self.journal, step=step, reason=failure)
        return installed is not None


def _install(resident: ResidentModel, take: Callable[[], Prepared]) -> tuple[str, str]:
    """Make the next weights resident; returns their digest and stored dtype, and keeps no reference to them."""
    import torch

    prepared = take()
    try:
        resident.install(prepared)
    except torch.OutOfMemoryError as error:
        raise StoppedError(
            f"out of memory while loading {prepared.folder}: {first_line(error)}",
            remedy="free memory on the device or choose another one, then run the same command again",
            expected="memory for the model",
        ) from error
    return prepared.digest, prepared.stored_dtype
