"""The groups of a trace: those that it lists, and a shelf of those that it does not.

A trace lists the groups of one declaration. What a changed run asks for anew is measured on the shelf, inside the folder of the
array ``manifest``, where no reader of Zarr looks for nodes. When all of it is there at every complete checkpoint, it is listed in
one exchange, and what it replaces, or what is not asked for any more, goes to the shelf instead, where a run that asks for it
again finds it. A group is known by its name and by ``asked``, the digest of all that decides what it holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr

from checkpoints.errors import first_line
from checkpoints.foreign import parse_json
from checkpoints.paths import replace_bytes

from ..names import CHECKPOINT
from .create import GROUP_RECORD, ROOT_RECORD, add_flag, create_group
from .declaration import Group, TraceDeclaration, fingerprint_of
from .derived import DERIVED, aside, clear_aside
from .format import damaged
from .manifest import MANIFEST, collected_metadata, consolidated, files_in, parsed, record_of, rewrite

__all__ = [
    "SHELF",
    "asked_of",
    "delete",
    "drop_shelved",
    "exchange",
    "finish_exchange",
    "listed_groups",
    "note_text",
    "prepare_group",
    "prune_shelf",
    "raise_version",
    "records_of",
    "root_records",
    "shelf",
    "shelved",
    "slabs_in",
    "sums_of",
]

SHELF = f"{MANIFEST}/groups"
"""Where groups are that a trace does not list."""

_EXCHANGE = "exchange"
_PROGRAM = ("versions", "commit", "dirty")


def shelf(name: str, asked: str) -> str:
    """Where a group is while it is not listed, in its trace."""
    return f"{SHELF}/{name}.{asked}"


def shelved(path: Path) -> list[Path]:
    """The folders of the groups that a trace has and does not list."""
    return sorted(p for p in (path / SHELF).glob("*.*") if (p / "zarr.json").is_file())


def asked_of(folder: Path) -> str:
    """What a group was asked for, as it says; empty where it does not."""
    try:
        return str(parsed((folder / "zarr.json").read_bytes())["attributes"].get("asked", ""))
    except (OSError, KeyError):
        return ""


def listed_groups(path: Path) -> dict[str, str]:
    """Name to what was asked, of the groups that a trace lists."""
    found = {}
    for name, node in consolidated(path).items():
        if node["node_type"] == "group" and "/" not in name and name not in DERIVED:
            found[name] = str(node["attributes"].get("asked", ""))
    return found


def slabs_in(folder: Path) -> list[str]:
    """Names of a group's variables, by its metadata: what has a slab for each checkpoint, but for what is noted of it."""
    return sorted(
        file.parent.name
        for file in folder.glob("*/zarr.json")
        if file.parent.name not in ("step", MANIFEST) and _along(file) is not None
    )


def records_of(folder: Path) -> dict[int, dict[str, Any]]:
    """Checkpoint index to what was noted of a group there; a checkpoint where it is not whole is left out.

    Raises:
        UserError: when the metadata of the notes are damaged.
    """
    found: dict[int, dict[str, Any]] = {}
    there = [int(p.name) for p in (folder / MANIFEST / "c").glob("*") if p.name.isdecimal()]
    if not there:
        return found
    path = folder.parents[2] if folder.parent.match(SHELF) else folder.parent
    array = _notes(path, (folder / MANIFEST).relative_to(path).as_posix())
    for index in sorted(there):
        try:
            record = record_of(str(array[index]))
        except Exception:  # whatever reading a damaged chunk raises: it shows as damage
            continue
        if record.get("slabs"):
            found[index] = record
    return found


def _notes(path: Path, name: str) -> zarr.Array[Any]:
    """The array of what was noted, of a trace or of one of its groups."""
    try:
        return zarr.open_array(path / name, mode="r")
    except Exception as error:  # its metadata may be missing, or hold any JSON
        raise damaged(path, f"the array {name}", first_line(error)) from error


def prepare_group(path: Path, group: Group, declaration: TraceDeclaration) -> str:
    """Make room for a group on the shelf, for all checkpoints; returns where. Slabs that are there stay."""
    place = shelf(group.name, declaration.asked(group))
    folder, made = path / place, aside(path) / "group"
    root = parsed((path / "zarr.json").read_bytes())["attributes"]
    mine = json.loads(json.dumps({key: declaration.attributes.get(key) for key in _PROGRAM}, default=str))
    about = {} if mine == {key: root.get(key) for key in _PROGRAM} else {"made_by": mine}
    if folder.is_dir():
        before = (
            parsed((folder / "zarr.json").read_bytes()).get("attributes", {})
            if (folder / "zarr.json").is_file()
            else {}
        )
        about = {"made_by": before["made_by"]} if "made_by" in before else {}
    if made.parent.is_symlink() or not made.parent.is_dir():  # in a folder there may be what a killed writer took out
        clear_aside(path)
    shutil.rmtree(made, ignore_errors=True)
    made.parent.mkdir(exist_ok=True)
    create_group(made, group, declaration, **about)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made, folder)
        return place
    for file in (p for p in made.rglob("*") if p.is_file()):
        target = folder / file.relative_to(made)
        content = file.read_bytes()
        if target.is_file() and (shape := _along(file)) is not None and target.parent.name not in ("step", MANIFEST):
            kept = parse_json(target.read_bytes())  # in whichever layout its slabs are
            kept["shape"][0] = shape
            content = json.dumps(kept, indent=2).encode()
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(target, content)
    shutil.rmtree(made, ignore_errors=True)
    return place


def exchange(
    path: Path,
    leaving: Sequence[str],
    entering: Mapping[str, str],
    attributes: Mapping[str, Any],
    without: Sequence[str] = (),
) -> None:
    """List groups of the shelf, and put others there instead; whatever kills it, the next writer ends it.

    Args:
        path: the trace; the caller holds its lock.
        leaving: names of listed groups.
        entering: name to what is asked, of groups on the shelf.
        attributes: of the root that change with them.
        without: attributes of the root that go with them.
    """
    moving = {*leaving, *entering}
    rest = {name: node for name, node in consolidated(path).items() if name.partition("/")[0] not in moving}
    about = {
        "leaving": list(leaving),
        "entering": dict(entering),
        "attributes": dict(attributes),
        "without": list(without),
    }
    rewrite(path, attributes={_EXCHANGE: about}, metadata=rest, dropped=moving)
    finish_exchange(path)


def finish_exchange(path: Path) -> None:
    """End an exchange that was begun; nothing where there is none."""
    attributes = parsed((path / "zarr.json").read_bytes()).get("attributes", {})
    if not isinstance(begun := attributes.get(_EXCHANGE), dict):
        return
    entering: dict[str, str] = begun["entering"]
    for name in begun["leaving"]:
        folder = path / name
        asked = asked_of(folder)
        if folder.is_dir() and asked != entering.get(name):
            target = path / shelf(name, asked)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, target)
            if not _has_slabs(target):
                shutil.rmtree(target)
    for name, asked in entering.items():
        if not (path / name).is_dir():
            os.replace(path / shelf(name, asked), path / name)
    if (path / SHELF).is_dir() and not any((path / SHELF).iterdir()):
        (path / SHELF).rmdir()
    metadata, written = consolidated(path), []
    for name in entering:
        metadata |= collected_metadata(path, name)
        written += [f"{name}/{file}" for file in _sealed_in(path / name)]
    rewrite(
        path,
        attributes=begun["attributes"],
        metadata=metadata,
        written=written,
        without=(_EXCHANGE, "growing", *begun["without"]),
    )


def _has_slabs(folder: Path) -> bool:
    """Whether a group has a file of a slab, also where what was noted of it, or an array's metadata, is damaged."""
    arrays = (c.parent for c in folder.glob("*/c") if c.parent.name not in ("step", MANIFEST))
    slabs = (a for a in arrays if _first_dimension(a / "zarr.json") in (CHECKPOINT, None))
    return any(p.is_file() and p.suffix != ".partial" for a in slabs for p in (a / "c").rglob("*"))


def _sealed_in(folder: Path) -> list[str]:
    """The files of a group that the root's seal names: metadata and coordinates."""
    written = {*slabs_in(folder), MANIFEST}
    return [
        "zarr.json",
        *(f for f in files_in(folder) if f.partition("/")[0] not in written or f.endswith("/zarr.json")),
    ]


def _along(file: Path) -> int | None:
    """How many checkpoints an array has, by its metadata; None for one that has no such dimension."""
    try:
        node = parse_json(file.read_bytes())
        if node["node_type"] == "array" and node["dimension_names"][0] == CHECKPOINT:
            return int(node["shape"][0])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None


def _first_dimension(file: Path) -> str | None:
    """An array's first dimension, by its metadata; None where they do not say one."""
    try:
        return str(parse_json(file.read_bytes())["dimension_names"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def prune_shelf(path: Path) -> list[tuple[str, int]]:
    """Delete the groups that a trace does not list and is not about to gain; returns their names and sizes in bytes."""
    growing: Any = parsed((path / "zarr.json").read_bytes()).get("attributes", {}).get("growing") or {}
    kept, found = {f"{name}.{asked}" for name, asked in growing.items()}, []
    for folder in shelved(path):
        if folder.name not in kept:
            found.append((folder.name, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())))
            shutil.rmtree(folder)
    if (path / SHELF).is_dir() and not any((path / SHELF).iterdir()):
        (path / SHELF).rmdir()
    return found


def drop_shelved(path: Path, variable: str, step: int | None, steps: Sequence[int]) -> None:
    """Delete one checkpoint of a group on the shelf, or all of the group where what is damaged is of no checkpoint.

    Args:
        path: the trace.
        variable: the array that is damaged.
        step: of the checkpoint.
        steps: of the trace.
    """
    folder = path / "/".join(variable.split("/")[:3])
    if step is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in (MANIFEST, *slabs_in(folder)):
        delete(folder / name, steps.index(step))


def delete(variable: Path, index: int) -> None:
    """Delete one checkpoint of an array."""
    path = variable / "c" / str(index)
    if path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def raise_version(path: Path, declaration: TraceDeclaration, version: int) -> None:
    """Make a trace of version 1 one of this version: what was noted of each checkpoint is noted of each of its groups.

    Args:
        path: the trace, with a manifest; the caller holds its lock.
        declaration: what the run asks for, which says what the groups are where it has not changed.
        version: the present one.
    """
    root = zarr.open_group(path, mode="r+", zarr_format=3)
    attributes: dict[str, Any] = dict(root.attrs)
    declared: dict[str, Any] = dict(attributes["declared"])
    groups = {g.name: g for g in declaration.groups if declaration.same_group(g, attributes)}
    same = {name: declaration.asked(group) for name, group in groups.items()}
    records, revisions = root_records(path), [""] * len(declaration.checkpoints)
    with suppress(Exception):  # whatever reading a damaged array raises: it shows as damage
        revisions = [str(value) for value in np.asarray(root["revision"])]
    zarr.open_array(path / MANIFEST, mode="r+").attrs["long_name"] = ROOT_RECORD
    written = [f"{MANIFEST}/zarr.json"]
    for name in listed_groups(path):
        folder, about = path / name, declared.get(f"probe {name}", {})
        text = json.dumps(["version 1", name, about], sort_keys=True)
        asked = same.get(name) or hashlib.sha256(text.encode()).hexdigest()[:16]
        shutil.rmtree(folder / MANIFEST, ignore_errors=True)
        node = zarr.open_group(folder, mode="r+", zarr_format=3, use_consolidated=False)
        add_flag(node, MANIFEST, len(records), "string", "", GROUP_RECORD)
        array: Any = node[MANIFEST]
        for index, record in enumerate(records):
            slabs = {
                v.partition("/")[2]: e for v, e in (record.get("slabs") or {}).items() if v.partition("/")[0] == name
            }
            if slabs:
                counts = {key: record.get(key) or None for key in ("nonfinite", "overflowed")}  # of all groups together
                counts = {key: 0 if record.get(key) == 0 else value for key, value in counts.items()} | {"slabs": slabs}
                array[index] = note_text(record, counts | {"revision": revisions[index]})
        before: dict[str, Any] = dict(node.attrs)
        if name in groups:  # of which the first version did not note whether it changed
            before["description"] = groups[name].description
        coordinates = str(before.get("coordinates", "step")).split()
        before["coordinates"] = " ".join(["step", MANIFEST, *(c for c in coordinates if c not in ("step", MANIFEST))])
        ordered = {key: before.pop(key) for key in ("description", "coordinates") if key in before}
        more = {"asked": asked, "dtype": attributes.get("dtype")}
        node.attrs.put(ordered | more | {k: v for k, v in before.items() if k not in more})
        if about:
            declared[f"probe {name}"] = {"asked": asked, **{k: v for k, v in about.items() if k != "asked"}}
        written += [f"{name}/zarr.json", f"{name}/{MANIFEST}/zarr.json"]
    metadata = {n: node for n, node in consolidated(path).items() if n.partition("/")[0] in DERIVED}
    for child in sorted(p.name for p in path.iterdir() if (p / "zarr.json").is_file() and p.name not in DERIVED):
        metadata |= collected_metadata(path, child)
    about = {"format_version": version, "declared": declared, "fingerprint": fingerprint_of(declared, attributes)}
    rewrite(path, attributes=about, metadata=metadata, written=written)


def note_text(record: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    """What is noted of a group at a checkpoint."""
    about = {key: record.get(key, "") for key in ("stored_dtype", "weights_digest")}
    return json.dumps(about | dict(counts), ensure_ascii=False, sort_keys=True)


def sums_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the root says of all groups together; None where one does not know."""
    result: dict[str, Any] = {}
    for key in ("nonfinite", "overflowed"):
        values = [record.get(key) for record in records]
        result[key] = None if None in values else sum(cast(list[int], values))
    return result


def root_records(path: Path) -> list[dict[str, Any]]:
    """What the root notes of each checkpoint; nothing where that cannot be read.

    Raises:
        UserError: when the metadata of the notes are damaged.
    """
    array = _notes(path, MANIFEST)
    found = []
    for index in range(array.shape[0]):
        try:
            found.append(record_of(str(np.asarray(array[index]))))
        except Exception:  # whatever reading a damaged chunk raises: it shows as damage
            found.append({})
    return found
