"""What a trace consists of, written down beside it, so that a file that is gone, or is another than was written, shows.

*Records.* The array ``manifest`` of the root has one JSON text per checkpoint: its state, what the arrays of the root say
of it, and of each variable how many files its slab has, how many bytes, and their digest.

*Seals.* A folder that is written as a whole (the trace without its slabs, one analysis's results, one dictionary's
features) names the files in it, with sizes and digests, in the attribute ``files`` of its ``zarr.json``, which begins with
a digest of itself. The root's is kept twice: ``manifest/root.json`` is a copy, as nothing else holds its attributes.

A checksum inside a chunk tells that the chunk is whole, not that it is there, or that it belongs there.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from checkpoints.foreign import parse_json
from checkpoints.paths import replace_bytes

__all__ = [
    "FLAGS",
    "MANIFEST",
    "ROOT_COPY",
    "collected_metadata",
    "consolidated",
    "files_in",
    "intact",
    "metadata_of",
    "parsed",
    "record_of",
    "rewrite",
    "sealed_files",
    "slab_entry",
    "slab_files",
    "unlike",
    "unlike_seal",
]

MANIFEST = "manifest"
"""The root's array of records."""

ROOT_COPY = f"{MANIFEST}/root.json"
"""The copy of the root's ``zarr.json``: inside an array's folder, where no reader of Zarr looks for nodes."""

FLAGS = ("weights_digest", "stored_dtype", "nonfinite", "overflowed")
"""Arrays of the root of which a record repeats the value, besides ``status`` and ``reason``."""

_SEAL = re.compile(rb'\{"attributes": \{"digest": "([0-9a-f]{16})"')


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _entry(content: bytes) -> str:
    return f"{len(content)} {_digest(content)}"


def unlike(file: Path, known: str) -> str:
    """How a file differs from its entry in ``files``; nothing if it does not."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return "it is missing" if isinstance(error, FileNotFoundError) else f"it cannot be read: {error.strerror}"
    if _entry(content) == known:
        return ""
    size = int(known.split()[0])
    return "it is not what was written" if len(content) == size else f"it has {len(content)} bytes of {size}"


def slab_files(variable: Path, index: int) -> list[Path]:
    """The files of one checkpoint of a variable; a variable with one number a checkpoint has one file."""
    path = variable / "c" / str(index)
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


def slab_entry(variable: Path, index: int) -> str:
    """Number of files, bytes and digest of one checkpoint of a variable."""
    total, size, files = hashlib.blake2b(digest_size=8), 0, sorted(slab_files(variable, index))
    for file in files:
        content = file.read_bytes()
        size += len(content)
        total.update(f"{file.relative_to(variable).as_posix()} {len(content)} ".encode())
        total.update(content)
    return f"{len(files)} {size} {total.hexdigest()}"


def parsed(content: bytes) -> dict[str, Any]:
    """A ``zarr.json``; empty where it is none."""
    try:
        found = parse_json(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("attributes"), dict) else {}


def record_of(text: str) -> dict[str, Any]:
    """A checkpoint's record; empty where it is none."""
    try:
        found = parse_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def sealed_files(folder: Path) -> dict[str, str]:
    """File to size and digest, as a folder's ``zarr.json`` notes them; empty where it notes none."""
    found = parsed((folder / "zarr.json").read_bytes())
    return dict(found.get("attributes", {}).get("files", {}))


def unlike_seal(folder: Path) -> dict[str, str]:
    """File to how it differs, of those that a folder's ``zarr.json`` notes."""
    known = sealed_files(folder)
    return {file: problem for file, entry in known.items() if (problem := unlike(folder / file, entry))}


def intact(content: bytes) -> bool | None:
    """Whether a sealed ``zarr.json`` is what was written; None for one that has no seal (of an earlier version)."""
    if (seal := _SEAL.match(content)) is None:
        found = parsed(content)
        return None if found and {"files", "digest"}.isdisjoint(found["attributes"]) else False
    start, end = seal.span(1)
    return _digest(content[:start] + b"0" * 16 + content[end:]) == seal[1].decode()


def files_in(folder: Path) -> list[str]:
    """Paths of the files in a folder that a seal names: not those that seal."""
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".partial")
    return sorted(set(found) - {"zarr.json", ROOT_COPY})


def collected_metadata(root: Path, name: str = "") -> dict[str, Any]:
    """Path to metadata of a node and of all in it, without the root, as consolidated metadata have them."""
    node = metadata_of(root / name)
    found = {name: node} if name else {}
    if node["node_type"] == "group":
        for child in sorted(p.name for p in (root / name).iterdir() if (p / "zarr.json").is_file()):
            found |= collected_metadata(root, f"{name}/{child}" if name else child)
    return found


def metadata_of(folder: Path) -> dict[str, Any]:
    """Metadata of one node, as consolidated metadata have them."""
    node: dict[str, Any] = parse_json((folder / "zarr.json").read_bytes())
    if node["node_type"] == "group":
        node["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {}}
    return node


def consolidated(root: Path) -> dict[str, Any]:
    """Path to metadata of every node, as the ``zarr.json`` of a group has them."""
    found = parsed((root / "zarr.json").read_bytes()).get("consolidated_metadata") or {}
    return dict(found.get("metadata", {}))


def rewrite(
    folder: Path,
    *,
    attributes: Mapping[str, Any] | None = None,
    written: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    without: Iterable[str] = (),
    dropped: Iterable[str] = (),
) -> None:
    """Change the ``zarr.json`` of a folder in one move, and seal it.

    Args:
        folder: of the group.
        attributes: those that change.
        written: files in it that were written just now: they are noted as they are. What else was noted stays, so that
            damage stays damage. A group that notes no files, as it is of an earlier version, gets no seal.
        metadata: all nodes below it, to replace the consolidated metadata.
        without: attributes that go.
        dropped: groups in it whose files are not noted any more.
    """
    file = folder / "zarr.json"
    content = parse_json(file.read_bytes())
    about = {**content["attributes"], **json.loads(json.dumps(dict(attributes or {}), default=str))}
    about = {name: value for name, value in about.items() if name not in {*without}}
    if gone := {*dropped} & {name.partition("/")[0] for name in about.get("files", {})}:
        about["files"] = {name: entry for name, entry in about["files"].items() if name.partition("/")[0] not in gone}
    if noted := {name: _entry((folder / name).read_bytes()) for name in written}:
        about["files"] = dict(sorted({**about.get("files", {}), **noted}.items()))
    if metadata is not None:
        ordered = sorted(metadata.items(), key=lambda item: _order(item[0]))
        content["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": dict(ordered)}
    if "files" in about:
        about = {"digest": "0" * 16, **{name: value for name, value in about.items() if name != "digest"}}
    rest = {name: value for name, value in content.items() if name != "attributes"}
    text = json.dumps({"attributes": about, **rest}).encode()
    if seal := _SEAL.match(text):
        start, end = seal.span(1)
        text = text[:start] + _digest(text).encode() + text[end:]
    replace_bytes(file, text)
    if (folder / MANIFEST).is_dir():
        replace_bytes(folder / ROOT_COPY, text)


def _order(name: str) -> tuple[int, str]:
    """The order in which zarr writes nodes."""
    return name.count("/"), unicodedata.normalize("NFKC", name).casefold()
