"""One writer per trace, or several that share it out: a lock that the operating system releases when its owner dies.

Who writes a trace alone holds the lock, and sees that nobody writes it with others. Who writes it with others (a *shard*) holds
the lock while it joins (:func:`joined`), and is seen from then on by its signs of life (:mod:`dynamics.store.claims`).

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

from .claims import Claims, Member, Watcher, clear_shards, members_of, shards_folder
from .journal import add_journals, journal_file
from .mirror import require_folder
from .places import beside
from .remote import leased

__all__ = [
    "alone",
    "doing_now",
    "is_locked",
    "joined",
    "living_members",
    "lock_file",
    "locked",
    "say_doing",
    "writer_lock",
]

_WRITING = 60.0
"""Seconds for which who writes a folder waits until another process has written it."""

_JOINING = 90.0
"""Seconds for which a shard waits until whoever writes the trace alone (results, for instance) has ended."""


@contextmanager
def writer_lock(trace: Path) -> Iterator[None]:
    """Hold the trace's lock (``NAME.zarr.lock`` beside it), to write it alone; in an object store, its lease.

    Raises:
        UserError: when other living processes write it (named), or the folder cannot be written.
    """
    with locked(trace):  # who only asks whether it is free holds it for a moment
        if shards_folder(trace).exists():
            if members := living_members(trace):
                raise UserError(
                    f"{trace} is being written by {_named(members)}",
                    expected="one collector per trace, or shards of it only",
                    remedy="wait until they have finished, or stop them; what they have collected stays",
                )
            add_journals(trace)
            clear_shards(trace)
        say_doing(trace, "")
        with leased(trace, lock_file(trace), journal_file(trace)):
            yield


@contextmanager
def joined(trace: Path, claims: Claims) -> Iterator[bool]:
    """Begin to write a trace with others: within this, this process is the only one that begins or writes it alone.

    Yields whether it is the first: nobody else has begun to write the trace. It goes on being one of its writers until
    :meth:`Claims.leave`; where an error ends the block, it is none.

    Raises:
        UserError: when another process writes the trace alone, or the folder cannot be written.
    """
    require_folder(trace, "sharing the checkpoints of a run out")
    try:
        with locked(trace, timeout=_JOINING):
            claims.join()
    except OSError as error:
        raise unwritable(str(trace.parent), error, option="--traces") from error
    try:
        with claims.door():
            yield not any(member.working for member in claims.others())
            claims.begin()
    except BaseException:
        claims.leave()
        raise


def living_members(trace: Path) -> list[Member]:
    """The processes that write a trace together now; those of which it is not known are watched until it is."""
    watcher = Watcher(trace)
    return [member for member in members_of(trace) if watcher.settled(member.id) == "alive"]


def _named(members: list[Member]) -> str:
    shown = ", ".join(map(str, members[:4])) + (f" and {len(members) - 4} more" if len(members) > 4 else "")
    return f"{'shard' if len(members) == 1 else 'shards'} {shown}"


@contextmanager
def locked(trace: Path, *, timeout: float = 0.25) -> Iterator[None]:
    """Hold the lock of a trace, or of a mirror, and nothing else; see :func:`writer_lock`."""
    file = lock_file(trace)
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
        lock.acquire(timeout=timeout, poll_interval=0.05)
    except Timeout as error:
        raise UserError(
            f"{trace} is being written by another process{_describe(owner)}",
            expected="one collector per trace",
            remedy="wait until it has finished, or stop it; what it has collected stays",
        ) from error
    except OSError as error:
        raise unwritable(str(file.parent), error, option="--traces") from error
    try:
        yield
    finally:
        try:
            with suppress(OSError):  # where a locked file cannot be deleted, it stays
                owner.unlink(missing_ok=True)
                if not trace.exists():  # a request that was refused leaves nothing
                    file.unlink()
        finally:
            lock.release()


@contextmanager
def alone(folder: Path, what: str, *, patience: float = _WRITING) -> Iterator[None]:
    """Write a folder that is no trace alone, as what two processes write into it at once would be mixed.

    Args:
        folder: the folder, beside which ``NAME.lock`` lies meanwhile.
        what: what it is, for the message.
        patience: seconds to wait for another process.

    Raises:
        UserError: when another process writes it.
        OSError: when nothing can be written there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=patience, poll_interval=0.1)
    except NotImplementedError:  # a file system without locks
        pass
    except Timeout as error:
        raise UserError(
            f"{what} is being written by another process",
            expected="one process at a time that writes it",
            remedy="wait until that has finished, then run the same command again",
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def is_locked(trace: Path) -> bool:
    """Whether a living process writes a trace alone now; nothing is written by asking, and False where nobody can know."""
    file = lock_file(trace)
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


def lock_file(trace: Path) -> Path:
    """What is locked while a trace is written."""
    return beside(trace, ".lock")


def _owner(trace: Path) -> Path:
    return beside(trace, ".owner")


def _describe(owner: Path) -> str:
    try:
        content = read_json(owner, dict)
    except (OSError, ValueError):
        return ""
    return f" (process {content.get('pid')} on {content.get('host')})"
