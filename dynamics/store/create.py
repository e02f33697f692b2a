"""Creating a trace: one Zarr v3 group, preallocated for every checkpoint, put in place in one move."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from checkpoints.errors import UserError, first_line, unwritable
from checkpoints.paths import replace_bytes
from checkpoints.series import Checkpoint

from ..names import CHECKPOINT
from .declaration import FORMAT, FORMAT_VERSION, Group, TraceDeclaration, chunk_shape, fingerprint_of
from .derived import DERIVED, aside, clear_aside
from .direct import DirectStore
from .manifest import MANIFEST, collected_metadata, consolidated, files_in, parsed, rewrite
from .variable import Variable

__all__ = [
    "GROUP_RECORD",
    "ROOT_RECORD",
    "add_flag",
    "create_group",
    "create_trace",
    "grow_trace",
    "put_attributes",
    "put_coordinate",
    "put_dataset",
]

ROOT_RECORD = "JSON: the state of a checkpoint"
GROUP_RECORD = "JSON: what the slabs of a checkpoint consist of"
"""What the arrays called ``manifest`` hold."""
_DERIVED_CHUNK_BYTES = 2**22
_COORDINATE_CHUNK = 1024
"""Entries in one chunk of a coordinate along checkpoints: a chunk may be larger than its array, which then can grow."""


def create_trace(path: Path, declaration: TraceDeclaration) -> None:
    """Write the metadata and coordinates of an empty trace.

    Everything is written under a provisional name first, so that a trace of that name is always whole.

    Raises:
        UserError: when the folder cannot be written.
        StoppedError: when the disk is full.
    """
    partial = aside(path)
    try:
        clear_aside(path)
        partial.mkdir(parents=True)
        _fill(partial, declaration)
        os.replace(partial, path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)  # the room that it took is given back
        raise unwritable(f"the trace {path}", error, option="--traces") from error


def _fill(path: Path, declaration: TraceDeclaration) -> None:
    root = zarr.open_group(DirectStore(path), mode="w", zarr_format=3)
    n = len(declaration.checkpoints)
    about_series = _about_checkpoints(declaration.checkpoints)
    for name, (entries, attributes) in about_series.items():
        put_coordinate(root, name, CHECKPOINT, entries, chunk=_COORDINATE_CHUNK, **attributes)
    for name, dtype, fill, meaning in (
        ("status", "string", "pending", "pending, complete, failed or masked"),
        ("reason", "string", "", "why a checkpoint failed or is masked"),
        ("weights_digest", "string", "", "sha256 of the weight files"),
        ("stored_dtype", "string", "", "dtype of the weights as stored"),
        ("nonfinite", "int64", -1, "values of this checkpoint that are NaN or infinite because the model said so"),
        ("overflowed", "int64", -1, "finite activations beyond the range of trace_dtype"),
        (MANIFEST, "string", "", ROOT_RECORD),
    ):
        add_flag(root, name, n, dtype, fill, meaning)
    root.attrs.update(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "fingerprint": declaration.fingerprint(),
            "declared": declaration.summary(),
            "coordinates": "step tokens stage revision label status reason weights_digest stored_dtype nonfinite overflowed "
            + MANIFEST,
            **declaration.attributes,
        }
    )
    for group in declaration.groups:
        _fill_group(root.create_group(group.name), group, declaration)
    rewrite(path, written=files_in(path), metadata=collected_metadata(path))


def create_group(folder: Path, group: Group, declaration: TraceDeclaration, **about: Any) -> None:
    """Write the metadata and coordinates of a group without a slab; ``about`` are further attributes of it."""
    _fill_group(zarr.open_group(DirectStore(folder), mode="w", zarr_format=3), group, declaration, **about)


def _fill_group(node: zarr.Group, group: Group, declaration: TraceDeclaration, **more: Any) -> None:
    entries, attributes = _about_checkpoints(declaration.checkpoints)["step"]
    put_coordinate(node, "step", CHECKPOINT, entries, chunk=_COORDINATE_CHUNK, **attributes)
    add_flag(node, MANIFEST, len(entries), "string", "", GROUP_RECORD)
    coords = group.coords()
    for name, (dim, values) in coords.items():
        put_coordinate(node, name, dim, values)
    about = {"description": group.description, "coordinates": " ".join(["step", MANIFEST, *coords])}
    asked = {"asked": declaration.asked(group), "dtype": declaration.attributes.get("dtype")}
    node.attrs.update(about | asked | dict(group.settings) | more)
    for variable in group.variables:
        _create_variable(node, variable, declaration, len(entries))


def add_flag(node: zarr.Group, name: str, checkpoints: int, dtype: str, fill: Any, meaning: str) -> None:
    """An array that is written while collecting: one chunk for each checkpoint, so that nothing said is lost."""
    node.create_array(
        name,
        shape=(checkpoints,),
        chunks=(1,),
        dtype=dtype,
        fill_value=fill,
        dimension_names=(CHECKPOINT,),
        compressors=[Crc32cCodec()],
        attributes={"long_name": meaning},
    )


def _about_checkpoints(series: Sequence[Checkpoint]) -> dict[str, tuple[list[Any], dict[str, str]]]:
    """Coordinate name to (one value per checkpoint, attributes)."""
    tokens = [np.nan if c.tokens is None else float(c.tokens) for c in series]
    return {
        "step": ([c.step for c in series], {"long_name": "optimizer steps done"}),
        "tokens": (tokens, {"long_name": "tokens seen", "units": "token"}),
        "stage": ([c.stage for c in series], {"long_name": "training stage"}),
        "revision": ([c.revision for c in series], {"long_name": "what pins it at the source: a path or a commit"}),
        "label": ([c.label for c in series], {"long_name": "name at the source, where that is not the revision"}),
    }


def grow_trace(path: Path, declaration: TraceDeclaration) -> None:
    """Make room for more checkpoints at the end of a trace; what is there stays as it is.

    What it writes grows with the number of checkpoints only by what the root's metadata say of each.

    Readers see the old sizes until the consolidated metadata is put in place, which is one move and comes last: a process
    that was killed before did no harm, the next one does it all again.

    Raises:
        UserError: when the folder cannot be written.
        StoppedError: when the disk is full.
    """
    n = len(declaration.checkpoints)
    try:
        before = parsed((path / "zarr.json").read_bytes())["attributes"]
        known = len(before["declared"]["checkpoints"])
        about, written = _about_checkpoints(declaration.checkpoints), []
        # what is derived is of fewer checkpoints, and listed again where that does not matter
        metadata = {name: node for name, node in consolidated(path).items() if name.split("/")[0] not in DERIVED}
        groups = [name for name, node in metadata.items() if node["node_type"] == "group"]
        needed = {*about, *(f"{name}/step" for name in groups)}
        if lacking := needed - metadata.keys():  # or the step would be gone for good
            raise ValueError(f"the array {min(lacking)!r} is missing")
        for name, node in metadata.items():
            if node["node_type"] != "array" or node["dimension_names"][0] != CHECKPOINT:
                continue
            node["shape"][0] = n  # not by zarr's `resize`, which lists every chunk that there was
            replace_bytes(path / name / "zarr.json", json.dumps(node, indent=2).encode())
            written.append(f"{name}/zarr.json")
            if (coordinate := name.rpartition("/")[2]) in about:
                _put_again(zarr.open_array(path / name, mode="r+", zarr_format=3), about[coordinate][0], known)
                chunks = (p.name for p in (path / name / "c").iterdir() if p.suffix != ".partial")
                written += [f"{name}/c/{chunk}" for chunk in chunks]
        said: Any = before.get("declared")
        declared = {**said, "checkpoints": declaration.summary()["checkpoints"]}
        rewrite(
            path,
            attributes={"fingerprint": fingerprint_of(declared, before), "declared": declared},
            written=written if "files" in before else (),
            metadata=metadata,
        )
    except OSError as error:
        raise unwritable(f"the trace {path}, which is to grow to {n} checkpoints,", error) from error
    except Exception as error:  # the metadata of its arrays may hold any JSON
        raise UserError(
            f"the trace {path} cannot grow to {n} checkpoints: {first_line(error)}",
            expected="the metadata that it was created with",
            remedy="restore its zarr.json files from a copy, or move the trace away and collect the run anew",
        ) from error


def _put_again(array: zarr.Array[Any], values: Sequence[Any], known: int) -> None:
    """Make a coordinate hold these values; chunks of ``known`` ones are written only where they do not."""
    filled = np.array(values, dtype=object) if isinstance(values[0], str) else np.asarray(values)
    step = array.chunks[0]
    try:
        there = np.asarray(array[:])
    except Exception:  # whatever reading a damaged chunk raises
        there = np.full(len(filled), None)
    for at in range(0, len(filled), step):
        part = slice(at, at + step)
        same = (a == b or (a != a and b != b) for a, b in zip(filled[part], there[part], strict=True))
        if at + step > known or not all(same):
            _whole(array)[part] = filled[part]


def put_attributes(path: Path, changed: Mapping[str, Any]) -> None:
    """Change attributes of the root in one move; zarr would drop the consolidated metadata that lies beside them."""
    rewrite(path, attributes=changed)


def _create_variable(node: zarr.Group, variable: Variable, declaration: TraceDeclaration, checkpoints: int) -> None:
    dtype = declaration.dtype(variable)
    chunks = (1, *chunk_shape(variable, np.dtype(dtype).itemsize))
    compressors: list[Any]
    if variable.kind == "activation" and declaration.bfloat16:
        compressors = [BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec()]
    elif variable.kind == "int" or variable.name == "pattern":
        compressors = [ZstdCodec(level=1), Crc32cCodec()]
    else:
        compressors = [Crc32cCodec()]
    sharding: dict[str, Any] = {}
    if declaration.layout == "sharded":
        whole = [-(-size // chunk) * chunk for size, chunk in zip(variable.shape, chunks[1:], strict=True)]
        sharding = {"shards": (1, *whole)}
    node.create_array(
        variable.name,
        shape=(checkpoints, *variable.shape),
        chunks=chunks,
        dtype=dtype,
        fill_value=-1 if variable.kind == "int" else np.nan,
        dimension_names=(CHECKPOINT, *variable.dims),
        compressors=compressors,
        attributes={"long_name": variable.long_name, "units": variable.units},
        **sharding,
    )


def put_coordinate(
    node: zarr.Group, name: str, dim: str, values: Sequence[Any], *, chunk: int = 1, **attributes: str
) -> None:
    """Write one coordinate in one chunk: text as Zarr ``string`` from an object array, numbers as int64 or float64.

    ``chunk`` is the least size of that chunk.
    """
    chunks = (max(chunk, len(values)),)
    kinds: set[type] = {bool if isinstance(v, bool | np.bool_) else type(v) for v in values}
    attrs: Mapping[str, str] = attributes
    array = np.asarray(values)
    too_large = array.dtype.kind == "f" and kinds == {int}  # beyond int64, where numpy would round
    if array.dtype.kind not in "bif" or too_large or kinds > {bool}:  # True beside 2 keeps its meaning only as text
        stored = node.create_array(
            name,
            shape=(len(values),),
            chunks=chunks,
            dtype="string",
            dimension_names=(dim,),
            compressors=[ZstdCodec(level=0), Crc32cCodec()],
            attributes=dict(attrs),
        )
        _whole(stored)[:] = np.array([str(v) for v in values], dtype=object)
        return
    array = array.astype({"b": "bool", "i": "int64", "f": "float64"}[array.dtype.kind])
    stored = node.create_array(
        name,
        shape=array.shape,
        chunks=chunks,
        dtype=array.dtype,
        fill_value=np.nan if array.dtype.kind == "f" else None,
        dimension_names=(dim,),
        compressors=[Crc32cCodec()],
        attributes=dict(attrs),
    )
    _whole(stored)[:] = array


def put_dataset(node: zarr.Group, dataset: xr.Dataset, attributes: Mapping[str, Any]) -> None:
    """Write a dataset into a group: chunked along the first dimension, so that a part of it can be read alone."""
    coords = {str(name): array for name, array in dataset.coords.items() if array.ndim == 1}
    for name, array in coords.items():
        put_coordinate(node, name, str(array.dims[0]), array.values.tolist())
    for key, array in dataset.data_vars.items():
        values = np.asarray(array.values)
        if values.dtype.kind in "TUO":
            values = values.astype(object)
        first = max(1, _DERIVED_CHUNK_BYTES // max(1, values[:1].nbytes)) if values.ndim else 1
        stored = node.create_array(
            str(key),
            shape=values.shape,
            chunks=tuple(max(1, n) for n in (*(min(first, n) for n in values.shape[:1]), *values.shape[1:])),
            dtype="string" if values.dtype.kind == "O" else values.dtype,
            fill_value=np.nan if values.dtype.kind == "f" else -1 if values.dtype.kind == "i" else None,
            dimension_names=[str(d) for d in array.dims],
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            attributes={k: str(v) for k, v in array.attrs.items()},
        )
        _whole(stored)[...] = values
    node.attrs.update({"coordinates": " ".join(coords), **attributes})


def _whole(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array, of which every chunk is written, so that one that is missing shows."""
    return array.with_config({"write_empty_chunks": True})
