"""Many processes that write one trace at once: which of them live, and which checkpoint is whose.

Beside the trace is the folder ``NAME.zarr.shards`` while there are such processes. Each has in it

- ``ID.json``: what it is (its shard, process, host), from when it joins until it leaves;
- ``ID.lock``: locked while it lives, which another process on the same machine sees at once;
- ``ID.beat``: a number that grows every :data:`BEAT` seconds, which a process on any machine sees;
- ``ID.doing``: what it is measuring, for messages, and ``ID.journal.jsonl``: its part of the journal.

``claims/INDEX.NUMBER`` is a folder with one file, called after the process that owns the checkpoint. It comes into being whole, by
one rename of a folder, which fails where there is one of that name. A claim is never taken back: where its owner is dead, another
process makes the claim with the next number. So two that find the same owner dead cannot both follow it.

A process is dead when it has left, when its lock is free, or when its beat has not changed for :data:`PATIENCE` seconds of the
observer's own monotonic clock: no two machines' clocks are compared.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from checkpoints.errors import StoppedError
from checkpoints.foreign import read_json
from checkpoints.paths import replace_text

from .places import beside

__all__ = [
    "BEAT",
    "PATIENCE",
    "Claims",
    "Member",
    "Watcher",
    "clear_shards",
    "is_held",
    "machine",
    "members_of",
    "shards_folder",
]

BEAT = 2.0
"""Seconds between two signs of life."""

PATIENCE = 60.0
"""Seconds without a sign of life after which a process counts as dead, to an observer who watched all the while."""

State = Literal["alive", "dead", "unknown"]
_DOOR = "door"
_RELEASED = "released"


def shards_folder(trace: Path) -> Path:
    """Where the processes are noted that write a trace together."""
    return beside(trace, ".shards")


@dataclass(frozen=True)
class Member:
    """One of the processes that write a trace together, as it describes itself.

    Attributes:
        id: its own name, which no other has.
        shard: which part it began with, such as ``3/16``, or what else it is.
        pid: number of the process on its machine.
        host: name of the machine.
        working: whether it has begun; before, it waits for others that begin.
    """

    id: str
    shard: str
    pid: int
    host: str
    working: bool

    def __str__(self) -> str:
        return f"{self.shard} (process {self.pid} on {self.host})"


def members_of(trace: Path) -> list[Member]:
    """Those that joined and have not left, dead or alive."""
    found = []
    for file in sorted(shards_folder(trace).glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):  # it left just now, or is none of ours
            said = read_json(file, dict)
            about = (str(said["shard"]), int(said["pid"]), str(said["host"]), bool(said["working"]))
            found.append(Member(file.stem, *about))
    return sorted(found, key=lambda member: (len(member.shard), member.shard, member.id))


def clear_shards(trace: Path) -> None:
    """Forget who wrote a trace together; the caller holds its lock, and has seen that all of them are dead."""
    shutil.rmtree(shards_folder(trace), ignore_errors=True)


class Watcher:
    """Tells who is alive, as far as it has watched.

    Args:
        trace: the trace.
        patience: see :data:`PATIENCE`.
    """

    def __init__(self, trace: Path, *, patience: float = PATIENCE) -> None:
        self._folder = shards_folder(trace)
        self._patience = patience
        self._seen: dict[str, tuple[bytes, float, bool]] = {}
        self._machine = machine()

    def state(self, identity: str) -> State:
        """Of one process: ``unknown`` where it is on another machine and has not been watched for long enough."""
        said: dict[str, Any] = {}
        try:
            said = read_json(self._folder / f"{identity}.json", dict)
        except FileNotFoundError:
            return "dead"
        except (OSError, ValueError):  # the file system does not answer; the beat decides
            pass
        near = said.get("machine") == self._machine and bool(said.get("locked"))
        if near and _is_free(self._folder / f"{identity}.lock"):
            if not (self._folder / f"{identity}.json").exists():  # it left meanwhile: asking made its lock anew
                with suppress(OSError):
                    (self._folder / f"{identity}.lock").unlink(missing_ok=True)
                    self._folder.rmdir()
            return "dead"
        try:
            beat = (self._folder / f"{identity}.beat").read_bytes()
        except OSError:
            beat = b""
        now = time.monotonic()
        before, since, changed = self._seen.get(identity, (beat, now, near))
        if beat != before:
            since, changed = now, True
        self._seen[identity] = (beat, since, changed)
        if now - since > self._patience:
            return "dead"
        return "alive" if changed else "unknown"

    def settled(self, identity: str) -> State:
        """The same, waited for: ``alive`` or ``dead``."""
        while (state := self.state(identity)) == "unknown":
            time.sleep(BEAT / 4)
        return state


def _is_free(file: Path) -> bool:
    """Whether a lock on this machine is held by nobody; False where nobody can know."""
    if not file.is_file():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0.1, poll_interval=0.02)  # another that asks holds it for a moment
    except (Timeout, OSError, NotImplementedError):
        return False
    lock.release()
    return True


def is_held(file: Path) -> bool:
    """Whether a process of this machine, this one for instance, holds a lock; nothing is written by asking."""
    return file.is_file() and not file.is_symlink() and not _is_free(file)


def machine() -> str:
    """One running system, in which a lock is seen by all processes; host names may be shared, and boots differ."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{socket.gethostname()} {uuid.getnode():x}"


class Claims:
    """The part that this process has in writing a trace: it gives signs of life from :meth:`join` to :meth:`leave`.

    Args:
        trace: the trace.
        shard: which part it is to begin with, in words.
        patience: see :data:`PATIENCE`.
    """

    def __init__(self, trace: Path, shard: str, *, patience: float = PATIENCE) -> None:
        self.trace, self.shard = trace, shard
        self.id = uuid.uuid4().hex[:16]
        self.watcher = Watcher(trace, patience=patience)
        self._folder = shards_folder(trace)
        self._lock: FileLock | None = None
        self._working = False
        self._stop = threading.Event()
        self._mine: dict[str, int] = {}

    @property
    def journal(self) -> Path:
        """This process's own journal: two that append to one file of a network lose lines."""
        return self._folder / f"{self.id}.journal.jsonl"

    def join(self) -> None:
        """Say that this process writes the trace; the caller holds the trace's lock, so that nobody writes it alone.

        Raises:
            OSError: when the folder cannot be written.
        """
        (self._folder / "claims").mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / f"{self.id}.lock")
        with suppress(OSError, NotImplementedError):  # a file system without locks: there is the beat
            lock.acquire(timeout=0)
            self._lock = lock
        beat = os.open(self._folder / f"{self.id}.beat", os.O_CREAT | os.O_WRONLY)
        os.write(beat, b"%020d" % 0)
        self._say_what()
        threading.Thread(target=self._give_signs, args=(beat,), name="signs of life", daemon=True).start()

    def begin(self) -> None:
        """Say that this process has found or made the trace as it is to be, and works on it."""
        self._working = True
        self._say_what()

    def _say_what(self) -> None:
        about = {"shard": self.shard, "pid": os.getpid(), "host": platform.node(), "machine": machine()}
        about |= {"locked": self._lock is not None, "working": self._working}
        replace_text(self._folder / f"{self.id}.json", json.dumps(about))

    def _give_signs(self, beat: int) -> None:
        number = 0
        while not self._stop.wait(BEAT):
            number += 1
            with suppress(OSError):
                os.pwrite(beat, b"%020d" % number, 0)  # in place: a full disk does not stop it
        os.close(beat)

    def leave(self) -> None:
        """The opposite of :meth:`join`; what this process claimed and did not end is anybody's."""
        self._stop.set()
        for kind in ("json", "doing", "beat", "lock"):
            with suppress(OSError):
                (self._folder / f"{self.id}.{kind}").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        with suppress(OSError):  # filelock may have made it anew
            (self._folder / f"{self.id}.lock").unlink(missing_ok=True)

    def say_doing(self, doing: str) -> None:
        """For others to read (:meth:`doing_of`)."""
        with suppress(OSError):
            replace_text(self._folder / f"{self.id}.doing", doing)

    def others(self) -> list[Member]:
        """The living ones besides this process; who is not known yet is waited for."""
        return [m for m in members_of(self.trace) if m.id != self.id and self.watcher.settled(m.id) == "alive"]

    def take(self, index: int) -> State | Literal["mine"]:
        """Claim a checkpoint: ``mine``, or the state of whoever has it."""
        return self._take(str(index))

    def _take(self, what: str) -> State | Literal["mine"]:
        number = self._last(what)
        if number >= 0:
            owner = self._owner(what, number)
            if owner == self.id:
                return "mine"
            if owner != _RELEASED and (state := self.watcher.state(owner)) != "dead":
                return state
        new = self._folder / f"{self.id}.{what}.claim"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        (new / self.id).touch()
        try:
            os.rename(new, self._folder / "claims" / f"{what}.{number + 1}")
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            if self._last(what) <= number:  # not because another was faster
                raise
            if self._owner(what, number + 1) != self.id:  # a server may have done it and lost its answer
                return "unknown"
        self._mine[what] = number + 1
        return "mine"

    def _last(self, what: str) -> int:
        """The number of the newest claim; -1 for none."""
        numbers = (p.name.rpartition(".") for p in (self._folder / "claims").iterdir())
        return max((int(n) for name, _, n in numbers if name == what and n.isdecimal()), default=-1)

    def _owner(self, what: str, number: int) -> str:
        with suppress(OSError):
            return next(iter(os.listdir(self._folder / "claims" / f"{what}.{number}")), _RELEASED)
        return _RELEASED

    def require(self, index: int) -> None:
        """Refuse to write a checkpoint that another process has taken over, because this one gave no sign of life.

        Raises:
            StoppedError: when that is so.
        """
        number = self._mine.get(str(index), -1)
        place = self._folder / "claims"
        held = (place / f"{index}.{number}" / self.id).exists()
        if number < 0 or not held or (place / f"{index}.{number + 1}").exists():
            raise StoppedError(
                f"shard {self.shard} of {self.trace} was silent for more than {PATIENCE:.0f} s, and counts as dead: "
                "others go on with its checkpoints",
                expected=f"a process that runs, and a file system that answers, every {BEAT:.0f} s",
                remedy="run the same command again: it goes on with what is left",
            )

    @contextmanager
    def door(self) -> Iterator[None]:
        """What only one of these processes may do at a time; a dead one's place is taken."""
        while (state := self._take(_DOOR)) != "mine":
            time.sleep(0.02 if state == "alive" else BEAT / 4)
        number = self._mine[_DOOR]
        folder = self._folder / "claims" / f"{_DOOR}.{number}"
        try:
            yield
        finally:
            with suppress(OSError):
                os.rename(folder / self.id, folder / _RELEASED)

    @staticmethod
    def doing_of(trace: Path, identity: str) -> str:
        """What a process said last that it is doing."""
        with suppress(OSError):
            return (shards_folder(trace) / f"{identity}.doing").read_text(encoding="utf-8", errors="replace")
        return ""

    @staticmethod
    def owned(trace: Path, identity: str) -> list[int]:
        """Indices of the checkpoints that a process has claimed, whether or not it has ended them."""
        newest: dict[int, tuple[int, str]] = {}
        for folder in (shards_folder(trace) / "claims").glob("*.*"):
            name, _, number = folder.name.rpartition(".")
            if name.isdecimal() and number.isdecimal():
                with suppress(OSError, StopIteration):
                    found = (int(number), next(iter(os.listdir(folder))))
                    newest[int(name)] = max(newest.get(int(name), (-1, "")), found)
        return sorted(index for index, (_, owner) in newest.items() if owner == identity)
