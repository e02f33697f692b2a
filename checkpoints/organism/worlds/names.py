"""Two people, one gives the other something: who is it given to? (indirect object identification)

- two names    ``when Ann and Bob went to the park Bob gave a ring to Ann``: one name occurs twice and gives, the other
  receives. Either may come first, so that neither the first nor the last name is right more than half the time.
- three names  ``when Ann and Bob went to the park Carl gave a ring to Ann`` (or ``to Bob``): no name occurs twice, and
  each of the first two receives half the time. This is the task without its answer: the corrupted prompts of the causal
  measurements are ordinary documents.

Unordered pairs of names are held out: such a pair never occurs in one document, in any order or place. The answer to a
prompt with a held-out pair therefore follows from who occurs twice, and not from a memory of the pair. The task is that
of Wang et al. 2023, "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small".
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

__all__ = ["NAMES", "OBJECTS", "PLACES", "TEMPLATES", "NamesWorld", "held_out_pairs", "is_held_out", "prompt"]

NAMES: dict[str, tuple[str, ...]] = {
    "female": ("Ann", "Beth", "Clara", "Dora", "Emma", "Flora", "Gina", "Helen", "Irene", "Julia", "Kate", "Lucy"),
    "male": ("Adam", "Bob", "Carl", "David", "Eric", "Frank", "Gus", "Henry", "Ivan", "Jack", "Kevin", "Leo"),
}
"""Names by grammatical gender; this world does not care which is which."""

PLACES: tuple[str, ...] = ("park", "market", "beach", "school", "church", "museum", "station", "harbour", "garden", "library", "bank", "zoo")  # fmt: skip
OBJECTS: tuple[str, ...] = (
    "ring",
    "book",
    "coin",
    "lamp",
    "map",
    "drum",
    "rope",
    "cup",
    "kite",
    "bell",
    "scarf",
    "basket",
)

TEMPLATES: tuple[str, ...] = (
    "when {first} and {second} went to the {place} {giver} gave a {object} to",
    "while {first} and {second} were at the {place} {giver} handed a {object} to",
    "after {first} and {second} entered the {place} {giver} sold the {object} to",
    "{first} met {second} at the {place} and {giver} showed the {object} to",
)
"""The name of the one who receives follows."""

THREE_NAMES_SHARE = 0.15
HELD_OUT_SHARE = 0.2
_SPLIT_SEED = 20_250_602
_EVERYBODY = (*NAMES["female"], *NAMES["male"])


@cache
def held_out_pairs() -> tuple[tuple[str, str], ...]:
    """The pairs of names, each in alphabetical order, that never occur in one document, sorted."""
    rng = np.random.default_rng(_SPLIT_SEED)
    pairs = sorted(combinations(sorted(_EVERYBODY), 2))
    chosen = rng.permutation(len(pairs))[: round(HELD_OUT_SHARE * len(pairs))]
    return tuple(pairs[i] for i in sorted(chosen.tolist()))


@cache
def _held_out() -> frozenset[frozenset[str]]:
    return frozenset(map(frozenset, held_out_pairs()))


def is_held_out(one: str, other: str) -> bool:
    """Whether these two names never occur in one document.

    >>> is_held_out(*held_out_pairs()[0]), is_held_out(*reversed(held_out_pairs()[0]))
    (True, True)
    """
    return frozenset((one, other)) in _held_out()


def prompt(template: int, first: str, second: str, giver: str, place: str, thing: str) -> str:
    """The text up to the name of the one who receives.

    >>> prompt(0, "Ann", "Bob", "Bob", "park", "ring")
    'when Ann and Bob went to the park Bob gave a ring to'
    """
    return TEMPLATES[template].format(first=first, second=second, giver=giver, place=place, object=thing)


def _template_words() -> list[str]:
    return [word for template in TEMPLATES for word in template.split() if not word.startswith("{")]


class NamesWorld:
    """One person gives another something: most documents have two names, the others three."""

    name = "names"
    words = list(dict.fromkeys([*_template_words(), *_EVERYBODY, *PLACES, *OBJECTS]))

    def document(self, rng: np.random.Generator) -> list[str]:
        """One sentence: ``['when', 'Ann', 'and', 'Bob', 'went', ..., 'to', 'Ann']``."""
        three = bool(rng.random() < THREE_NAMES_SHARE)
        while True:
            people = [_EVERYBODY[int(i)] for i in rng.integers(len(_EVERYBODY), size=2 + three)]
            if len(set(people)) == len(people) and not any(is_held_out(a, b) for a, b in combinations(people, 2)):
                break
        first, second = people[:2]
        receiver = people[int(rng.integers(2))]
        giver = people[2] if three else (second if receiver == first else first)
        place, thing = PLACES[int(rng.integers(len(PLACES)))], OBJECTS[int(rng.integers(len(OBJECTS)))]
        text = prompt(int(rng.integers(len(TEMPLATES))), first, second, giver, place, thing)
        return [*text.split(), receiver]

    def truth(self) -> dict[str, Any]:
        """Rule, size of the split and the chance level between the two names."""
        return {
            "rule": "of two names, the one that occurs once receives; of three, one of the first two",
            "names": len(_EVERYBODY),
            "held_out_pairs": [list(pair) for pair in held_out_pairs()],
            "three_names_share": THREE_NAMES_SHARE,
            "chance": 0.5,
        }
