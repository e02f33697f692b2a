"""Weight files of one checkpoint folder: which there are, what is in them, their digest, and reading them safely.

safetensors files are memory-mapped; ``.bin`` files are opened with ``weights_only=True``, so that a pickle that would
run code is refused.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["TensorInfo", "has_weights", "header", "read_tensors", "weight_files", "weights_digest"]


class TensorInfo(NamedTuple):
    """Shape and dtype (as the file names it, e.g. ``F32``) of one stored tensor."""

    shape: tuple[int, ...]
    dtype: str


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, else its ``pytorch_model*.bin`` files, sorted by name."""
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        files = sorted(folder.glob(pattern))
        if files:
            return files
    return []


def has_weights(folder: Path) -> bool:
    """Whether the folder holds a config and at least one weight file."""
    return (folder / "config.json").is_file() and bool(weight_files(folder))


def weights_digest(folder: Path) -> str:
    """sha256 of the weight file (what hubs call its LFS id); of the list of digests where there are several files."""
    digests = []
    for file in weight_files(folder):
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def header(folder: Path) -> dict[str, TensorInfo]:
    """Name, shape and dtype of every stored tensor, without reading the tensors of safetensors files."""
    result: dict[str, TensorInfo] = {}
    for file in _existing(folder):
        if file.suffix == ".safetensors":
            from safetensors import SafetensorError, safe_open

            try:
                with safe_open(file, framework="pt") as opened:
                    for key in opened.keys():  # noqa: SIM118 (not a mapping)
                        part = opened.get_slice(key)
                        result[key] = TensorInfo(tuple(part.get_shape()), part.get_dtype())
            except (SafetensorError, OSError) as error:
                raise _unreadable(file, error) from error
        else:
            for key, tensor in _load_bin(file).items():
                result[key] = TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    return result


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every stored tensor in CPU memory, under its stored name and in its stored dtype."""
    result: dict[str, torch.Tensor] = {}
    for file in _existing(folder):
        if file.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                result |= load_file(file)
            except (SafetensorError, OSError) as error:
                raise _unreadable(file, error) from error
        else:
            result |= _load_bin(file)
    return result


def _existing(folder: Path) -> list[Path]:
    files = weight_files(folder)
    if not files:
        raise CheckpointError(
            f"{folder} holds no weights", expected="model*.safetensors or pytorch_model*.bin", remedy="save it again"
        )
    return files


def _load_bin(file: Path) -> dict[str, torch.Tensor]:
    import torch

    try:
        with file.open("rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"  # before torch 1.6 files were not, and cannot be memory-mapped
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} was refused: it is a pickle that holds more than tensors ({str(error).splitlines()[0]})",
            expected="a state dict of tensors",
            remedy="get the weights as safetensors, or have their owner save them again",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise _unreadable(file, error) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{file} cannot be read as weights: it holds a {type(loaded).__name__}",
            expected="a state dict: tensors by name",
        )
    return {key: value for key, value in loaded.items() if isinstance(value, torch.Tensor)}


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    first = (str(error).splitlines() or ["empty file"])[0]
    return CheckpointError(
        f"{file} cannot be read as weights: {first}",
        expected="a complete weight file",
        remedy="copy or save this checkpoint again; it may be truncated",
    )
