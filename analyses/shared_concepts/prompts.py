"""Antonym prompts in three languages, for the organism's language and for English, French and German tokenizers."""

from __future__ import annotations

from typing import Any

from checkpoints.organism.worlds import concepts as world
from dynamics.probes import Label, Mark, Probe, single_token

__all__ = ["ANTONYMS", "LANGUAGES", "WORDS", "antonym_of", "antonym_probe", "ask", "concepts_of", "word_probe"]

ANTONYMS, WORDS = "concept_antonyms", "concept_words"
LANGUAGES = world.LANGUAGES

_NATURAL = {
    "english": ("The opposite of {} is", "He did not say {}, he said"),
    "french": ("Le contraire de {} est", "Il n'a pas dit {}, il a dit"),
    "german": ("Das Gegenteil von {} ist", "Er sagte nicht {}, er sagte"),
}


def antonym_probe(tokenizer: Any, organism: bool) -> Probe:
    """Every antonym question whose answer is one token, in both directions and both templates.

    Labels: ``language``, ``concept`` (number of the pair), ``side`` (which word is asked about), ``template``,
    ``split`` (``held out``: never seen within this language; ``trained``; ``natural`` for other models).
    """
    text: list[str] = []
    answer: list[str] = []
    labels: dict[str, list[Label]] = {k: [] for k in ("language", "concept", "side", "template", "split")}
    for language, concept, side, template in _cases():
        word, opposite = world.PAIRS[language][concept][side], world.PAIRS[language][concept][1 - side]
        if single_token(tokenizer, f" {opposite}") is None:
            continue
        split = "natural"
        if organism:
            split = "held out" if concept in world.held_out(language) else "trained"
        text.append(_templates(organism)[language][template].format(word))
        answer.append(f" {opposite}")
        row: tuple[Label, ...] = (language, concept, side, template, split)
        for key, value in zip(labels, row, strict=True):
            labels[key].append(value)
    return Probe(
        name=ANTONYMS,
        text=tuple(text),
        answer=tuple(answer),
        labels={k: tuple(v) for k, v in labels.items()},
        description="antonyms asked within one language",
    )


def word_probe(organism: bool) -> Probe:
    """Every word of every language in the first antonym template; position ``word`` is its last token.

    Labels: ``language``, ``concept``, ``side``. Words stand in the same order in every language.
    """
    text: list[str] = []
    marks: list[Mark] = []
    labels: dict[str, list[Label]] = {k: [] for k in ("language", "concept", "side")}
    for language, concept, side, template in _cases():
        if template != 0:
            continue
        asked, span = ask(language, concept, side, organism)
        text.append(asked)
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


def ask(language: str, concept: int, side: int, organism: bool) -> tuple[str, tuple[int, int]]:
    """A question in the first template, and where in it the word stands.

    >>> ask("french", 0, 0, organism=True)
    ('le contraire de grand est', (16, 21))
    """
    sentence = _templates(organism)[language][0]
    word = world.PAIRS[language][concept][side]
    start = sentence.index("{}")
    return sentence.format(word), (start, start + len(word))


def _cases() -> list[tuple[str, int, int, int]]:
    return [
        (language, concept, side, template)
        for language in world.LANGUAGES
        for concept in range(len(world.PAIRS[language]))
        for side in (0, 1)
        for template in (0, 1)
    ]


def _templates(organism: bool) -> dict[str, tuple[str, ...]]:
    return world.TEMPLATES if organism else dict(_NATURAL)
