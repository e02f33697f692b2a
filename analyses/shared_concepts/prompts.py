"""Antonym prompts in three languages, for the organism's language and for English, French and German tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from checkpoints.errors import UserError
from checkpoints.organism.worlds import concepts as world
from dynamics.probes import Label, Probe, single_token
from dynamics.probes.drawing import Prompt, to_probe
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

    Raises:
        UserError: when no answer is one token.
    """
    asked = antonym_prompts(tokenizer)
    rows = [
        Prompt(
            asked.ask(language, concept, side, template)[0],
            opposite,
            labels={
                "language": language,
                "concept": concept,
                "side": side,
                "template": template,
                "split": asked.split(language, concept),
            },
        )
        for language, concept, side in _words()
        if single_token(tokenizer, opposite := antonym_of(language, concept, side)) is not None
        for template in (0, 1)
    ]
    if not rows:
        raise UserError(
            "no antonym of three languages is one token in this tokenizer",
            expected="a tokenizer of English, French or German",
            remedy="leave `shared_concepts` out of this run's analyses",
        )
    return to_probe(ANTONYMS, rows, "antonyms asked within one language")


def word_probe(asked: AntonymPrompts) -> Probe:
    """Every word of every language in the first antonym template; position ``word`` is its last token.

    Labels: ``language``, ``concept``, ``side``. Words stand in the same order in every language.
    """
    rows = []
    for language, concept, side in _words():
        question, span = asked.ask(language, concept, side)
        labels: dict[str, Label] = {"language": language, "concept": concept, "side": side}
        rows.append(Prompt(question, labels=labels, positions={"word": span}))
    return to_probe(WORDS, rows, "the same concepts in three languages, each in an antonym question")


def antonym_of(language: str, concept: int, side: int) -> str:
    """The right answer, as it follows a question.

    >>> antonym_of("french", 0, 0)
    ' petit'
    """
    return f" {world.PAIRS[language][concept][1 - side]}"


def _words() -> list[tuple[str, int, int]]:
    return [(name, concept, side) for name in LANGUAGES for concept in range(len(world.PAIRS[name])) for side in (0, 1)]
