"""Files that ``torch.save`` wrote: what is in them (without torch, without their tensors), and reading a part of them.

What else a training script puts beside its weights (numpy numbers, ``argparse.Namespace``, paths) is passed over
without being made; a name beyond those is refused, because making the object might run code.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ..errors import CheckpointError
from .pickles import Inert, RefusedName, SafeUnpickler
from .tensors import TensorInfo, refused, unreadable

if TYPE_CHECKING:
    import torch

__all__ = ["KeptFile", "contents", "load", "plain_names", "state_dict_at", "tensors_at", "tensors_digest"]

T = TypeVar("T")

_ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C
"""First of the pickles that a file of torch before 1.6 consists of."""

_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Untyped": "uint8",
}  # fmt: skip
_NUMPY = (
    "dtype",
    "ndarray",
    *(f"{core}.multiarray.{n}" for core in ("core", "_core") for n in ("scalar", "_reconstruct")),
)
_PATHS = tuple(f"{m}.{p}Path" for m in ("pathlib", "pathlib._local") for p in ("Posix", "Windows", "PurePosix", "PureWindows"))  # fmt: skip
_PASSED_OVER = ("argparse.Namespace", "types.SimpleNamespace", *(f"numpy.{name}" for name in _NUMPY), *_PATHS)


_UNCOMMON = (
    "sparse_tensor",
    "sparse_csr_tensor",
    "meta_tensor_no_storage",
    "nested_tensor",
    "wrapper_subclass",
    "qtensor",
)
"""Kinds of tensors that no weights here are of."""


def _tensor(storage: str, _offset: int, size: Sequence[int], *_: Any) -> TensorInfo:
    return TensorInfo(tuple(size), storage)


def _tensor_of_new_dtype(_storage: str, _offset: int, size: Sequence[int], *rest: Any) -> TensorInfo:
    return TensorInfo(tuple(size), rest[3])  # stride, requires_grad, hooks, dtype


def _parameter(tensor: TensorInfo, *_: Any) -> TensorInfo:
    return tensor


def _of_a_class(make: Any, _class: Any, arguments: Sequence[Any], _state: Any) -> Any:
    return make(*arguments)


def _bytes(text: str, _encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


_NAMES: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.bytearray": bytearray,
    "builtins.complex": complex,
    "_codecs.encode": _bytes,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_new_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_a_class,
    **{f"{m}.{name}Storage": dtype for name, dtype in _STORAGES.items() for m in ("torch", "torch.storage")},
    **dict.fromkeys(
        (
            *_PASSED_OVER,
            "collections.Counter",
            "torch.Tensor",
            "torch.device",
            "torch.nn.parameter.Parameter",
            "torch.serialization._get_layout",
            *(f"torch._utils._rebuild_{kind}" for kind in _UNCOMMON),
        ),
        Inert,
    ),
}


def contents(file: Path, stream: IO[bytes] | None = None) -> Any:
    """What a file holds, with a :class:`TensorInfo` in the place of every tensor.

    Args:
        file: the file.
        stream: where to read from, if not from ``file`` itself.

    Raises:
        CheckpointError: when it is no complete file of torch's, or is a pickle that would do more than hold tensors.
    """
    try:
        if stream is not None:
            return _contents(stream)
        with file.open("rb") as opened:
            return _contents(opened)
    except RefusedName as error:
        raise refused(file, str(error)) from error
    except Exception as error:  # a damaged pickle is a damaged program: it may raise anything
        raise unreadable(file, error) from error


def _contents(stream: IO[bytes]) -> Any:
    start = stream.tell()
    zipped = stream.read(4) == _ZIP
    stream.seek(start)
    if zipped:
        with zipfile.ZipFile(stream) as archive:
            name = next((n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")), None)
            if name is None:
                raise ValueError("it is an archive of something else")
            with archive.open(name) as part:
                return SafeUnpickler(part, _NAMES).load()
    magic, _version, _system = (SafeUnpickler(stream, _NAMES).load() for _ in range(3))
    if magic != _MAGIC:
        raise ValueError("it is a pickle, but torch.save did not write it")
    return SafeUnpickler(stream, _NAMES).load()


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == _ZIP


_ALONE = threading.Lock()
"""Which names torch lets in is a setting of the process."""


def load(file: Path | IO[bytes], *, named: Path) -> Any:
    """All of a file, its tensors mapped from disk where the format allows; for data that :func:`contents` has read.

    Raises:
        CheckpointError: when torch cannot read it, or refuses to.
    """
    import torch

    try:
        zipped = isinstance(file, Path) and _is_zip(file)
        with _ALONE, warnings.catch_warnings(), torch.serialization.safe_globals([(Inert, n) for n in _PASSED_OVER]):
            warnings.simplefilter("ignore")  # of uncommon pickle protocols: what torch cannot read is an error
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError) as error:
        # before what matters, torch advises to load the file without any safety
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip()
        raise unreadable(named, ValueError(reason)) from error


def state_dict_at(content: Any, keys: Sequence[Any]) -> dict[str, Any]:
    """The tensors by name at a key path of a file: the keys to it, from the outside in.

    >>> state_dict_at({"models": [{"w": TensorInfo((2,), "float32"), "epoch": 3}]}, ["models", 0])
    {'w': TensorInfo(shape=(2,), dtype='float32')}
    """
    for key in keys:
        content = content[key]
    return {key: value for key, value in content.items() if isinstance(value, TensorInfo) or hasattr(value, "stride")}


class KeptFile:
    """The last file that was loaded, kept mapped as long as it is not written again.

    Reading the index of a long list of state dicts takes longer than reading one of its elements.
    """

    def __init__(self) -> None:
        self._key: tuple[Path, int, int] | None = None
        self._content: Any = None

    def load(self, file: Path) -> Any:
        """What :func:`load` gives; only a zip can be mapped."""
        status = file.stat()
        key = (file, status.st_size, status.st_mtime_ns)
        if not _is_zip(file) or key == self._key:
            return self._content if key == self._key else load(file, named=file)
        self._key = self._content = None  # not both in memory
        self._content = load(file, named=file)
        self._key = key
        return self._content


def tensors_at(
    file: Path, keys: Sequence[Any], *, only: Collection[str] | None = None, kept: KeptFile | None = None
) -> dict[str, torch.Tensor]:
    """The tensors at a key path that :func:`contents` shows, in memory of their own; the others are not read.

    Args:
        file: the file.
        keys: the keys to the state dict.
        only: names of the tensors that are wanted; None for all.
        kept: keeps the file for other state dicts in it.

    Raises:
        CheckpointError: when the file cannot be read.
    """
    loaded = load(file, named=file) if kept is None else kept.load(file)
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    result = {}
    for name, tensor in plain_names(state_dict_at(loaded, keys), file).items():
        if only is not None and name not in only:
            continue
        tied = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tied not in copies:
            copies[tied] = tensor.detach().clone()
        result[name] = copies[tied]
    return result


def plain_names(tensors: Mapping[str, T], file: Path) -> dict[str, T]:
    """Without what ``torch.compile`` and ``DistributedDataParallel`` put before the names.

    >>> plain_names({"module._orig_mod.a.weight": 1, "module._orig_mod.b.weight": 2}, Path())
    {'a.weight': 1, 'b.weight': 2}
    >>> plain_names({"module.weight": 1, "head.weight": 2}, Path())
    {'module.weight': 1, 'head.weight': 2}
    """
    result = {name.replace("_orig_mod.", ""): value for name, value in tensors.items()}
    if result and all(name.startswith("module.") for name in result):
        result = {name.removeprefix("module."): value for name, value in result.items()}
    if len(result) < len(tensors):
        raise CheckpointError(
            f"{file} holds some tensors twice, with and without `_orig_mod.`", expected="each one once"
        )
    return result


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of names, dtypes, shapes and values: for tensors that share their file with other checkpoints' tensors."""
    import torch

    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        result.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        result.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
