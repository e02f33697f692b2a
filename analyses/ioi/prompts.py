"""Prompts of indirect object identification: ``When Mary and John went to the store, John gave a drink to`` (Mary).

Templates, places and objects are those of Wang et al. 2023, "Interpretability in the Wild", for English; the organism is
asked in the language of its world ``names``, about pairs of names that it never saw together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.organism.worlds import names as world
from dynamics.probes import Probe
from dynamics.probes.drawing import Prompt, draw_probe, fill
from dynamics.probes.sources import choose_source
from dynamics.probes.words import FIRST_NAMES, one_token_words

__all__ = ["IOI", "ORDERS", "ioi_probe"]

IOI = "ioi"

ORDERS = ("ABBA", "BABA")
"""A is the indirect object, B the subject: ``A and B ..., B gave ... to A``, and ``B and A ..., B gave ... to A``."""

_TEMPLATES = (
    "Then, {first} and {second} went to the {place}. {giver} gave a {object} to",
    "Then, {first} and {second} had a lot of fun at the {place}. {giver} gave a {object} to",
    "Then, {first} and {second} were working at the {place}. {giver} decided to give a {object} to",
    "Then, {first} and {second} were thinking about going to the {place}. {giver} wanted to give a {object} to",
    "Then, {first} and {second} had a long argument, and afterwards {giver} said to",
    "After {first} and {second} went to the {place}, {giver} gave a {object} to",
    "When {first} and {second} got a {object} at the {place}, {giver} decided to give it to",
    "When {first} and {second} got a {object} at the {place}, {giver} decided to give the {object} to",
    "While {first} and {second} were working at the {place}, {giver} gave a {object} to",
    "While {first} and {second} were commuting to the {place}, {giver} gave a {object} to",
    "After the lunch, {first} and {second} went to the {place}. {giver} gave a {object} to",
    "Afterwards, {first} and {second} went to the {place}. {giver} gave a {object} to",
    "Then, {first} and {second} had a long argument. Afterwards {giver} said to",
    "The {place} {first} and {second} went to had a {object}. {giver} gave it to",
    "Friends {first} and {second} found a {object} at the {place}. {giver} gave it to",
)
_PLACES = ("store", "garden", "restaurant", "school", "hospital", "office", "house", "station")
_OBJECTS = ("ring", "kiss", "bone", "basketball", "computer", "necklace", "drink", "snack")
_LEAST_NAMES = 12


@dataclass(frozen=True)
class _GivingWords:
    """What the sentences are made of: every name, pairs of names that may meet, and what ``about`` says of them."""

    people: Sequence[str]
    pairs: Sequence[tuple[str, str]]
    templates: Sequence[str]
    places: Sequence[str]
    objects: Sequence[str]
    about: str


def _organism(_tokenizer: Any) -> _GivingWords:
    people = [name for names in world.NAMES.values() for name in names]
    about = "names that never occur together in training"
    return _GivingWords(people, list(world.held_out_pairs()), world.TEMPLATES, world.PLACES, world.OBJECTS, about)


def _english(tokenizer: Any) -> _GivingWords:
    first = [name for names in FIRST_NAMES.values() for name in names]
    people = one_token_words(tokenizer, first, least=_LEAST_NAMES, what="first names")
    pairs = [(one, other) for one in people for other in people if one < other]
    return _GivingWords(people, pairs, _TEMPLATES, _PLACES, _OBJECTS, "English, after Wang et al. 2023")


def ioi_probe(tokenizer: Any, count: int, seed: int) -> Probe:
    """Sentences with two names, of which the subject B comes twice and the indirect object A follows.

    The answer is A, the foil B. The corrupted twin has three other names (the distribution p_ABC of the paper), so that
    no name comes twice. Templates and orders are balanced; every template occurs with every order.

    Args:
        tokenizer: of the series.
        count: number of prompts.
        seed: chooses names, places and objects.

    Returns:
        The probe. Labels: ``template`` (number), ``order`` (ABBA or BABA), ``answer_name`` (A). Positions: ``io`` (A),
        ``s1`` (first B), ``s2`` (second B).

    Raises:
        UserError: when too few names are one token, or the organism does not know the world ``names``.
    """
    rng = np.random.default_rng(seed)
    words = choose_source(tokenizer, "names", _organism, _english)(tokenizer)
    templates = words.templates

    def draw(index: int) -> Prompt:
        template, order = index % len(templates), ORDERS[index // len(templates) % 2]
        pair = words.pairs[int(rng.integers(len(words.pairs)))]
        receiver, giver = pair if rng.random() < 0.5 else (pair[1], pair[0])
        first, second = (receiver, giver) if order == "ABBA" else (giver, receiver)
        slots = {
            "place": words.places[int(rng.integers(len(words.places)))],
            "object": words.objects[int(rng.integers(len(words.objects)))],
        }
        text, spans = fill(templates[template], slots | {"first": first, "second": second, "giver": giver})
        strangers = [name for name in words.people if name not in pair]
        three = [strangers[int(i)] for i in rng.permutation(len(strangers))[:3]]
        corrupted, _ = fill(templates[template], slots | dict(zip(("first", "second", "giver"), three, strict=True)))
        receives, gives = ("first", "second") if order == "ABBA" else ("second", "first")
        return Prompt(
            text=text,
            answer=f" {receiver}",
            foil=f" {giver}",
            corrupted=corrupted,
            labels={"template": template, "order": order, "answer_name": receiver},
            positions={"io": spans[receives][0], "s1": spans[gives][0], "s2": spans["giver"][0]},
        )

    return draw_probe(IOI, draw, count, f"indirect object identification ({words.about})")
