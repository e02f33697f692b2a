"""``--shard K/N``: one of several processes that collect a run into one trace, on any machines that share its folder.

Each begins with its own part of the checkpoints, and then helps with whatever nobody has: what a process claims is its own until it
dies (:mod:`dynamics.store.claims`). So it does not matter how many of the N processes come, when, or which of them die, as long
as one ends. What concerns all checkpoints together (the trace's making, masks by weights, probes that it gains) is done by the
first that begins and the last that ends, while nobody else writes.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from checkpoints.ahead import ReadAhead
from checkpoints.errors import CheckpointError, StoppedError, UserError, stopped_by_disk
from checkpoints.series import Checkpoint, Series
from checkpoints.sources import steps_to_train

from ..auditing.masking import apply_masks
from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..store import writer_lock
from ..store.claims import BEAT, Claims
from ..store.journal import write_journal
from ..store.lock import joined, living_members
from ..store.paths import trace_path
from ..store.shard_writer import ShardWriter
from .collector import Beginning, ask, begin, open_writer
from .gains import takeovers_of
from .opening import Digests
from .taking import Takeover
from .visiting import Collected, Visitor

if TYPE_CHECKING:
    from checkpoints.loading import Prepared, ResidentModel

__all__ = ["Shard", "Work", "collect_shard", "conclude", "enter", "parse_shard", "parts"]

Shard = tuple[int, int]
"""Which part, from 1, of how many."""

_CONCLUDING = 60.0
"""Seconds for which the last process waits to write the trace alone, where another writes results, for instance."""


def parse_shard(text: str) -> Shard:
    """Which part is meant.

    >>> parse_shard("3/16")
    (3, 16)

    Raises:
        UserError: when it is none.
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(
            f"--shard {text!r} is no part of anything",
            expected="K/N with K from 1 to N, such as 1/16 for the first of sixteen",
            remedy="in an array job of Slurm: --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT with --array=1-16",
        )
    return int(found[1]), int(found[2])


def parts(sizes: Mapping[int, int], count: int) -> list[list[int]]:
    """Share checkpoints out by size: the largest first, each to whoever has least; the same wherever it is asked.

    Args:
        sizes: index of a checkpoint to the bytes of its weights.
        count: of parts.

    >>> parts({0: 5, 1: 5, 2: 10, 3: 5}, 2)
    [[2, 3], [0, 1]]
    >>> parts(dict.fromkeys(range(7), 1), 3)
    [[0, 3, 6], [1, 4], [2, 5]]
    """
    found: list[list[int]] = [[] for _ in range(count)]
    load = [0] * count
    for index in sorted(sizes, key=lambda i: (-sizes[i], i)):
        least = min(range(count), key=lambda part: (load[part], len(found[part]), part))
        found[least].append(index)
        load[least] += sizes[index]
    return [sorted(part) for part in found]


def sizes_of(series: Series, checkpoints: Sequence[Checkpoint], indices: Sequence[int]) -> dict[int, int]:
    """Index to bytes of weights, 1 where they are not known."""
    found = {}
    for index in indices:
        try:
            found[index] = max(1, sum(file.size or 0 for file in series.weight_files(checkpoints[index])))
        except CheckpointError:
            found[index] = 1
    return found


def collect_shard(
    name: str,
    run: Run,
    shard: Shard,
    *,
    traces: Path = Path("traces"),
    keep_going: bool = False,
    reporter: Reporter | None = None,
) -> Collected:
    """Collect one part of a run, then help with what nobody has.

    Args:
        name: the run's name.
        run: the run.
        shard: which part.
        traces: folder of traces; other processes that collect the run see the same folder.
        keep_going: see :func:`dynamics.collect`.
        reporter: progress and messages.

    Raises:
        UserError: when the request is wrong, the schedule is adaptive, or another process writes the trace alone.
        StoppedError: when the disk is full, memory is short, or this process was silent for so long that others went on.
    """
    reporter = reporter or Reporter(quiet=True)
    if run.schedule == "adaptive":
        raise UserError(
            f"run {name!r} has `schedule: adaptive`, and a shard does not know what the others will find",
            expected="a schedule that says before what is visited: dense or log",
            remedy="--schedule log, or --workers N, where one process decides and others compute",
        )
    trace, (number, count) = trace_path(traces, name), shard
    usable_device(run.device)
    claims = Claims(trace, f"{number}/{count}")
    with stopped_by_disk(f"the trace {trace}, or what it is made of,"):
        asked, work = enter(name, run, trace, claims, keep_going=keep_going, reporter=reporter)
        try:
            work.shard(number, count, reporter)
        finally:
            claims.leave()
        conclude(asked, work.done, reporter)
    return work.done


def enter(
    name: str,
    run: Run,
    trace: Path,
    claims: Claims,
    *,
    keep_going: bool,
    reporter: Reporter,
    only: Collection[int] | None = None,
    digests: Digests | None = None,
) -> tuple[Beginning, Work]:
    """Become one of the processes that write a trace; the first makes it what it is to be.

    Args:
        name: the run's name.
        run: the run.
        trace: its trace.
        claims: this process's; they are joined when this returns.
        keep_going: see :func:`dynamics.collect`.
        reporter: progress and messages.
        only: these steps instead of those of the schedule.
        digests: of weights that were read before.
    """
    digests = {} if digests is None else digests
    done = Collected(trace, shard=claims.shard)
    asking = partial(ask, name, run, trace, keep_going=keep_going, only=only, reporter=reporter)
    # one trains; whatever else takes its time, each does for itself
    asked = None if steps_to_train(name, run.series) else asking()
    with joined(trace, claims) as first:
        asked = asked or asking()
        if first:
            begin(
                asked,
                open_writer(name, asked, trace, digests, reporter=reporter),
                done,
                digests,
                reporter,
                only,
                together=True,
            )
        writer = ShardWriter(trace, asked.resolved.declaration, claims, durable=asked.resolved.run.durable)
    takeovers = takeovers_of(asked.resolved, trace, writer.places)
    return asked, Work(asked, writer, done, digests, takeovers)


class Work:
    """What one process does of a trace that several write.

    Args:
        asked: what is to be collected.
        writer: of the trace.
        done: what was done is added to it.
        digests: of weights that were read before.
        takeovers: of each probe what others have of it.
        resident: the model that is in memory already.
    """

    def __init__(
        self,
        asked: Beginning,
        writer: ShardWriter,
        done: Collected,
        digests: Digests,
        takeovers: Mapping[str, Takeover],
        resident: ResidentModel | None = None,
    ) -> None:
        self.asked, self.writer, self.done = asked, writer, done
        self.claims = writer.claims
        resolved = asked.resolved
        assert resolved.series is not None
        self.series, self.checkpoints = resolved.series, resolved.declaration.checkpoints
        self._visited = {*asked.indices}
        self._bad = {self.checkpoints.index(c): reason for c, reason in asked.bad.items()}
        self._tried: set[int] = set()
        self._undecided: set[int] = set()
        said, journal = self.claims.say_doing, self.claims.journal
        self.visitor = Visitor(resolved, writer, done, digests, takeovers, said, journal, resident)

    def shard(self, number: int, count: int, reporter: Reporter) -> None:
        """Collect a part, then whatever nobody has; wait only for those of whom it is not known whether they live."""
        sizes = sizes_of(self.series, self.checkpoints, sorted(self._visited))
        others = [i for i in range(len(self.checkpoints)) if i not in sizes]  # that may lack a probe that is new
        mine = sorted([*parts(sizes, count)[number - 1], *(i for i in others if i % count == number - 1)])
        self.done.already = [self.checkpoints[i].step for i in mine if self.writer.state(i) == "complete"]
        todo = [i for i in mine if self.lacks(i, failed=True)]
        # a download that was cut off goes on, whichever of them it was, and whosever
        self.series.sweep(
            [self.checkpoints[i].revision for i in range(len(self.checkpoints)) if self.lacks(i, failed=True)]
        )
        write_journal(self.writer.path, "start", into=self.claims.journal, todo=len(todo), shard=self.claims.shard)
        began = time.perf_counter()
        title = f"collecting {self.asked.resolved.name}, shard {number}/{count}"
        self._collect(title, todo, reporter, failed=True)
        every = range(len(self.checkpoints))
        turned = [*every[number * len(every) // count :], *every[: number * len(every) // count]]
        while True:
            left = [i for i in turned if self.lacks(i, failed=i in mine)]
            self._collect(f"{title}, left by others", left, reporter, failed=False)
            if not self._undecided:
                break
            time.sleep(BEAT / 2)
        self.done.seconds = time.perf_counter() - began

    def one(self, index: int, computing: Lock, note: Callable[[str], None]) -> bool:
        """Collect one checkpoint, unless a living process has it; whether none has.

        Args:
            index: of the checkpoint.
            computing: held while the model is used, so that another checkpoint is fetched and read meanwhile.
            note: called about once a second with what is being measured.
        """
        while (state := self.claims.take(index)) != "mine":
            if state == "alive":
                return False
            time.sleep(BEAT / 2)
        if not self.lacks(index, failed=True):
            return True
        if index in self._bad:
            self.mark_bad(index)
            return True
        checkpoint, files = self.checkpoints[index], self.visitor.file_state(index)
        got: list[Prepared | CheckpointError] = []
        try:
            got.append(self.series.read(self.series.fetch(checkpoint)))
        except CheckpointError as error:
            got.append(error)

        def take() -> Prepared:
            found = got.pop()  # nothing but the caller holds the weights
            if isinstance(found, CheckpointError):
                raise found
            return found

        with computing:
            self.visitor.visit(index, take, lambda: self.series.release(checkpoint), state=files, note=note)
        return True

    def lacks(self, index: int, *, failed: bool) -> bool:
        """Whether something is to be measured at a checkpoint.

        Args:
            index: of the checkpoint.
            failed: whether one that failed is to be tried again.
        """
        if index in self._tried:
            return False
        state = self.writer.state(index)
        if state in ("complete", "masked"):
            known = self.checkpoints[index].step in self.asked.before.reasons
            return bool(self.writer.growing) and not known and self.writer.owed(index)
        return index in self._visited and (failed or state == "pending") and not self.writer.waits(index)

    def _claimed(self, candidates: Sequence[int], *, failed: bool) -> Iterator[int]:
        """Those of the candidates that are this process's by now."""
        for index in candidates:
            if self.lacks(index, failed=failed):
                state = self.claims.take(index)
                if state == "unknown":
                    self._undecided.add(index)
                elif state == "mine" and self.lacks(index, failed=failed):  # not ended by another just before
                    self._tried.add(index)
                    if index not in self._bad:
                        yield index
                    else:
                        self.mark_bad(index)

    def mark_bad(self, index: int) -> None:
        """Note of a checkpoint that its files are bad."""
        step, reason = self.checkpoints[index].step, self._bad[index]
        if self.writer.state(index) in ("complete", "masked"):
            self.done.failed[step] = f"{reason}; what was measured there stays"
        else:
            self.done.failed[step] = reason
            self.writer.mark(index, "failed", reason)

    def _collect(self, title: str, candidates: Sequence[int], reporter: Reporter, *, failed: bool) -> None:
        self._undecided.clear()
        items = self._claimed(candidates, failed=failed)
        if (first := next(items, None)) is None:
            return
        order: deque[tuple[int, tuple[str, ...] | None]] = deque()

        def ahead_of() -> Iterator[Checkpoint]:
            for index in chain((first,), items):
                order.append((index, self.visitor.file_state(index)))
                yield self.checkpoints[index]

        with (
            ReadAhead(self.series, ahead_of(), self.series.read) as ahead,
            reporter.bar(title, len(candidates), unit="checkpoints") as bar,
        ):
            count = 0
            while ahead.more:
                index, state = order.popleft()
                self.visitor.visit(index, ahead.take, ahead.release, state=state, note=bar.note)
                bar.update(count := count + 1, f"step {self.checkpoints[index].step}")


def conclude(asked: Beginning, done: Collected, reporter: Reporter) -> None:
    """What comes when all checkpoints are there: done by each process that ends and sees no other, which all may do.

    Args:
        asked: what was collected.
        done: what is known by now is added.
        reporter: messages.
    """
    trace, resolved = done.trace, asked.resolved
    began = time.monotonic()
    while True:
        try:
            with writer_lock(trace):
                writer = open_writer(resolved.name, asked, trace, {}, reporter=Reporter(quiet=True))
                done.masked = apply_masks(resolved, writer, asked.before)
                done.waiting = writer.growing
                done.pending = [c.step for i, c in enumerate(resolved.declaration.checkpoints) if writer.waits(i)]
                for kind in ("collected", "already", "gained"):
                    setattr(done, kind, [step for step in getattr(done, kind) if step not in done.masked])
            return
        except StoppedError:
            raise
        except UserError as error:
            done.others = [str(member) for member in living_members(trace)]
            if done.others:  # the last of them does it
                return
            if time.monotonic() - began > _CONCLUDING:
                reporter.say(
                    f"{error.observed}: run the same command again when it has ended, to mask and list what is new"
                )
                return
            time.sleep(0.2)
