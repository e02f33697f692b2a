"""One writer per trace: a lock that the operating system releases when its owner dies.

The file of the lock stays beside its trace. It is deleted, while it is held, only where there is no trace: a process that opened
it before then holds a file without a name, which ``filelock`` notices and tries again.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from checkpoints.errors import UserError, unwritable
from checkpoints.foreign import read_json
from checkpoints.paths import replace_text

__all__ = ["doing_now", "is_locked", "say_doing", "writer_lock"]


@contextmanager
def writer_lock(trace: Path) -> Iterator[None]:
    """Hold the trace's lock (``NAME.zarr.lock`` beside it).

    Raises:
        UserError: when another living process holds it (named), or the folder cannot be written.
    """
    file = _lock_file(trace)
    owner = _owner(trace)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise UserError(
                f"{file} is not the file that is locked while {trace.name} is written, but a link, a folder or a device",
                expected="a file that this program made, or none",
                remedy="see what it is, and delete or rename it",
            )
        lock = FileLock(file)
        lock.acquire(timeout=0.25, poll_interval=0.05)  # who only asks whether it is free holds it for a moment
    except Timeout as error:
        raise UserError(
            f"{trace} is being written by another process{_describe(owner)}",
            expected="one collector per trace",
            remedy="wait until it has finished, or stop it; what it has collected stays",
        ) from error
    except OSError as error:
        raise unwritable(str(file.parent), error, option="--traces") from error
    try:
        say_doing(trace, "")
        yield
    finally:
        try:
            with suppress(OSError):  # where a locked file cannot be deleted, it stays
                owner.unlink(missing_ok=True)
                if not trace.exists():  # a request that was refused leaves nothing
                    file.unlink()
        finally:
            lock.release()


def is_locked(trace: Path) -> bool:
    """Whether a living process writes a trace now; nothing is written by asking, and False where nobody can know."""
    file = _lock_file(trace)
    if not file.is_file() or file.is_symlink():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def say_doing(trace: Path, doing: str) -> None:
    """For others to read what the process that holds the lock is doing (:func:`doing_now`)."""
    content = {"pid": os.getpid(), "host": platform.node(), "doing": doing}
    with suppress(OSError):  # it is for messages only; a link or a pipe of that name gives way
        replace_text(_owner(trace), json.dumps(content))


def doing_now(trace: Path) -> str:
    """What the process that writes a trace said last; empty where none has said anything."""
    try:
        return str(read_json(_owner(trace), dict).get("doing", ""))
    except (OSError, ValueError):
        return ""


def _lock_file(trace: Path) -> Path:
    return trace.with_name(trace.name + ".lock")


def _owner(trace: Path) -> Path:
    return trace.with_name(trace.name + ".owner")


def _describe(owner: Path) -> str:
    try:
        content = read_json(owner, dict)
    except (OSError, ValueError):
        return ""
    return f" (process {content.get('pid')} on {content.get('host')})"
