"""Writing one checkpoint at a time: slabs first, the mark that means done last."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from checkpoints.errors import UserError, first_line, short, shown
from checkpoints.paths import replace_bytes

from ..names import Status
from .attributes import check_attributes
from .create import create_trace, grow_trace, put_attributes
from .declaration import FEATURES, FORMAT, FORMAT_VERSION, TraceDeclaration, require_declared
from .derived import aside, clear_aside, sweep_derived
from .manifest import (
    FLAGS,
    MANIFEST,
    ROOT_COPY,
    intact,
    is_newer,
    record_of,
    rewrite,
    sealed_files,
    slab_entry,
    unlike,
)

__all__ = ["TraceWriter", "check_format", "damaged", "discard_unused", "open_group", "remark"]

_VISITS = ("schedule", "checkpoints", "budget", "exclude", "include_masked")
"""What a run may change from one collection to the next: which checkpoints are visited, not what is measured on them."""

_FLOAT16_MAX = float(np.finfo(np.float16).max)


def remark(path: Path, indices: Sequence[int], reason: str) -> None:
    """Say why checkpoints are as they are, without changing their state; the caller holds the lock."""
    root = open_group(path, mode="r+")
    reasons, records = _values(root, "reason"), _values(root, MANIFEST) if MANIFEST in root else None
    for index in (i for i in indices if str(reasons[i]) != reason):
        if records is not None:
            before = ""
            with suppress(Exception):  # what it lacks shows as damage
                before = str(records[index])
            records[index] = _noted(before, reason=reason)
        reasons[index] = reason


def damaged(path: Path, what: str, problem: str) -> UserError:
    """The error for a trace, something in which is missing or is not what was written."""
    run = path.name.removesuffix(".zarr")  # in a terminal, whoever is told
    command, does = f"dynamics verify {run} --repair", "it says what is damaged, and mends it"
    if what.startswith(f"{FEATURES}/"):
        command, does = f"dynamics learn {run} --fresh", "it makes them again"
    return UserError(
        f"{what} of {path} is damaged: {problem}",
        expected="what was written when it was collected",
        remedy=f"{command} ({does})",
    )


def check_format(attributes: Mapping[str, Any], path: Path) -> None:
    """Refuse what is no trace, a trace of a newer version, and one whose metadata were damaged.

    Raises:
        UserError: with the version found and the versions that this program reads, or the attribute.
    """
    version = attributes.get("format_version")
    if not is_newer(path) and intact((path / "zarr.json").read_bytes()) is False:
        raise damaged(path, "the file zarr.json", "it is not what was written (did another program change it?)")
    if attributes.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a trace: its attribute `format` is {shown(attributes.get('format'))}",
            expected=f"{FORMAT!r}",
            remedy="give the path of a folder that `dynamics collect` wrote",
        )
    if type(version) is not int or not 0 < version <= FORMAT_VERSION:
        raise UserError(
            f"{path} has trace format version {short(str(version))}",
            expected=f"version {FORMAT_VERSION} or older",
            remedy="install a newer circuit-dynamics",
        )
    check_attributes(attributes, path)


def discard_unused(path: Path, declaration: TraceDeclaration) -> None:
    """Delete a trace that was declared otherwise before anything was measured; the caller holds its lock.

    A first collection that is refused in its middle must not stand in the way of the corrected run.
    """
    if not path.exists():
        return
    root = open_group(path, mode="r")
    check_format(dict(root.attrs), path)
    if root.attrs.get("fingerprint") == declaration.fingerprint():
        return
    try:
        noted = [str(text) for text in np.asarray(_values(root, MANIFEST)[:])] if MANIFEST in root else []
        measured = [
            *map(str, np.asarray(_values(root, "weights_digest")[:])),
            *(record_of(t).get("slabs") for t in noted),
        ]
    except Exception:  # what is damaged may have been measured
        return
    if any(measured):
        return
    clear_aside(path)
    os.replace(path, aside(path))  # half deleted, it would be no trace
    shutil.rmtree(aside(path), ignore_errors=True)


class TraceWriter:
    """Creates a trace or goes on with one; the caller holds its lock.

    Args:
        path: the trace.
        declaration: what it holds; an existing trace must have been declared the same, or with fewer checkpoints at
            its end, and then grows.
        durable: flush to disk before a checkpoint is marked complete.

    Raises:
        UserError: when the trace that is there was declared differently, is newer, or cannot be written.
    """

    def __init__(self, path: Path, declaration: TraceDeclaration, *, durable: bool = False) -> None:
        self.path = path
        self._declaration = declaration
        self._durable = durable
        if not path.exists():
            create_trace(path, declaration)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._columns: dict[str, np.ndarray] = {}
        self._root = open_group(path, mode="r+")
        self.attributes = attributes = dict(self._root.attrs)
        check_format(attributes, path)
        if declaration.extends(attributes):
            grow_trace(path, declaration)
            self._root = open_group(path, mode="r+")
        else:
            require_declared(path, attributes, declaration)
        self._keeps_records = MANIFEST in self._root
        self._record_visits()
        self._sweep()

    def status(self) -> list[Status]:
        """The state of every checkpoint."""
        return [cast(Status, str(value)) for value in self._column("status")]

    def digest(self, index: int) -> str:
        """sha256 of the weights that a checkpoint was measured with, ``""`` if its data is not there or not whole."""
        return self._entry("weights_digest", index)

    def digests(self) -> list[str]:
        """:meth:`digest` of every checkpoint."""
        return [str(value) for value in self._column("weights_digest")]

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

    def write(self, index: int, group: str, values: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """Write every variable of one probe at one checkpoint; returns (non-finite values, overflowed values).

        Raises:
            ValueError: when the arrays are not exactly those that were declared (our bug, not the user's).
        """
        declared = {v.name: v for g in self._declaration.groups if g.name == group for v in g.variables}
        if values.keys() != declared.keys():
            raise ValueError(f"{group}: measured {sorted(values)}, declared {sorted(declared)}")
        nonfinite = overflowed = 0
        for name, value in values.items():
            variable = declared[name]
            if value.shape != variable.shape:
                raise ValueError(f"{group}/{name}: measured shape {value.shape}, declared {variable.shape}")
            dtype = np.dtype(self._declaration.dtype(variable))
            if dtype.kind == "f" and not variable.padded:
                nonfinite += int(value.size - np.isfinite(value).sum())
            if dtype == np.float16:
                overflowed += int((np.isfinite(value) & (np.abs(value) > _FLOAT16_MAX)).sum())
            with np.errstate(over="ignore"):
                self._array(f"{group}/{name}")[index] = value.astype(dtype)
        return nonfinite, overflowed

    def commit(self, index: int, *, digest: str, stored_dtype: str, nonfinite: int, overflowed: int) -> None:
        """Mark a checkpoint complete, after everything else of it is written."""
        self._pin(index)
        flags: dict[str, Any] = dict(zip(FLAGS, (digest, stored_dtype, nonfinite, overflowed), strict=True))
        for name, value in flags.items():
            self._put(name, index, value)
        self._mark(
            index, "complete", "", **flags, slabs={v: slab_entry(self.path / v, index) for v in self._variables()}
        )

    def mark(self, index: int, status: Status, reason: str = "") -> None:
        """Set the state of one checkpoint."""
        self._mark(index, status, reason)

    def clear(self, index: int) -> None:
        """Delete whatever there is of one checkpoint, or a killed writer left of it."""
        status, _, digest = self.recorded(index)
        if digest or self.digest(index):
            if "complete" in (status, self._entry("status", index)):  # who reads it meanwhile shall not miss them
                self._mark(index, "pending", "")
            self._note(index, weights_digest="", slabs={})
            self._put("weights_digest", index, "")  # it says that the slabs are whole
        for variable in self._variables():
            _delete(self.path / variable, index)

    def forget(self, index: int) -> None:
        """Delete all that is said of one checkpoint, readable or not, and what there is of it."""
        for name in ("weights_digest", "status", MANIFEST, *FLAGS[1:], "reason", *self._variables()):
            _delete(self.path / name, index)
        self._columns.clear()

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

    def _pin(self, index: int) -> None:
        """Write what a checkpoint is pinned to, where the source has another commit for it than when it was listed."""
        revision = self._declaration.checkpoints[index].revision
        file = f"revision/c/{index // self._array('revision').chunks[0]}"
        if self._entry("revision", index) == revision:
            return
        sealed = sealed_files(self.path)
        if file in sealed and (problem := unlike(self.path / file, sealed[file])):
            raise damaged(self.path, "the array revision", problem)  # which would be rewritten, and so lost
        self._put("revision", index, revision)
        if sealed:
            rewrite(self.path, written=[file])

    def _variables(self) -> list[str]:
        return [f"{group.name}/{variable.name}" for group in self._declaration.groups for variable in group.variables]

    def _array(self, name: str) -> zarr.Array[Any]:
        """An array, looked up once: nobody else changes its metadata while the lock is held."""
        if name not in self._arrays:
            self._arrays[name] = _values(self._root, name)
        return self._arrays[name]

    def _read(self, name: str, index: Any = ...) -> np.ndarray:
        try:
            return np.asarray(self._array(name)[index])
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
        """Write one entry of an array of the root; where that is interrupted, the array is read again."""
        column = self._columns.pop(name, None)
        self._array(name)[index] = value
        if column is not None:
            column[index] = value
            self._columns[name] = column

    def _record_visits(self) -> None:
        """The run as it is now, where it differs from the one that began the trace in what it visits alone."""
        before, now = self.attributes.get("run_config"), self._declaration.attributes.get("run_config")
        if not isinstance(before, Mapping) or not isinstance(now, Mapping):
            return
        changed = {key: now[key] for key in _VISITS if key in now and now[key] != before.get(key)}
        if changed:
            self.attributes["run_config"] = {**before, **changed}
            put_attributes(self.path, {"run_config": self.attributes["run_config"]})

    def _sweep(self) -> None:
        for orphan in self.path.rglob("*.partial"):
            if orphan.is_file():
                orphan.unlink()
            else:  # an older version of this program wrote features there
                shutil.rmtree(orphan, ignore_errors=True)
        root, copy = (self.path / "zarr.json").read_bytes(), self.path / ROOT_COPY
        if self._keeps_records and not (copy.is_file() and copy.read_bytes() == root):
            copy.parent.mkdir(exist_ok=True)
            replace_bytes(copy, root)  # the last writer was killed between the two
        self._align()
        sweep_derived(self.path)

    def _align(self) -> None:
        """Make the arrays say what was recorded, where a writer was killed between the two.

        A record that says complete is believed only if every slab is what it says.
        """
        said = ("status", "reason", "weights_digest")
        try:
            columns = [self._column(name).copy() for name in (MANIFEST, *said) if self._keeps_records]
        except UserError:  # what is damaged is left to a repair
            return
        for index, (text, *values) in enumerate(zip(*columns, strict=True)):
            record, there = record_of(str(text)), dict(zip(said, map(str, values), strict=True))
            if there | {name: record[name] for name in said if name in record} == there:
                continue
            slabs = record.get("slabs") or {}
            if record.get("status") != "complete" or (
                slabs.keys() == {*self._variables()}
                and all(slab_entry(self.path / v, index) == slabs[v] for v in slabs)
            ):
                for name in (*FLAGS, "reason", "status"):
                    if name in record and there.get(name) != record[name]:  # no chunk that would not have been written
                        self._put(name, index, record[name])


def open_group(path: Path, *, mode: Any) -> zarr.Group:
    """The trace's root group.

    Raises:
        UserError: when there is no Zarr group, or it cannot be read.
    """
    try:
        return zarr.open_group(path, mode=mode, zarr_format=3)
    except Exception as error:  # zarr.json may hold any JSON, or none
        if (path / ROOT_COPY).is_file():
            raise damaged(path, "the file zarr.json", "it is missing, or cannot be read") from error
        there = path.is_dir()
        raise UserError(
            f"{path} is not a trace: {first_line(error) if there else 'there is no such folder'}",
            expected="a folder that `dynamics collect` wrote",
            remedy="restore its zarr.json, or collect the run anew under another name"
            if there
            else "correct the path, or collect the run: dynamics collect NAME",
        ) from error


def _values(root: zarr.Group, name: str) -> zarr.Array[Any]:
    path = Path(str(root.store_path).removeprefix("file://"))
    try:
        array = root[name]
    except Exception as error:  # its metadata may hold any JSON
        raise damaged(path, f"the array {name}", first_line(error)) from error
    if not isinstance(array, zarr.Array):
        raise damaged(path, f"the array {name}", "it is no array")
    return array.with_config({"write_empty_chunks": True})


def _noted(before: str, **changes: Any) -> str:
    """A record with some of it changed."""
    return json.dumps(record_of(before) | changes, ensure_ascii=False, sort_keys=True)


def _delete(variable: Path, index: int) -> None:
    """Delete one checkpoint of a variable."""
    path = variable / "c" / str(index)
    if path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
