"""Antonym prompts in three languages, for the organism's language and for English, French and German tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from checkpoints.organism.worlds import concepts as world
from dynamics.probes import Label, Mark, Probe, single_token
from dynamics.probes.sources import choose_source

__all__ = [
    "ANTONYMS",
    "LANGUAGES",
    "ORGANISM",
    "WORDS",
    "AntonymPrompts",
    "antonym_of",
    "antonym_probe",
    "antonym_prompts",
    "concepts_of",
    "word_probe",
]

ANTONYMS, WORDS = "concept_antonyms", "concept_words"
LANGUAGES = world.LANGUAGES

_TEMPLATES = {
    "english": ("The opposite of {} is", "He did not say {}, he said"),
    "french": ("Le contraire de {} est", "Il n'a pas dit {}, il a dit"),
    "german": ("Das Gegenteil von {} ist", "Er sagte nicht {}, er sagte"),
}


@dataclass(frozen=True)
class AntonymPrompts:
    """How antonyms are asked.

    Attributes:
        templates: of every language.
        split: what is known of a concept in a language: ``held out`` (never seen within this language), ``trained``, or
            ``natural`` for other models.
    """

    templates: Mapping[str, tuple[str, ...]]
    split: Callable[[str, int], str]

    def ask(self, language: str, concept: int, side: int, template: int = 0) -> tuple[str, tuple[int, int]]:
        """A question, and where in it the word stands.

        >>> ORGANISM.ask("french", 0, 0)
        ('le contraire de grand est', (16, 21))
        """
        sentence = self.templates[language][template]
        word = world.PAIRS[language][concept][side]
        start = sentence.index("{}")
        return sentence.format(word), (start, start + len(word))


ORGANISM = AntonymPrompts(
    world.TEMPLATES, lambda language, concept: "held out" if concept in world.held_out(language) else "trained"
)
_NATURAL = AntonymPrompts(_TEMPLATES, lambda _language, _concept: "natural")


def antonym_prompts(tokenizer: Any) -> AntonymPrompts:
    """How a model with this tokenizer is asked."""
    return choose_source(tokenizer, "english", ORGANISM, _NATURAL)


def antonym_probe(tokenizer: Any) -> Probe:
    """Every antonym question whose answer is one token, in both directions and both templates.

    Labels: ``language``, ``concept`` (number of the pair), ``side`` (which word is asked about), ``template``,
    ``split`` (see :class:`AntonymPrompts`).
    """
    asked = antonym_prompts(tokenizer)
    text: list[str] = []
    answer: list[str] = []
    labels: dict[str, list[Label]] = {k: [] for k in ("language", "concept", "side", "template", "split")}
    for language, concept, side, template in _cases():
        opposite = antonym_of(language, concept, side)
        if single_token(tokenizer, opposite) is None:
            continue
        text.append(asked.ask(language, concept, side, template)[0])
        answer.append(opposite)
        row: tuple[Label, ...] = (language, concept, side, template, asked.split(language, concept))
        for key, value in zip(labels, row, strict=True):
            labels[key].append(value)
    return Probe(
        name=ANTONYMS,
        text=tuple(text),
        answer=tuple(answer),
        labels={k: tuple(v) for k, v in labels.items()},
        description="antonyms asked within one language",
    )


def word_probe(asked: AntonymPrompts) -> Probe:
    """Every word of every language in the first antonym template; position ``word`` is its last token.

    Labels: ``language``, ``concept``, ``side``. Words stand in the same order in every language.
    """
    text: list[str] = []
    marks: list[Mark] = []
    labels: dict[str, list[Label]] = {k: [] for k in ("language", "concept", "side")}
    for language, concept, side, template in _cases():
        if template != 0:
            continue
        question, span = asked.ask(language, concept, side)
        text.append(question)
        marks.append(span)
        row: tuple[Label, ...] = (language, concept, side)
        for key, value in zip(labels, row, strict=True):
            labels[key].append(value)
    return Probe(
        name=WORDS,
        text=tuple(text),
        labels={k: tuple(v) for k, v in labels.items()},
        positions={"word": tuple(marks)},
        description="the same concepts in three languages, each in an antonym question",
    )


def concepts_of(language: str) -> int:
    """How many concepts there are."""
    return len(world.PAIRS[language])


def antonym_of(language: str, concept: int, side: int) -> str:
    """The right answer, as it follows a question.

    >>> antonym_of("french", 0, 0)
    ' petit'
    """
    return f" {world.PAIRS[language][concept][1 - side]}"


def _cases() -> list[tuple[str, int, int, int]]:
    return [
        (language, concept, side, template)
        for language in world.LANGUAGES
        for concept in range(len(world.PAIRS[language]))
        for side in (0, 1)
        for template in (0, 1)
    ]
