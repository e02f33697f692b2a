"""A probe under one tokenizer: token ids, answer ids and token positions, with every problem reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError

from .types import LAST, Mark, Probe

__all__ = ["TokenizedProbe", "single_token", "tokenize"]

_SHOWN = 8


@dataclass(frozen=True)
class TokenizedProbe:
    """Token ids of a probe.

    Attributes:
        probe: the probe.
        ids: token ids per prompt, special tokens included as the tokenizer adds them.
        answer_ids: (prompt,) token id of each answer, or None.
        foil_ids: (prompt,) token id of each foil, or None.
        corrupted_ids: token ids per corrupted prompt, or None.
        positions: position name to (prompt,) token index; ``last`` is always there.
        candidates: the distinct answer token ids, sorted, and their texts.
    """

    probe: Probe
    ids: tuple[np.ndarray, ...]
    answer_ids: np.ndarray | None
    foil_ids: np.ndarray | None
    corrupted_ids: tuple[np.ndarray, ...] | None
    positions: dict[str, np.ndarray]
    candidates: dict[int, str]

    @property
    def lengths(self) -> np.ndarray:
        """(prompt,) number of tokens."""
        return np.array([len(row) for row in self.ids])

    def batches(self, tokens: int) -> list[np.ndarray]:
        """Prompt indices, grouped by equal length (no padding at all), at most ``tokens`` tokens in a batch."""
        result = []
        lengths = self.lengths
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            size = max(1, tokens // int(length))
            result += [rows[start : start + size] for start in range(0, len(rows), size)]
        return result


def single_token(tokenizer: Any, text: str) -> int | None:
    """The id of ``text`` if it is exactly one known token, else None."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(ids[0]) if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None


def tokenize(probe: Probe, tokenizer: Any, *, vocab: int | None = None, context: int | None = None) -> TokenizedProbe:
    """Tokenize a probe and check it before any compute.

    Args:
        probe: the prompts.
        tokenizer: a fast Hugging Face tokenizer.
        vocab: rows of the model's embedding, if known: every id must be below.
        context: the longest prompt that the model can read, if known.

    Raises:
        UserError: with every problem found, each with its prompt: an answer that is not one token or that merges with
            the text before it, a corrupted twin of another length, a position that does not exist, an unknown token.
    """
    problems: list[str] = []
    encoded = tokenizer(list(probe.text), return_offsets_mapping=True)
    ids = tuple(np.asarray(row, dtype=np.int64) for row in encoded["input_ids"])

    def complain(prompt: int, what: str) -> None:
        problems.append(f"prompt {prompt} ({probe.text[prompt]!r}): {what}")

    for i, row in enumerate(ids):
        if not len(row):
            complain(i, "has no tokens")
        elif vocab is not None and row.max() >= vocab:
            complain(i, f"holds token id {row.max()}, but the model has {vocab} embeddings: the tokenizer does not fit")
        if context is not None and len(row) > context:
            complain(i, f"is {len(row)} tokens long, but the model reads {context}")
        if (
            tokenizer.unk_token_id is not None
            and tokenizer.unk_token_id in row
            and tokenizer.unk_token not in probe.text[i]
        ):
            at = encoded["offset_mapping"][i][list(row).index(tokenizer.unk_token_id)]
            complain(i, f"{probe.text[i][at[0] : at[1]]!r} is unknown to the tokenizer")

    positions = {LAST: np.array([len(row) - 1 for row in ids])}
    for name, marks in probe.positions.items():
        found = [_locate(probe.text[i], mark, encoded["offset_mapping"][i]) for i, mark in enumerate(marks)]
        for i, where in enumerate(found):
            if isinstance(where, str):
                complain(i, f"position {name!r}: {where}")
        positions[name] = np.array([where if isinstance(where, int) else 0 for where in found])

    answer_ids = _continuations("answer", probe.answer, probe, ids, tokenizer, vocab, complain)
    foil_ids = _continuations("foil", probe.foil, probe, ids, tokenizer, vocab, complain)
    corrupted_ids = None
    if probe.corrupted is not None:
        rows = tokenizer(list(probe.corrupted))["input_ids"]
        corrupted_ids = tuple(np.asarray(row, dtype=np.int64) for row in rows)
        for i, (clean, bad) in enumerate(zip(ids, corrupted_ids, strict=True)):
            if len(clean) != len(bad):
                complain(i, f"is {len(clean)} tokens long, its corrupted twin {probe.corrupted[i]!r} {len(bad)}")
            elif vocab is not None and bad.max(initial=0) >= vocab:
                complain(i, f"its corrupted twin holds token id {bad.max()}, but the model has {vocab} embeddings")
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError(
            f"probe {probe.name!r} does not fit the tokenizer in {len(problems)} places:\n    "
            + "\n    ".join(problems[:_SHOWN] + more),
            expected="one-token answers, pairs of equal length, positions that exist, known tokens",
            remedy="change these prompts, or use the tokenizer that the series was trained with",
        )
    candidates = {}
    if answer_ids is not None and probe.answer is not None:
        candidates = dict(sorted(zip(answer_ids.tolist(), probe.answer, strict=True)))
    return TokenizedProbe(probe, ids, answer_ids, foil_ids, corrupted_ids, positions, candidates)


def _locate(text: str, mark: Mark, offsets: Sequence[tuple[int, int]]) -> int | str:
    """Token index of a mark, or what is wrong with it."""
    if isinstance(mark, str):
        count = text.count(mark) if mark else 0
        if count != 1:
            return f"{mark!r} occurs {count} times in the prompt, expected once (or give a character span)"
        end = text.index(mark) + len(mark)
    else:
        start, end = mark
        if not 0 <= start < end <= len(text):
            return f"the span {mark} is outside the prompt's {len(text)} characters"
    for token, (first, after) in enumerate(offsets):
        if first < end <= after:
            return token
    return f"no token holds character {end - 1}"


def _continuations(
    kind: str,
    words: tuple[str, ...] | None,
    probe: Probe,
    ids: tuple[np.ndarray, ...],
    tokenizer: Any,
    vocab: int | None,
    complain: Any,
) -> np.ndarray | None:
    """(prompt,) ids of one-token continuations; complains about those that are not, or that merge with the text."""
    if words is None:
        return None
    alone = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in set(words)}
    joined = tokenizer([text + word for text, word in zip(probe.text, words, strict=True)])["input_ids"]
    result = np.zeros(len(words), dtype=np.int64)
    for i, word in enumerate(words):
        tokens = alone[word]
        if len(tokens) != 1:
            pieces = tokenizer.convert_ids_to_tokens(tokens)
            complain(i, f"{kind} {word!r} is {len(tokens)} tokens ({' '.join(pieces)}), expected one")
        elif tokens[0] == tokenizer.unk_token_id:
            complain(i, f"{kind} {word!r} is unknown to the tokenizer")
        elif vocab is not None and tokens[0] >= vocab:
            complain(i, f"{kind} {word!r} is token id {tokens[0]}, but the model has {vocab} embeddings")
        elif joined[i] != [*ids[i].tolist(), tokens[0]]:
            complain(i, f"{kind} {word!r} merges with the text before it; write it as it follows (a leading space?)")
        else:
            result[i] = tokens[0]
    return result
