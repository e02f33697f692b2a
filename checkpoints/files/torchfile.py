"""Files that ``torch.save`` wrote: what is in them (without torch, without their tensors), and reading a part of them.

Tensors are read into memory of their own, and of a large file only those that are wanted: mapped files may be overwritten
(:mod:`.owned`), and torch itself reads optimizers too.

What else a training script puts beside its weights (numpy numbers, ``argparse.Namespace``, paths) is passed over
without being made; a name beyond those is refused, because making the object might run code.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ..errors import CheckpointError
from .owned import files_state, fill
from .pickles import Inert, RefusedName, SafeUnpickler, Storage
from .tensors import TensorInfo, refused, unreadable

if TYPE_CHECKING:
    import torch

__all__ = [
    "KeptFile",
    "contents",
    "load",
    "placed_tensors",
    "plain_names",
    "state_dict_at",
    "tensors_at",
    "tensors_digest",
]

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


class _Placed(TensorInfo):
    """A tensor and where in the file it is: key of its storage, offset in it and strides, in elements."""

    place: tuple[str, int, tuple[int, ...]]


def _tensor(storage: Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> TensorInfo:
    return _tensor_of_new_dtype(storage, offset, size, stride, False, None, storage.dtype)


def _tensor_of_new_dtype(
    storage: Storage,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    _grad: Any,
    _hooks: Any,
    dtype: str,
    *_: Any,
) -> TensorInfo:
    if prod(size) > max(storage.numbers, _EXPANDED):  # before torch is asked for the memory
        raise ValueError(f"a tensor of {prod(size)} numbers is made of {storage.numbers}")
    made = _Placed(tuple(size), dtype)
    made.place = (storage.key, offset, tuple(stride))
    return made


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
        with zipfile.ZipFile(stream) as archive, archive.open(f"{_top(archive)}/data.pkl") as part:
            return SafeUnpickler(part, _NAMES).load()
    magic, _version, _system = (SafeUnpickler(stream, _NAMES).load() for _ in range(3))
    if magic != _MAGIC:
        raise ValueError("it is a pickle, but torch.save did not write it")
    return SafeUnpickler(stream, _NAMES).load()


def _top(archive: zipfile.ZipFile) -> str:
    """The folder in which everything is."""
    for name in archive.namelist():
        if name.count("/") == 1 and name.endswith("/data.pkl"):
            return name.removesuffix("/data.pkl")
    raise ValueError("it is an archive of something else")


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == _ZIP


_ALONE = threading.Lock()
"""Which names torch lets in is a setting of the process."""


def load(file: Path | IO[bytes], *, named: Path) -> Any:
    """All of a file, as torch reads it; for data that :func:`contents` has read.

    Raises:
        CheckpointError: when torch cannot read it, or refuses to.
    """
    import torch

    try:
        with _ALONE, warnings.catch_warnings(), torch.serialization.safe_globals([(Inert, n) for n in _PASSED_OVER]):
            warnings.simplefilter("ignore")  # of uncommon pickle protocols: what torch cannot read is an error
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError) as error:
        # before what matters, torch advises to load the file without any safety
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip()
        raise unreadable(named, ValueError(reason)) from error


def placed_tensors(file: Path, infos: Mapping[str, TensorInfo], keys: Sequence[Any] = ()) -> dict[str, torch.Tensor]:
    """Some of the tensors that :func:`contents` shows, in memory of their own; the others are not read.

    Tensors that share all of their memory in the file share it here.

    Args:
        file: the file.
        infos: name to what ``contents`` has in the place of the tensor.
        keys: the keys to the state dict that they are in.

    Raises:
        CheckpointError: when the file cannot be read.
    """
    try:
        if not _is_zip(file):  # torch before 1.6, which has to read everything
            loaded = state_dict_at(load(file, named=file), keys)
            own = {name: tensor.detach() for name, tensor in loaded.items() if name in infos}
            return {name: own[name] if _whole(own[name]) else own[name].clone() for name in infos}
        with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            return _from_archive(archive, infos)
    except CheckpointError:
        raise
    except Exception as error:  # of a damaged archive anything may be wrong
        raise unreadable(file, error) from error


def _from_archive(archive: zipfile.ZipFile, infos: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
    import torch

    top = _top(archive)
    if f"{top}/byteorder" in archive.namelist() and archive.read(f"{top}/byteorder") != b"little":
        raise ValueError("its numbers are in another byte order than this machine's")
    sharing: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for name, info in infos.items():
        if not isinstance(info, _Placed):
            raise ValueError(f"{name!r} is no plain tensor")
        key, offset, stride = info.place
        sharing.setdefault(key, {}).setdefault((info.dtype, offset, info.shape, stride), []).append(name)
    found: dict[str, torch.Tensor] = {}
    for key, views in sharing.items():
        entry = archive.getinfo(f"{top}/data/{key}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its tensors are compressed")
        raw = torch.empty(entry.file_size, dtype=torch.uint8)
        with archive.open(entry) as part:
            fill(raw, part)
        for (dtype, offset, shape, stride), names in views.items():
            view = torch.as_strided(raw.view(getattr(torch, dtype)), shape, stride, offset)
            if view.nbytes > max(raw.nbytes, _EXPANDED):
                raise ValueError(f"{names[0]!r} of {view.nbytes} bytes is made of {raw.nbytes} bytes")
            found |= dict.fromkeys(names, view if _whole(view) else view.clone())
    return {name: found[name] for name in infos}


_EXPANDED = 1 << 26
"""Bytes that a tensor may have whose elements repeat in memory: a few numbers could stand for more than there is room for."""


def _whole(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().nbytes() == tensor.nbytes


def state_dict_at(content: Any, keys: Sequence[Any]) -> dict[str, Any]:
    """The tensors by name at a key path of a file: the keys to it, from the outside in.

    >>> state_dict_at({"models": [{"w": TensorInfo((2,), "float32"), "epoch": 3}]}, ["models", 0])
    {'w': TensorInfo(shape=(2,), dtype='float32')}
    """
    for key in keys:
        content = content[key]
    return {key: value for key, value in content.items() if isinstance(value, TensorInfo) or hasattr(value, "stride")}


class KeptFile:
    """What the last file holds, kept as long as it is not written again.

    Reading the index of a long list of state dicts takes longer than reading one of its elements.
    """

    def __init__(self) -> None:
        self._state: Any = None
        self._content: Any = None

    def contents(self, file: Path) -> Any:
        """What :func:`contents` gives."""
        try:
            state = files_state([file])
        except OSError as error:
            raise unreadable(file, error) from error
        if state != self._state:
            self._content = contents(file)
            self._state = state
        return self._content


def tensors_at(
    file: Path, keys: Sequence[Any], *, only: Collection[str] | None = None, content: Any = None
) -> dict[str, torch.Tensor]:
    """The tensors at a key path that :func:`contents` shows, in memory of their own; the others are not read.

    Args:
        file: the file.
        keys: the keys to the state dict.
        only: names of the tensors that are wanted; None for all.
        content: what :func:`contents` gave, where it was called before.

    Raises:
        CheckpointError: when the file cannot be read.
    """
    held = state_dict_at(contents(file) if content is None else content, keys)
    stored = plain_names({name: name for name in held}, file)
    wanted = {name: own for name, own in stored.items() if only is None or name in only}
    found = placed_tensors(file, {own: held[own] for own in wanted.values()}, keys)
    return {name: found[own] for name, own in wanted.items()}


_WRAPPED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


def plain_names(tensors: Mapping[str, T], file: Path) -> dict[str, T]:
    """Without what wrappers put into names: ``torch.compile``, recomputed activations, FSDP, data parallelism.

    >>> plain_names({"module._orig_mod.a.weight": 1, "module._orig_mod.b.weight": 2}, Path())
    {'a.weight': 1, 'b.weight': 2}
    >>> plain_names({"module.weight": 1, "head.weight": 2}, Path())
    {'module.weight': 1, 'head.weight': 2}
    """
    result = {_WRAPPED.sub("", name): value for name, value in tensors.items()}
    while result and all(name.startswith("module.") for name in result):
        result = {name.removeprefix("module."): value for name, value in result.items()}
    if len(result) < len(tensors):
        raise CheckpointError(
            f"{file} holds some tensors twice, with and without what a wrapper puts into names, such as `_orig_mod.`",
            expected="each one once",
            remedy="save the state dict of the module inside the wrapper alone",
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
