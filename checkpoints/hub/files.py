"""Which names are safe to use, and which of a repository's files are wanted."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..series import WeightFile

__all__ = [
    "CONFIG",
    "TOKENIZER",
    "VOCABULARIES",
    "HubFile",
    "choose",
    "is_commit",
    "is_repository",
    "is_safe",
    "missing_shards",
    "weight_files",
    "weight_names",
]

CONFIG = "config.json"
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
TOKENIZER = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    CONFIG,  # transformers chooses the class of some tokenizers by the model's
)
# One file, numbered parts of one, and whatever else begins like it; of two formats the one that runs no code first.
_FORMATS = (
    ("model.safetensors", r"model-\d+-of-\d+\.safetensors", r"model[\w.-]*\.safetensors"),
    ("pytorch_model.bin", r"pytorch_model-\d+-of-\d+\.bin", r"pytorch_model[\w.-]*\.bin"),
)
_REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))\w[\w.-]{0,95}(?:/\w[\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True)
class HubFile:
    """One file of a commit.

    Attributes:
        name: path within the repository.
        size: bytes.
        sha256: of the content, for files in large-file storage.
        blob: git's id of the content, for all others.
    """

    name: str
    size: int
    sha256: str | None = None
    blob: str | None = None


def is_repository(name: str) -> bool:
    """Whether this can be the name of a repository; if so it is also safe as the name of a folder, ``/`` replaced.

    >>> [is_repository(n) for n in ("EleutherAI/pythia-70m", "gpt2", "../x", "a/b/c", "a/..")]
    [True, True, False, False, False]
    """
    return _REPOSITORY.fullmatch(name) is not None


def is_commit(text: str) -> bool:
    """Whether this is a whole commit sha.

    >>> is_commit("0123456789" * 4), is_commit("main"), is_commit("../" + "0" * 37)
    (True, False, False)
    """
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def is_safe(path: str) -> bool:
    """Whether a path that a server sent stays below the folder that it is relative to.

    >>> [is_safe(p) for p in ("a/b.bin", "../x", "/etc/passwd", "a/../../x", "C:\\\\x", "")]
    [True, False, False, False, False, False]
    """
    parts = path.replace("\\", "/").split("/")
    return not any(p in ("", ".", "..") for p in parts) and ":" not in parts[0] and path.isprintable()


def weight_names(names: Iterable[str]) -> tuple[str, ...]:
    """The weight files to read: safetensors or else ``.bin``, in the root; the whole file rather than its parts.

    >>> weight_names(["pytorch_model.bin", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    ('model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors')
    >>> weight_names(["optimizer.pt", "old/model.safetensors", "pytorch_model.bin"])
    ('pytorch_model.bin',)
    """
    names = sorted(names)
    for whole, part, any_of_them in _FORMATS:
        found = [name for name in names if re.fullmatch(any_of_them, name, re.ASCII)]
        if whole in found:
            return (whole,)
        if found:
            return tuple([name for name in found if re.fullmatch(part, name, re.ASCII)] or found)
    return ()


def weight_files(files: Iterable[HubFile]) -> tuple[WeightFile, ...]:
    """:func:`weight_names` with sizes and checksums."""
    by_name = {file.name: file for file in files}
    return tuple(WeightFile(n, by_name[n].size, by_name[n].sha256) for n in weight_names(by_name))


def missing_shards(weights: Collection[str]) -> int:
    """How many of the numbered parts are not there.

    >>> missing_shards(["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"])
    1
    """
    totals = [int(m[1]) for name in weights if (m := re.search(r"-of-(\d+)\.\w+$", name))]
    return max(0, max(totals, default=0) - len(totals))


def choose(files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """What is downloaded of a checkpoint: config, generation config, weights, and the index of weights in parts."""
    by_name = {file.name: file for file in files}
    weights = weight_names(by_name)
    index = {
        f"{whole}.index.json" for whole, part, _ in _FORMATS if any(re.fullmatch(part, n, re.ASCII) for n in weights)
    }
    wanted = {CONFIG, "generation_config.json", *index, *weights}
    return tuple(file for name, file in sorted(by_name.items()) if name in wanted)
