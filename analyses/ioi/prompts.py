"""Prompts of indirect object identification: ``When Mary and John went to the store, John gave a drink to`` (Mary).

Templates, places and objects are those of Wang et al. 2023, "Interpretability in the Wild", for English; the organism is
asked in the language of its world ``names``, about pairs of names that it never saw together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from checkpoints.organism.tokenizer import require_world
from checkpoints.organism.worlds import names as world
from dynamics.probes import Probe
from dynamics.probes.drawing import Prompt, draw_probe, fill
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


def ioi_probe(tokenizer: Any, organism: bool, count: int, seed: int) -> Probe:
    """Sentences with two names, of which the subject B comes twice and the indirect object A follows.

    The answer is A, the foil B. The corrupted twin has three other names (the distribution p_ABC of the paper), so that
    nobody comes twice. Templates and orders are balanced; every template occurs with every order.

    Args:
        tokenizer: of the series.
        organism: whether the series speaks the organism's language.
        count: number of prompts.
        seed: chooses names, places and objects.

    Returns:
        The probe. Labels: ``template`` (number), ``order`` (ABBA or BABA), ``answer_name`` (A). Positions: ``io`` (A),
        ``s1`` (first B), ``s2`` (second B).

    Raises:
        UserError: when too few names are one token, or the organism does not know the world ``names``.
    """
    rng = np.random.default_rng(seed)
    if organism:
        require_world(tokenizer, "names")
        people = [name for names in world.NAMES.values() for name in names]
        templates, places, objects = world.TEMPLATES, world.PLACES, world.OBJECTS
        pairs = list(world.held_out_pairs())
    else:
        everybody = [name for names in FIRST_NAMES.values() for name in names]
        people = one_token_words(tokenizer, everybody, least=_LEAST_NAMES, what="first names")
        templates, places, objects = _TEMPLATES, _PLACES, _OBJECTS
        pairs = [(one, other) for one in people for other in people if one < other]

    def draw(place: int) -> Prompt:
        template, order = place % len(templates), ORDERS[place // len(templates) % 2]
        pair = pairs[int(rng.integers(len(pairs)))]
        receiver, giver = pair if rng.random() < 0.5 else (pair[1], pair[0])
        first, second = (receiver, giver) if order == "ABBA" else (giver, receiver)
        slots = {
            "place": places[int(rng.integers(len(places)))],
            "object": objects[int(rng.integers(len(objects)))],
        }
        text, spans = fill(templates[template], slots | {"first": first, "second": second, "giver": giver})
        strangers = [name for name in people if name not in pair]
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

    about = "names that never occur together in training" if organism else "English, after Wang et al. 2023"
    return draw_probe(IOI, draw, count, f"indirect object identification ({about})")
