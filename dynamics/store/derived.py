"""What is derived from a trace's slabs and lies in it: ``results/<analysis>`` and ``features/<dictionary>``.

Derived data can be made again, so nothing about it may stand in the way of what was measured. It is written aside, in
``NAME.zarr.partial`` beside the trace, where no reader of the trace sees it, and moved into place whole, by one rename; it is
in the consolidated metadata only while it is in place; and where it is not whole it counts as absent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import zarr

from checkpoints.errors import UserError
from checkpoints.paths import replace_text

from ..names import CHECKPOINT
from .declaration import FEATURES
from .direct import DirectStore
from .manifest import collected_metadata, consolidated, files_in, intact, rewrite, sealed_files
from .places import beside

__all__ = ["DERIVED", "RESULTS", "aside", "clear_aside", "consolidate", "put_derived", "sweep_derived", "whole"]

RESULTS = "results"
DERIVED = (RESULTS, FEATURES)
"""Groups of the root whose children are derived."""

_GROUP: dict[str, Any] = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
_LISTED = _GROUP | {"consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {}}}


def aside(trace: Path) -> Path:
    """Where a trace, or what is derived from it, is written before it is moved into place: on the same disk."""
    return beside(trace, ".partial")


def clear_aside(trace: Path) -> None:
    """Remove what is left of what was written aside; a link or a pipe of that name goes, and what it points to stays."""
    left = aside(trace)
    if os.path.lexists(left) and (left.is_symlink() or not left.is_dir()):
        left.unlink()
    shutil.rmtree(left, ignore_errors=True)  # after a failure threads of zarr may still be at work in it


def put_derived(trace: Path, folder: str, fill: Callable[[zarr.Group], None]) -> None:
    """Put a group into a trace, instead of the one that is there; the caller holds the trace's lock.

    Interrupted at any moment, the old group is in place, or the new one, or none and the next writer puts the old one back.

    Args:
        trace: the trace.
        folder: ``results/NAME`` or ``features/NAME``.
        fill: writes the group.

    Raises:
        UserError: when something else than a folder has the name of where it belongs.
        OSError: when it cannot be written; what was there stays.
    """
    if os.path.lexists(aside(trace)):
        sweep_derived(trace)
    final, new, old = trace / folder, aside(trace) / "new", aside(trace) / "old" / folder
    if os.path.lexists(final.parent) and not final.parent.is_dir():
        raise UserError(
            f"{final.parent} is a file, or a link to nothing",
            expected="a folder that this program made, or nothing of that name",
            remedy="delete or rename it, then run the same command again",
        )
    try:
        old.parent.mkdir(parents=True, exist_ok=True)
        group = zarr.open_group(DirectStore(new), mode="w", zarr_format=3)
        fill(group)
        rewrite(new, written=files_in(new))
        final.parent.mkdir(exist_ok=True)
        replace_text(final.parent / "zarr.json", json.dumps(_GROUP))
        consolidate(trace, without=folder)  # nobody reads the new one by what the old one said of itself
        if final.exists():
            os.replace(final, old)
        os.replace(new, final)
    finally:
        sweep_derived(trace)


def sweep_derived(trace: Path) -> None:
    """Put back or remove what a killed writer left, and list what is there; the caller holds the trace's lock."""
    left = aside(trace)
    if left.is_symlink() or not left.is_dir():
        clear_aside(trace)
    for old in (left / "old").glob("*/*"):
        if not (new := trace / old.relative_to(left / "old")).exists():
            os.replace(old, new)
    consolidate(trace)
    clear_aside(trace)


def consolidate(trace: Path, *, without: str = "") -> None:
    """List what is derived in the consolidated metadata, in one move and only if that changes them.

    Args:
        trace: the trace.
        without: a derived group that is not to be listed.
    """
    before = consolidated(trace)
    listed = {name: node for name, node in before.items() if name.split("/")[0] not in DERIVED}
    if not before:  # another program dropped them
        for child in sorted(p.name for p in trace.iterdir() if (p / "zarr.json").is_file() and p.name not in DERIVED):
            listed |= collected_metadata(trace, child)
    for kind in DERIVED:
        folders = [f"{kind}/{p.name}" for p in sorted((trace / kind).glob("*"))]
        for folder in folders:
            if folder != without and (nodes := _whole(trace, folder, listed)):
                listed |= {kind: _LISTED} | nodes
    if listed != before:
        rewrite(trace, metadata=listed)


def whole(trace: Path, folder: str) -> bool:
    """Whether a derived group is there with its metadata and every chunk, as far as can be seen without reading them.

    One that was derived from fewer checkpoints than the trace has by now is not.
    """
    try:
        return bool(_whole(trace, folder, consolidated(trace)))
    except OSError:
        return False


def _whole(trace: Path, folder: str, listed: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a derived group that is whole, as consolidated metadata have them; else empty."""
    try:
        checkpoints = listed["step"]["shape"]
        nodes = collected_metadata(trace, folder)
        arrays = {name: node for name, node in nodes.items() if node["node_type"] == "array"}
        along = (node["shape"][:1] for node in arrays.values() if node["dimension_names"][:1] == [CHECKPOINT])
        if not all(n == checkpoints for n in along):
            return {}
        if "files" not in nodes[folder]["attributes"]:  # of an older version of this program
            return nodes if all(_chunks(trace / name, node) for name, node in arrays.items()) else {}
        files = sealed_files(trace / folder).items()
        sizes = ((trace / folder / file).stat().st_size == int(known.split()[0]) for file, known in files)
        return nodes if intact((trace / folder / "zarr.json").read_bytes()) and all(sizes) else {}
    except (AttributeError, KeyError, TypeError, ValueError, OSError):
        return {}


def _chunks(array: Path, node: dict[str, Any]) -> bool:
    """Whether every chunk of an array has a file, with something in it."""
    sizes = zip(node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"], strict=True)
    files = [array / "c"] if not node["shape"] else (array / "c").rglob("*")
    there = sum(1 for file in files if file.is_file() and file.suffix != ".partial" and file.stat().st_size)
    return there == int(prod(-(-size // chunk) for size, chunk in sizes))
