"""A trace in an object store is read through a folder of the cache that holds what was fetched of it: its mirror.

The mirror has the trace's own files under their own names, so that whatever reads or writes a trace in a folder reads or writes
this one. *Pulling* makes it what the store says by now: metadata, coordinates and results by the digests in their seals, what is
said of each checkpoint by the etags that a listing gives. Slabs, which do not change once their checkpoint is complete, are
fetched when they are read, and kept; where what was noted of them is another by now, they are dropped.

What is in the store is the truth: what a mirror has and the store has not is deleted when it is pulled.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from checkpoints.errors import UserError
from checkpoints.foreign import read_json
from checkpoints.objects import Bucket, StoredObject, is_url, url_of
from checkpoints.paths import cache_folder, replace_bytes, replace_text

from .claims import is_held
from .declaration import FEATURES
from .manifest import FLAGS, MANIFEST, ROOT_COPY, intact, parsed, unlike

__all__ = [
    "STATES",
    "FetchingStore",
    "bucket_of",
    "derived_in",
    "fetch_whole",
    "is_said",
    "located",
    "mirror_of",
    "nodes_in",
    "place_of",
    "pull",
    "pulling",
    "remember",
    "remote_url",
    "require_folder",
    "require_inside",
    "sealed_of",
]

STATES = ("status", "reason", *FLAGS, MANIFEST)
"""Arrays of the root with one object for each checkpoint."""

_FRESH = 2.0
"""Seconds for which a mirror that was pulled is not pulled again."""

_CHUNK = re.compile(r"(.+)/c/(\d+)(?:/\d+)*")
_last: dict[Path, float] = {}


def located(path: Path) -> Path:
    """Where a trace's files are: for one in an object store its mirror, which is made what the store says by now."""
    if not is_url(path):
        if remote_url(path) is not None:
            pulled(path)
        return path
    mirror = mirror_of(path)
    pulled(mirror)
    return mirror


def mirror_of(path: Path) -> Path:
    """The mirror of a trace in an object store, as it is."""
    scheme, _, rest = url_of(path).partition("://")
    return _mirrors() / scheme / rest


def _mirrors() -> Path:
    return cache_folder().absolute() / "stores"


def remote_url(path: Path) -> str | None:
    """The URL of which a folder is the mirror; None for any other folder."""
    try:
        scheme, *rest = path.absolute().relative_to(_mirrors()).parts
    except ValueError:
        return None
    return f"{scheme}://{'/'.join(rest)}"


def place_of(path: Path) -> str:
    """A trace's place as the user named it."""
    return remote_url(path) or str(path)


def require_folder(trace: Path, what: str) -> None:
    """Refuse what a trace in an object store, or a folder of traces there, cannot do.

    Raises:
        UserError: when it is one.
    """
    if url := url_of(trace) if is_url(trace) else remote_url(trace):
        raise UserError(
            f"{what} is not possible in an object store ({url})",
            expected="traces in a folder",
            remedy="do it on a copy in a folder, of which the objects are the files, and copy that back",
        )


def bucket_of(path: Path) -> Bucket | None:
    """The objects of which a folder is the mirror; None for any other folder."""
    url = remote_url(path)
    return None if url is None else Bucket(url)


def pulled(mirror: Path) -> None:
    """Pull a mirror, unless that was done just now, or a process of this machine writes it: what it has is newer."""
    if time.monotonic() - _last.get(mirror, -_FRESH) < _FRESH:
        return
    bucket = bucket_of(mirror)
    assert bucket is not None
    with pulling(mirror):
        if not _is_written(mirror):
            pull(mirror, bucket, records=False)


def pulling(mirror: Path) -> FileLock:
    """What is held while a mirror is pulled: one that was pulled by two at once would be neither's."""
    mirror.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(mirror.with_name(f"{mirror.name}.pull"))


def _is_written(mirror: Path) -> bool:
    """Whether a process of this machine writes a mirror."""
    return is_held(mirror.with_name(f"{mirror.name}.lock"))


def _index(mirror: Path) -> Path:
    return mirror.with_name(f"{mirror.name}.etags.json")


def remember(mirror: Path, etags: dict[str, str]) -> None:
    """Keep the etags of what is in a mirror and has no digest in a seal."""
    replace_text(_index(mirror), json.dumps(etags))


def fetch_whole(mirror: Path) -> None:
    """Fetch every object of a trace anew, so that what is in the store can be held against what was written."""
    if (bucket := bucket_of(mirror)) is None:
        return
    with pulling(mirror):
        if _is_written(mirror):
            raise UserError(
                f"{remote_url(mirror)} is being written by a process of this machine",
                expected="a trace that nobody writes while every object of it is compared",
                remedy="wait until it has finished, or stop it; what is complete stays",
            )
        shutil.rmtree(mirror, ignore_errors=True)
        keys = list(bucket.listing())
        require_inside(keys, mirror)
        etags = zip(keys, bucket.each(lambda key: _fetch(mirror, bucket, key), keys), strict=True)
        remember(mirror, {key: etag for key, etag in etags if etag and is_said(key)})


def is_said(key: str) -> bool:
    """Whether an object is what is said of one checkpoint by the root or a group that the trace lists."""
    array = key.rpartition("/c/")[0]
    return array in STATES or (array.count("/") == 1 and array.endswith(f"/{MANIFEST}"))


def pull(mirror: Path, bucket: Bucket, *, records: bool) -> dict[str, str]:
    """Make a mirror what its store says.

    Args:
        mirror: the folder; it goes where the store has no trace.
        bucket: its objects.
        records: also fetch what is noted of each group at each checkpoint, which only writers read.

    Returns:
        Key to etag, of the root's metadata and of what is said of each checkpoint.
    """
    before: dict[str, str] = {}
    with suppress(OSError, ValueError):
        before = dict(read_json(_index(mirror), dict))
    while (root := bucket.get("zarr.json")) is not None:
        etags = _pull_listed(mirror, bucket, *root, before, records=records)
        now = bucket.get("zarr.json", {"range": (0, 1)}) if derived_in(root[0]) else root
        if now is not None and now[1] == root[1]:
            break
        before = etags  # else results may be of before and after a change
    else:
        if not any(mirror.glob("*.etags.json")) and not any(
            mirror.glob("*.lock")
        ):  # a folder of traces has mirrors in it
            shutil.rmtree(mirror, ignore_errors=True)
        etags = {}
    remember(mirror, etags)
    _last[mirror] = time.monotonic()
    return etags


def _pull_listed(
    mirror: Path, bucket: Bucket, content: bytes, etag: str, before: dict[str, str], *, records: bool
) -> dict[str, str]:
    """Pull what a root's metadata list."""
    require_inside([*nodes_in(content), *sealed_of(content)], mirror)
    _drop_groups(mirror, content)
    _fetch_sealed(mirror, bucket, "", content)
    etags = {"zarr.json": etag} | _pull_states(mirror, bucket, before, groups_in(content), records=records)
    replace_bytes(mirror / "zarr.json", content)
    if MANIFEST in (parsed(content).get("consolidated_metadata") or {}).get("metadata", {}):
        replace_bytes(mirror / ROOT_COPY, content)
    _pull_derived(mirror, bucket, content)
    return etags


def require_inside(names: Iterable[str], mirror: Path) -> None:
    """Refuse names that a store says and that would lead out of a mirror."""
    from checkpoints.hub.files import is_safe

    if wrong := next((name for name in names if not is_safe(name)), None):
        raise UserError(
            f"the trace at {remote_url(mirror)} names a file {wrong!r}, which is outside of it",
            expected="names below the trace's own folder",
            remedy="do not use this trace: no version of this program writes such a name",
        )


def nodes_in(content: bytes) -> dict[str, Any]:
    """Path to metadata of every node that a root's metadata list."""
    return dict((parsed(content).get("consolidated_metadata") or {}).get("metadata") or {})


def groups_in(content: bytes) -> dict[str, str]:
    """Name to what was asked, of the groups that a root's metadata list."""
    return {
        name: str(node["attributes"].get("asked", ""))
        for name, node in nodes_in(content).items()
        if node["node_type"] == "group" and "/" not in name and name not in ("results", FEATURES)
    }


def _drop_groups(mirror: Path, content: bytes) -> None:
    """Drop of a mirror the groups that are others by now, or are not listed any more."""
    mirror.mkdir(parents=True, exist_ok=True)
    old = (mirror / "zarr.json").read_bytes() if (mirror / "zarr.json").is_file() else b""
    known, now = groups_in(old), groups_in(content)
    for folder in (p for p in mirror.iterdir() if p.is_dir() and p.name not in _flat(content)):
        if known.get(folder.name) != now.get(folder.name, ""):
            shutil.rmtree(folder, ignore_errors=True)


def _flat(content: bytes) -> set[str]:
    """The arrays of the root, and what is derived."""
    arrays = {n for n, node in nodes_in(content).items() if node["node_type"] == "array" and "/" not in n}
    return arrays | {"results", FEATURES}


def _fetch_sealed(mirror: Path, bucket: Bucket, folder: str, content: bytes) -> None:
    """Fetch what a folder's seal names and the mirror has not like that."""
    files, prefix = sealed_of(content), f"{folder}/" if folder else ""
    wanted = [f for f, entry in files.items() if unlike(mirror / (prefix + f), entry)]
    if not files:  # of an earlier version, which notes none
        wanted = [key.removeprefix(prefix) for key in bucket.listing(folder) if not (mirror / key).is_file()]
    bucket.each(lambda f: _fetch(mirror, bucket, prefix + f), wanted)


def _fetch(mirror: Path, bucket: Bucket, key: str) -> str:
    """Fetch one object, its etag; nothing stays where there is none by now."""
    try:
        return bucket.download(key, mirror / key)
    except FileNotFoundError:
        (mirror / key).unlink(missing_ok=True)
        return ""


def _pull_states(
    mirror: Path, bucket: Bucket, before: dict[str, str], groups: Iterable[str], *, records: bool
) -> dict[str, str]:
    """What is said of each checkpoint; slabs of which something else was noted are dropped."""
    names = [*STATES, *(f"{group}/{MANIFEST}" for group in groups)]
    listings = bucket.each(lambda name: bucket.listing(f"{name}/c/"), names)
    listed: dict[str, StoredObject] = {key: about for listing in listings for key, about in listing.items()}
    for name in names:
        for file in (mirror / name / "c").glob("*"):
            key = f"{name}/c/{file.name}"
            if key not in listed or before.get(key) != listed[key].etag:
                file.unlink(missing_ok=True)
    for key in {k for k in (*before, *listed) if "/manifest/c/" in k}:
        if before.get(key, "") != (listed[key].etag if key in listed else ""):
            _drop_slabs(mirror, key)
    missing = [k for k in listed if (records or k.split("/", 1)[1].startswith("c/")) and not (mirror / k).is_file()]
    # the state last: what it promises is there
    ordered = sorted(missing, key=lambda key: key.startswith("status/"))
    etags = {key: about.etag for key, about in listed.items()}
    etags |= dict(zip(ordered, bucket.each(lambda key: _fetch(mirror, bucket, key), ordered), strict=True))
    return {key: etag for key, etag in etags.items() if etag}


def _drop_slabs(mirror: Path, record: str) -> None:
    """Drop the slabs of one group at one checkpoint, by the key of what was noted of them."""
    group, _, index = record.partition(f"/{MANIFEST}/c/")
    for chunks in (mirror / group).glob(f"*/c/{index}"):
        if chunks.parent.parent.name not in (MANIFEST, "step"):
            chunks.unlink() if chunks.is_file() else shutil.rmtree(chunks, ignore_errors=True)


def derived_in(content: bytes) -> list[str]:
    """The results and features that a root's metadata list."""
    return sorted(n for n in nodes_in(content) if n.count("/") == 1 and n.partition("/")[0] in ("results", FEATURES))


def _pull_derived(mirror: Path, bucket: Bucket, content: bytes) -> None:
    """Results and features: those that are listed, whole."""
    listed = derived_in(content)
    for folder in [p for kind in ("results", FEATURES) for p in (mirror / kind).glob("*") if p.is_dir()]:
        if folder.relative_to(mirror).as_posix() not in listed:
            shutil.rmtree(folder, ignore_errors=True)
    for kind in {name.partition("/")[0] for name in listed}:
        _fetch(mirror, bucket, f"{kind}/zarr.json")
    for name in listed:
        found = bucket.get(f"{name}/zarr.json")
        if found is None or not intact(found[0]):
            continue
        require_inside(sealed_of(found[0]), mirror)
        _fetch_sealed(mirror, bucket, name, found[0])
        files = {"zarr.json", *sealed_of(found[0])}
        for file in [p for p in (mirror / name).rglob("*") if p.is_file()]:
            if file.relative_to(mirror / name).as_posix() not in files:
                file.unlink(missing_ok=True)
        (mirror / name).mkdir(parents=True, exist_ok=True)
        replace_bytes(mirror / name / "zarr.json", found[0])


def sealed_of(content: bytes) -> dict[str, str]:
    """File to size and digest, as a ``zarr.json`` notes them."""
    return dict(parsed(content).get("attributes", {}).get("files", {}))


class FetchingStore(LocalStore):
    """The files of a trace; of a mirror, slabs are fetched when they are read for the first time.

    Of a shard of which a part is asked for, that part alone is, and not kept.
    """

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)
        self._bucket = bucket_of(Path(root))

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See the base class."""
        if self._lacks(key):
            if byte_range is not None:
                return await asyncio.to_thread(self._part, key, prototype, byte_range)
            await asyncio.to_thread(self._fetch, key)
        return await super().get(key, prototype, byte_range)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """See the base class."""
        if self._lacks(key):
            if byte_range is not None:
                return self._part(key, prototype, byte_range)
            self._fetch(key)
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)

    def _lacks(self, key: str) -> bool:
        """Whether there may be an object that was not fetched: a slab of a checkpoint at which something was measured."""
        if self._bucket is None or (match := _CHUNK.fullmatch(key)) is None or "/" not in match[1]:
            return False
        if key.startswith(("results/", f"{FEATURES}/")) or (self.root / key).exists():
            return False
        return (self.root / "weights_digest" / "c" / match[2]).is_file()

    def _fetch(self, key: str) -> None:
        assert self._bucket is not None
        with suppress(FileNotFoundError):  # it was never written: zarr says so
            self._bucket.download(key, self.root / key)

    def _part(self, key: str, prototype: BufferPrototype | None, part: ByteRequest) -> Buffer | None:
        """Some bytes of a shard, of which the rest is not wanted, nor kept."""
        assert self._bucket is not None
        if isinstance(part, RangeByteRequest):
            found = self._bucket.get(key, {"range": (part.start, part.end)})
        elif isinstance(part, OffsetByteRequest):
            found = self._bucket.get(key, {"offset": part.offset})
        else:
            found = self._bucket.get(key, {"suffix": part.suffix})
        made = (prototype or default_buffer_prototype()).buffer
        return None if found is None else made.from_bytes(found[0])
