"""What is derived from a trace's slabs and lies in it: ``results/<analysis>`` and ``features/<dictionary>``.

Derived data can be made again, so nothing about it may stand in the way of what was measured. It is written aside, in
``NAME.zarr.partial`` beside the trace, where no reader of the trace sees it, and moved into place whole, by one rename; it is
in the consolidated metadata only while it is in place; and where it is not whole it counts as absent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import zarr

from checkpoints.paths import replace_text

from ..names import CHECKPOINT
from .declaration import FEATURES

__all__ = ["DERIVED", "RESULTS", "aside", "consolidate", "put_derived", "sweep_derived", "whole"]

RESULTS = "results"
DERIVED = (RESULTS, FEATURES)
"""Groups of the root whose children are derived."""

_GROUP: dict[str, Any] = {"attributes": {}, "zarr_format": 3, "node_type": "group"}


def aside(trace: Path) -> Path:
    """Where a trace, or what is derived from it, is written before it is moved into place: on the same disk."""
    trace = trace.resolve()
    return trace.with_name(trace.name + ".partial")


def put_derived(trace: Path, place: str, fill: Callable[[zarr.Group], None]) -> None:
    """Put a group into a trace, instead of the one that is there; the caller holds the trace's lock.

    Interrupted at any moment, the old group is in place, or the new one, or none and the next writer puts the old one back.

    Args:
        trace: the trace.
        place: ``results/NAME`` or ``features/NAME``.
        fill: writes the group.

    Raises:
        OSError: when it cannot be written; what was there stays.
    """
    if aside(trace).exists():
        sweep_derived(trace)
    final, new, old = trace / place, aside(trace) / "new", aside(trace) / "old" / place
    try:
        old.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(new, mode="w", zarr_format=3)
        fill(group)
        group.attrs["members"] = [name for name, _ in list(_nodes(new, ""))[1:]]
        final.parent.mkdir(exist_ok=True)
        replace_text(final.parent / "zarr.json", json.dumps(_GROUP))
        consolidate(trace, measured=False, without=place)  # nobody reads the new one by what the old one said of itself
        if final.exists():
            os.replace(final, old)
        os.replace(new, final)
    finally:
        sweep_derived(trace)


def sweep_derived(trace: Path) -> None:
    """Put back or remove what a killed writer left, and list what is there; the caller holds the trace's lock."""
    left = aside(trace)
    for old in (left / "old").glob("*/*"):
        if not (place := trace / old.relative_to(left / "old")).exists():
            os.replace(old, place)
    consolidate(trace, measured=False)
    shutil.rmtree(left, ignore_errors=True)  # after a failure threads of zarr may still be at work in it


def consolidate(trace: Path, *, measured: bool = True, without: str = "") -> None:
    """Write the consolidated metadata, in one move and only if they change.

    Args:
        trace: the trace.
        measured: list what is measured as it is by now; otherwise only what is derived from it.
        without: a derived group that is not to be listed.
    """
    file = trace / "zarr.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    before = _listed(content)
    if measured or not before:
        children = sorted(p.name for p in trace.iterdir() if (p / "zarr.json").is_file())
        listed = dict(pair for child in children if child not in DERIVED for pair in _nodes(trace, child))
    else:
        listed = {name: node for name, node in before.items() if name.split("/")[0] not in DERIVED}
    for kind in DERIVED:
        places = [f"{kind}/{p.name}" for p in sorted((trace / kind).glob("*"))]
        for place in places:
            if place != without and _whole(trace, place, listed):
                listed |= {kind: _GROUP} | dict(_nodes(trace, place))
    if listed != before:
        content["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": listed}
        replace_text(file, json.dumps(content))


def whole(trace: Path, place: str) -> bool:
    """Whether a derived group is there with its metadata and every chunk, as far as can be seen without reading them.

    One that was derived from fewer checkpoints than the trace has by now is not.
    """
    try:
        return _whole(trace, place, _listed(json.loads((trace / "zarr.json").read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return False


def _whole(trace: Path, place: str, listed: Mapping[str, Any]) -> bool:
    try:
        checkpoints = listed["step"]["shape"]
        nodes = dict(_nodes(trace, place))
        members = nodes[place]["attributes"].get("members")  # older versions of this program did not write them
        if members is not None and members != [name.removeprefix(f"{place}/") for name in list(nodes)[1:]]:
            return False
        arrays = {name: node for name, node in nodes.items() if node["node_type"] == "array"}
        along = (node["shape"][:1] for node in arrays.values() if node["dimension_names"][:1] == [CHECKPOINT])
        return all(n == checkpoints for n in along) and all(_chunks(trace / n, node) for n, node in arrays.items())
    except (AttributeError, KeyError, TypeError, ValueError, OSError):
        return False


def _listed(root: Mapping[str, Any]) -> dict[str, Any]:
    """The consolidated metadata in what the root's file says."""
    metadata: dict[str, Any] = (root.get("consolidated_metadata") or {}).get("metadata", {})
    return metadata


def _nodes(trace: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A node and all that are in it, by name, with their metadata as a listing has them."""
    node = json.loads((trace / name / "zarr.json").read_text(encoding="utf-8"))
    if node["node_type"] == "array":
        yield name, node
        return
    yield name, {**node, "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {}}}
    for child in sorted(p.name for p in (trace / name).iterdir() if (p / "zarr.json").is_file()):
        yield from _nodes(trace, f"{name}/{child}".removeprefix("/"))


def _chunks(array: Path, node: dict[str, Any]) -> bool:
    """Whether every chunk of an array has a file, with something in it."""
    sizes = zip(node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"], strict=True)
    files = [array / "c"] if not node["shape"] else (array / "c").rglob("*")
    there = sum(1 for file in files if file.is_file() and file.suffix != ".partial" and file.stat().st_size)
    return there == int(prod(-(-size // chunk) for size, chunk in sizes))
