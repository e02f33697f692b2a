"""``--workers N`` and ``--scheduler ADDRESS``: dask.distributed shares the checkpoints out, one a task.

The process that is started makes the trace ready, hands out tasks, shows one bar for all, and ends what concerns all checkpoints.
Each worker keeps one model in memory, and works on a checkpoint as a shard does: it claims it, so that whatever a dead worker had is
somebody else's (:mod:`dynamics.store.claims`). Two checkpoints are on a worker at a time: while one is measured, the next is fetched
and read.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from checkpoints.ahead import ON_DISK
from checkpoints.errors import StoppedError, UserError, first_line, stopped_by_disk

from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..store.claims import Claims, members_of
from ..store.journal import write_journal
from ..store.paths import trace_path
from .opening import Digests
from .sharding import Work, conclude, enter
from .visiting import Collected

__all__ = ["cluster_client", "collect_on_cluster"]

TRIES = 3
"""Workers on which a checkpoint is tried, where one has no room on its disk or in its memory."""

GPU = "GPU"
"""The resource of a dask worker of which a checkpoint takes a share, where workers have it."""


def _require_distributed() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the package `distributed` is not installed",
            expected="dask.distributed, for --workers and --scheduler",
            remedy="pip install 'circuit-dynamics[cluster]' (from a clone: pip install '.[cluster]')",
        ) from error


@contextmanager
def cluster_client(workers: int | None, scheduler: str | None, reporter: Reporter) -> Iterator[Any]:
    """A client of a cluster that runs, or of one on this machine for as long as it is needed.

    Args:
        workers: how many processes on this machine.
        scheduler: address of a scheduler, such as ``tcp://node1:8786``, instead.
        reporter: says where the dashboard is.

    Raises:
        UserError: when the extra ``cluster`` is not installed, or nobody answers at the address.
    """
    _require_distributed()
    import logging

    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=10)
        except (OSError, ValueError) as error:  # a timeout is an OSError; an address may be none
            raise UserError(
                f"no scheduler answers at {scheduler}: {first_line(error)}",
                expected="the address that `dask scheduler` prints, such as tcp://node1:8786",
                remedy="start one, or let --workers N start N processes on this machine",
            ) from error
        with client:
            reporter.say(f"dashboard: {client.dashboard_link}")
            yield client
        return
    assert workers is not None
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // workers))
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    environment["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = (
        "False"  # it looks at every frame a hundred times a second
    )
    with (
        tempfile.TemporaryDirectory(prefix="dynamics-dask-") as folder,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=ON_DISK,
            processes=True,
            memory_limit=0,  # a model is no data of dask's, which would restart its worker
            dashboard_address=":0",
            local_directory=folder,
            silence_logs=logging.CRITICAL,
            env=environment,
        ) as cluster,
        Client(cluster) as client,
    ):
        reporter.say(f"{workers} workers of {threads} threads each; dashboard: {client.dashboard_link}")
        yield client


def collect_on_cluster(
    client: Any,
    name: str,
    run: Run,
    *,
    traces: Path = Path("traces"),
    keep_going: bool = False,
    only: Collection[int] | None = None,
    digests: Digests | None = None,
    reporter: Reporter | None = None,
) -> Collected:
    """Visit checkpoints once, on the workers of a cluster (arguments as of :func:`dynamics.collecting.collector.collect_once`).

    Args:
        client: of the cluster (:func:`cluster_client`); its workers see the folder of traces, and run this program.

    Raises:
        UserError: when the request is wrong, here or on a worker.
        StoppedError: when a checkpoint found no room on several workers, or killed them; the others are complete.
    """
    reporter = reporter or Reporter(quiet=True)
    if client.cluster is not None:  # others have devices of their own
        usable_device(run.device)
    trace = trace_path(traces, name)
    claims = Claims(trace, "cluster")
    with stopped_by_disk(f"the trace {trace}, or what it is made of,"):
        asked, work = enter(
            name, run, trace, claims, keep_going=keep_going, reporter=reporter, only=only, digests=digests
        )
        work.done.shard = ""
        began = time.perf_counter()
        try:
            todo = [i for i in range(len(work.checkpoints)) if work.lacks(i, failed=True)]
            work.done.already = [
                work.checkpoints[i].step for i in asked.indices if work.writer.state(i) == "complete" and i not in todo
            ]
            write_journal(trace, "start", into=claims.journal, todo=len(todo), workers=len(_workers(client)))
            if todo:
                _Tasks(client, name, run, work, traces, keep_going, only).run(todo, reporter)
        finally:
            work.done.seconds = time.perf_counter() - began
            claims.leave()
        conclude(asked, work.done, reporter)
    return work.done


def _workers(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


class _Tasks:
    """Hands out the checkpoints of a run, and takes what comes back."""

    def __init__(
        self,
        client: Any,
        name: str,
        run: Run,
        work: Work,
        traces: Path,
        keep_going: bool,
        only: Collection[int] | None,
    ) -> None:
        from .cluster_worker import Worker  # a plugin of dask's

        self._client, self._work = client, work
        about = {"folder": str(Path.cwd()), "traces": str(traces.absolute()), "keep_going": keep_going}
        self._worker = Worker(name, run.model_dump(mode="json"), about, None if only is None else sorted(only))
        self._tries: dict[int, list[str]] = {}
        self._stopped: dict[int, StoppedError] = {}

    def run(self, todo: list[int], reporter: Reporter) -> None:
        """Until all are done, or cannot be."""
        from distributed import wait

        client, work = self._client, self._work
        client.register_plugin(self._worker, name=self._worker.name)
        waiting = {self._submit(index): index for index in todo}
        count = 0
        try:
            with reporter.bar(f"collecting {work.asked.resolved.name}", len(todo), unit="checkpoints") as bar:
                while waiting:
                    try:
                        done, _ = wait(list(waiting), timeout=1, return_when="FIRST_COMPLETED")
                    except TimeoutError:
                        doing = [Claims.doing_of(work.writer.path, m.id) for m in members_of(work.writer.path)]
                        bar.note("; ".join(filter(None, doing)))
                        continue
                    for future in done:
                        index = waiting.pop(future)
                        if self._take(index, future):
                            bar.update(count := count + 1, f"step {work.checkpoints[index].step}")
                        elif index not in self._stopped:
                            waiting[self._submit(index)] = index
        finally:
            client.cancel(list(waiting))
            client.unregister_worker_plugin(self._worker.name)
        if self._stopped:
            raise self._stopped[min(self._stopped)]

    def _submit(self, index: int) -> Any:
        from .cluster_worker import measure

        workers = _workers(self._client)
        others = [w for w in workers if w not in self._tries.get(index, ())]
        more: dict[str, Any] = {}
        if any(about.get("resources", {}).get(GPU) for about in workers.values()):
            more["resources"] = {GPU: 1 / ON_DISK}
        if others and len(others) < len(workers):
            more |= {"workers": others, "allow_other_workers": True}
        step = self._work.checkpoints[index].step
        key = f"{self._worker.name}-step{step}-{len(self._tries.get(index, ()))}"
        return self._client.submit(measure, self._worker.name, index, key=key, pure=False, **more)

    def _take(self, index: int, future: Any) -> bool:
        """Whether a checkpoint is done with; otherwise it is to be tried again, unless it was tried often enough."""
        from distributed import KilledWorker

        step, done = self._work.checkpoints[index].step, self._work.done
        try:
            outcome: dict[str, Any] = future.result()
        except KilledWorker as error:
            self._stopped[index] = StoppedError(
                f"workers died one after the other at step {step}: {first_line(error)}",
                expected="workers with memory for the model",
                remedy="see their logs; lower `batch_tokens`, or give them more, then run the same command again",
            )
            return False
        if (said := outcome.get("error")) is None:
            for key in ("collected", "gained"):
                getattr(done, key).extend(outcome[key])
            for key in ("failed", "nonfinite"):
                getattr(done, key).update(outcome[key])
            for trace, steps in outcome["taken"].items():
                done.taken.setdefault(trace, []).extend(steps)
            return True
        kind: type[UserError] = StoppedError if outcome["stopped"] else UserError
        found = kind(said[0], expected=said[1], remedy=said[2])
        found.add_note(f"at step {step}, on worker {outcome['worker']}")
        if not isinstance(found, StoppedError):
            raise found
        tries = self._tries.setdefault(index, [])
        tries.append(outcome["worker"])
        if len(tries) >= TRIES:
            self._stopped[index] = found
        return False
