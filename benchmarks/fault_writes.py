"""Faults at changes of files: a process that dies, or a disk that is full, at the n-th of them.

Changes are what Python asks the system for: opening a file for writing, a new name, a new folder, a deletion. What a
compiled library writes by itself is not seen.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

__all__ = ["Change", "Changes", "Died", "dying", "full", "killed", "watched"]


class Died(BaseException):
    """Stands for the death of the process where it is not to die: nothing that it does afterwards changes a file."""


class Change(NamedTuple):
    """What is about to be changed; ``empties``: a file that is opened and has nothing in it then."""

    number: int
    verb: str
    path: str
    empties: bool

    def empty(self) -> None:
        """Do the first half of it: the file is there, and nothing is written to it."""
        if self.empties:
            os.close(_LOW(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))


Fault = Callable[[Change], None]
_LOW = os.open


@dataclass
class Changes:
    """Changes of files that were asked for, in order; ``fault`` is asked before each, and may raise."""

    fault: Fault
    seen: list[Change] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def ask(self, verb: str, path: object, empties: bool = False) -> None:
        """Count a change, and let the fault happen if it is its turn; locks and devices are no data."""
        if not isinstance(path, str | bytes | os.PathLike):  # a file that is open
            return
        text = os.fsdecode(path)
        if text.endswith((".lock", ".owner", ".owner.partial")) or text in (os.devnull, "/dev/full", "/dev/tty"):
            return
        with self._lock:
            change = Change(len(self.seen) + 1, verb, text, empties)
            self.seen.append(change)
        self.fault(change)


@contextmanager
def watched(fault: Fault = lambda change: None) -> Iterator[Changes]:
    """Within this, ``fault`` is called before every change of a file, in whatever thread."""
    changes = Changes(fault)
    opened = io.open

    def open_(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if set(mode) & set("wax+"):
            changes.ask("open", file, "w" in mode or "x" in mode)
        return opened(file, mode, *rest, **named)

    def low(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            changes.ask("open", path, bool(flags & (os.O_TRUNC | os.O_EXCL)))
        return _LOW(path, flags, *rest, **named)

    def asked(verb: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def change(path: Any, *rest: Any, **named: Any) -> Any:
            changes.ask(verb, path)
            return original(path, *rest, **named)

        return change

    verbs = {"rename": "rename", "replace": "rename", "mkdir": "mkdir", "unlink": "unlink", "remove": "unlink"}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(builtins, "open", open_))
        stack.enter_context(mock.patch.object(io, "open", open_))
        stack.enter_context(mock.patch.object(os, "open", low))
        for name, verb in (verbs | {"rmdir": "rmdir"}).items():
            stack.enter_context(mock.patch.object(os, name, asked(verb, getattr(os, name))))
        yield changes


def killed(at: int, *, within: bool = False) -> Fault:
    """This process dies before its ``at``-th change, or ``within``: when a file was opened and nothing written to it."""

    def fault(change: Change) -> None:
        if change.number == at:
            if within:
                change.empty()
            os.kill(os.getpid(), signal.SIGKILL)

    return fault


def dying(at: int, *, within: bool = False) -> Fault:
    """The same without killing: from that change on nothing is changed any more, as if this process had died."""

    def fault(change: Change) -> None:
        if change.number == at and within:
            change.empty()
        if change.number >= at:
            raise Died(f"{change.verb} {change.path}")

    return fault


def full(at: int, *, again: int | None = None) -> Fault:
    """A disk that is full from the ``at``-th change on: files have nothing in them, and there are no new folders.

    ``again``: there is room again from that change on.
    """

    def fault(change: Change) -> None:
        if change.number < at or (again is not None and change.number >= again):
            return
        if change.verb in ("open", "mkdir"):
            change.empty()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), change.path)

    return fault
