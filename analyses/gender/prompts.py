"""Prompts of gendered pronouns: ``So Mary is a really great friend, isn't`` (she, not he).

English prompts are of the kind of Mathwin et al. 2023, "Identifying a Preliminary Circuit for Predicting Gendered
Pronouns in GPT-2 Small", with names alone, without professions. The organism is asked in the language of its world
``gender``, about names in templates in which it never saw them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import gender as world
from dynamics.probes import Probe, single_token
from dynamics.probes.drawing import Prompt, draw_probe, fill
from dynamics.probes.sources import choose_source
from dynamics.probes.words import FIRST_NAMES, one_token_words

__all__ = ["GENDER", "gender_probe"]

GENDER = "gender"

# a space stands before every name, so that it is the same token in all templates
_TEMPLATES = (
    "So {name} is a really great friend, isn't",
    "So {name} was very happy about it, wasn't",
    "Yesterday {name} went home early because",
    "This morning {name} called to say that",
    "Everybody knew that {name} was late because",
    "I met {name} at the station, and then",
    "Last night {name} was so tired that",
    "My friend {name} cannot come today because",
)
_LEAST_NAMES = 6


@dataclass(frozen=True)
class _PronounWords:
    """Names by gender, templates, and what ``about`` says of them.

    Attributes:
        is_asked: whether a name is asked about in a template.
        fillers: what the other slots of a template may hold beside a name; nothing where there are none.
    """

    names: Mapping[str, Sequence[str]]
    templates: Sequence[str]
    is_asked: Callable[[str, int], bool]
    fillers: Callable[[str, int], Sequence[str]]
    about: str


def _organism(_tokenizer: Any) -> _PronounWords:
    about = "names in templates in which they never occur in training"
    return _PronounWords(world.NAMES, world.TEMPLATES, world.is_held_out, world.fillers, about)


def _english(tokenizer: Any) -> _PronounWords:
    if any(single_token(tokenizer, f" {pronoun}") is None for pronoun in world.PRONOUNS.values()):
        raise UserError(
            "the pronouns she and he are not one token each",
            expected="a tokenizer of English",
            remedy="leave `gender` out of this run's analyses",
        )
    names = {
        gender: one_token_words(tokenizer, FIRST_NAMES[gender], least=_LEAST_NAMES, what=f"{gender} first names")
        for gender in world.GENDERS
    }
    return _PronounWords(names, _TEMPLATES, lambda _name, _template: True, lambda _name, _template: (), "English")


def gender_probe(tokenizer: Any, count: int, seed: int) -> Probe:
    """Sentences about one name, up to the pronoun.

    The answer is the pronoun of the name's gender, the foil the other. The corrupted twin has a name of the other gender
    in its place. Genders and templates are balanced. For the organism some templates hold a second name, which the
    pronoun does not refer to.

    Args:
        tokenizer: of the series.
        count: number of prompts.
        seed: chooses the names.

    Returns:
        The probe. Labels: ``gender`` (female or male), ``template`` (number). Position: ``name``.

    Raises:
        UserError: when too few names are one token, or the organism does not know the world ``gender``.
    """
    rng = np.random.default_rng(seed)
    words = choose_source(tokenizer, "gender", _organism, _english)(tokenizer)
    templates = words.templates

    def draw(index: int) -> Prompt:
        rest, number = divmod(index, 2)
        template = rest % len(templates)
        gender, other = world.GENDERS[number], world.GENDERS[1 - number]
        asked = [n for n in words.names[gender] if words.is_asked(n, template)]
        name = asked[int(rng.integers(len(asked)))]
        slots = {}
        if choices := words.fillers(name, template):
            filler = choices[int(rng.integers(len(choices)))]
            slots = dict.fromkeys(("place", "object", "other"), filler)
        twins = [n for n in words.names[other] if n not in slots.values()]
        twin = twins[int(rng.integers(len(twins)))]
        text, spans = fill(templates[template], slots | {"name": name})
        return Prompt(
            text=text,
            answer=f" {world.PRONOUNS[gender]}",
            foil=f" {world.PRONOUNS[other]}",
            corrupted=fill(templates[template], slots | {"name": twin})[0],
            labels={"gender": gender, "template": template},
            positions={"name": spans["name"][0]},
        )

    return draw_probe(GENDER, draw, count, f"pronouns after names ({words.about})")
