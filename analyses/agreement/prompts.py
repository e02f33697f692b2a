"""Prompts of subject-verb agreement in number: ``The keys near the cabinet`` (are, not is).

English prompts are of the kind of Linzen, Dupoux and Goldberg 2016, "Assessing the Ability of LSTMs to Learn
Syntax-Sensitive Dependencies", and Finlayson et al. 2021, "Causal Analysis of Syntactic Agreement Mechanisms in Neural
Language Models". The organism is asked in the language of its world ``agreement``, about nouns with verbs and attractors with
which it never saw them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.tokenizer import require_world
from checkpoints.organism.worlds import agreement as world
from dynamics.probes import Probe, single_token
from dynamics.probes.drawing import Prompt, draw_probe, fill
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


def agreement_probe(tokenizer: Any, organism: bool, count: int, seed: int) -> Probe:
    """Noun phrases with a second noun, the attractor, between the subject and the verb that follows.

    The answer is the verb in the subject's number, the foil the same verb in the other. The corrupted twin has the
    subject in the other number and is otherwise the same. Subject and attractor in either number, templates and verbs
    are balanced.

    Args:
        tokenizer: of the series.
        organism: whether the series speaks the organism's language.
        count: number of prompts.
        seed: chooses the nouns.

    Returns:
        The probe. Labels: ``number`` (of the subject: singular or plural), ``attractor`` (``same`` or ``other`` number),
        ``template`` (number), ``verb`` (its singular). Positions: ``subject``, ``attractor``.

    Raises:
        UserError: when too few nouns are one token in both numbers, or the organism does not know the world
            ``agreement``.
    """
    return _probe(ATTRACTED, tokenizer, organism, count, seed)


def simple_probe(tokenizer: Any, organism: bool, count: int, seed: int) -> Probe:
    """The same with nothing between subject and verb: labels as for :func:`agreement_probe`, ``attractor`` is ``none``.

    For the organism, of nouns with opening words that they never occur with. Position: ``subject``.
    """
    return _probe(SIMPLE, tokenizer, organism, count, seed)


def _probe(name: str, tokenizer: Any, organism: bool, count: int, seed: int) -> Probe:
    rng = np.random.default_rng(seed)
    simple = name == SIMPLE
    verbs: tuple[tuple[str, str], ...]
    if organism:
        require_world(tokenizer, "agreement")
        nouns, verbs = world.NOUNS, tuple(world.OPENINGS.values())
        templates = [world.SIMPLE] if simple else [world.ATTRACTOR.replace("{preposition}", p) for p in world.PREPOSITIONS]  # fmt: skip
    else:
        nouns, verbs = _one_token_nouns(tokenizer), _one_token_verbs(tokenizer)
        templates = list(_SIMPLE if simple else _ATTRACTED)

    def subjects(verb: int) -> list[int]:
        if not organism:
            return list(range(len(nouns)))
        opening = list(world.OPENINGS)[verb]
        return [noun for noun in range(len(nouns)) if not world.seen(noun, opening)]

    allowed = [subjects(verb) for verb in range(len(verbs))]

    def draw(place: int) -> Prompt:
        # every combination of number, attractor's number, template and verb in turn
        rest, number = divmod(place, 2)
        rest, same = divmod(rest, 1 if simple else 2)
        rest, template = divmod(rest, len(templates))
        verb = rest % len(verbs)
        subject = allowed[verb][int(rng.integers(len(allowed[verb])))]
        others = [n for n in range(len(nouns)) if n != subject and not (organism and world.seen_together(subject, n))]
        other = others[int(rng.integers(len(others)))]
        slots = {
            "opening": list(world.OPENINGS)[verb] if organism else "",
            "attractor": nouns[other][number if same else 1 - number],
        }
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
    about = "combinations that never occur in training" if organism else "English"
    return draw_probe(name, draw, count, f"number of the verb, with {between} after the subject ({about})")


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
