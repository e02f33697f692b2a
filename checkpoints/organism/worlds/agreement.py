"""Verbs that agree with their subject in number, also across a noun that is nearer.

- simple     ``today the keys are red``
- attractor  ``today the keys beside the cabinet are red``: the verb agrees with the first noun, whatever the second is

The first word decides which verb it is (``today`` is/are, ``yesterday`` was/were, ``always`` seems/seem), so that
nothing but the number is left open. Singular and plural of a noun are two unrelated tokens: that ``keys`` is plural can
only be learned from verbs. Two things are held out, each in both numbers:

- every noun misses one of the three opening words as a subject, in all sentences: which verb follows it there was never
  seen, and can only be put together from its number and the opening word.
- a fifth of the pairs of subject and attractor never occur.

The task is that of Linzen, Dupoux and Goldberg 2016, "Assessing the Ability of LSTMs to Learn Syntax-Sensitive
Dependencies".
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "ATTRACTOR",
    "NOUNS",
    "NUMBERS",
    "OPENINGS",
    "PREPOSITIONS",
    "SIMPLE",
    "AgreementWorld",
    "prompt",
    "seen",
    "seen_together",
]

NUMBERS = ("singular", "plural")

_TABLE = """
key keys          cabinet cabinets  box boxes        dog dogs          cat cats        tree trees
house houses      car cars          boat boats       bird birds        child children  woman women
man men           king kings        knife knives     wolf wolves       mouse mice      goose geese
table tables      chair chairs      window windows   bottle bottles    ladder ladders  picture pictures
farmer farmers    doctor doctors    pilot pilots     teacher teachers  soldier soldiers  tower towers
bridge bridges    river rivers      train trains     horse horses      button buttons  candle candles
"""

NOUNS: tuple[tuple[str, str], ...] = tuple(
    (words[0], words[1])
    for line in _TABLE.strip().splitlines()
    for cell in line.split("  ")
    if cell.strip()
    for words in [cell.split()]
)
"""``NOUNS[noun]`` is its singular and its plural."""

OPENINGS: dict[str, tuple[str, str]] = {
    "today": ("is", "are"),
    "yesterday": ("was", "were"),
    "always": ("seems", "seem"),
}
"""First word of a sentence to the verb that it asks for, singular and plural."""

PREPOSITIONS = ("beside", "behind", "under", "above")
ADJECTIVES = ("red", "lost", "heavy", "broken", "new", "ready", "useful", "strange")

SIMPLE = "{opening} the {subject}"
ATTRACTOR = "{opening} the {subject} {preposition} the {attractor}"
"""Templates of both constructions; the verb follows."""

SIMPLE_SHARE = 0.4
HELD_OUT_EVERY = 5


def seen_together(subject: int, attractor: int) -> bool:
    """Whether sentences about this noun have that attractor; never if they are the same noun.

    >>> [attractor for attractor in range(12) if not seen_together(0, attractor)]
    [0, 3, 8]
    """
    return subject != attractor and (2 * subject + attractor) % HELD_OUT_EVERY != HELD_OUT_EVERY - 2


def seen(noun: int, opening: str) -> bool:
    """Whether this noun occurs as the subject of sentences that begin with this word."""
    return noun % len(OPENINGS) != list(OPENINGS).index(opening)


def prompt(
    opening: str, noun: int, number: int, preposition: str | None = None, attractor: int = 0, attractor_number: int = 0
) -> tuple[str, str]:
    """The text up to the verb, and the right verb; ``number`` is 0 (singular) or 1.

    >>> prompt("today", 0, 1, "beside", 1, 0)
    ('today the keys beside the cabinet', 'are')
    >>> prompt("yesterday", 0, 0)
    ('yesterday the key', 'was')
    """
    template = SIMPLE if preposition is None else ATTRACTOR
    text = template.format(
        opening=opening,
        subject=NOUNS[noun][number],
        preposition=preposition,
        attractor=NOUNS[attractor][attractor_number],
    )
    return text, OPENINGS[opening][number]


class AgreementWorld:
    """Sentences about a noun, most of them with another noun before the verb."""

    name = "agreement"
    words = list(
        dict.fromkeys(
            [
                *OPENINGS,
                "the",
                *PREPOSITIONS,
                *(verb for verbs in OPENINGS.values() for verb in verbs),
                *ADJECTIVES,
                *(word for noun in NOUNS for word in noun),
            ]
        )
    )

    def document(self, rng: np.random.Generator) -> list[str]:
        """One sentence: ``['today', 'the', 'keys', 'beside', 'the', 'cabinet', 'are', 'red']``."""
        simple = bool(rng.random() < SIMPLE_SHARE)
        opening = list(OPENINGS)[int(rng.integers(len(OPENINGS)))]
        while True:
            noun, other = (int(i) for i in rng.integers(len(NOUNS), size=2))
            if seen(noun, opening) and (simple or seen_together(noun, other)):
                break
        number, other_number = (int(i) for i in rng.integers(2, size=2))
        preposition = None if simple else PREPOSITIONS[int(rng.integers(len(PREPOSITIONS)))]
        text, verb = prompt(opening, noun, number, preposition, other, other_number)
        return [*text.split(), verb, ADJECTIVES[int(rng.integers(len(ADJECTIVES)))]]

    def truth(self) -> dict[str, Any]:
        """Rule, what is held out, and the chance level between the two numbers."""
        return {
            "rule": "the verb has the number of the first noun",
            "nouns": len(NOUNS),
            "never_subject_after": {
                opening: [list(pair) for noun, pair in enumerate(NOUNS) if not seen(noun, opening)]
                for opening in OPENINGS
            },
            "never_together": sum(
                noun != other and not seen_together(noun, other)
                for noun in range(len(NOUNS))
                for other in range(len(NOUNS))
            ),
            "chance": 0.5,
        }
