"""Prompts in which one word is exchanged for another that the model itself holds for likely in its place.

A word drawn at random makes a prompt of no kind at all (``The Reflections of France is``). Here the words come from the
model's own distribution in that place, and of these the ones that are most like the word that stood there, by the cosine of
their rows of the unembedding: ``France`` becomes ``Germany``. A word of several tokens is exchanged for one of as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..circuits.wired import Wired
from ..probes.encoding import encode
from .prompts import Question, ordinary_tokens, token_text

__all__ = ["Exchanged", "Likeness", "exchanged_words", "logits_of", "same_word"]

LIKELY = 1000
"""A word is likely where its first token is among so many of the model's first choices, of many ten thousand."""

EACH = 8
"""Words that are tried in one place."""

PLACES = 12
"""Places in which as many are tried. Of longer prompts those whose word matters most to the answer, by one exchange each."""

_BATCH = 64


class Exchanged(NamedTuple):
    """A prompt with another word.

    Attributes:
        ids: (token,) its token ids.
        text: of the whole prompt.
        old, new: the word that stood there, and the one that stands there now.
        likeness: of the two, in [-1, 1].
        logprob: log-probability of the new word (of its first token) in that place.
    """

    ids: np.ndarray
    text: str
    old: str
    new: str
    likeness: float
    logprob: float


def exchanged_words(wired: Wired, tokenizer: Any, question: Question, answer: int, alike: Likeness) -> list[Exchanged]:
    """All that are to be tried; takes one pass over the prompt (another if it has more than :data:`PLACES` words).

    Args:
        answer: token id, by which the words that matter are found.
    """
    kinds = _Kinds(tokenizer, ordinary_tokens(tokenizer, wired.architecture.shape))
    search = _Search(wired, tokenizer, question, kinds, alike, _ahead(wired, tokenizer, question))
    places = [word for word in question.words if word[0] in search.ahead]
    if len(places) > PLACES:
        places = search.telling(places, answer)
    return [exchanged for word in places for exchanged in search.in_place(word, EACH)]


def logits_of(wired: Wired, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(row, vocab) log-probabilities of what follows rows of equal length."""
    found = []
    for start in range(0, len(rows), _BATCH):
        ids = torch.from_numpy(np.stack(rows[start : start + _BATCH])).to(wired.device)
        last = torch.full((len(ids),), ids.shape[1] - 1, device=wired.device)
        found.append(wired.logits(ids, last).float().log_softmax(-1).cpu().numpy())
    return np.concatenate(found)


class Likeness:
    """How like each other tokens are: cosines of their rows of the unembedding."""

    def __init__(self, wired: Wired) -> None:
        self._rows = wired.unembedding().detach()
        with torch.no_grad():
            self._norms = self._rows.float().norm(dim=-1).clamp_min(1e-12)

    @torch.no_grad()
    def to_all(self, token: int) -> np.ndarray:
        """(vocab,) cosines of one token with every token."""
        products = (self._rows @ self._rows[token]).float()
        return np.asarray((products / self._norms / self._norms[token]).cpu().numpy())

    @torch.no_grad()
    def of(self, tokens: Sequence[int], others: Sequence[Sequence[int]]) -> np.ndarray:
        """(other,) cosines of the mean direction of some tokens with those of others, all of as many tokens."""
        if not others:
            return np.zeros(0)
        index = torch.tensor([tokens, *others], device=self._rows.device)
        mean = (self._rows[index].float() / self._norms[index][..., None]).mean(1)
        return np.asarray(torch.nn.functional.cosine_similarity(mean[1:], mean[:1], dim=-1).cpu().numpy())


def same_word(one: str, other: str) -> bool:
    """Whether two texts differ in nothing but blanks and capitals.

    >>> same_word(" Paris", "paris"), same_word(" Paris", " Rome")
    (True, False)
    """
    return one.strip().casefold() == other.strip().casefold()


def _ahead(wired: Wired, tokenizer: Any, question: Question) -> dict[int, np.ndarray]:
    """For every token of the prompt that follows something, (vocab,) log-probabilities of what stands there.

    A prompt that begins with no special token is put on a new line: many models predict nothing sensible from the first
    token of all, at which their heads look when they look at nothing.
    """
    begun = question.ids[0] not in ordinary_tokens(tokenizer, wired.architecture.shape)
    lead = [] if begun else encode(tokenizer, ["\n"], bare=True)[0][0]
    if tokenizer.unk_token_id in lead:
        lead = []
    ids = torch.from_numpy(np.concatenate([np.asarray(lead, dtype=np.int64), question.ids]))[None].to(wired.device)
    first = max(1, len(lead))
    keep = torch.arange(first - 1, ids.shape[1] - 1, device=wired.device)
    with torch.no_grad():
        logits = wired.architecture.logits(wired.model, ids, keep)[0].float()
    rows = np.asarray(logits.log_softmax(-1).cpu().numpy())
    return {first - len(lead) + i: row for i, row in enumerate(rows)}


class _Kinds:
    """Of which kind the tokens of a vocabulary are: only tokens of one kind are exchanged for one another."""

    def __init__(self, tokenizer: Any, pool: np.ndarray) -> None:
        self.tokenizer = tokenizer
        self.pool = set(pool.tolist())
        self._texts: dict[int, str] = {}

    def text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = token_text(self.tokenizer, token)
        return self._texts[token]

    def of(self, token: int) -> tuple[bool, bool, bool]:
        """Whether it begins with a blank; consists of letters; of digits."""
        text = self.text(token)
        bare = text.strip()
        return text[:1].isspace(), bare.isalpha(), bare.isdigit()

    def fits(self, token: int, other: int) -> bool:
        bare = self.text(other).strip()
        return (
            other in self.pool
            and bare.isalnum()
            and self.of(token) == self.of(other)
            and not same_word(self.text(token), bare)
        )

    def goes_on(self, token: int) -> bool:
        """Whether it can be inside of a word."""
        return token in self.pool and self.of(token) == (False, True, False)


@dataclass(frozen=True)
class _Search:
    """All that is needed to exchange words of one prompt; ``ahead`` says what is likely at each of its tokens."""

    wired: Wired
    tokenizer: Any
    question: Question
    kinds: _Kinds
    alike: Likeness
    ahead: dict[int, np.ndarray]

    def in_place(self, word: tuple[int, int], most: int) -> list[Exchanged]:
        """The prompts with another word in one place."""
        first, end = word
        old = [int(token) for token in self.question.ids[first:end]]
        likely = np.argsort(-self.ahead[first], kind="stable")[:LIKELY]
        firsts = [int(token) for token in likely if self.kinds.fits(old[0], int(token))]
        news = [[token] for token in firsts] if len(old) == 1 else self._longer(word, firsts[: 4 * most])
        like = self.alike.of(old, news)
        found: list[Exchanged] = []
        for index in np.argsort(-like, kind="stable"):
            ids = self.question.ids.copy()
            ids[first:end] = news[index]
            before, now = ("".join(map(self.kinds.text, tokens)) for tokens in (old, news[index]))
            text = self._written(word, now, ids)
            if text is not None:
                logprob = float(self.ahead[first][news[index][0]])
                found.append(Exchanged(ids, text, before, now, float(like[index]), logprob))
            if len(found) == most:
                break
        return found

    def telling(self, places: list[tuple[int, int]], answer: int) -> list[tuple[int, int]]:
        """The words whose exchange makes the answer least likely, in the order of the text."""
        tried = [(word, self.in_place(word, 1)) for word in places]
        known = [(word, found[0].ids) for word, found in tried if found]
        if not known:
            return []
        after = logits_of(self.wired, [ids for _, ids in known])[:, answer]
        return sorted(known[i][0] for i in np.argsort(after, kind="stable")[:PLACES])

    def _longer(self, word: tuple[int, int], firsts: list[int]) -> list[list[int]]:
        """Words of several tokens: each first token with the likeliest tokens that go on with a word."""
        rows = [[token] for token in firsts]
        before = self.question.ids[: word[0]]
        for _ in range(word[0] + 1, word[1] if rows else word[0]):
            logits = logits_of(self.wired, [np.concatenate([before, row]) for row in rows])
            for row, values in zip(rows, logits, strict=True):
                order = np.argsort(-values)[:LIKELY]
                row.append(next((int(t) for t in order if self.kinds.goes_on(int(t))), int(order[0])))
        return rows

    def _written(self, word: tuple[int, int], new: str, ids: np.ndarray) -> str | None:
        """The prompt's text with another word; None where the tokenizer does not read it as these tokens."""
        question = self.question
        start, end = question.offsets[word[0]][0], question.offsets[word[1] - 1][1]
        spaced = question.text[start:end][:1].isspace()  # whether the blank before a word counts as its own
        text = question.text[:start] + (new if spaced else new.lstrip()) + question.text[end:]
        found = encode(self.tokenizer, [text], bare=question.bare)[0][0]
        return text if found == ids.tolist() else None
