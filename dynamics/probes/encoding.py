"""Text and tokens: what a text is in tokens, which token holds a character, and what a text adds behind another.

Tokenizers write spaces in different places: at the start of the next token (byte-level BPE, SentencePiece), in front of
every text of their own accord (SentencePiece), or nowhere (WordPiece). A word by itself is thus not what it is in a sentence, and
everything here is decided in the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkpoints.tokenizing import refused

from .types import Mark

__all__ = ["Encoded", "adds", "encode", "locate", "single_token", "single_tokens"]

Encoded = tuple[list[int], list[tuple[int, int]]]
"""Token ids of a text, and the half-open range of characters that each token stands for."""


def encode(tokenizer: Any, texts: Sequence[str], *, ended: bool = False, bare: bool = False) -> list[Encoded]:
    """What texts are in tokens, with what the tokenizer puts in front of a text.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        texts: to be tokenized.
        ended: with what it puts behind a text, too. What is to be continued has not ended.
        bare: with nothing in front and nothing behind (a chat template has written all that there is).
    """
    found = _tokenized(tokenizer, texts, offsets=True, bare=bare)
    result = []
    for ids, added, offsets in zip(*found, strict=True):
        end = len(ids) if ended else _own(added)[1]
        result.append((ids[:end], offsets[:end]))
    return result


def adds(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[list[int] | None]:
    """For pairs (text, continuation): the tokens that the continuation adds in place; None where it changes earlier ones.

    >>> from checkpoints.tokenizing import word_tokenizer
    >>> adds(word_tokenizer(["one", "two", "four"]), [("one", " two two"), ("", "four"), ("one four", "two")])
    [[1, 1], [2], None]
    """
    before = list(dict.fromkeys(text for text, _ in pairs))
    ids, added = _tokenized(tokenizer, [*before, *(text + more for text, more in pairs)])
    heads = {text: row[: _own(mask)[1]] for text, row, mask in zip(before, ids, added, strict=False)}
    result: list[list[int] | None] = []
    for (text, _), row, mask in zip(pairs, ids[len(before) :], added[len(before) :], strict=True):
        first, end = _own(mask)
        head = heads[text] if text else row[:first]
        result.append(row[len(head) : end] if row[: len(head)] == head else None)
    return result


def _tokenized(
    tokenizer: Any, texts: Sequence[str], *, offsets: bool = False, bare: bool = False
) -> tuple[list[Any], ...]:
    """For every text its token ids, which of them are no text, and the ranges of characters if asked for."""
    names = ("input_ids", "special_tokens_mask", *(["offset_mapping"] if offsets else []))
    if not texts:
        return ([],) * len(names)
    with refused(lambda: f"the tokenizer {tokenizer.name_or_path} fails on the prompts"):  # some have no unknown token
        found = tokenizer(
            list(texts),
            add_special_tokens=not bare,
            return_special_tokens_mask=True,
            return_offsets_mapping=offsets,
        )
    return tuple(found[name] for name in names)


def _own(added: Sequence[int]) -> tuple[int, int]:
    """The range of the tokens that are the text's own; of a text that is none, the end of its first token."""
    own = [token for token, special in enumerate(added) if not special]
    return (own[0], own[-1] + 1) if own else (min(1, len(added)),) * 2


def single_token(tokenizer: Any, text: str, before: str | None = None) -> int | None:
    """The id of the token that ``text`` is in place, if it is exactly one known token there, else None.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        text: as it follows what stands before it.
        before: what that is. If nothing is said, a text that begins with a space follows itself, and another one follows
            nothing.
    """
    return single_tokens(tokenizer, [text], before)[0]


def single_tokens(tokenizer: Any, texts: Sequence[str], before: str | Sequence[str] | None = None) -> list[int | None]:
    """The same of many texts; ``before`` is what stands before all of them, or before each."""
    if before is None:
        before = [text.strip() if text[:1].isspace() else "" for text in texts]
    elif isinstance(before, str):
        before = [before] * len(texts)
    found = adds(tokenizer, list(zip(before, texts, strict=True)))
    unknown = tokenizer.unk_token_id
    return [ids[0] if ids is not None and len(ids) == 1 and ids[0] != unknown else None for ids in found]


def locate(text: str, mark: Mark, offsets: Sequence[tuple[int, int]]) -> int | str:
    """The token with which the last character of a mark is complete, or what is wrong with the mark.

    A character may be several byte tokens, of which the last one completes it. A space at the end of a mark, which some
    tokenizers drop, counts only where a token holds it.
    """
    if isinstance(mark, str):
        count = text.count(mark) if mark else 0
        if count != 1:
            return f"{mark!r} occurs {count} times in the prompt, expected once (or give a character span)"
        start = text.index(mark)
        end = start + len(mark)
    else:
        start, end = mark
        if not 0 <= start < end <= len(text):
            return f"the span {mark} is outside the prompt's {len(text)} characters"
    shown = start + len(text[start:end].rstrip())
    for last in dict.fromkeys((end, shown)):
        holding = [token for token, (first, after) in enumerate(offsets) if first < last <= after]
        if holding:
            first, after = offsets[holding[-1]]
            if len({offsets[token] for token in holding}) == 1 and len(holding) == len(text[first:after].encode()):
                return holding[len(text[first:last].encode()) - 1]  # bytes of several characters, all with one range
            return holding[-1]
    return f"no token holds character {end - 1}"
