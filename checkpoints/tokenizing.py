"""Tokenizers: the one that a series carries, or a list of words for models that have none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import CheckpointError, UserError

__all__ = ["load_tokenizer", "word_tokenizer"]

_UNKNOWN = "[unknown]"


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer in a local folder (character offsets need a fast one).

    Raises:
        CheckpointError: when there is none or it cannot be read.
    """
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}", expected="the folder of a tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"no usable tokenizer in {folder}: {str(error).splitlines()[0]}",
            expected="a tokenizer.json that transformers can read",
            remedy="name the tokenizer's folder as `series.tokenizer` in the runs file",
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"the tokenizer in {folder} is a slow one, which cannot tell which token holds which character",
            expected="a fast tokenizer (tokenizer.json)",
        )
    return tokenizer


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
        )
    # what is no word gets a token that no model has, and is reported when a probe is checked
    vocabulary = {word: index for index, word in enumerate([*words, _UNKNOWN])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=_UNKNOWN)
