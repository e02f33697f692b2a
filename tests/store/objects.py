"""Traces in the object store within this process, for tests."""

from __future__ import annotations

from pathlib import Path

from checkpoints.objects import Bucket
from dynamics.store import writer_lock
from dynamics.store.paths import trace_path
from tests.store.declared import declare, fill


def stored(url: str) -> dict[str, bytes]:
    """Every object and its content."""
    bucket = Bucket(url)
    found = ((key, bucket.get(key)) for key in bucket.listing())
    return {key: content[0] for key, content in found if content is not None}


def filled(url: str, indices: tuple[int, ...] = (0, 2), **changes: object) -> None:
    """A trace in a store with the checkpoints of these indices complete."""
    folder, _, name = url.rpartition("/")
    mirror = trace_path(Path(folder), name.removesuffix(".zarr"))
    with writer_lock(mirror):
        fill(mirror, declare(**changes), indices)
