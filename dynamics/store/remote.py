"""Writing a trace in an object store: through its mirror, each checkpoint's objects first and its state last.

Whoever writes holds the *lease*: an object beside the trace, ``NAME.zarr.lock``, that came into being by a conditional write and
changes every few seconds while its owner lives. One that has not changed for :data:`PATIENCE` seconds of the observer's clock, or
whose owner held a lock of this machine that is free, is taken over by a write on the condition that it still has not changed.

What is said of a checkpoint, and the metadata of the root, are written on the condition that they are what this writer last saw.
So a writer that was taken for dead and wakes up cannot undo what its successor said: its next word is refused, and it stops.
Slabs are written without conditions, before the record that says what they consist of. No store deletes on a condition: before a
record is dropped, and before results are replaced, the lease is renewed, which the store refuses a writer that was followed.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from checkpoints.errors import StoppedError, UserError
from checkpoints.foreign import parse_json
from checkpoints.objects import Bucket, ChangedError
from checkpoints.paths import replace_bytes

from .claims import machine
from .declaration import FEATURES, WEIGHTS
from .journal import merged
from .manifest import MANIFEST, ROOT_COPY, rewrite, slab_files
from .mirror import STATES, bucket_of, derived_in, nodes_in, pull, pulling, remember, remote_url, sealed_of

__all__ = ["BEAT", "PATIENCE", "Lease", "Remote", "lease_of", "leased", "require_unwritten", "without", "writing"]

BEAT = 5.0
"""Seconds between two signs of life."""

PATIENCE = 60.0
"""Seconds without a sign of life after which a writer counts as dead, to an observer who watched all the while."""

_open: dict[Path, Remote] = {}
"""The mirrors that this process writes now."""


def writing(mirror: Path) -> Remote | None:
    """What is to be told of each write to a mirror; None for a trace in a folder."""
    if remote_url(mirror) is None:
        return None
    return _open.get(mirror.absolute())


class Lease:
    """The right to write a trace, until :meth:`release` or until this process gives no sign of life.

    Args:
        bucket: what is beside the trace.
        key: of the lease.
        lock: a file that this process has locked as long as it lives.
    """

    def __init__(self, bucket: Bucket, key: str, lock: Path) -> None:
        self._bucket, self._key = bucket, key
        about = lock.stat()
        self._about: dict[str, Any] = {"id": uuid.uuid4().hex[:16], "pid": os.getpid(), "host": platform.node()}
        self._about |= {"machine": machine(), "lock": [about.st_dev, about.st_ino]}
        self._stop = threading.Event()
        self._seen, self._beats, self._saying = _now(), itertools.count(), threading.Lock()
        self._lost = ""
        self._etag: str | None = None
        self._thread: threading.Thread | None = None

    def _content(self, number: int, **more: Any) -> bytes:
        return json.dumps(self._about | {"beat": number} | more).encode()

    def acquire(self) -> None:
        """Become the one who writes.

        Raises:
            UserError: when another process does.
        """
        watched: tuple[str, float] | None = None
        while True:
            found = self._bucket.get(self._key)
            etag = None if found is None else found[1]
            if found is None or self._is_free(found[0]) or (watched and self._is_silent(watched, found[1])):
                with suppress(ChangedError):  # another was faster
                    self._etag = self._bucket.put_if(self._key, self._content(next(self._beats)), etag)
                    self._seen = _now()
                    self._thread = threading.Thread(target=self._give_signs, name="lease", daemon=True)
                    self._thread.start()
                    return
            elif watched and watched[0] != etag:
                raise _being_written(f"{self._bucket.url}/{self._key.removesuffix('.lock')}", found[0])
            if watched is None or watched[0] != etag:
                watched = (etag or "", time.monotonic())
            time.sleep(BEAT / 5)

    def _is_free(self, content: bytes) -> bool:
        said = _parsed(content)
        mine = [said.get(key) == self._about[key] for key in ("machine", "lock")]
        return bool(said.get("released")) or all(mine)  # its owner would hold the lock that this process holds

    @staticmethod
    def _is_silent(watched: tuple[str, float], etag: str) -> bool:
        return watched[0] == etag and time.monotonic() - watched[1] > PATIENCE

    def _say(self, content: bytes) -> None:
        """Write the lease anew while it is ours, also where the answer to the write before was lost."""
        while True:
            try:
                self._etag = self._bucket.put_if(self._key, content, self._etag)
                return
            except ChangedError:
                found = self._bucket.get(self._key)
                if found is None or found[1] == self._etag or _parsed(found[0]).get("id") != self._about["id"]:
                    raise
                self._etag = found[1]

    def _give_signs(self) -> None:
        while not self._stop.wait(BEAT) and not self._lost:
            with suppress(UserError):  # the store does not answer: it may again
                self._beat()

    def _beat(self) -> None:
        began = _now()
        try:
            with self._saying:
                self._say(self._content(next(self._beats)))
            self._seen = began
        except ChangedError:
            self._lost = "another process took it over"

    def renew(self) -> None:
        """Ask the store whether this process still has the lease, before what carries no condition; others wait anew from now on.

        Raises:
            StoppedError: when it has not, or the store does not answer.
        """
        self.require()
        self._beat()
        self.require()

    def require(self) -> None:
        """Refuse to write once others may count this process as dead.

        Raises:
            StoppedError: when that is so.
        """
        silent = _now() - self._seen
        if self._lost or silent > PATIENCE * 0.75:
            raise StoppedError(
                f"{self._bucket.url}/{self._key.removesuffix('.lock')} is not this process's to write any more: "
                + (self._lost or f"it could give no sign of life for {silent:.0f} s"),
                expected=f"a process that runs, and a store that answers, every {BEAT:.0f} s",
                remedy="run the same command again: it goes on with what is left",
            )

    def release(self) -> None:
        """Let others write; nothing is done where another does already."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if not self._lost:
            with suppress(ChangedError, UserError):  # it goes silent, which says the same later
                self._say(self._content(-1, released=True))


def _now() -> float:
    """Seconds, those in which the machine was suspended too, where it counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _being_written(trace: str, lease: bytes) -> UserError:
    said = _parsed(lease)
    return UserError(
        f"{trace} is being written by another process (process {said.get('pid')} on {said.get('host')})",
        expected="one collector per trace",
        remedy="wait until it has finished, or stop it; what it has collected stays",
    )


def lease_of(mirror: Path) -> tuple[bytes, str] | None:
    """The lease of a trace in an object store, content and etag; None where there is none, and for a trace in a folder."""
    bucket = bucket_of(mirror)
    return None if bucket is None else _beside(bucket).get(f"{mirror.name}.lock")


def require_unwritten(mirror: Path, before: tuple[bytes, str] | None) -> None:
    """Refuse a trace that another process has written since, or writes: it is between two objects, not damaged.

    Args:
        mirror: the folder; nothing is done for a trace in a folder.
        before: the lease as it was before anything of the trace was fetched (:func:`lease_of`).

    Raises:
        UserError: when that is so.
    """
    began = time.monotonic()
    while (now := lease_of(mirror)) == before:
        if now is None or _parsed(now[0]).get("released") or time.monotonic() - began > 3 * BEAT:
            return
        time.sleep(BEAT / 2)
    found = now or before
    raise _being_written(str(remote_url(mirror)), b"" if found is None else found[0])


def _beside(bucket: Bucket) -> Bucket:
    return Bucket(bucket.url.rpartition("/")[0])


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = parse_json(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class Remote:
    """The objects of a trace, while this process writes its mirror.

    Args:
        mirror: the folder.
        bucket: the objects.
        lease: held until this is closed.
    """

    def __init__(self, mirror: Path, bucket: Bucket, lease: Lease) -> None:
        self._mirror, self._bucket, self._lease = mirror, bucket, lease
        with pulling(mirror):  # a reader that began before has ended, and one that comes now sees the lock
            self._etags = pull(mirror, bucket, records=True)
        self._root = self._local("zarr.json")
        if (copy := self._local(ROOT_COPY)) and (bucket.get(ROOT_COPY) or (b"",))[0] != copy:
            self._put(ROOT_COPY)  # a writer was killed between the two
        self._derived = {name: self._local(f"{name}/zarr.json") for name in derived_in(self._root)}

    def _local(self, key: str) -> bytes:
        with suppress(FileNotFoundError):
            return (self._mirror / key).read_bytes()
        return b""

    def _put_if(self, key: str, content: bytes) -> None:
        self._lease.require()
        try:
            self._etags[key] = self._bucket.put_if(key, content, self._etags.get(key))
        except ChangedError as error:
            raise StoppedError(
                f"{self._bucket.url}/{key} was written by another process meanwhile",
                expected="one process that writes a trace",
                remedy="run the same command again: it goes on from what is there now",
            ) from error

    def _put(self, key: str) -> None:
        """Write what the mirror has, whatever is there."""
        self._bucket.put(key, self._local(key))

    def put_entry(self, name: str, index: int) -> None:
        """Write what an array says of one checkpoint, after it was written to the mirror."""
        if name in STATES or name.endswith(f"/{MANIFEST}"):
            key = f"{name}/c/{index}"
            self._put_if(key, (self._mirror / key).read_bytes())
            if key.startswith("status/") and b"complete" in self._local(key):
                self._forget_slabs(index)

    def put_slabs(self, place: str, variables: Sequence[str], index: int) -> None:
        """Write the slabs of a group at one checkpoint; what is noted of them comes after."""
        self._lease.require()
        files = [file for name in variables for file in slab_files(self._mirror / place / name, index)]
        self._bucket.each(lambda file: self._bucket.put(self._key(file), file.read_bytes()), files)
        self._lease.require()

    def _key(self, file: Path) -> str:
        return file.relative_to(self._mirror).as_posix()

    def drop_record(self, place: str, index: int) -> None:
        """Say that a group is not there at a checkpoint; its slabs are written again, under the same names."""
        key = f"{place}/{MANIFEST}/c/{index}"
        if key in self._etags:
            self._lease.renew()
            self._bucket.delete([key])
            del self._etags[key]

    def _forget_slabs(self, index: int) -> None:
        """Make room: what is in the store is fetched again when it is read. Sketches of weights are needed soon."""
        for group in (p for p in self._mirror.iterdir() if p.is_dir() and p.name not in (WEIGHTS, "results", FEATURES)):
            for slab in group.glob(f"*/c/{index}"):
                if slab.parent.parent.name not in (MANIFEST, "step"):
                    slab.unlink() if slab.is_file() else shutil.rmtree(slab)

    def publish(self) -> None:
        """Write metadata, coordinates, results and features that changed; each change counts from one conditional write on."""
        root = self._local("zarr.json")
        names = derived_in(root)
        derived = {name: self._local(f"{name}/zarr.json") for name in names}
        if not root or (root == self._root and derived == self._derived):
            return
        changed = [name for name, content in derived.items() if self._derived.get(name) != content]
        if unlisted := [name for name in self._derived if name in changed or name not in derived]:
            self._put_if("zarr.json", without(self._root, unlisted))  # nobody reads a mixture of old and new
        before, files = sealed_of(self._root), sealed_of(root)
        keys = [name for name, entry in files.items() if before.get(name) != entry]
        keys += sorted({f"{name.partition('/')[0]}/zarr.json" for name in changed})
        for name in changed:
            keys += [*(f"{name}/{file}" for file in sealed_of(derived[name])), f"{name}/zarr.json"]
        self._lease.renew()
        self._bucket.each(self._put, keys)
        self._put_if("zarr.json", root)
        if (self._mirror / ROOT_COPY).is_file():
            self._put(ROOT_COPY)
        gone = [key for key in before if key not in files]
        for name in unlisted:
            kept = (
                {*(f"{name}/{file}" for file in sealed_of(derived[name])), f"{name}/zarr.json"}
                if name in derived
                else set()
            )
            gone += [key for key in self._bucket.listing(name) if key not in kept]
        self._bucket.delete(gone)
        self._root, self._derived = root, derived

    def close(self) -> None:
        """Write what is left to write, and remember what is in the store."""
        if not self._mirror.exists() and self._root:
            self._lease.renew()
            keys = list(self._bucket.listing())
            if any(
                "/manifest/c/" in key or key.startswith("weights_digest/c/") for key in keys
            ):  # somebody deleted the cache: what was measured stays
                return
            self._bucket.delete(["zarr.json", *keys])  # nothing was measured, and the declaration is another
            self._etags = {}
        self.publish()
        remember(self._mirror, self._etags)


def without(root: bytes, names: Sequence[str]) -> bytes:
    """A root's metadata without some results and features."""
    nodes = {n: node for n, node in nodes_in(root).items() if not any(n == g or n.startswith(f"{g}/") for g in names)}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "zarr.json").write_bytes(root)
        rewrite(folder, metadata=nodes)
        return (folder / "zarr.json").read_bytes()


@contextmanager
def leased(trace: Path, lock: Path, journal: Path) -> Iterator[None]:
    """Within this, this process writes a trace in an object store; nothing for one in a folder.

    Args:
        trace: the mirror.
        lock: of the mirror, held by this process.
        journal: of the trace, which is kept beside it in the store.

    Raises:
        UserError: when another process writes it.
        StoppedError: when another process took over meanwhile.
    """
    bucket = bucket_of(trace)
    if bucket is None:
        yield
        return
    beside = _beside(bucket)
    lease = Lease(beside, f"{trace.name}.lock", lock)
    lease.acquire()
    mirror = trace.absolute()
    try:
        if (found := beside.get(journal.name)) is not None:
            here = journal.read_bytes() if journal.is_file() else b""
            replace_bytes(journal, merged(found[0], here))
        remote = _open[mirror] = Remote(mirror, bucket, lease)
        try:
            yield
        finally:
            del _open[mirror]
            remote.close()
            if journal.is_file():
                beside.put(journal.name, journal.read_bytes())
    finally:
        lease.release()
