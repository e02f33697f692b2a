"""What a process that dies leaves on disk, at every moment of one run of it.

Nothing is written after ``SIGKILL``, so that what a dead process leaves is what was there. One run is therefore watched, and
before each change of a file all files are noted. Between two changes of which one opens a file, the file is first empty and
then half written: these are noted, too. :func:`benchmarks.fault_kills.run` compares some with what ``SIGKILL`` leaves.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fault_writes import Change, watched

__all__ = ["Moment", "State", "moments", "put_state", "state_of"]

State = dict[str, bytes | None]
"""Path to what is in a file; None for a folder."""


@dataclass(frozen=True)
class Moment:
    """A moment at which a process can die.

    Attributes:
        change: the number of the change that comes next, or, if ``within``, is half done.
        within: nothing, ``empty`` or ``half``.
        state: what is on disk then.
    """

    change: int
    within: str
    state: State


@dataclass
class _Scan:
    """Files below a folder, read again only where they differ by size, time or number."""

    folder: Path
    known: dict[str, tuple[tuple[int, int, int], bytes]] = field(default_factory=dict)

    def __call__(self) -> State:
        found: State = {}
        for at, folders, files in os.walk(self.folder):
            place = os.path.relpath(at, self.folder)
            found |= {os.path.normpath(os.path.join(place, name)): None for name in folders}
            for name in files:
                path = os.path.normpath(os.path.join(place, name))
                about = os.stat(os.path.join(at, name))
                mark = (about.st_ino, about.st_size, about.st_mtime_ns)
                if self.known.get(path, ((), b""))[0] != mark:
                    self.known[path] = mark, (Path(at) / name).read_bytes()
                found[path] = self.known[path][1]
        return found


def state_of(folder: Path) -> State:
    """Files and folders below a folder."""
    return _Scan(folder)()


def put_state(folder: Path, state: State) -> None:
    """Make a folder hold this and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(state):
        content = state[path]
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


def moments(work: Callable[[], object], folder: Path) -> list[Moment]:
    """Every moment of some work at which what is below ``folder`` can be left as it is, in order."""
    found: list[Moment] = []
    scan, lock = _Scan(folder), threading.Lock()
    opened: list[Change] = []

    def note(change: Change) -> None:
        with lock:  # another thread waits at its own change
            state = scan()
            for before in opened:
                within(before, state)
            opened[:] = [change] if change.empties else []
            found.append(Moment(change.number, "", state))

    def within(change: Change, after: State) -> None:
        path, before = os.path.relpath(os.path.realpath(change.path), os.path.realpath(folder)), found[-1].state
        if path.startswith(".."):
            return
        found.append(Moment(change.number, "empty", before | {path: b""}))
        if len(content := after.get(path) or b"") > 1:
            found.append(Moment(change.number, "half", before | {path: content[: len(content) // 2]}))

    with watched(note):
        work()
    final = scan()
    for before in opened:
        within(before, final)
    return found
