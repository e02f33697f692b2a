"""Fetching and reading ahead: in order, at most two checkpoints on disk, and one that fails does not stop the others."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from checkpoints import Checkpoint, CheckpointError
from checkpoints.ahead import ON_DISK, ReadAhead
from checkpoints.series import Series


class _Source:
    """A series that counts what is on disk."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.bad, self.here, self.most = bad, set[int](), 0
        self.fetched: list[int] = []
        self.lock = threading.Lock()

    def fetch(self, checkpoint: Checkpoint) -> Path:
        with self.lock:
            self.fetched.append(checkpoint.step)
            self.here.add(checkpoint.step)
            self.most = max(self.most, len(self.here))
        if checkpoint.step in self.bad:
            raise CheckpointError(f"step {checkpoint.step} is not to be had", expected="it", remedy="none")
        return Path(str(checkpoint.step))

    def release(self, checkpoint: Checkpoint) -> None:
        with self.lock:
            self.here.discard(checkpoint.step)


STEPS = tuple(Checkpoint(s, str(s)) for s in range(7))


def run(source: _Source, read: Any = lambda path: int(path.name)) -> list[Any]:
    seen: list[Any] = []
    with ReadAhead(cast(Series, source), STEPS, read) as ahead:
        for _ in STEPS:
            try:
                seen.append(ahead.take())
            except CheckpointError as error:
                seen.append(error.observed)
            ahead.release()
    return seen


def test_everything_comes_in_order_and_is_released() -> None:
    source = _Source()
    assert run(source) == list(range(7))
    assert source.here == set()
    assert source.fetched == list(range(7))


def test_at_most_two_are_on_disk_however_slow_the_work_is() -> None:
    source = _Source()
    with ReadAhead(cast(Series, source), STEPS, lambda path: path) as ahead:
        for _ in STEPS:
            ahead.take()
            time.sleep(0.01)  # time enough to fetch everything
            ahead.release()
    assert source.most == ON_DISK == 2


def test_the_next_is_fetched_while_this_one_is_used() -> None:
    source = _Source()
    with ReadAhead(cast(Series, source), STEPS, lambda path: path) as ahead:
        ahead.take()
        for _ in range(200):
            if len(source.fetched) == 2:
                break
            time.sleep(0.01)
        assert source.fetched == [0, 1]


def test_one_that_cannot_be_had_does_not_stop_the_others() -> None:
    source = _Source(bad=(2, 6))
    assert run(source) == [0, 1, "step 2 is not to be had", 3, 4, 5, "step 6 is not to be had"]
    assert source.here == set()


def test_what_cannot_be_read_is_released_too() -> None:
    source = _Source()

    def read(path: Path) -> int:
        if path.name == "3":
            raise CheckpointError("step 3 is truncated", expected="all of it", remedy="none")
        return int(path.name)

    assert run(source, read) == [0, 1, 2, "step 3 is truncated", 4, 5, 6]
    assert source.here == set()


def test_an_error_of_ours_is_not_hidden() -> None:
    def read(path: Path) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ReadAhead(cast(Series, _Source()), STEPS, read) as ahead:
        ahead.take()


def test_nothing_holds_what_was_taken() -> None:
    import gc
    import weakref

    class Weights:
        pass

    alive: weakref.WeakSet[Weights] = weakref.WeakSet()

    def read(path: Path) -> Weights:
        made = Weights()
        alive.add(made)
        return made

    with ReadAhead(cast(Series, _Source()), STEPS[:3], read) as ahead:
        for _ in range(3):
            taken = ahead.take()
            assert len(alive) == 1  # the next one is read when this one is let go of
            del taken
            gc.collect()
            assert len(alive) == 0
            ahead.release()
