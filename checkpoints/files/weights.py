"""Weight files of one checkpoint folder: which there are, what is in them, their digest, and reading them safely.

Files are read into memory of their own, unless the caller knows that nobody else writes to them (:mod:`.owned`); ``.bin``
files are pickles, and one that would run code is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import CheckpointError
from ..foreign import read_json
from .owned import read_header, read_safetensors
from .tensors import TensorInfo, unreadable
from .torchfile import contents, placed_tensors, plain_names

if TYPE_CHECKING:
    import torch

__all__ = [
    "IGNORED",
    "Choice",
    "choice_in",
    "choose_files",
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


_FORMATS = (
    ("model", "safetensors", r"model[\w.-]*\.safetensors"),
    ("pytorch_model", "bin", r"pytorch_model[\w.-]*\.bin"),
)
"""Of two formats the one that runs no code first: how its files begin, how they end, what else looks like its files."""


_COPY = re.compile(
    r"(?!adapter|optim|training)[^/]*(?:model|weights|ema|consolidated|average|swa|state_?dict|params)[^/]*"
    r"\.(?:safetensors|bin|pt|pth|ckpt|h5|msgpack|gguf)",
    re.IGNORECASE | re.ASCII,
)
"""What else may be a copy of the model, beside the files that it is read from."""


class Choice(NamedTuple):
    """Which files make up the weights of one checkpoint.

    Attributes:
        files: names of the files to read, sorted.
        missing: names of those that belong to them and are not there.
        others: names of other files of weights, which are not read.
    """

    files: tuple[str, ...]
    missing: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def choose_files(names: Iterable[str], indexed: Mapping[str, Collection[str]] | None = None) -> Choice:
    """Which files make up a checkpoint: the whole one, else those that the index names, else one complete set of parts.

    What only begins like them (``model_ema.safetensors``) is taken where there is nothing else.

    Args:
        names: of the files in the checkpoint's folder.
        indexed: name of each index that could be read (``model.safetensors.index.json``) to the files it names.

    >>> choose_files(["pytorch_model.bin", "model-00001-of-00002.safetensors"])[:2]
    (('model-00001-of-00002.safetensors',), ('model-00002-of-00002.safetensors',))
    >>> choose_files(["optimizer.pt", "old/model.safetensors", "pytorch_model.bin", "model_ema.safetensors"])
    Choice(files=('pytorch_model.bin',), missing=(), others=('model_ema.safetensors',))
    """
    there = sorted(names)
    alike = {stem: [n for n in there if re.fullmatch(like, n, re.ASCII)] for stem, _, like in _FORMATS}
    held: Collection[str] = ()
    missing: Collection[str] = ()
    for stem, suffix, _ in _FORMATS:
        index = (indexed or {}).get(f"{stem}.{suffix}.index.json")
        if f"{stem}.{suffix}" in alike[stem]:
            held = [f"{stem}.{suffix}"]
        elif index is not None:
            held, missing = [n for n in there if n in index], sorted({*index} - {*there})
        else:
            held, missing = _parts(stem, suffix, alike[stem])
        if held or missing:
            break
    else:
        held = next((found for found in alike.values() if found), [])
    others = [n for found in alike.values() for n in found if n not in held]
    others += [n for n in there if held and n not in (*held, *others) and _COPY.fullmatch(n)]
    return Choice(tuple(held), tuple(missing), tuple(others))


def _parts(stem: str, suffix: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The numbered parts that are there, and those that are missing: of the one complete save, if there is one."""
    saves: dict[int, dict[int, str]] = {}
    for name in names:
        if match := re.fullmatch(rf"{stem}-(\d{{1,5}})-of-(\d{{1,5}})\.{suffix}", name, re.ASCII):
            saves.setdefault(int(match[2]), {})[int(match[1])] = name
    whole = [parts for total, parts in saves.items() if parts.keys() == set(range(1, total + 1))]
    if len(whole) == 1:
        return list(whole[0].values()), []
    held = sorted(name for parts in saves.values() for name in parts.values())
    if whole or not saves:
        return held, []  # reading them says that they hold everything twice
    total = max(saves, key=lambda n: len(saves[n]))
    return held, [f"{stem}-{i:05}-of-{total:05}.{suffix}" for i in range(1, total + 1) if i not in saves[total]]


def choice_in(folder: Path) -> Choice:
    """:func:`choose_files` of a folder.

    Raises:
        CheckpointError: when an index cannot be read, or the folder cannot be listed.
    """
    try:
        names = [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    except OSError as error:  # deleted meanwhile, or not ours
        raise unreadable(folder, error) from error
    indices = [f"{stem}.{suffix}.index.json" for stem, suffix, _ in _FORMATS]
    return choose_files(names, {name: _indexed(folder / name) for name in indices if name in names})


def _indexed(file: Path) -> set[str]:
    try:
        named = set(read_json(file, dict)["weight_map"].values())
        if not named or not all(isinstance(name, str) for name in named):
            raise ValueError("it names no files")
        return named
    except Exception as error:  # whatever a damaged index may hold
        raise unreadable(file, error) from error


def weight_files(folder: Path) -> list[Path]:
    """The files that a checkpoint's weights are read from, sorted by name; empty if there are none, or no telling which."""
    try:
        return [folder / name for name in choice_in(folder).files]
    except CheckpointError:
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


def header(folder: Path, *, files: Sequence[Path] = ()) -> dict[str, TensorInfo]:
    """Name, shape and dtype of every stored tensor, without reading the tensors; arguments as of :func:`read_tensors`.

    Raises:
        CheckpointError: when the files are not whole, or would run code.
    """
    result: dict[str, TensorInfo] = {}
    for file in files or _existing(folder):
        found = read_header(file) if file.suffix == ".safetensors" else _contents(file)
        _add(result, found, file)
    return plain_names(result, folder)


def read_tensors(
    folder: Path, *, mapped: bool = False, files: Sequence[Path] = ()
) -> tuple[dict[str, torch.Tensor], str]:
    """Every stored tensor in CPU memory, in its stored dtype and under its name without prefixes of wrappers; and its
    :func:`weights_digest`.

    Args:
        folder: of the checkpoint.
        mapped: whether safetensors are mapped from disk, which costs nothing until they are used, and no digest is
            made: for files that are ours alone, and were verified.
        files: which, if they are not the whole weights of the folder.

    Raises:
        CheckpointError: when the files are not whole, or would run code.
    """
    result: dict[str, torch.Tensor] = {}
    digests = []
    for file in files or _existing(folder):
        if file.suffix != ".safetensors":
            found = placed_tensors(file, _contents(file))
            digests += [] if mapped else [_sha256(file)]
        elif mapped:
            found = _map(file)
        else:
            found, digest = read_safetensors(file)
            digests.append(digest)
        _add(result, found, file)
    return plain_names(result, folder), _together(digests) if digests else ""


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
    chosen = choice_in(folder)
    if chosen.missing:
        some = ", ".join(chosen.missing[:3]) + (", ..." if len(chosen.missing) > 3 else "")
        raise CheckpointError(
            f"{folder} lacks {len(chosen.missing)} of its {len(chosen.missing) + len(chosen.files)} weight files: {some}",
            expected="all files that the index names, or all parts by their numbers",
            remedy="copy or save this checkpoint again",
        )
    if not chosen.files:
        raise CheckpointError(
            f"{folder} holds no weights", expected="model*.safetensors or pytorch_model*.bin", remedy="save it again"
        )
    return [folder / name for name in chosen.files]


def _contents(file: Path) -> dict[str, TensorInfo]:
    found = contents(file)
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{file} cannot be read as weights: it holds a {type(found).__name__}",
            expected="a state dict: tensors by name",
            remedy="save `model.state_dict()`",
        )
    return {key: info for key, info in found.items() if isinstance(info, TensorInfo)}
