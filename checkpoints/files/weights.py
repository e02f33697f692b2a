"""Weight files of one checkpoint folder: which there are, what is in them, their digest, and reading them safely.

safetensors files are memory-mapped; ``.bin`` files are pickles, and one that would run code is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .tensors import TensorInfo, unreadable

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
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def header(folder: Path) -> dict[str, TensorInfo]:
    """Name, shape and dtype of every stored tensor, without reading the tensors."""
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
                raise unreadable(file, error) from error
        else:
            result |= {key: info for key, info in _contents(file).items() if isinstance(info, TensorInfo)}
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
                raise unreadable(file, error) from error
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

    from .torchfile import load

    _contents(file)  # says what it refuses, before torch sees it
    return {key: value for key, value in load(file, named=file).items() if isinstance(value, torch.Tensor)}


def _contents(file: Path) -> dict[str, Any]:
    from .torchfile import contents

    found = contents(file)
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{file} cannot be read as weights: it holds a {type(found).__name__}",
            expected="a state dict: tensors by name",
        )
    return found
