"""Pronouns that agree with a name: ``Ann avoided the park because she was ready``.

Names are those of the world ``names``; nothing but the pronouns tells their gender. Some templates hold a second name,
of either gender, which the pronoun never refers to, so that the nearest name is not the answer. Every name misses one
template as its subject: there, its pronoun can only follow from what the other templates taught about the name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .names import NAMES, OBJECTS, PLACES

__all__ = ["GENDERS", "NAMES", "PRONOUNS", "TEMPLATES", "GenderWorld", "fillers", "is_held_out", "prompt"]

GENDERS = ("female", "male")

PRONOUNS: dict[str, str] = {"female": "she", "male": "he"}

TEMPLATES: tuple[str, ...] = (
    "{name} avoided the {place} because",
    "{name} took the {object} before",
    "{name} followed {other} until",
    "{name} asked {other} whether",
)
"""A pronoun follows."""

ENDINGS = ("was ready", "was lost", "wanted to sleep", "felt strange")
"""What may follow the pronoun."""


def is_held_out(name: str, template: int) -> bool:
    """Whether this name is never the subject of this template.

    >>> [is_held_out("Ann", template) for template in range(len(TEMPLATES))]
    [True, False, False, False]
    """
    return _place(name) % len(TEMPLATES) == template


def fillers(name: str, template: int) -> tuple[str, ...]:
    """What may stand in the other slot of a template whose subject is ``name``: places, objects or other names."""
    text = TEMPLATES[template]
    if "{place}" in text:
        return PLACES
    if "{object}" in text:
        return OBJECTS
    return tuple(other for gender in GENDERS for other in NAMES[gender] if other != name)


def prompt(name: str, template: int, filler: str) -> tuple[str, str]:
    """The text up to the pronoun, and the right pronoun.

    >>> prompt("Ann", 2, "Bob")
    ('Ann followed Bob until', 'she')
    """
    text = TEMPLATES[template].format(name=name, place=filler, object=filler, other=filler)
    return text, next(PRONOUNS[gender] for gender in GENDERS if name in NAMES[gender])


def _place(name: str) -> int:
    return next(NAMES[gender].index(name) for gender in GENDERS if name in NAMES[gender])


def _fixed_words() -> list[str]:
    return [word for text in (*TEMPLATES, *ENDINGS) for word in text.split() if not word.startswith("{")]


class GenderWorld:
    """Sentences whose subject comes back as a pronoun."""

    name = "gender"
    words = list(
        dict.fromkeys([*_fixed_words(), *PRONOUNS.values(), *NAMES["female"], *NAMES["male"], *PLACES, *OBJECTS])
    )

    def document(self, rng: np.random.Generator) -> list[str]:
        """One sentence: ``['Ann', 'avoided', 'the', 'park', 'because', 'she', 'was', 'ready']``."""
        names = NAMES[GENDERS[int(rng.integers(2))]]
        while True:
            name, template = names[int(rng.integers(len(names)))], int(rng.integers(len(TEMPLATES)))
            if not is_held_out(name, template):
                break
        choices = fillers(name, template)
        text, pronoun = prompt(name, template, choices[int(rng.integers(len(choices)))])
        return [*text.split(), pronoun, *ENDINGS[int(rng.integers(len(ENDINGS)))].split()]

    def truth(self) -> dict[str, Any]:
        """Rule, what is held out, and the chance level between the two pronouns."""
        return {
            "rule": "the pronoun has the gender of the subject",
            "names": {gender: list(NAMES[gender]) for gender in GENDERS},
            "held_out": [
                [name, text.format(name=name, place="...", object="...", other="...")]
                for gender in GENDERS
                for name in NAMES[gender]
                for template, text in enumerate(TEMPLATES)
                if is_held_out(name, template)
            ],
            "chance": 0.5,
        }
