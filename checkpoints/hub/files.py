"""Which names are safe to use, and which of a repository's files are wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..files.weights import Choice, choose_files
from ..layouts.adapters import ADAPTER_CONFIG, ADAPTER_FILES
from ..series import WeightFile

__all__ = [
    "CONFIG",
    "TOKENIZER",
    "VOCABULARIES",
    "HubFile",
    "adapter",
    "choose",
    "is_commit",
    "is_repository",
    "is_safe",
    "weight_files",
    "with_others",
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

    @property
    def content(self) -> str:
        """What changes when its content does."""
        return self.sha256 or self.blob or ""


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


def adapter(files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """The files of an adapter without its model, that of its tensors first; empty where there is none."""
    by_name = {file.name: file for file in files}
    if ADAPTER_CONFIG not in by_name or choose_files(by_name).files:
        return ()
    found = [by_name[name] for name in ADAPTER_FILES if name in by_name][:1]
    return (*found, by_name[ADAPTER_CONFIG]) if found else ()


def weight_files(files: Iterable[HubFile]) -> tuple[WeightFile, ...]:
    """The weight files in the root, with sizes and checksums, or that of an adapter; the index has not been read."""
    by_name = {file.name: file for file in files}
    alone = [file.name for file in adapter(by_name.values())[:1]]
    return tuple(WeightFile(n, by_name[n].size, by_name[n].sha256) for n in choose_files(by_name).files or alone)


def with_others(files: Iterable[HubFile]) -> Choice:
    """Which files are weights, and what lies beside them; an adapter, too."""
    names = [file.name for file in files]
    choice = choose_files(names)
    beside = [name for name in ADAPTER_FILES if choice.files and name in names]
    return choice._replace(others=(*choice.others, *beside))


def choose(files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """What is downloaded of a checkpoint: config, generation config, weights, and the index of weights in parts; or an adapter."""
    by_name = {file.name: file for file in files}
    weights = choose_files(by_name).files
    index = {re.sub(r"-\d+-of-\d+(\.\w+)$", r"\1.index.json", name) for name in weights}
    alone = {file.name for file in adapter(by_name.values())}
    wanted = {CONFIG, "generation_config.json", *index, *weights, *alone}
    return tuple(file for name, file in sorted(by_name.items()) if name in wanted)
