"""A probe under one tokenizer: token ids, answer ids and token positions, with every problem reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from checkpoints.errors import UserError

from .encoding import adds, encode, locate
from .types import LAST, Probe

__all__ = ["TokenizedProbe", "tokenize"]

_SHOWN = 8


@dataclass(frozen=True)
class TokenizedProbe:
    """Token ids of a probe.

    Attributes:
        probe: the probe.
        ids: token ids per prompt, with what the tokenizer puts in front of a text, and, where the model fills in masks,
            behind it. What is to be continued is asked without an end.
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

    def take(self, rows: np.ndarray) -> TokenizedProbe:
        """The same with some of its prompts; the candidates stay those of all of them."""

        def of(values: Any) -> Any:
            if values is None or isinstance(values, np.ndarray):
                return values if values is None else values[rows]
            return tuple(values[row] for row in rows)

        said = self.probe
        part = replace(
            said,
            **{name: of(getattr(said, name)) for name in ("text", "answer", "foil", "corrupted", "begun")},
            labels={name: of(values) for name, values in said.labels.items()},
            positions={name: of(values) for name, values in said.positions.items()},
        )
        columns = ("ids", "answer_ids", "foil_ids", "corrupted_ids")
        return replace(
            self,
            probe=part,
            **{name: of(getattr(self, name)) for name in columns},
            positions={name: of(values) for name, values in self.positions.items()},
        )

    def batches(self, tokens: int) -> list[np.ndarray]:
        """Prompt indices, grouped by equal length (no padding at all), at most ``tokens`` tokens in a batch."""
        result = []
        lengths = self.lengths
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            size = max(1, tokens // int(length))
            result += [rows[start : start + size] for start in range(0, len(rows), size)]
        return result


def tokenize(
    probe: Probe, tokenizer: Any, *, vocab: int | None = None, context: int | None = None, causal: bool = True
) -> TokenizedProbe:
    """Tokenize a probe and check it before any compute.

    Args:
        probe: the prompts.
        tokenizer: a fast Hugging Face tokenizer.
        vocab: rows of the model's embedding, if known: every id must be below.
        context: the longest prompt that the model can read, if known.
        causal: if not, the model fills in masks: the answer belongs in the tokenizer's mask, which is put behind the
            prompt unless the prompt has one, and the position ``last`` is the mask.

    Raises:
        UserError: with every problem found, each with its prompt: an answer that is not one token or that merges with
            the text before it, a corrupted twin of another length, a position that does not exist, an unknown token.
    """
    problems: list[str] = []
    texts = list(probe.text) if causal else [_masked(text, tokenizer) for text in probe.text]
    bare = bool(probe.template)
    encoded = encode(tokenizer, texts, ended=not causal, bare=bare)
    ids = tuple(np.asarray(row, dtype=np.int64) for row, _ in encoded)

    def complain(prompt: int, what: str) -> None:
        problems.append(f"prompt {prompt} ({probe.text[prompt]!r}): {what}")

    for i, row in enumerate(ids):
        known = row[row != tokenizer.unk_token_id]
        if vocab is not None and known.max(initial=0) >= vocab:
            complain(
                i, f"holds token id {known.max()}, but the model has {vocab} embeddings: the tokenizer does not fit"
            )
        if context is not None and len(row) > context:
            complain(i, f"is {len(row)} tokens long, but the model reads {context}")
        if (
            tokenizer.unk_token_id is not None
            and tokenizer.unk_token_id in row
            and tokenizer.unk_token not in probe.text[i]
        ):
            at = encoded[i][1][list(row).index(tokenizer.unk_token_id)]
            complain(i, f"{probe.text[i][at[0] : at[1]]!r} is unknown to the tokenizer")

    positions = {LAST: np.array([len(row) - 1 if causal else _mask_index(row, tokenizer) for row in ids])}
    for nothing in np.flatnonzero(positions[LAST] < 0):
        complain(int(nothing), "has no tokens" if causal else f"needs exactly one {tokenizer.mask_token}")
    for name, marks in probe.positions.items():
        found = [locate(probe.text[i], mark, encoded[i][1]) for i, mark in enumerate(marks)]
        for i, where in enumerate(found):
            if isinstance(where, str):
                complain(i, f"position {name!r}: {where}")
        positions[name] = np.array([where if isinstance(where, int) else 0 for where in found])

    answer_ids = _continuations("answer", probe.answer, texts, ids, tokenizer, vocab, causal, complain)
    foil_ids = _continuations("foil", probe.foil, texts, ids, tokenizer, vocab, causal, complain)
    corrupted_ids = None
    if probe.corrupted is not None:
        twins = list(probe.corrupted) if causal else [_masked(text, tokenizer) for text in probe.corrupted]
        rows = encode(tokenizer, twins, ended=not causal, bare=bare)
        corrupted_ids = tuple(np.asarray(row, dtype=np.int64) for row, _ in rows)
        for i, (clean, bad) in enumerate(zip(ids, corrupted_ids, strict=True)):
            if len(clean) != len(bad):
                complain(i, f"is {len(clean)} tokens long, its corrupted twin {probe.corrupted[i]!r} {len(bad)}")
            elif vocab is not None and bad.max(initial=0) >= vocab:
                complain(i, f"its corrupted twin holds token id {bad.max()}, but the model has {vocab} embeddings")
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError(
            f"probe {probe.name!r} does not fit the tokenizer in {len(problems)} place"
            f"{'s' if len(problems) > 1 else ''}:\n    " + "\n    ".join(problems[:_SHOWN] + more),
            expected="one-token answers, pairs of equal length, positions that exist, known tokens",
            remedy="change these prompts, or use the tokenizer that the series was trained with",
        )
    candidates = {}
    if answer_ids is not None and probe.answer is not None:
        candidates = dict(sorted(zip(answer_ids.tolist(), probe.answer, strict=True)))
    return TokenizedProbe(probe, ids, answer_ids, foil_ids, corrupted_ids, positions, candidates)


def _masked(text: str, tokenizer: Any) -> str:
    if tokenizer.mask_token is None:
        raise UserError(
            "the model fills in masks, but its tokenizer has no mask token",
            expected="a tokenizer with one",
            remedy="name the tokenizer that the series was trained with as `series.tokenizer`",
        )
    return text if tokenizer.mask_token in text else f"{text.rstrip()} {tokenizer.mask_token}"


def _mask_index(ids: np.ndarray, tokenizer: Any) -> int:
    """The token that is the mask; -1 if there is not exactly one."""
    masks = np.flatnonzero(ids == tokenizer.mask_token_id)
    return int(masks[0]) if len(masks) == 1 else -1


def _continuations(
    kind: str,
    words: tuple[str, ...] | None,
    texts: Sequence[str],
    ids: tuple[np.ndarray, ...],
    tokenizer: Any,
    vocab: int | None,
    causal: bool,
    complain: Any,
) -> np.ndarray | None:
    """(prompt,) ids of the one token that each word is in place; complains about words that are not one."""
    if words is None:
        return None
    found = adds(tokenizer, list(zip(texts, words, strict=True))) if causal else _in_masks(texts, words, ids, tokenizer)
    result = np.zeros(len(words), dtype=np.int64)
    for i, (word, tokens) in enumerate(zip(words, found, strict=True)):
        if tokens is None:
            complain(i, f"{kind} {word!r} merges with the text before it; write it as it follows (a leading space?)")
        elif len(tokens) != 1:
            pieces = tokenizer.convert_ids_to_tokens(tokens)
            complain(i, f"{kind} {word!r} is {len(tokens)} tokens ({' '.join(pieces)}), expected one")
        elif tokens[0] == tokenizer.unk_token_id:
            complain(i, f"{kind} {word!r} is unknown to the tokenizer")
        elif vocab is not None and tokens[0] >= vocab:
            complain(i, f"{kind} {word!r} is token id {tokens[0]}, but the model has {vocab} embeddings")
        else:
            result[i] = tokens[0]
    return result


def _in_masks(
    texts: Sequence[str], words: Sequence[str], ids: tuple[np.ndarray, ...], tokenizer: Any
) -> list[list[int] | None]:
    """The tokens of each word where its text has the mask; None where the tokens around it change."""
    halves = [text.partition(tokenizer.mask_token)[::2] for text in texts]
    filled = [(b.rstrip() if w[:1].isspace() else b) + w + after for (b, after), w in zip(halves, words, strict=True)]
    result: list[list[int] | None] = []
    for row, (whole, _) in zip(ids, encode(tokenizer, filled, ended=True), strict=True):
        at = max(_mask_index(row, tokenizer), 0)
        after = len(row) - at - 1
        kept = whole[:at] == row[:at].tolist() and whole[len(whole) - after :] == row[at + 1 :].tolist()
        result.append(whole[at : len(whole) - after] if kept else None)
    return result
