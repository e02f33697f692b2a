"""Opening a trace as Zarr: what is refused, and what is said of what is damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from checkpoints.errors import UserError, first_line, short, shown

from .attributes import check_attributes
from .declaration import FEATURES, FORMAT, FORMAT_VERSION
from .direct import DirectStore
from .manifest import ROOT_COPY, intact, parsed
from .mirror import FetchingStore, located, place_of, remote_url

__all__ = [
    "TOGETHER",
    "array_of",
    "check_format",
    "damaged",
    "is_newer",
    "open_group",
    "require_steps",
    "trace_attributes",
    "whole_column",
]

TOGETHER = 256
"""Checkpoints of a small array that are read at once."""


def damaged(path: Path, what: str, problem: str) -> UserError:
    """The error for a trace, something in which is missing or is not what was written."""
    run = path.name.removesuffix(".zarr")  # in a terminal, whoever is told
    command, does = f"dynamics verify {run} --repair", "it says what is damaged, and mends it"
    if what.startswith(f"{FEATURES}/"):
        command, does = f"dynamics learn {run} --fresh", "it makes them again"
    return UserError(
        f"{what} of {place_of(path)} is damaged: {problem}",
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
            f"{place_of(path)} is not a trace: its attribute `format` is {shown(attributes.get('format'))}",
            expected=f"{FORMAT!r}",
            remedy="give the path of a folder that `dynamics collect` wrote",
        )
    if type(version) is not int or not 0 < version <= FORMAT_VERSION:
        raise UserError(
            f"{place_of(path)} has trace format version {short(str(version))}",
            expected=f"version {FORMAT_VERSION} or older",
            remedy="install a newer circuit-dynamics",
        )
    check_attributes(attributes, path)


def whole_column(array: zarr.Array[Any]) -> np.ndarray:
    """(checkpoint, ...) an array with a chunk for each checkpoint, read some at a time: zarr takes 3 KB for every chunk it is asked."""
    parts = [np.asarray(array[at : at + TOGETHER]) for at in range(0, max(1, array.shape[0]), TOGETHER)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def require_steps(path: Path, attributes: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> None:
    """Refuse steps that are not the declared ones: a copy made while its original grew may hold those of before.

    Args:
        path: the trace.
        attributes: of its root.
        found: group to (checkpoint,) steps; the root's without a name.

    Raises:
        UserError: with the array.
    """
    declared = (attributes.get("declared") or {}).get("checkpoints")
    if declared is None:
        return
    steps = [name.removeprefix("step ") for name in declared]
    for group, values in found.items():
        if [str(step) for step in values.tolist()] != steps:
            array = f"{group}/step" if group else "step"
            raise damaged(path, f"the array {array}", "it holds other steps than were declared")


def is_newer(path: Path) -> bool:
    """Whether a newer version of this program wrote a trace: both copies of its metadata say so, where it has two.

    A version that only one of them says is damage.
    """
    files = [file for file in (path / "zarr.json", path / ROOT_COPY) if file.is_file()]
    said = [parsed(file.read_bytes()).get("attributes", {}).get("format_version") for file in files]
    return bool(said) and all(type(v) is int and v > FORMAT_VERSION and v == said[0] for v in said)


def open_group(path: Path, *, mode: Any) -> zarr.Group:
    """The trace's root group.

    Raises:
        UserError: when there is no Zarr group, or it cannot be read.
    """
    try:
        store: Path | LocalStore = path
        if mode == "r":
            store = FetchingStore(path) if remote_url(path) else path
        elif path.is_dir():  # which a store that may be written would make
            store = DirectStore(path)
        return zarr.open_group(store, mode=mode, zarr_format=3)
    except Exception as error:  # zarr.json may hold any JSON, or none
        if (path / ROOT_COPY).is_file():
            raise damaged(path, "the file zarr.json", "it is missing, or cannot be read") from error
        there = path.is_dir()
        if inside := sorted(p.name for p in path.glob("*.zarr")):
            raise UserError(
                f"{place_of(path)} is a folder of traces: {', '.join(inside[:6])}",
                expected="one trace",
                remedy=f"name one of them, such as {place_of(path / inside[0])}",
            ) from error
        raise UserError(
            f"{place_of(path)} is not a trace: {first_line(error) if there else 'there is no such folder'}",
            expected="a folder that `dynamics collect` wrote",
            remedy="restore its zarr.json, or collect the run anew under another name"
            if there
            else "correct the path, or collect the run: dynamics collect NAME",
        ) from error


def array_of(root: zarr.Group, name: str) -> zarr.Array[Any]:
    path = Path(str(root.store_path).removeprefix("file://"))
    try:
        array = root[name]
    except Exception as error:  # its metadata may hold any JSON
        raise damaged(path, f"the array {name}", first_line(error)) from error
    if not isinstance(array, zarr.Array):
        raise damaged(path, f"the array {name}", "it is no array")
    return array.with_config({"write_empty_chunks": True})


def trace_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a trace's root, without opening the rest.

    Raises:
        UserError: when it is no trace, of a newer format version, or its metadata are damaged.
    """
    path = located(path)
    attributes = dict(open_group(path, mode="r").attrs)
    check_format(attributes, path)
    return attributes
