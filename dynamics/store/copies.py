"""A trace in an object store that is repaired: all of it is fetched into a folder, changed there, and written back.

A repair changes files of any kind in an order of its own, which a mirror, from which the store's word takes back what differs,
does not allow. So it works on a *copy*, an ordinary trace in a folder of the cache, while it holds the lease. What differs in the
end is written in an order in which a kill leaves what a later collection or repair goes on from:

1. the state of each checkpoint of which something else is said now is deleted, then the rest that was said of it;
2. slabs, coordinates and what is derived; the results among them are not listed meanwhile;
3. the root's metadata and what is said of checkpoints, on the condition that nobody else wrote them; their states last;
4. what is not there any more is deleted.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from checkpoints.errors import StoppedError, UserError
from checkpoints.objects import Bucket, ChangedError
from checkpoints.paths import cache_folder

from .journal import journal_file
from .lock import lock_file, locked
from .manifest import ROOT_COPY
from .mirror import bucket_of, derived_in, is_said, mirror_of, pull, pulling, require_inside
from .remote import Lease, without

__all__ = ["copied"]

_ROOT = "zarr.json"


@contextmanager
def copied(trace: Path) -> Iterator[Path]:
    """The copy of a trace in an object store; what differs in it is written back, also where an error stops the work.

    Raises:
        UserError: when another process writes the trace.
        StoppedError: when another process took over meanwhile.
    """
    mirror = mirror_of(trace)
    bucket = bucket_of(mirror)
    assert bucket is not None
    beside = Bucket(bucket.url.rpartition("/")[0])
    with locked(mirror):
        lease = Lease(beside, f"{mirror.name}.lock", lock_file(mirror))
        lease.acquire()
        folder = (
            cache_folder().absolute() / "copies" / hashlib.sha256(bucket.url.encode()).hexdigest()[:16] / mirror.name
        )
        shutil.rmtree(folder.parent, ignore_errors=True)  # of who was killed
        try:
            copy = _Copy(folder, bucket, lease)
            journal = journal_file(folder)
            with suppress(FileNotFoundError):
                beside.download(journal.name, journal)
            try:
                yield folder
            finally:
                copy.write_back()
                if journal.is_file():
                    beside.put(journal.name, journal.read_bytes())
        finally:
            with suppress(UserError), pulling(mirror):  # what it kept may be what was damaged
                shutil.rmtree(mirror, ignore_errors=True)
                pull(mirror, bucket, records=False)
            lease.release()
            shutil.rmtree(folder.parent, ignore_errors=True)


class _Copy:
    """A folder with all objects of a trace.

    Args:
        folder: where; it is made.
        bucket: the objects.
        lease: held all the while.
    """

    def __init__(self, folder: Path, bucket: Bucket, lease: Lease) -> None:
        self._folder, self._bucket, self._lease = folder, bucket, lease
        keys = list(bucket.listing())
        require_inside(keys, mirror_of(Path(bucket.url)))
        etags = bucket.each(lambda key: bucket.download(key, folder / key), keys)
        self._etags: dict[str, str] = dict(zip(keys, etags, strict=True))
        self._before = self._digests()
        self._root = self._content(_ROOT)

    def _content(self, key: str) -> bytes:
        file = self._folder / key
        return file.read_bytes() if file.is_file() else b""

    def _digests(self) -> dict[str, str]:
        """Key to digest of every file that a trace consists of."""
        found = {}
        for file in (p for p in self._folder.rglob("*") if p.is_file() and p.suffix != ".partial"):
            with file.open("rb") as stream:
                key = file.relative_to(self._folder).as_posix()
                found[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        return found

    def write_back(self) -> None:
        """Make the store what the folder is.

        Raises:
            StoppedError: when another process wrote the trace, or may.
        """
        now = self._digests()
        changed = {key for key, digest in now.items() if self._before.get(key) != digest}
        gone = self._before.keys() - now.keys()
        if not changed and not gone:
            return
        touched = changed | gone
        said = {key for key in touched if is_said(key)}
        said |= {f"status/c/{key.rpartition('/')[2]}" for key in said} & (now.keys() | self._before.keys())
        listed = derived_in(self._root)
        replaced = [name for name in listed if any(key.startswith(f"{name}/") for key in touched)]
        if replaced:
            self._put_if(_ROOT, without(self._root, replaced))
        self._delete(sorted(said & self._before.keys(), key=_state_last, reverse=True))
        self._put(sorted(changed - said - {_ROOT, ROOT_COPY}))
        if _ROOT in now and (_ROOT in changed or replaced):
            self._put_if(_ROOT, self._content(_ROOT))
        self._put(changed & {ROOT_COPY})
        for key in sorted(said & now.keys(), key=_state_last):
            self._put_if(key, self._content(key))
        self._delete(sorted(gone - said))

    def _put(self, keys: Iterable[str]) -> None:
        def put(key: str) -> None:
            self._lease.require()
            self._bucket.put(key, self._content(key))

        self._lease.renew()
        self._bucket.each(put, keys)

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

    def _delete(self, keys: Iterable[str]) -> None:
        self._lease.renew()
        for key in keys:
            self._lease.require()
            self._bucket.delete([key])
            self._etags.pop(key, None)


def _state_last(key: str) -> tuple[bool, str]:
    return key.startswith("status/"), key
