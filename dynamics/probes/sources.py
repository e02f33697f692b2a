"""The two sources of built-in prompts: the organism's worlds, and natural language under a series' own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.tokenizer import require_world, speaks
from checkpoints.organism.worlds import vocabulary

from .encoding import encode, single_token, single_tokens
from .types import Probe

__all__ = ["PlainWords", "choose_source", "plain_words", "repeat_probes"]

Source = TypeVar("Source")


def choose_source(tokenizer: Any, world: str, organism: Source, natural: Source) -> Source:
    """What the prompts of an analysis are made by: for a model that speaks the organism's language, or for another.

    An analysis has one of each, of one type: two functions that make a probe, or two ways to say the same things. It chooses
    here once, and knows nothing of the choice from there on.

    Raises:
        UserError: for an organism that does not know the words of ``world``.
    """
    if not speaks(tokenizer):
        return natural
    require_world(tokenizer, world)
    return organism


@dataclass(frozen=True)
class PlainWords:
    """Words that are one token each, also side by side, for prompts of words drawn at random.

    Attributes:
        words: with their leading space where the tokenizer has one.
        space: what stands between two of them.
        period: how many are written before they come again, where nothing else is asked for.
        bare: whether the tokenizer itself puts a space in front of a text, so that its first word has none.
    """

    words: list[str]
    space: str = ""
    period: int = 25
    bare: bool = False

    def joined(self, words: Sequence[str]) -> str:
        """The text of some of the words.

        >>> PlainWords([" one", " two"]).joined([" one", " two"]), PlainWords(["eins"], " ").joined(["eins", "eins"])
        (' one two', 'eins eins')
        """
        text = self.space.join(words)
        return text.removeprefix(" ") if self.bare else text

    def require(self, least: int, remedy: str) -> list[str]:
        """The words, if there are enough.

        Raises:
            UserError: when there are fewer than ``least``.
        """
        if len(self.words) < least:
            raise UserError(
                f"the tokenizer has {len(self.words)} plain words of one token",
                expected=f"at least {least}",
                remedy=remedy,
            )
        return self.words


def plain_words(tokenizer: Any) -> PlainWords:
    """The words of a tokenizer that are one token each.

    Tokens that are a space and a plain word are not merged by any tokenizer when they follow one another. Where no token
    carries its space, tokens are whole words, and any of letters and digits will do. Where there are no words at all, tokens
    are letters and digits, side by side.
    """
    if speaks(tokenizer):
        return PlainWords(vocabulary(), " ", 10)  # an organism's context is short
    texts = [t for t in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) if isinstance(t, str)]
    marked = [f" {t[1:]}" for t in texts if t[:1] in ("Ġ", "▁") and len(t) > 3 and t[1:].isascii() and t[1:].isalpha()]
    if pool := marked or [f" {word}" for word in texts if word.isascii() and word.isalnum()]:
        found = single_tokens(tokenizer, pool, pool[0].strip())
        words = [word for word, token in zip(pool, found, strict=True) if token is not None]
        if words:
            return PlainWords(words, bare=single_token(tokenizer, words[0], "") is None)
    letters = [text for text in texts if len(text) == 1 and text.isascii() and text.isalnum()]
    apart = encode(tokenizer, ["".join(letters)])[0][0] if letters else []
    fits = [i for i in apart if i not in tokenizer.all_special_ids] == tokenizer.convert_tokens_to_ids(letters)
    return PlainWords(letters, period=len(letters) // 3) if fits else PlainWords([])


def repeat_probes(
    names: tuple[str, str], words: PlainWords, count: int, period: int, seed: int, *, what: str, remedy: str
) -> tuple[Probe, Probe]:
    """Sequences of ``period`` distinct random words, twice; and the same first halves before unrelated second halves.

    Words keep their identity when written side by side, so that the text in the trace means the same tokens.

    Args:
        names: of the two probes.
        words: to draw from.
        count: sequences, and as many controls.
        period: words in one copy; the label ``period``.
        seed: chooses the words.
        what: the words in words, for the descriptions.
        remedy: what to do if there are too few.

    Raises:
        UserError: when there are fewer words than three times ``period``.
    """
    pool = words.require(3 * period, remedy)
    rng = np.random.default_rng(seed)
    repeated, unrelated = [], []
    for _ in range(count):
        drawn = [pool[i] for i in rng.permutation(len(pool))[: 2 * period]]
        repeated.append(words.joined(drawn[:period] * 2))
        unrelated.append(words.joined(drawn))
    labels = {"period": (period,) * count}
    return (
        Probe(names[0], tuple(repeated), labels=labels, description=f"random {what}, written twice"),
        Probe(names[1], tuple(unrelated), labels=labels, description=f"random {what} without any repeat"),
    )
