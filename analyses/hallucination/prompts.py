"""Questions about known and unknown entities: ``Ba lath lives in`` (Oslo), ``Ko nith lives in`` (unknown).

Contrasting entities that a model knows with invented ones is the method of Ferrando et al. 2025, "Do I Know This Entity?
Knowledge Awareness and Hallucinations in Language Models", and of the circuits of declining in Lindsey et al. 2025, "On the
Biology of a Large Language Model". The organism is asked about the names of its world ``entities``; for unknown ones, about
names that never occur in training.

In English a model is asked for the country of cities and the field of people, of whom half are invented. A base model
declines only where a text shows it how. Four examples therefore stand before every question, two answered and two declined
with ``unknown``; none of their entities and none of their answers occurs in the probe. Declining is saying ``unknown``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import entities as world
from dynamics.probes import Probe, single_token
from dynamics.probes.drawing import Prompt, fill, to_probe
from dynamics.probes.sources import choose_source

from . import texts
from .entity_file import entity_file_probe

__all__ = ["ATTRIBUTES", "DECLINE", "ENTITIES", "FREQUENCIES", "entities_probe", "entity_file_probe"]

ENTITIES = "entities"

FREQUENCIES = world.FREQUENCIES
"""How well known an entity is; unknown ones have the label ``none``."""

DECLINE = world.DECLINE
"""What declines, for the organism and in English; a space stands before it."""

_LEAST_KNOWN = 24
_FIELDS = ("physics", "music", "painting", "basketball", "football", "biology", "tennis")


@dataclass(frozen=True)
class _Entity:
    """A person or city to ask about; ``value`` is None for what is unknown."""

    number: int
    name: str
    kind: str
    frequency: str = "none"
    value: str | None = None

    @property
    def also(self) -> str:
        """Other words that are as right, with slashes between them; nothing where nothing is known."""
        if self.value is None:
            return ""
        return "/".join([*texts.SYNONYMS.get(self.value, ()), *texts.ALSO_KNOWN_FOR.get(self.name, ())])


def _real(kind: str) -> list[tuple[str, str, str]]:
    """(name, value, frequency) of everything real of a kind."""
    lists, separator = (texts.CITIES, None) if kind == "country" else (texts.PEOPLE, "/")
    rows = []
    for frequency, text in lists.items():
        for entry in text.split(separator):
            name, value = entry.strip().split(":")
            rows.append((name, value, frequency))
    return rows


ATTRIBUTES: dict[str, tuple[str, ...]] = {
    **world.ATTRIBUTES,
    "country": tuple(dict.fromkeys(value for _, value, _ in _real("country"))),
    "field": _FIELDS,
}
"""Attribute to the values that an answer may have, for the organism and in English; a space stands before each."""


def entities_probe(tokenizer: Any, count: int, seed: int) -> Probe:
    """Questions about entities, one half known and the other unknown.

    The answer is the value of the attribute for a known entity and :data:`DECLINE` for an unknown one; the foil is another
    value of the same attribute, for unknown ones drawn like the others. Kinds of questions, the three frequencies and the
    two ways of asking are balanced. An entity is asked about once until there are no more, and then in another way.

    Args:
        tokenizer: of the series.
        count: number of prompts; in English there may be fewer, where too many values are several tokens.
        seed: chooses entities and foils.

    Returns:
        The probe. Labels: ``known`` (1 or 0), ``frequency`` (one of :data:`FREQUENCIES`, or none), ``entity`` (number),
        ``attribute``, ``template`` (number), ``also`` (other words that are as right, with slashes), ``held_out`` (1 for evaluation only: other entities, asked in other ways, than
        those of 0). Position: ``entity`` (last token of the name). For the organism the corrupted twin of a known name
        is an unknown one, and the reverse; in English names are not equally long, and there are no twins.

    Raises:
        UserError: when the organism does not know the world ``entities``, or when too few values are one token.
    """
    ask = choose_source(tokenizer, "entities", _organism_probe, _english_probe)
    return ask(tokenizer, count, np.random.default_rng(seed))


def _row(entity: _Entity, template: int, held_out: int, slot: Mapping[str, Any], foil: str) -> Prompt:
    text, spans = fill(str(slot["text"]), {"name": entity.name})
    return Prompt(
        text=text,
        answer=f" {DECLINE if entity.value is None else entity.value}",
        foil=f" {foil}",
        corrupted=slot.get("twin"),
        labels={
            "known": int(entity.value is not None),
            "frequency": entity.frequency,
            "entity": entity.number,
            "attribute": entity.kind,
            "template": template,
            "held_out": held_out,
            "also": entity.also,
        },
        positions={"entity": spans["name"][0]},
    )


def _foil(rng: np.random.Generator, values: Sequence[str], right: str | None) -> str:
    others = [value for value in values if value != right]
    return others[int(rng.integers(len(others)))]


def _organism_probe(_tokenizer: Any, count: int, rng: np.random.Generator) -> Probe:
    known, kinds, thirds = world.known_names(), list(world.ATTRIBUTES), len(world.FREQUENCIES)
    third = world.KNOWN // thirds
    strangers = world.held_out_names()
    most = 2 * min(len(kinds) * world.KNOWN, len(strangers))
    if count > most:
        raise UserError(
            f"{count} prompts about names were asked for, there are {most}",
            remedy="ask for fewer prompts",
            expected="no more than there are names",
        )
    # one name of each frequency in turn; of each frequency, every second name is for evaluation only
    ranks = [int(r) + third * f for r in rng.permutation(third) for f in range(thirds)]
    unknown = [int(i) for i in rng.permutation(len(strangers))]
    rows: list[Prompt] = []
    for number in range(count // 2):
        again, turn = divmod(number, world.KNOWN)
        rank, stranger, held_out = ranks[turn], unknown[number], turn // thirds % 2
        kind = kinds[(turn + turn // (2 * thirds) + again) % len(kinds)]
        template = world.TEMPLATES[kind][held_out]
        pair = (
            _Entity(rank, " ".join(known[rank]), kind, world.frequency(rank), world.attribute(rank, kind)),
            _Entity(world.KNOWN + stranger, " ".join(strangers[stranger]), kind),
        )
        for entity, twin in (pair, pair[::-1]):
            slot = {"text": template, "twin": template.format(name=twin.name)}
            foil = _foil(rng, world.ATTRIBUTES[kind], entity.value)
            rows.append(_row(entity, 2 * kinds.index(kind) + held_out, held_out, slot, foil))
    return to_probe(ENTITIES, rows, "names that are known and names that never occur in training")


def _invented(kind: str) -> list[str]:
    if kind == "country":
        return [start + end for start in texts.INVENTED_STARTS for end in texts.INVENTED_ENDS]
    surnames = [start + end for start in texts.PEOPLE_STARTS for end in texts.PEOPLE_ENDS]
    return [f"{texts.FIRST[i % len(texts.FIRST)]} {surname}" for i, surname in enumerate(surnames)]


def _english_probe(tokenizer: Any, count: int, rng: np.random.Generator) -> Probe:
    if single_token(tokenizer, f" {DECLINE}") is None:
        raise UserError(
            f"` {DECLINE}`, with which a question is declined, is not one token in this tokenizer",
            expected="a tokenizer of English",
            remedy="leave `hallucination` out of this run's analyses, or bring an entity file",
        )
    kinds = list(texts.QUESTIONS)
    values = {kind: [v for v in ATTRIBUTES[kind] if single_token(tokenizer, f" {v}") is not None] for kind in kinds}
    known, unknown = [], []
    for kind in kinds:
        real = [(name, value, frequency) for name, value, frequency in _real(kind) if value in values[kind]]
        # the frequencies in turn, so that any number of prompts is balanced
        lists = [[row for row in real if row[2] == frequency] for frequency in FREQUENCIES]
        orders = [rng.permutation(len(rows)) for rows in lists]
        turns = range(min(map(len, lists), default=0))
        known.append([rows[order[t]] for t in turns for rows, order in zip(lists, orders, strict=True)])
        names = _invented(kind)
        unknown.append([names[i] for i in rng.permutation(len(names))])
    if sum(map(len, known)) < _LEAST_KNOWN or min(map(len, values.values())) < 2:
        raise UserError(
            f"{sum(map(len, known))} of the known cities and people have a country or field of one token",
            expected=f"at least {_LEAST_KNOWN}, and two different values of each",
            remedy="leave `hallucination` out of this run's analyses, or bring an entity file",
        )
    rows: list[Prompt] = []
    turns_and_kinds = [(t, k) for t in range(max(map(len, known))) for k in range(len(kinds)) if t < len(known[k])]
    for number, (turn, k) in enumerate(turns_and_kinds[: count // 2]):
        kind, held_out = kinds[k], turn // len(FREQUENCIES) % 2
        name, value, frequency = known[k][turn]
        text = texts.PREFACES[kind][held_out] + texts.QUESTIONS[kind][held_out]
        for entity in (
            _Entity(2 * number, name, kind, frequency, value),
            _Entity(2 * number + 1, unknown[k][turn], kind),
        ):
            foil = _foil(rng, values[kind], entity.value)
            rows.append(_row(entity, 2 * k + held_out, held_out, {"text": text}, foil))
    return to_probe(ENTITIES, rows, "cities and people, real and invented, after examples of which half are declined")
