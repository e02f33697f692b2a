"""Tensors of safetensors files, read into memory of their own together with the digest of the very bytes they are made of.

A file that is mapped stays what it is on disk: overwritten in place while it waits for its turn, it becomes another
step's weights under the first one's digest, and cut short it ends the process with a signal (SIGBUS). So files of other
programs are read and never mapped. That costs no more than mapping: each byte is read once, hashed while it is in the
processor's cache, and put where the tensor is, where a mapped file is read twice, for the digest and for the tensor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from .tensors import TensorInfo, unreadable

if TYPE_CHECKING:
    import torch

__all__ = ["FilesState", "files_state", "fill", "read_header", "read_safetensors"]

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_HEADER = 100_000_000
"""Bytes that a header may have, as in the format's own library."""
_CHUNK = 1 << 20


class _Part(NamedTuple):
    name: str
    info: TensorInfo
    start: int
    stop: int


FilesState = tuple[tuple[str, int, int, int, int], ...]


def files_state(files: Iterable[Path]) -> FilesState:
    """What changes when any of some files is written or replaced: sizes, times and inodes.

    The time of change is there because the time of modification can be set back, as copying tools do.

    Raises:
        OSError: when one is not there.
    """
    about = ((str(file), file.stat()) for file in files)
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in about)


def fill(tensor: torch.Tensor, stream: IO[bytes], digest: Any = None) -> None:
    """Fill a tensor of bytes from a stream.

    Args:
        tensor: (byte,).
        stream: at the first of them.
        digest: is updated with them.

    Raises:
        ValueError: when the stream ends before.
    """
    view, done = memoryview(tensor.numpy().data), 0
    while done < len(view):
        part = view[done : done + _CHUNK]
        count = stream.readinto(part)  # type: ignore[attr-defined]
        if not count:
            raise ValueError(f"it ends {len(view) - done} bytes too early")
        if digest is not None:
            digest.update(part[:count])
        done += count


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Name, shape and dtype of every tensor of a safetensors file.

    Raises:
        CheckpointError: when it is no whole file of that format.
    """
    try:
        with file.open("rb") as stream:
            return {part.name: part.info for part in _header(stream)[1]}
    except Exception as error:  # whatever a damaged header may hold
        raise unreadable(file, error) from error


def read_safetensors(file: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Every tensor of a safetensors file in memory of its own, and the sha256 of the file that they were read from.

    Raises:
        CheckpointError: when it is no whole file of that format.
    """
    import torch

    try:
        with file.open("rb", buffering=0) as stream:
            head, parts = _header(stream)
            digest, result = hashlib.sha256(head), {}
            for part in parts:  # in the order of the file, without a gap
                raw = torch.empty(part.stop - part.start, dtype=torch.uint8)
                fill(raw, stream, digest)
                result[part.name] = raw.view(getattr(torch, _DTYPES[part.info.dtype])).reshape(part.info.shape)
            return result, digest.hexdigest()
    except Exception as error:
        raise unreadable(file, error) from error


def _header(stream: IO[bytes]) -> tuple[bytes, list[_Part]]:
    """The bytes before the tensors, and the tensors in the order of the file; the stream is then at the first of them."""
    size = stream.seek(0, 2)
    stream.seek(0)
    length = int.from_bytes(first := stream.read(8), "little")
    if len(first) < 8 or length > min(size - 8, _HEADER):
        raise ValueError("it is too short for the header that it should have")
    text = stream.read(length)
    content = json.loads(text, object_pairs_hook=_once)
    if len(text) < length or not isinstance(content, dict):
        raise ValueError("its header is no table of tensors")
    content.pop("__metadata__", None)
    parts = sorted((_part(name, entry) for name, entry in content.items()), key=lambda p: (p.start, p.stop))
    end = 0
    for part in parts:
        if part.start != end:
            raise ValueError(f"{part.name!r} does not begin where the tensor before it ends")
        end = part.stop
    if 8 + length + end != size:
        raise ValueError(f"it is {size} bytes long, where its header says {8 + length + end}")
    return first + text, parts


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("its header names something twice")
    return result


def _part(name: str, entry: Any) -> _Part:
    dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _DTYPES:
        raise ValueError(f"{name!r} is of dtype {dtype!r}")
    if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
        raise ValueError(f"{name!r} has a shape or a place that is none")
    if stop - start != prod(shape) * _BYTES.get(dtype, 1):
        raise ValueError(f"{name!r} has {stop - start} bytes, which is not what its shape and dtype take")
    return _Part(name, TensorInfo(tuple(shape), dtype), start, stop)
