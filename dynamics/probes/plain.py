"""Plain words that are one token each, for prompts of words drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkpoints.organism.worlds import vocabulary

__all__ = ["joined", "plain_words"]


def plain_words(tokenizer: Any, organism: bool) -> list[str]:
    """Words that are one token each, also side by side; with their leading space where the tokenizer has one.

    Tokens that are a space and a plain word are not merged by any tokenizer when they follow one another. Where no token
    carries its space, tokens are whole words, and any of letters and digits will do.
    """
    if organism:
        return vocabulary()
    texts = [t for t in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) if isinstance(t, str)]
    marked = [t[1:] for t in texts if t[:1] in ("Ġ", "▁")]
    if marked:
        pool = [f" {word}" for word in marked if len(word) >= 3 and word.isascii() and word.isalpha()]
    else:
        pool = [f" {word}" for word in texts if word.isascii() and word.isalnum()]
    if not pool:
        return []
    ids = tokenizer(pool, add_special_tokens=False)["input_ids"]
    return [word for word, row in zip(pool, ids, strict=True) if len(row) == 1]


def joined(words: Sequence[str], organism: bool) -> str:
    """The text of words from :func:`plain_words`.

    >>> joined([" one", " two"], organism=False), joined(["eins", "zwei"], organism=True)
    (' one two', 'eins zwei')
    """
    return (" " if organism else "").join(words)
