"""Fetching and reading checkpoints before they are needed, with bounded disk and memory.

One thread fetches, one reads. While checkpoint *i* computes, *i + 1* is read into memory and *i + 2* is on its way, but
at most two checkpoints are on disk and two in memory: a fetch waits until an earlier checkpoint was released.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from .errors import CheckpointError
from .series import Checkpoint, Series

__all__ = ["ON_DISK", "ReadAhead"]

ON_DISK = 2
"""Checkpoints of a series that are on disk at the same time, as far as the series can delete them."""

T = TypeVar("T")


class _Worker:
    """A thread that runs calls one after the other.

    A daemon, because Ctrl-C must not wait for a download of gigabytes; the next run goes on with what is there.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def stop(self) -> None:
        """End after the call that is running; what waits is dropped."""
        try:
            while True:
                waiting = self._calls.get_nowait()
                if waiting is not None:
                    waiting[0].cancel()
        except queue.Empty:
            self._calls.put(None)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # raised where the result is asked for
                future.set_exception(error)
            del future, call, item  # or this frame would keep a checkpoint's weights


class ReadAhead(Generic[T]):
    """The checkpoints of a list, one after the other: :meth:`take`, compute, :meth:`release`.

    Args:
        series: where they come from.
        checkpoints: which, in the order in which they are wanted; one is asked for when it is time to fetch it.
        read: makes of a checkpoint's files, which are there by then, whatever is wanted; called in the reading thread.

    Example::

        with ReadAhead(series, checkpoints, series.read) as ahead:
            for checkpoint in checkpoints:
                weights = ahead.take()  # raises CheckpointError when this one cannot be had
                ...
                del weights
                ahead.release()
    """

    def __init__(self, series: Series, checkpoints: Iterable[Checkpoint], read: Callable[[Path], T]) -> None:
        self._series, self._checkpoints, self._read = series, iter(checkpoints), read
        self._fetcher, self._reader = _Worker("fetch-ahead"), _Worker("read-ahead")
        self._fetched: deque[Future[Path]] = deque()
        self._held: deque[Checkpoint] = deque()
        self._released: Future[None] | None = None
        self._current: Future[T] | None = None

    def __enter__(self) -> ReadAhead[T]:
        for _ in range(ON_DISK):
            self._fetch_next()
        self._read_next()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._released is not None:
            self._released.result()
        self._fetcher.stop()
        self._reader.stop()

    @property
    def more(self) -> bool:
        """Whether there is another one to take."""
        return self._current is not None

    def take(self) -> T:
        """The next checkpoint's; waits for it.

        Raises:
            CheckpointError: when it cannot be had; :meth:`release` then goes on to the next one.
        """
        assert self._current is not None, "every checkpoint has been taken"
        future, self._current = self._current, None  # nothing but the caller holds the weights
        return future.result()

    def release(self) -> None:
        """The taken checkpoint is not needed any more, neither in memory nor on disk: get the next one."""
        if self._released is not None and self._released.done():
            self._released.result()  # what cannot be deleted would fill the disk
        done = self._held.popleft()
        self._released = self._fetcher.submit(lambda: self._series.release(done))
        self._fetch_next()
        self._read_next()

    def _fetch_next(self) -> None:
        if (checkpoint := next(self._checkpoints, None)) is not None:
            self._held.append(checkpoint)
            self._fetched.append(self._fetcher.submit(lambda: self._series.fetch(checkpoint)))

    def _read_next(self) -> None:
        if self._fetched:
            fetched = self._fetched.popleft()

            def read() -> T:
                path = fetched.result()
                try:
                    return self._read(path)
                except OSError as error:  # deleted meanwhile, or a bad disk: this checkpoint's trouble
                    raise CheckpointError(
                        f"{path} cannot be read: {error.strerror or error}",
                        expected="weights that stay where they are while they are read",
                        remedy="see whether it is still there and may be read, then run the same command again",
                    ) from error

            self._current = self._reader.submit(read)
