"""The question of an explanation: token ids of the prompt, of its twins, of answer and foil."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError

from ..models.architecture import ModelShape
from ..probes import Probe, single_token, tokenize

__all__ = ["Question", "ask", "ordinary_tokens", "token_text"]

TWINS = 8
_PROBE = "explain"


@dataclass(frozen=True)
class Question:
    """What is to be explained.

    Attributes:
        prompt: the text.
        ids: (token,) its token ids.
        tokens: their texts.
        twins: (twin, token) corrupted prompts.
        how: ``given``, ``one token`` (to be found by :mod:`.counterpart`) or ``random tokens``.
        texts: the twins as text.
        answer, foil: token ids; None where they are still to be guessed.
        tried: of how many prompts that differ in one token the twin was chosen.
    """

    prompt: str
    ids: np.ndarray
    tokens: tuple[str, ...]
    twins: np.ndarray
    how: str
    texts: tuple[str, ...]
    answer: int | None
    foil: int | None
    tried: int = 0


def ask(
    tokenizer: Any,
    shape: ModelShape,
    prompt: str,
    *,
    answer: str | None = None,
    foil: str | None = None,
    corrupted: str | None = None,
    random_tokens: bool = False,
    seed: int = 0,
) -> Question:
    """Tokenize a question.

    Args:
        answer, foil: continuations of one token, as they follow the prompt (``" Paris"``); None to have them guessed.
        corrupted: a twin of the prompt with as many tokens; None to have one found.
        random_tokens: compare with prompts of random tokens instead.
        seed: of the random tokens.

    Raises:
        UserError: for an empty prompt, an unknown or unfitting token, an answer that equals its foil.
    """
    if not prompt.strip():
        raise UserError("the prompt is empty", expected="a text to be continued", remedy='give one: "36+59="')
    for what, text in (("prompt", prompt), ("answer", answer), ("foil", foil), ("corrupted twin", corrupted)):
        if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(
                f"the {what} {text!r} is no text: it holds half characters",
                expected="valid UTF-8",
                remedy="write it without them",
            )
        if text == "":
            raise UserError(
                f"the {what} is empty",
                expected="at least one token, or nothing at all",
                remedy="write some text, or leave it out",
            )
    given = {"answer": answer, "foil": foil}
    columns = {name: None if text is None else (_written(tokenizer, prompt, text),) for name, text in given.items()}
    probe = Probe(_PROBE, (prompt,), **columns, corrupted=None if corrupted is None else (corrupted,))  # type: ignore[arg-type]
    if corrupted is not None:
        _require_known(tokenizer, corrupted)
    found = tokenize(probe, tokenizer, vocab=shape.vocab, context=shape.context, causal=shape.causal)
    ids = found.ids[0]
    if len(ids) < 2:
        raise UserError(
            f"the prompt {prompt!r} is one token long",
            expected="at least two, so that something can flow",
            remedy="write a longer prompt",
        )
    if found.corrupted_ids is not None:
        if np.array_equal(found.corrupted_ids[0], ids):
            raise UserError(
                "the corrupted twin is the prompt itself",
                expected="a prompt that differs in what matters",
                remedy="give another --corrupted, or none: then one is tried",
            )
        twins, how, texts = np.stack(found.corrupted_ids), "given", (str(corrupted),)
    else:
        twins = _random_twins(tokenizer, shape, ids, seed)
        how = "random tokens" if random_tokens else "one token"
        texts = tuple(tokenizer.decode(row.tolist()) for row in twins)
    ends = [None if a is None else int(a[0]) for a in (found.answer_ids, found.foil_ids)]
    if ends[0] is not None and ends[0] == ends[1]:
        raise UserError(
            f"answer and foil are the same token {answer!r}",
            expected="two different continuations",
            remedy="give another --foil, or none: then it is chosen",
        )
    tokens = tuple(token_text(tokenizer, int(i)) for i in ids)
    return Question(prompt, ids, tokens, twins, how, texts, ends[0], ends[1])


def token_text(tokenizer: Any, token: int) -> str:
    """The text of one token, with its space."""
    raw = tokenizer.convert_ids_to_tokens(token) if token < len(tokenizer) else None
    if raw is None:  # embeddings are often padded to a round number
        return f"token {token}"
    text = str(tokenizer.decode([token]))
    # sentencepiece drops a leading space when it decodes a token alone
    return f" {text}" if raw.startswith("▁") and not text.startswith(" ") else text


def _require_known(tokenizer: Any, text: str) -> None:
    """What a twin holds; the prompt, answer and foil are checked as every probe's are."""
    unknown = tokenizer.unk_token_id
    encoded = tokenizer(text, return_offsets_mapping=True)
    if unknown is not None and unknown in encoded["input_ids"] and tokenizer.unk_token not in text:
        start, end = encoded["offset_mapping"][encoded["input_ids"].index(unknown)]
        raise UserError(
            f"the corrupted twin holds {text[start:end]!r}, which is unknown to the tokenizer",
            expected="tokens that the model was trained with",
            remedy="write --corrupted with other words",
        )


def _written(tokenizer: Any, prompt: str, text: str) -> str:
    """The continuation as it follows the prompt: with a space before it if that is what makes it a token of its own."""
    if text.startswith(" "):
        return text
    spaced = f" {text}"
    fits = [single_token(tokenizer, candidate, prompt) is not None for candidate in (text, spaced)]
    return spaced if fits == [False, True] else text


def ordinary_tokens(tokenizer: Any, shape: ModelShape) -> np.ndarray:
    """Token ids that are no special tokens, sorted."""
    special: Sequence[int] = tokenizer.all_special_ids
    return np.setdiff1d(np.arange(min(len(tokenizer), shape.vocab)), np.asarray(special, dtype=np.int64))


def _random_twins(tokenizer: Any, shape: ModelShape, ids: np.ndarray, seed: int) -> np.ndarray:
    """(twin, token) the prompt with every ordinary token drawn anew; special tokens stay where they are."""
    pool = ordinary_tokens(tokenizer, shape)
    drawn = np.random.default_rng(seed).choice(pool, size=(TWINS, len(ids)))
    return np.where(np.isin(ids, pool)[None], drawn, ids[None])
