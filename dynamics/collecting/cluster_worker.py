"""What a worker of dask does of a collection; nothing imports this where no cluster is used."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Lock, Semaphore
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker

from checkpoints.ahead import ON_DISK
from checkpoints.errors import StoppedError, UserError, stopped_by_disk

from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..store.claims import Claims
from ..store.lock import joined
from ..store.paths import trace_path
from ..store.shard_writer import ShardWriter
from .collector import Beginning, ask
from .gains import takeovers_of
from .opening import resident_for
from .sharding import Work
from .visiting import Collected

if TYPE_CHECKING:
    from checkpoints.loading import ResidentModel

__all__ = ["Worker", "measure"]

Outcome = dict[str, Any]
"""What comes back of a checkpoint: fields of :class:`Collected`, or ``error`` (its three parts), ``stopped`` and ``worker``."""


class Worker(WorkerPlugin):  # type: ignore[misc]  # dask gives it no types
    """What a worker of dask holds while it collects a run: a plugin, which it gets when it joins and loses at the end.

    Args:
        name: the run's name.
        run: the run, as JSON values.
        about: ``folder``, ``traces`` and ``keep_going`` of the command.
        only: steps instead of those of the schedule.
    """

    def __init__(self, name: str, run: dict[str, Any], about: dict[str, Any], only: list[int] | None) -> None:
        self.name = f"dynamics-{name}-{os.urandom(4).hex()}"
        self._name, self._run, self._about, self._only = name, run, about, only

    def setup(self, worker: Any) -> None:
        """Called on the worker."""
        self._opening, self._computing, self._slots = Lock(), Lock(), Semaphore(ON_DISK)
        self._open: tuple[Beginning, ResidentModel] | None = None

    def teardown(self, worker: Any) -> None:
        """Called on the worker."""
        self._open = None

    def measure(self, index: int, worker: str, address: str) -> Outcome:
        """Collect one checkpoint; what went wrong is returned, as errors of ours do not all travel."""
        try:
            with self._slots:
                return self._measured(index, worker)
        except UserError as error:
            said = [error.observed, error.expected, error.remedy]
            return {"error": said, "stopped": isinstance(error, StoppedError), "worker": address}

    def _measured(self, index: int, worker: str) -> Outcome:
        trace = trace_path(Path(self._about["traces"]), self._name)
        with self._opening:
            asked, resident = self._open = self._open or self._opened(trace, worker)
        claims = Claims(trace, f"worker {worker}")
        done = Collected(trace)
        with stopped_by_disk(f"the trace {trace}, or what it is made of,"):
            with joined(trace, claims) as first:
                if first:
                    raise UserError(
                        f"the process that shared out {trace} has died",
                        expected="it to live as long as its workers compute",
                        remedy="run the same command again; what is complete stays",
                    )
                writer = ShardWriter(trace, asked.resolved.declaration, claims, durable=asked.resolved.run.durable)
            try:
                takeovers = takeovers_of(asked.resolved, trace, writer.places)
                work = Work(asked, writer, done, {}, takeovers, resident)
                work.one(index, self._computing, _silent)
            finally:
                claims.leave()
        kept = ("collected", "gained", "failed", "nonfinite", "taken")
        return {key: getattr(done, key) for key in kept}

    def _opened(self, trace: Path, worker: str) -> tuple[Beginning, ResidentModel]:
        folder = self._about["folder"]
        if Path(folder).is_dir():
            os.chdir(folder)  # what the run names is named from there
            if folder not in sys.path:
                sys.path.append(folder)  # analyses and site tables of the user's own
        run = Run.model_validate(self._run)
        if usable_device(run.device) == "cuda" and worker.isdecimal():
            import torch

            run = run.model_copy(update={"device": f"cuda:{int(worker) % torch.cuda.device_count()}"})
        quiet = Reporter(quiet=True)
        asked = ask(self._name, run, trace, keep_going=True, only=self._only, reporter=quiet)
        return asked, resident_for(run, asked.resolved.model)


def _silent(_: str) -> None:
    """What is being measured is said in the folder of the shards."""


def measure(plugin: str, index: int) -> Outcome:
    """The task of a worker: one checkpoint.

    Args:
        plugin: name of its :class:`Worker`.
        index: of the checkpoint.
    """
    worker = get_worker()
    held: Worker = worker.plugins[plugin]
    return held.measure(index, str(worker.name), worker.address)
