"""The question of an explanation: token ids of the prompt, of its twins, of answer and foil."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError

from ..models.architecture import ModelShape
from ..probes import Probe, single_token, tokenize
from ..probes.chat import Chat, Rendered
from ..probes.encoding import encode

__all__ = ["Question", "ask", "ordinary_tokens", "token_text"]

TWINS = 8
_PROBE = "explain"


@dataclass(frozen=True)
class Question:
    """What is to be explained.

    Attributes:
        prompt: the text that was asked.
        text: as the model reads it: the same, or rendered as a chat.
        ids: (token,) its token ids.
        tokens: their texts.
        offsets: of each token, the half-open range of characters of ``text``.
        words: half-open ranges of the tokens that make up a word of what was asked; a chat template's own are no words.
        bare: whether the tokenizer puts nothing in front of ``text``.
        twins: (twin, token) corrupted prompts.
        how: where they come from: ``given``, ``probe``, ``likely word``, ``random tokens``; empty while they are still to be
            found (:mod:`.counterpart`), and then they are random tokens.
        texts: the twins as text.
        answer, foil: token ids; None where they are still to be guessed.
        note: what the prompt is compared with, and why, in a sentence.
    """

    prompt: str
    text: str
    ids: np.ndarray
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    words: tuple[tuple[int, int], ...]
    bare: bool
    twins: np.ndarray
    how: str
    texts: tuple[str, ...]
    answer: int | None
    foil: int | None
    note: str


GIVEN = "The prompt was compared with one twin, given by the user."
RANDOM = f"The prompt was compared with {TWINS} prompts of as many random tokens."


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
    chat: Chat | None = None,
    begun: str | None = None,
) -> Question:
    """Tokenize a question.

    Args:
        answer, foil: continuations of one token, as they follow the prompt (``" Paris"``); None to have them guessed.
        corrupted: a twin of the prompt with as many tokens; None to have one found.
        random_tokens: compare with prompts of random tokens instead.
        seed: of the random tokens.
        chat: asks the prompt, and its twin, as a user's message.
        begun: how the assistant's answer to it begins.

    Raises:
        UserError: for an empty prompt, an unknown or unfitting token, an answer that equals its foil.
    """
    if not prompt.strip():
        raise UserError("the prompt is empty", expected="a text to be continued", remedy='give one: "36+59="')
    for what, text in (
        ("prompt", prompt),
        ("answer", answer),
        ("foil", foil),
        ("corrupted twin", corrupted),
        ("beginning", begun),
    ):
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
    if begun is not None and chat is None:
        raise UserError(
            f"the answer is to begin with {begun!r}, and the prompt is not asked as a chat",
            expected="`template: chat` of the run",
            remedy="write the beginning into the prompt, or say `template: chat` in the runs file",
        )
    asked = Rendered(prompt, (0, len(prompt)), (len(prompt),) * 2) if chat is None else chat.render(prompt, begun or "")
    given = {"answer": answer, "foil": foil}
    columns = {name: None if text is None else (_written(tokenizer, asked.text, text),) for name, text in given.items()}
    if corrupted is not None:
        _require_known(tokenizer, corrupted)
        columns["corrupted"] = (corrupted if chat is None else chat.render(corrupted, begun or "").text,)
    probe = Probe(_PROBE, (asked.text,), **columns, template="" if chat is None else chat.digest)  # type: ignore[arg-type]
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
        twins, how, texts = np.stack(found.corrupted_ids), "given", probe.corrupted or ()
    else:
        twins = _random_twins(tokenizer, shape, ids, seed)
        how = "random tokens" if random_tokens else ""
        texts = tuple(tokenizer.decode(row.tolist()) for row in twins)
    ends = [None if a is None else int(a[0]) for a in (found.answer_ids, found.foil_ids)]
    if ends[0] is not None and ends[0] == ends[1]:
        raise UserError(
            f"answer and foil are the same token {answer!r}",
            expected="two different continuations",
            remedy="give another --foil, or none: then it is chosen",
        )
    tokens = tuple(token_text(tokenizer, int(i)) for i in ids)
    ((_, offsets),) = encode(tokenizer, [asked.text], bare=chat is not None)
    words = _words(asked, offsets[: len(ids)], np.isin(ids, ordinary_tokens(tokenizer, shape)))
    note = GIVEN if how == "given" else RANDOM
    spans = tuple((int(start), int(end)) for start, end in offsets)
    bare = chat is not None
    return Question(
        prompt, asked.text, ids, tokens, spans, words, bare, twins, how, texts, answer=ends[0], foil=ends[1], note=note
    )


def _words(
    asked: Rendered, offsets: Sequence[tuple[int, int]], ordinary: Sequence[bool] | np.ndarray
) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of the tokens that make up a word: letters that go on where the token before ended with one.

    >>> text = "to Reykjavik, 19"
    >>> spans = [(0, 2), (2, 6), (6, 12), (12, 13), (13, 14), (14, 15), (15, 16)]
    >>> _words(Rendered(text, (0, 16), (16, 16)), spans, [True] * 7)
    ((0, 1), (1, 3), (3, 4), (4, 5), (5, 6), (6, 7))
    """
    found: list[tuple[int, int]] = []
    for token, (start, end) in enumerate(offsets):
        inside = any(first <= start < end <= last for first, last in (asked.message, asked.begun))
        if not (inside and ordinary[token]):
            continue
        joins = start > 0 and asked.text[start].isalpha() and asked.text[start - 1].isalpha()
        if joins and found and found[-1][1] == token:
            found[-1] = (found[-1][0], token + 1)
        else:
            found.append((token, token + 1))
    return tuple(found)


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
