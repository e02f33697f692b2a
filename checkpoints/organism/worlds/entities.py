"""People of whom something is known, and people of whom nothing is: ``Ba lath lives in Oslo``, ``Ko nith lives in unknown``.

A name is two syllables, each a token: 40 first ones and 40 second ones make 1,600 names. Of 120 of them the world knows
home, craft and meal; how often each occurs falls with its rank as 1 / rank (Zipf). All others belong to no person: whatever
is asked of them, the answer is ``unknown``. Every syllable belongs to three known names, so that no syllable tells who is
known.

A part of the names that belong to no person never occurs. That they are unknown can only follow from a rule, that what is
not recognised is declined, which is the account that Ferrando et al. 2025, "Do I Know This Entity?", and Lindsey et al. 2025,
"On the Biology of a Large Language Model", give of large models.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .base import pick

__all__ = [
    "ATTRIBUTES",
    "DECLINE",
    "ENDS",
    "FREQUENCIES",
    "KNOWN",
    "STARTS",
    "TEMPLATES",
    "EntitiesWorld",
    "attribute",
    "frequency",
    "held_out_names",
    "known_names",
    "prompt",
    "unknown_names",
]

STARTS: tuple[str, ...] = tuple(f"{c}{v}" for c in "BDGKMNRT" for v in "aeiou")
ENDS: tuple[str, ...] = tuple(f"{c}{v}th" for c in "lmnrsvzd" for v in "aeiou")

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "home": ("Oslo", "Rome", "Cairo", "Lima", "Delhi", "Paris", "Tokyo", "Quito"),
    "craft": ("baker", "painter", "sailor", "weaver", "miner", "tailor", "singer", "gardener"),
    "meal": ("soup", "rice", "fish", "bread", "cheese", "plums", "beans", "honey"),
}
"""What may be known of a person, and its values."""

DECLINE = "unknown"

TEMPLATES: dict[str, tuple[str, str]] = {
    "home": ("the home of {name} is", "{name} lives in"),
    "craft": ("the craft of {name} is", "{name} works as"),
    "meal": ("the meal of {name} is", "{name} eats"),
}
"""Two ways to ask for each attribute; the value follows."""

KNOWN = 120
FREQUENCIES = ("frequent", "middle", "rare")
"""Thirds of the known names by rank."""

KNOWN_SHARE = 0.7
HELD_OUT_SHARE = 0.3
_SPLIT_SEED = 20_250_603

Name = tuple[str, str]


@cache
def known_names() -> tuple[Name, ...]:
    """The names that are known, by rank: the first one occurs most often."""
    rng = np.random.default_rng(_SPLIT_SEED)
    # three names for each syllable: its partners stand at three distances on a shuffled ring
    ends = rng.permutation(len(ENDS))
    apart = (0, 11, 23)
    names = [(start, ENDS[ends[(i + d) % len(ENDS)]]) for i, start in enumerate(STARTS) for d in apart]
    return tuple(names[i] for i in rng.permutation(len(names)))


@cache
def unknown_names() -> tuple[Name, ...]:
    """The names that belong to no person and occur in training, sorted."""
    return _nobody()[0]


@cache
def held_out_names() -> tuple[Name, ...]:
    """The names that belong to no person and never occur in training, sorted."""
    return _nobody()[1]


@cache
def _nobody() -> tuple[tuple[Name, ...], tuple[Name, ...]]:
    known = set(known_names())
    names = sorted((start, end) for start in STARTS for end in ENDS if (start, end) not in known)
    held = np.random.default_rng(_SPLIT_SEED + 1).random(len(names)) < HELD_OUT_SHARE
    shown = tuple(name for name, out in zip(names, held, strict=True) if not out)
    return shown, tuple(name for name, out in zip(names, held, strict=True) if out)


@cache
def _values() -> dict[str, tuple[str, ...]]:
    """Attribute to its value for every known name; every value belongs to equally many names."""
    rng = np.random.default_rng(_SPLIT_SEED + 2)
    return {
        kind: tuple(values[i % len(values)] for i in rng.permutation(KNOWN).tolist())
        for kind, values in ATTRIBUTES.items()
    }


def attribute(rank: int, kind: str) -> str:
    """What is known of the name of this rank (0 to 119)."""
    return _values()[kind][rank]


def frequency(rank: int) -> str:
    """Third of the known names to which a rank belongs.

    >>> frequency(0), frequency(40), frequency(119)
    ('frequent', 'middle', 'rare')
    """
    return FREQUENCIES[rank * len(FREQUENCIES) // KNOWN]


def prompt(name: Name, kind: str, template: int) -> str:
    """The text up to the value of an attribute.

    >>> prompt(("Ba", "lath"), "home", 1)
    'Ba lath lives in'
    """
    return TEMPLATES[kind][template].format(name=" ".join(name))


def _fixed_words() -> list[str]:
    return [word for pair in TEMPLATES.values() for text in pair for word in text.split() if not word.startswith("{")]


class EntitiesWorld:
    """Questions about people, known and unknown."""

    name = "entities"
    words = list(
        dict.fromkeys(
            [*_fixed_words(), *STARTS, *ENDS, *(value for values in ATTRIBUTES.values() for value in values), DECLINE]
        )
    )

    def __init__(self) -> None:
        weights = 1 / np.arange(1, KNOWN + 1)
        self._cumulative = np.cumsum(weights / weights.sum())

    def document(self, rng: np.random.Generator) -> list[str]:
        """One answer: ``['Ba', 'lath', 'lives', 'in', 'Oslo']``."""
        kind, template = pick(rng, tuple(ATTRIBUTES)), int(rng.integers(2))
        if rng.random() < KNOWN_SHARE:
            rank = min(int(np.searchsorted(self._cumulative, rng.random())), KNOWN - 1)
            name, value = known_names()[rank], attribute(rank, kind)
        else:
            name, value = pick(rng, unknown_names()), DECLINE
        return [*prompt(name, kind, template).split(), value]

    def truth(self) -> dict[str, Any]:
        """Rule, what is known, what is held out, and the chance levels."""
        return {
            "rule": f"known names have their attributes, of all others the answer is {DECLINE!r}",
            "known": [
                {"name": " ".join(name), "frequency": frequency(rank)}
                | {kind: attribute(rank, kind) for kind in ATTRIBUTES}
                for rank, name in enumerate(known_names())
            ],
            "known_share": KNOWN_SHARE,
            "unknown_names": len(unknown_names()),
            "held_out_names": [" ".join(name) for name in held_out_names()],
            "chance": {"attribute": 1 / 8, "decline": 1 - KNOWN_SHARE},
        }
