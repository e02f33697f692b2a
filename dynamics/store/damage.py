"""Is a trace what was written? Which of its files are gone, or are not what was written?

Where the trace has a manifest (:mod:`dynamics.store.manifest`), every file is held against it. One of an earlier version is
read through: chunks that are missing or fail their checksum show; a chunk in another's place, or what is written in
metadata, does not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from checkpoints.errors import UserError, first_line

from ..names import CHECKPOINT
from .declaration import FORMAT
from .derived import DERIVED, RESULTS
from .format import check_format, is_newer, open_group
from .groups import SHELF, records_of, shelved
from .manifest import (
    FLAGS,
    MANIFEST,
    ROOT_COPY,
    collected_metadata,
    consolidated,
    intact,
    metadata_of,
    parsed,
    record_of,
    slab_entry,
    slab_files,
    unlike_seal,
)

__all__ = ["Damage", "has_manifest", "root_problem", "trace_damage"]


@dataclass(frozen=True)
class Damage:
    """One thing that is missing or is not what was written.

    Attributes:
        step: of the checkpoint; None for what is not of one checkpoint: metadata, a coordinate, what is derived.
        variable: the array, as ``group/name``, or the file of metadata.
        problem: what is wrong with it.
        repaired: whether it was measured, derived or written again.
    """

    step: int | None
    variable: str
    problem: str
    repaired: bool = False


def has_manifest(path: Path) -> bool:
    """Whether a trace says what it consists of; those of earlier versions do not."""
    if (path / MANIFEST).is_dir():
        return True
    root = parsed(_bytes(path / "zarr.json"))  # which says that there was one, where the folder is gone
    listed = (root.get("consolidated_metadata") or {}).get("metadata") or {}
    return MANIFEST in listed or not {"files", "digest"}.isdisjoint(root.get("attributes", {}))


def trace_damage(path: Path) -> list[Damage]:
    """What is wrong with a trace; at most one entry per checkpoint and variable, and per array of what is not of one.

    Nothing else is looked at where the root's metadata, which say what there is, are damaged.

    Raises:
        UserError: when it is no trace, or of a newer version.
    """
    sealed = has_manifest(path)
    if sealed and not is_newer(path) and (problem := root_problem(path / "zarr.json")):
        return [Damage(None, "zarr.json", problem)]
    root = open_group(path, mode="r")
    check_format(dict(root.attrs), path)
    nodes = consolidated(path)
    arrays = {name: node for name, node in nodes.items() if node["node_type"] == "array" and not _is_derived(name)}
    along = {name for name, node in arrays.items() if node["dimension_names"][0] == CHECKPOINT}
    slabs = {name for name in along if "/" in name and name.partition("/")[2] not in ("step", MANIFEST)}
    flags = {f"{name.partition('/')[0]}/{MANIFEST}" for name in slabs}
    if sealed:
        found = list(_unlike_seal(path))
        if (path / "zarr.json").read_bytes() != _bytes(path / ROOT_COPY):
            found.append(Damage(None, ROOT_COPY, "it is not the copy of zarr.json"))
    else:
        found = [
            Damage(None, name, p)
            for name in arrays.keys() - slabs - flags
            if (p := _coordinate_problem(path, root, name))
        ]
    declared: Any = root.attrs["declared"]  # where the steps are, too, should the array be damaged
    steps = [int(name.split()[1]) for name in declared["checkpoints"]]
    found += _checkpoint_damage(path, root, steps, slabs, sealed)
    for folder in shelved(path):
        found += _shelf_damage(folder, f"{SHELF}/{folder.name}", steps)
    for kind in DERIVED:
        if not (path / kind).is_dir():  # it may be deleted at any time
            if os.path.lexists(path / kind):
                found.append(Damage(None, kind, "it is a file, or a link to nothing"))
            continue
        if kind in nodes and nodes[kind] != _metadata(metadata_of, path / kind):
            found.append(Damage(None, f"{kind}/zarr.json", "it is missing, or is not what was written"))
        there = {f"{kind}/{p.name}" for p in (path / kind).glob("*") if p.is_dir()}
        for name in sorted(there):
            found += _derived_damage(path, root, name, {n: node for n, node in nodes.items() if _below(n, name)})
    return found


def root_problem(file: Path) -> str:
    """What is wrong with the root's ``zarr.json``, or its copy, in a trace that has a manifest."""
    content = _bytes(file)
    if intact(content) and parsed(content)["attributes"].get("format") == FORMAT:
        return ""
    return "it is not what was written" if content else "it is missing or empty"


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _is_derived(name: str) -> bool:
    return name.split("/")[0] in DERIVED


def _below(name: str, group: str) -> bool:
    return name == group or name.startswith(f"{group}/")


def _unlike_seal(folder: Path, name: str = "") -> Iterator[Damage]:
    """What is unlike the seal of a folder, once for each array."""
    seen = set()
    for file, problem in unlike_seal(folder).items():
        shown = (f"{name}/{file}" if name else file).partition("/c/")[0]
        if shown not in seen:
            seen.add(shown)
            yield Damage(None, shown, problem)


def _coordinate_problem(path: Path, root: zarr.Group, name: str) -> str:
    """What can be seen to be wrong with an array that no seal covers."""
    array = root[name]
    assert isinstance(array, zarr.Array)
    flag = "/" not in name and array.chunks == (1,)  # in which only what was said has a chunk
    if not flag and array.size and not any(p.is_file() for p in (path / name / "c").rglob("*")):
        return "its chunk is missing"
    return "" if flag else _read(array, ...)[1]


def _read(array: zarr.Array[Any], index: Any) -> tuple[Any, str]:
    """Values, and what zarr says where they cannot be read."""
    try:
        return array[index], ""
    except Exception as error:  # whatever reading a damaged chunk raises
        return None, first_line(error)


# --- checkpoints


def _checkpoint_damage(
    path: Path, root: zarr.Group, steps: list[int], slabs: set[str], sealed: bool
) -> Iterator[Damage]:
    """What is wrong with what is said of each checkpoint, and with its slabs."""
    columns = {name: _column(root, name) for name in ("status", "reason", *FLAGS, *([MANIFEST] if sealed else []))}
    groups = sorted({name.partition("/")[0] for name in slabs}) if sealed else []
    notes = {name: _column(root, f"{name}/{MANIFEST}") for name in groups if f"{name}/{MANIFEST}" in root}
    for index, step in enumerate(steps):
        broken = {name: problem for name, column in columns.items() if (problem := column[index][1])}
        yield from (Damage(step, name, problem) for name, problem in broken.items())
        said = {name: _plain(column[index][0]) for name, column in columns.items() if name not in broken}
        if not sealed:
            if said.get("status") == "complete":
                for variable in sorted(slabs):
                    if problem := _chunk_problem(path, root, variable, index):
                        yield Damage(step, variable, problem)
            continue
        record = record_of(said.get(MANIFEST, ""))
        if not record and MANIFEST in said and (said.get("status", "pending") != "pending" or said.get("reason")):
            yield Damage(step, MANIFEST, "what was noted of the checkpoint is missing")
        for name, value in said.items():
            if record.get(name, value) != value:
                yield Damage(step, name, f"it is {value!r}, and {record[name]!r} was written")
        known: dict[str, str] = dict(record.get("slabs") or {})  # as version 1 had them
        for group, column in notes.items():
            text, problem = column[index]
            if problem:
                yield Damage(step, f"{group}/{MANIFEST}", problem)
            noted = record_of(str(text or ""))
            known |= {f"{group}/{name}": entry for name, entry in (noted.get("slabs") or {}).items()}
            if noted and record.get("status") == "complete" and noted["weights_digest"] != record["weights_digest"]:
                yield Damage(step, f"{group}/{MANIFEST}", "what was noted is of other weights")
        if record.get("status") == "complete" and known.keys() != slabs:
            lacking = {name.partition("/")[0] for name in known.keys() ^ slabs}
            for group in sorted(lacking):
                where = f"{group}/{MANIFEST}" if group in notes else MANIFEST
                yield Damage(step, where, "what was noted is missing, or is not of this trace")
        for variable, entry in known.items():
            if variable in slabs and (problem := _slab_problem(path / variable, index, entry)):
                yield Damage(step, variable, problem)


def _shelf_damage(folder: Path, name: str, steps: list[int]) -> Iterator[Damage]:
    """What is not as it was written, of a group that the trace does not list."""
    try:
        records = records_of(folder)
    except UserError:
        yield Damage(None, f"{name}/{MANIFEST}", "its metadata are missing, or cannot be read")
        return
    noted = {int(p.name) for p in (folder / MANIFEST / "c").glob("*") if p.name.isdecimal()}
    for index in sorted(noted - records.keys()):  # of a slab without a note, nobody can say that it was ever whole
        if index < len(steps):
            yield Damage(steps[index], f"{name}/{MANIFEST}", "what was noted cannot be read")
    for index, record in records.items():
        for variable, entry in record["slabs"].items():
            if index < len(steps) and (problem := _slab_problem(folder / variable, index, entry)):
                yield Damage(steps[index], f"{name}/{variable}", problem)


def _column(root: zarr.Group, name: str) -> list[tuple[Any, str]]:
    """An array of the root: values, or why they cannot be read."""
    array = root[name]
    assert isinstance(array, zarr.Array)
    values, problem = _read(array, ...)
    return [_read(array, i) for i in range(array.shape[0])] if problem else [(value, "") for value in values]


def _plain(value: Any) -> Any:
    return int(value) if np.asarray(value).dtype.kind in "iu" else str(value)


def _slab_problem(variable: Path, index: int, known: str) -> str:
    if slab_entry(variable, index) == known:
        return ""
    expected = int(known.split()[0])
    return _missing(variable, index, expected) or "it is not what was written"


def _chunk_problem(path: Path, root: zarr.Group, name: str, index: int) -> str:
    """What can be seen to be wrong with a slab of which nothing was noted."""
    array = root[name]
    assert isinstance(array, zarr.Array)
    stored = array.shards or array.chunks
    expected = int(np.prod([-(-n // c) for n, c in zip(array.shape[1:], stored[1:], strict=True)]))
    return _missing(path / name, index, expected) or _read(array, index)[1]


def _missing(variable: Path, index: int, expected: int) -> str:
    # an empty shard is read as if nothing had been written, without a complaint
    present = sum(1 for p in slab_files(variable, index) if p.suffix != ".partial" and p.stat().st_size)
    return "" if present >= expected else f"{expected - present} of {expected} chunks are missing or empty"


# --- what is derived


def _derived_damage(path: Path, root: zarr.Group, name: str, nodes: dict[str, Any]) -> Iterator[Damage]:
    """What is wrong with a result or a dictionary's features; ``nodes`` are listed of it, none where it is not whole."""
    sealed, there = intact(_bytes(path / name / "zarr.json")), _metadata(collected_metadata, path, name)
    if not there or sealed is False or (nodes and there != nodes):
        yield Damage(None, name, "metadata in it are missing, or are not what was written")
    elif sealed:
        yield from _unlike_seal(path / name, name)
    elif not nodes:
        yield Damage(None, name, "it is not whole")
    else:
        for array in (n for n, node in nodes.items() if node["node_type"] == "array" and not _below(n, RESULTS)):
            if problem := _coordinate_problem(path, root, array):
                yield Damage(None, array, problem)


def _metadata(read: Callable[..., dict[str, Any]], *where: Any) -> dict[str, Any]:
    """Metadata as they lie on disk; empty where any cannot be read."""
    try:
        return read(*where)
    except (ValueError, LookupError, TypeError, OSError):
        return {}
