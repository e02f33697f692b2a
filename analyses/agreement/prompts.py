"""Prompts of subject-verb agreement in number: ``The keys near the cabinet`` (are, not is).

English prompts are of the kind of Linzen, Dupoux and Goldberg 2016, "Assessing the Ability of LSTMs to Learn
Syntax-Sensitive Dependencies", and Finlayson et al. 2021, "Causal Analysis of Syntactic Agreement Mechanisms in Neural
Language Models". The organism is asked in the language of its world ``agreement``, about nouns with verbs and attractors with
which it never saw them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import agreement as world
from dynamics.probes import Probe, single_token
from dynamics.probes.drawing import Prompt, draw_probe, fill
from dynamics.probes.sources import choose_source
from dynamics.probes.words import one_token_words

__all__ = ["ATTRACTED", "SIMPLE", "agreement_probe", "simple_probe"]

ATTRACTED, SIMPLE = "agreement", "agreement_simple"

_ATTRACTED = (
    "The {subject} near the {attractor}",
    "The {subject} behind the {attractor}",
    "The {subject} next to the {attractor}",
    "I can see that the {subject} with the {attractor}",
    "We were told that the {subject} across from the {attractor}",
    "Nobody knows why the {subject} above the {attractor}",
)
_SIMPLE = (
    "The {subject}",
    "I can see that the {subject}",
    "We were told that the {subject}",
    "Nobody knows why the {subject}",
    "After all this time, the {subject}",
    "It seems to me that the {subject}",
)
_VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
_NOUNS = """
key cabinet car book boy girl dog cat house tree table chair door window letter picture doctor teacher farmer
soldier author student friend manager player actor singer pilot driver bird horse ship boat train plane road
bridge tower building hotel shop store school church garden river mountain island village city town machine
computer phone camera bag box cup bottle ball toy lamp clock coin ring hat shirt shoe map song film game guard
lawyer officer senator king queen brother sister father mother son daughter parent neighbor worker customer
"""
_LEAST_NOUNS = 10


@dataclass(frozen=True)
class _AgreementWords:
    """Nouns and verbs in the singular and plural, templates with an attractor and without, and what ``about`` says of them.

    Attributes:
        openings: first word of the sentences of each verb; empty where the templates have none.
        is_asked: whether a noun is a subject behind an opening.
        meets: whether training has a noun as a subject with that attractor.
    """

    nouns: Sequence[tuple[str, str]]
    verbs: Sequence[tuple[str, str]]
    openings: Sequence[str]
    attracted: Sequence[str]
    simple: Sequence[str]
    is_asked: Callable[[int, str], bool]
    meets: Callable[[int, int], bool]
    about: str


def _organism(_tokenizer: Any) -> _AgreementWords:
    return _AgreementWords(
        nouns=world.NOUNS,
        verbs=tuple(world.OPENINGS.values()),
        openings=tuple(world.OPENINGS),
        attracted=[world.ATTRACTOR.replace("{preposition}", p) for p in world.PREPOSITIONS],
        simple=(world.SIMPLE,),
        is_asked=lambda noun, opening: not world.seen(noun, opening),
        meets=world.seen_together,
        about="combinations that never occur in training",
    )


def _english(tokenizer: Any) -> _AgreementWords:
    nouns, verbs = _one_token_nouns(tokenizer), _one_token_verbs(tokenizer)
    return _AgreementWords(
        nouns=nouns,
        verbs=verbs,
        openings=("",) * len(verbs),
        attracted=_ATTRACTED,
        simple=_SIMPLE,
        is_asked=lambda _noun, _opening: True,
        meets=lambda _subject, _attractor: False,
        about="English",
    )


def agreement_probe(tokenizer: Any, count: int, seed: int) -> Probe:
    """Noun phrases with a second noun, the attractor, between the subject and the verb that follows.

    The answer is the verb in the subject's number, the foil the same verb in the other. The corrupted twin has the
    subject in the other number and is otherwise the same. Subject and attractor in either number, templates and verbs
    are balanced.

    Args:
        tokenizer: of the series.
        count: number of prompts.
        seed: chooses the nouns.

    Returns:
        The probe. Labels: ``number`` (of the subject: singular or plural), ``attractor`` (``same`` or ``other`` number),
        ``template`` (number), ``verb`` (its singular). Positions: ``subject``, ``attractor``.

    Raises:
        UserError: when too few nouns are one token in both numbers, or the organism does not know the world
            ``agreement``.
    """
    return _probe(ATTRACTED, tokenizer, count, seed)


def simple_probe(tokenizer: Any, count: int, seed: int) -> Probe:
    """The same with nothing between subject and verb: labels as for :func:`agreement_probe`, ``attractor`` is ``none``.

    For the organism, of nouns with opening words that they never occur with. Position: ``subject``.
    """
    return _probe(SIMPLE, tokenizer, count, seed)


def _probe(name: str, tokenizer: Any, count: int, seed: int) -> Probe:
    rng = np.random.default_rng(seed)
    simple = name == SIMPLE
    words = choose_source(tokenizer, "agreement", _organism, _english)(tokenizer)
    nouns, verbs, templates = words.nouns, words.verbs, words.simple if simple else words.attracted
    subjects = [[n for n in range(len(nouns)) if words.is_asked(n, opening)] for opening in words.openings]

    def draw(index: int) -> Prompt:
        # every combination of number, attractor's number, template and verb in turn
        rest, number = divmod(index, 2)
        rest, same = divmod(rest, 1 if simple else 2)
        rest, template = divmod(rest, len(templates))
        verb = rest % len(verbs)
        subject = subjects[verb][int(rng.integers(len(subjects[verb])))]
        others = [n for n in range(len(nouns)) if n != subject and not words.meets(subject, n)]
        other = others[int(rng.integers(len(others)))]
        slots = {"opening": words.openings[verb], "attractor": nouns[other][number if same else 1 - number]}
        text, spans = fill(templates[template], slots | {"subject": nouns[subject][number]})
        return Prompt(
            text=text,
            answer=f" {verbs[verb][number]}",
            foil=f" {verbs[verb][1 - number]}",
            corrupted=fill(templates[template], slots | {"subject": nouns[subject][1 - number]})[0],
            labels={
                "number": world.NUMBERS[number],
                "attractor": "none" if simple else "same" if same else "other",
                "template": template,
                "verb": verbs[verb][0],
            },
            positions={slot: spans[slot][0] for slot in ("subject", "attractor") if slot in spans},
        )

    between = "nothing" if simple else "another noun"
    return draw_probe(name, draw, count, f"number of the verb, with {between} after the subject ({words.about})")


def _one_token_nouns(tokenizer: Any) -> tuple[tuple[str, str], ...]:
    plurals = set(
        one_token_words(tokenizer, [f"{noun}s" for noun in _NOUNS.split()], least=_LEAST_NOUNS, what="plural nouns")
    )
    singulars = [noun for noun in _NOUNS.split() if f"{noun}s" in plurals]
    what = "nouns whose plural is one token"
    return tuple((n, f"{n}s") for n in one_token_words(tokenizer, singulars, least=_LEAST_NOUNS, what=what))


def _one_token_verbs(tokenizer: Any) -> tuple[tuple[str, str], ...]:
    fit = tuple(pair for pair in _VERBS if all(single_token(tokenizer, f" {verb}") is not None for verb in pair))
    if not fit:
        raise UserError(
            "no verb is one token in both numbers (is/are, was/were, has/have)",
            expected="a tokenizer of English",
            remedy="leave `agreement` out of this run's analyses",
        )
    return fit
