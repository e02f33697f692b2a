"""Weight files of one checkpoint folder: which there are, what is in them, their digest, and reading them safely.

Files are read into memory of their own, unless the caller knows that nobody else writes to them (:mod:`.owned`); ``.bin``
files are pickles, and one that would run code is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import CheckpointError
from .owned import read_header, read_safetensors
from .tensors import TensorInfo, unreadable
from .torchfile import contents, placed_tensors

if TYPE_CHECKING:
    import torch

__all__ = [
    "IGNORED",
    "files_digest",
    "has_weights",
    "header",
    "read_tensors",
    "weight_files",
    "weights_digest",
]


T = TypeVar("T")

IGNORED = re.compile(
    r"(^|\.)((attn|attention)\.(bias|masked_bias)|rotary_emb\.inv_freq|rotary_emb\.(cos|sin)_cached|position_ids)$"
    r"|^cls\.seq_relationship\.|^bert\.pooler\."  # BERT's second task, which no masked-language model has
)
"""Names of tensors that some files have and loading does without: masks and rotary tables of older versions."""


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
    return files_digest(weight_files(folder))


def files_digest(files: Iterable[Path]) -> str:
    """sha256 of one file, or of the list of sha256 (one a line) of several, in the order given."""
    return _together([_sha256(file) for file in files])


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _together(digests: list[str]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def header(folder: Path) -> dict[str, TensorInfo]:
    """Name, shape and dtype of every stored tensor, without reading the tensors.

    Raises:
        CheckpointError: when the files are not whole, or would run code.
    """
    result: dict[str, TensorInfo] = {}
    for file in _existing(folder):
        found = read_header(file) if file.suffix == ".safetensors" else _contents(file)
        _add(result, found, file)
    return result


def read_tensors(folder: Path, *, mapped: bool = False) -> tuple[dict[str, torch.Tensor], str]:
    """Every stored tensor in CPU memory, under its stored name and in its stored dtype; and :func:`weights_digest`.

    Args:
        folder: of the checkpoint.
        mapped: whether safetensors are mapped from disk, which costs nothing until they are used, and no digest is
            made: for files that are ours alone, and were verified.

    Raises:
        CheckpointError: when the files are not whole, or would run code.
    """
    result: dict[str, torch.Tensor] = {}
    digests = []
    for file in _existing(folder):
        if file.suffix != ".safetensors":
            found = placed_tensors(file, _contents(file))
            digests += [] if mapped else [_sha256(file)]
        elif mapped:
            found = _map(file)
        else:
            found, digest = read_safetensors(file)
            digests.append(digest)
        _add(result, found, file)
    return result, _together(digests) if digests else ""


def _map(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        found: dict[str, torch.Tensor] = load_file(file)
        return found
    except Exception as error:  # whatever a damaged header may hold
        raise unreadable(file, error) from error


def _add(result: dict[str, T], found: Mapping[str, T], file: Path) -> None:
    if twice := sorted(result.keys() & found.keys()):
        raise CheckpointError(
            f"{file.parent} holds {len(twice)} tensor(s) twice, such as {twice[0]!r}, which is in {file.name} too",
            expected="each tensor in one file",
            remedy="move the files of the other save away",
        )
    result.update(found)


def _existing(folder: Path) -> list[Path]:
    files = weight_files(folder)
    if not files:
        raise CheckpointError(
            f"{folder} holds no weights", expected="model*.safetensors or pytorch_model*.bin", remedy="save it again"
        )
    return files


def _contents(file: Path) -> dict[str, TensorInfo]:
    found = contents(file)
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{file} cannot be read as weights: it holds a {type(found).__name__}",
            expected="a state dict: tensors by name",
        )
    return {key: info for key, info in found.items() if isinstance(info, TensorInfo)}
