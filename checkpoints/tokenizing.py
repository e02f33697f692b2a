"""Tokenizers: the one that a series carries, or a list of words for models that have none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from .configs import quiet
from .errors import CheckpointError, UserError, first_line
from .foreign import read_json

__all__ = ["load_tokenizer", "refused", "tokenizer_difference", "word_tokenizer"]

_UNKNOWN = "[unknown]"


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer in a local folder (character offsets need a fast one).

    Raises:
        CheckpointError: when there is none or it cannot be used, with the file that is at fault.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder {folder}",
            expected="the folder of a tokenizer",
            remedy="correct the path, or save it there with `tokenizer.save_pretrained(folder)`",
        )
    with refused(lambda: _at_fault(folder)), quiet():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True, trust_remote_code=False)
        if tokenizer.is_fast:
            _require_usable(tokenizer)
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"the tokenizer in {folder} is a slow one, which cannot tell which token holds which character",
            expected="a fast tokenizer (tokenizer.json)",
            remedy="convert it: `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` where a fast one exists, or name another as `series.tokenizer`",
        )
    return tokenizer


@contextmanager
def refused(what: Callable[[], str]) -> Iterator[None]:
    """Whatever goes wrong in here is the tokenizer's fault: its files may hold anything, and its library panics, too.

    Raises:
        CheckpointError: for every exception but those that end a program, with ``what`` it is that cannot be used.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError, UserError):
        raise
    except BaseException as error:  # a panic of the library in Rust is no Exception
        raise CheckpointError(
            f"{what()}: {first_line(error)}",
            expected="a tokenizer.json that transformers can read",
            remedy="name the tokenizer's folder as `series.tokenizer` in the runs file",
        ) from error


def _require_usable(tokenizer: Any) -> None:
    """Ask for what will be asked for later, so that settings of a wrong type show now."""
    ids = list(range(len(tokenizer)))
    texts = tokenizer.convert_ids_to_tokens(ids)
    special = (tokenizer.unk_token_id, tokenizer.mask_token_id, *tokenizer.all_special_ids)
    if not ids or set(special) - {None, *ids}:
        raise ValueError(f"{len(ids)} tokens, of which special ones have the ids {special}")
    tokenizer([""], return_offsets_mapping=True, return_special_tokens_mask=True)
    tokenizer.decode(ids[:1] + [i for i, text in enumerate(texts) if text is not None][-1:])


def _at_fault(folder: Path) -> str:
    """The file of a tokenizer that does not load by itself, in words."""
    files = [
        folder / f"{name}.json" for name in ("tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens")
    ]
    for file in files:
        try:
            if file.exists():
                read_json(file, dict)
        except (OSError, ValueError) as error:
            return f"{file} cannot be read ({error})"
    if files[0].exists():
        from tokenizers import Tokenizer

        try:
            Tokenizer.from_file(str(files[0]))
        except BaseException:  # as above
            return f"{files[0]} cannot be used"
        names = " or ".join(file.name for file in files[1:] if file.exists())
        return f"{folder}: the tokenizer.json can be read, but not with {names or 'the config.json beside it'}"
    return f"no usable tokenizer in {folder}"


def tokenizer_difference(one: Path, other: Path) -> str:
    """What makes two folders' tokenizers give other tokens for the same text, in a word; empty where nothing shows.

    Compared is what both have, as it is understood and not as it is written: versions of a library write the same tokenizer
    in different ways.
    """
    if one == other or not other.is_dir():
        return ""
    if (one / _WHOLE).is_file() and (other / _WHOLE).is_file():
        files: Sequence[str] = (_WHOLE,)
    else:
        files = [name for name in _PARTS if (one / name).is_file() and (other / name).is_file()]
    for name in files:
        if _understood(one / name) != _understood(other / name):
            return name
    known, found = (json.loads(_understood(folder / _SETTINGS) or "{}") for folder in (one, other))
    return _SETTINGS if any(known[key] != found[key] for key in known.keys() & found.keys()) else ""


_WHOLE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_PARTS = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model")


def _understood(file: Path) -> str:
    """What of a file decides about tokens, or a digest of that; empty where there is none."""
    try:
        about = file.stat()
        return _deciding(file, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=4096)
def _deciding(file: Path, *_state: int) -> str:
    data = file.read_bytes()
    if file.suffix == ".json":
        try:
            content = json.loads(data)
            if file.name == _SETTINGS:
                return json.dumps({key: content[key] for key in _ADDED if key in content})
            data = json.dumps(_normal(content) if file.name == _WHOLE else content, sort_keys=True).encode()
        except (ValueError, RecursionError, AttributeError, TypeError):  # damaged: it says something else for sure
            if file.name == _SETTINGS:
                return ""
    return hashlib.sha256(data).hexdigest()


_ADDED = ("add_bos_token", "add_eos_token", "add_prefix_space")
"""Settings that change tokens, where both files have them: versions of a library leave different ones away."""


def _normal(content: Any) -> Any:
    kept = {k: v for k, v in content.items() if k not in ("version", "truncation", "padding")}
    if isinstance(merges := (kept.get("model") or {}).get("merges"), list):
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
        kept["model"] = {k: v for k, v in kept["model"].items() if v not in (None, False)} | {"merges": pairs}
    return kept


def word_tokenizer(words: Sequence[str]) -> Any:
    """A tokenizer whose tokens are words between spaces: token *i* is ``words[i]``.

    For models of numbers or symbols, which never had one: ``word_tokenizer([*map(str, range(113)), "="])``.

    Raises:
        UserError: when a word occurs twice, or holds a space.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    wrong = [word for word in words if word.split() != [word]]
    if wrong or len(set(words)) != len(words):
        raise UserError(
            f"{wrong[0]!r} is no word" if wrong else "a word occurs twice in the list of words",
            expected="distinct words without spaces",
            remedy="leave out repeated and empty words, and split those with spaces",
        )
    # what is no word gets a token that no model has, and is reported when a probe is checked
    vocabulary = {word: index for index, word in enumerate([*words, _UNKNOWN])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=_UNKNOWN)
