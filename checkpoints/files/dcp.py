"""Folders that ``torch.distributed.checkpoint`` wrote: ``.metadata`` and ``*.distcp``, from any number of processes.

``.metadata`` is a pickle of a few plain classes; torch itself would run it. Here it is read without running it, and so
is each tensor's own part of a ``*.distcp`` file, which torch opens with ``weights_only``. What is no tensor (schedulers,
data loaders) is never opened.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Collection, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CheckpointError
from .pickles import Inert, RefusedName, SafeUnpickler
from .tensors import TensorInfo, refused, unreadable
from .torchfile import contents, load

if TYPE_CHECKING:
    import torch

__all__ = ["Chunk", "StoredTensor", "distcp_files", "read_metadata", "read_tensors"]

_METADATA = ".metadata"


class Chunk(NamedTuple):
    """A part of a tensor: where in the tensor, and where on disk."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    length: int


class StoredTensor(NamedTuple):
    """A tensor and its parts."""

    info: TensorInfo
    chunks: tuple[Chunk, ...]


class _Metadata(Inert):
    pass


class _Tensor(Inert):
    pass


class _Index(Inert):
    pass


_PLACE = "torch.distributed.checkpoint"
_NAMES: Mapping[str, Any] = {
    f"{_PLACE}.metadata.Metadata": _Metadata,
    f"{_PLACE}.metadata.TensorStorageMetadata": _Tensor,
    f"{_PLACE}.metadata.MetadataIndex": _Index,
    **{
        f"{_PLACE}.metadata.{name}": Inert
        for name in (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "StorageMeta",
            "TensorProperties",
            "_MEM_FORMAT_ENCODING",
        )
    },
    f"{_PLACE}.filesystem._StorageInfo": Inert,
    "collections.OrderedDict": OrderedDict,
    "torch.Size": tuple,
    "torch.serialization._get_layout": Inert,
    "builtins.getattr": Inert,  # how some versions of Python write a member of an enumeration
    **{f"{module}.{kind}Path": Inert for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")},
}


def distcp_files(folder: Path) -> list[Path]:
    """Everything that weights are read from, ``.metadata`` first; empty if the folder was not written to its end."""
    metadata, parts = folder / _METADATA, sorted(folder.glob("*.distcp"))
    return [metadata, *parts] if metadata.is_file() and parts else []


def read_metadata(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the folder, by its full name.

    Raises:
        CheckpointError: when ``.metadata`` is missing, damaged or would run code, or a file is missing or too short.
    """
    file = folder / _METADATA
    if not distcp_files(folder):
        raise CheckpointError(
            f"{folder} holds no complete distributed checkpoint: {_METADATA} or *.distcp is missing",
            expected=f"{_METADATA}, which is written last, and *.distcp",
            remedy="leave its step out with `exclude` in the runs file, or copy it again",
        )
    try:
        with file.open("rb") as stream:
            metadata = SafeUnpickler(stream, _NAMES).load()
        if not isinstance(metadata, _Metadata):
            raise ValueError(f"it holds a {type(metadata).__name__}")
        return _tensors(folder, metadata.state)
    except CheckpointError:
        raise
    except RefusedName as error:
        raise refused(file, str(error)) from error
    except Exception as error:  # a damaged pickle is a damaged program: it may raise anything
        raise unreadable(file, error) from error


def _tensors(folder: Path, metadata: Mapping[str, Any]) -> dict[str, StoredTensor]:
    stored = {}
    for index, info in metadata["storage_data"].items():
        if isinstance(index, _Index) and index.state.get("offset") is not None:
            stored[index.state["fqn"], tuple(index.state["offset"])] = info.state
    sizes = {part.name: part.stat().st_size for part in distcp_files(folder)}
    result = {}
    for name, entry in metadata["state_dict_metadata"].items():
        if not isinstance(entry, _Tensor):
            continue
        shape, dtype = _sizes(entry.state["size"]), entry.state["properties"].state[0]
        chunks = []
        for part in entry.state["chunks"]:
            offsets, extent = _sizes(part.state["offsets"]), _sizes(part.state["sizes"])
            if not prod(extent):
                continue  # of a process that had no part in it
            where = stored[name, offsets]
            if where.get("transform_descriptors"):
                raise CheckpointError(
                    f"{folder} holds {name!r} in compressed form",
                    expected="parts as torch.save writes them",
                    remedy="save it without compression",
                )
            chunk = Chunk(offsets, extent, folder / where["relative_path"], where["offset"], where["length"])
            if chunk.file.name != where["relative_path"] or chunk.file.name not in sizes:
                raise ValueError(f"{name!r} should be in a file {where['relative_path']!r}, which is not there")
            held = sizes[chunk.file.name] - chunk.start
            if chunk.start < 0 or not prod(extent) <= chunk.length <= held:  # a number takes at least a byte
                raise ValueError(f"{chunk.file.name} is too short to hold {name!r}")
            if any(o + e > s for o, e, s in zip(offsets, extent, shape, strict=True)):
                raise ValueError(f"a part of {name!r} lies outside of it")
            chunks.append(chunk)
        if sum(prod(c.sizes) for c in chunks) != prod(shape) or len({c.offsets for c in chunks}) < len(chunks):
            raise ValueError(f"the parts of {name!r} do not make up the whole")
        result[str(name)] = StoredTensor(TensorInfo(shape, str(dtype)), tuple(chunks))
    return result


def _sizes(values: Any) -> tuple[int, ...]:
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"{values!r} is no shape")
    return tuple(values)


def read_tensors(folder: Path, stored: Mapping[str, StoredTensor], names: Collection[str]) -> dict[str, torch.Tensor]:
    """Put the wanted tensors together in CPU memory.

    Args:
        folder: the folder.
        stored: what :func:`read_metadata` returned.
        names: the wanted ones.

    Raises:
        CheckpointError: when a part cannot be read, would run code, or is not what ``.metadata`` says.
    """
    import torch

    result = {}
    for name in names:
        (shape, dtype), chunks = stored[name]
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype):
            raise unreadable(folder / _METADATA, ValueError(f"{name!r} is of dtype {dtype!r}"))
        result[name] = torch.empty(shape, dtype=kind)
        for chunk in chunks:
            part = _part(chunk)
            if tuple(part.shape) != chunk.sizes or part.dtype != kind:
                raise unreadable(chunk.file, ValueError(f"a part of {name!r} is not what {_METADATA} says"))
            region = tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True))
            result[name][region] = part
    return result


def _part(chunk: Chunk) -> torch.Tensor:
    import torch

    try:
        with chunk.file.open("rb") as stream:
            stream.seek(chunk.start)
            data = stream.read(chunk.length)
    except OSError as error:
        raise unreadable(chunk.file, error) from error
    contents(chunk.file, io.BytesIO(data))  # says what it refuses, before torch sees it
    part = load(io.BytesIO(data), named=chunk.file)
    if not isinstance(part, torch.Tensor):
        raise unreadable(chunk.file, ValueError(f"it holds a {type(part).__name__} where a tensor should be"))
    return part.detach()
