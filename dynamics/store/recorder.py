"""What the root of a trace says of each checkpoint: its state, why, of which weights; recorded before it is said."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from checkpoints.errors import UserError, first_line

from ..names import Status
from .create import grow_trace
from .declaration import TraceDeclaration
from .direct import DirectStore
from .format import array_of, damaged, open_group, whole_column
from .groups import SHELF
from .manifest import MANIFEST, record_of, rewrite, sealed_files, unlike
from .remote import writing

__all__ = ["Recorder", "remark"]


def remark(path: Path, indices: Sequence[int], reason: str) -> None:
    """Say why checkpoints are as they are, without changing their state; the caller holds the lock."""
    root = open_group(path, mode="r+")
    reasons, records = array_of(root, "reason"), array_of(root, MANIFEST) if MANIFEST in root else None
    remote = writing(path)
    for index in (i for i in indices if str(reasons[i]) != reason):
        if records is not None:
            before = ""
            with suppress(Exception):  # what it lacks shows as damage
                before = str(records[index])
            records[index] = _noted(before, reason=reason)
        reasons[index] = reason
        if remote is not None:
            for name in (MANIFEST, "reason") if records is not None else ("reason",):
                remote.put_entry(name, index)


class Recorder:
    """The arrays of the root, of a trace that is being written.

    Args:
        path: the trace.
        declaration: what it is to hold.
        durable: flush to disk before a checkpoint is marked.
    """

    def __init__(self, path: Path, declaration: TraceDeclaration, *, durable: bool) -> None:
        self.path = path
        self._declaration = declaration
        self._durable = durable
        self._remote = writing(path)

    def _open(self, *, kept: int = 0) -> None:
        """Look at the trace's metadata; what was read of its flags is ``kept``, for so many checkpoints, if it grew."""
        known = self._columns if kept else {}
        self._root = open_group(self.path, mode="r+")
        self.attributes = dict(self._root.attrs)
        self._keeps_records = MANIFEST in self._root
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._columns: dict[str, np.ndarray] = {}
        for name, column in known.items():
            if self._array(name).chunks == (1,):  # a flag: what is new has none yet
                self._columns[name] = np.append(column, [self._array(name).fill_value] * (kept - len(column)))

    def grow(self, declaration: TraceDeclaration) -> None:
        """Make room for more checkpoints at the end of the trace, at a cost that does not grow with those that it has.

        Args:
            declaration: the trace's own, with more checkpoints.
        """
        grow_trace(self.path, declaration)
        self._declaration = declaration
        self._open(kept=len(declaration.checkpoints))
        if self._remote is not None:
            self._remote.publish()

    def status(self) -> list[Status]:
        """The state of every checkpoint."""
        return [cast(Status, str(value)) for value in self._column("status")]

    def state(self, index: int) -> Status:
        """The state of one checkpoint."""
        return cast(Status, self._entry("status", index))

    def digest(self, index: int) -> str:
        """sha256 of the weights that a checkpoint was measured with, ``""`` if nothing of it is there that is whole."""
        return self._entry("weights_digest", index)

    def digests(self) -> list[str]:
        """:meth:`digest` of every checkpoint."""
        return [str(value) for value in self._column("weights_digest")]

    def stored_dtype(self, index: int) -> str:
        """The dtype in which a checkpoint's weights are stored."""
        return self._entry("stored_dtype", index)

    def revisions(self) -> list[str]:
        """What every checkpoint was pinned to when it was measured, or listed."""
        return [str(value) for value in self._column("revision")]

    def reason(self, index: int) -> str:
        """Why a checkpoint failed or is masked."""
        return self._entry("reason", index)

    def recorded(self, index: int) -> tuple[Status, str, str]:
        """Status, reason and digest as they were noted, or are there where nothing was; for a trace that is damaged."""
        said: dict[str, Any] = {name: self._readable(name, index) for name in ("status", "reason", "weights_digest")}
        said |= record_of(self._readable(MANIFEST, index))
        return cast(Status, said["status"] or "complete"), said["reason"], said["weights_digest"]

    def mark(self, index: int, status: Status, reason: str = "") -> None:
        """Set the state of one checkpoint."""
        self._mark(index, status, reason)

    def _mark(self, index: int, status: Status, reason: str, **about: Any) -> None:
        """Record the state of a checkpoint and what else changed, then the reason, then the state."""
        self._note(index, status=status, reason=reason, **about)
        if reason or self.reason(index) != reason:
            self._put("reason", index, reason)
        if self._durable:
            os.sync()
        self._put("status", index, status)

    def _note(self, index: int, **changes: Any) -> None:
        """Change the record of one checkpoint, in a trace that keeps them."""
        before = self._readable(MANIFEST, index)  # what it lacks shows as damage
        if self._keeps_records and (record := _noted(before, **changes)) != before:
            self._put(MANIFEST, index, record)

    def _pin(self, index: int, revision: str) -> None:
        """Write what a checkpoint is pinned to, where it was measured on another commit than it was listed with."""
        file = f"revision/c/{index // self._array('revision').chunks[0]}"
        if self._entry("revision", index) == revision:
            return
        sealed = sealed_files(self.path)
        if file in sealed and (problem := unlike(self.path / file, sealed[file])):
            raise damaged(self.path, "the array revision", problem)  # which would be rewritten, and so lost
        self._put("revision", index, revision)
        if sealed:
            rewrite(self.path, written=[file])
        if self._remote is not None:
            self._remote.publish()

    def _array(self, name: str) -> zarr.Array[Any]:
        """An array, looked up once: nobody else changes its metadata while the lock is held."""
        if name not in self._arrays:
            if name.startswith(SHELF):
                found = zarr.open_array(DirectStore(self.path / name), mode="r+").with_config(
                    {"write_empty_chunks": True}
                )
            else:
                found = array_of(self._root, name)
            self._arrays[name] = found
        return self._arrays[name]

    def _read(self, name: str, index: Any = ...) -> np.ndarray:
        try:
            array = self._array(name)
            return whole_column(array) if index is ... else np.asarray(array[index])
        except Exception as error:  # whatever reading a damaged chunk raises
            raise damaged(self.path, f"the array {name}", first_line(error)) from error

    def _column(self, name: str) -> np.ndarray:
        """(checkpoint,) an array of the root, read once: nobody else writes it while the lock is held."""
        if name not in self._columns:
            self._columns[name] = self._read(name)
        return self._columns[name]

    def _entry(self, name: str, index: int) -> str:
        """One entry of an array of the root, others of which may be damaged."""
        with suppress(UserError):
            return str(self._column(name)[index])
        return str(self._read(name, index))

    def _readable(self, name: str, index: int) -> str:
        """The same, empty where it is damaged or the trace has no such array."""
        with suppress(UserError):
            return self._entry(name, index)
        return ""

    def _put(self, name: str, index: int, value: Any) -> None:
        """Write one entry of an array with one for each checkpoint; where that is interrupted, the array is read again."""
        column = self._columns.pop(name, None)
        self._array(name)[index] = value
        if column is not None:
            column[index] = value
            self._columns[name] = column
        if self._remote is not None:
            self._remote.put_entry(name, index)


def _noted(before: str, **changes: Any) -> str:
    """A record with some of it changed."""
    return json.dumps(record_of(before) | changes, ensure_ascii=False, sort_keys=True)
