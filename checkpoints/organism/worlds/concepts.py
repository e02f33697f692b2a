"""Concepts in three languages with disjoint vocabularies: antonyms within a language, translations between them.

- antonyms      ``the opposite of big is small``, ``le contraire de grand est petit``, ...
- code-switched antonyms  ``das gegenteil von big ist klein``: the sentence decides the language of the answer, the
  word may come from any language
- translations  ``big in french is grand``, ``grand en anglais est big``, ...

Each language is a world of its own, so that a curriculum can bring it in later. Sentences that mix two languages
belong to the one that is listed later, and begin when that one enters. Every language holds out some concepts: their
antonyms never occur within that language (``das gegenteil von groß ist klein``), only across languages (``das
gegenteil von big ist klein``, ``the opposite of groß is small``) and in translations. A model that stores one answer
for each word and language of the sentence has nothing to say about them; one that keeps the concept apart from the
language has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["LANGUAGES", "PAIRS", "TEMPLATES", "LanguageWorld", "antonym_prompt", "held_out", "translation_prompt"]

LANGUAGES = ("english", "french", "german")
"""The languages, in the order in which translations are assigned to worlds."""

_TABLE = """
big small|grand petit|groß klein             hot cold|chaud froid|heiß kalt
fast slow|rapide lent|schnell langsam        old young|vieux jeune|alt jung
good bad|bon mauvais|gut schlecht            high low|haut bas|hoch niedrig
rich poor|riche pauvre|reich arm             strong weak|fort faible|stark schwach
light dark|clair sombre|hell dunkel          hard soft|dur mou|hart weich
dry wet|sec mouillé|trocken nass             full empty|plein vide|voll leer
clean dirty|propre sale|sauber schmutzig     wide narrow|large étroit|breit eng
thick thin|épais mince|dick dünn             near far|proche lointain|nah fern
early late|tôt tard|früh spät                happy sad|heureux triste|froh traurig
open closed|ouvert fermé|offen geschlossen   true false|vrai faux|wahr falsch
left right|gauche droite|links rechts        day night|jour nuit|tag nacht
spring autumn|printemps automne|frühling herbst  love hate|amour haine|liebe hass
war peace|guerre paix|krieg frieden          life death|vie mort|leben tod
friend enemy|ami ennemi|freund feind         begin end|début fin|anfang ende
up down|dessus dessous|oben unten            black white|noir blanc|schwarz weiß
sweet sour|sucré acide|süß sauer             brave cowardly|courageux lâche|mutig feige
question answer|demande réponse|frage antwort  buy sell|acheter vendre|kaufen verkaufen
win lose|gagner perdre|gewinnen verlieren    laugh cry|rire pleurer|lachen weinen
loud quiet|bruyant calme|laut leise          north south|nord sud|norden süden
inside outside|dedans dehors|drinnen draußen  give take|donner prendre|geben nehmen
"""

PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    language: tuple(
        (words[0], words[1])
        for line in _TABLE.strip().splitlines()
        for cell in line.split("  ")
        if cell.strip()
        for words in [cell.strip().split("|")[column].split()]
    )
    for column, language in enumerate(LANGUAGES)
}
"""``PAIRS[language][concept]`` is that concept's two opposite words."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "english": ("the opposite of {} is", "not {} but"),
    "french": ("le contraire de {} est", "pas {} mais"),
    "german": ("das gegenteil von {} ist", "nicht {} sondern"),
}
"""Antonym templates per language; the answer follows."""

_TRANSLATION = {"english": "{} in {} is", "french": "{} en {} est", "german": "{} auf {} ist"}
_NAMES = {
    "english": {"french": "french", "german": "german"},
    "french": {"english": "anglais", "german": "allemand"},
    "german": {"english": "englisch", "french": "französisch"},
}
HELD_OUT_PER_LANGUAGE = 12


def held_out(language: str) -> tuple[int, ...]:
    """The concepts whose antonyms never occur within this language; none is held out in two languages.

    >>> held_out("german")[:4]
    (2, 5, 8, 11)
    """
    first = LANGUAGES.index(language)
    return tuple(range(first, 3 * HELD_OUT_PER_LANGUAGE, 3))


def antonym_prompt(
    language: str, concept: int, side: int, template: int, *, source: str | None = None
) -> tuple[str, str]:
    """An antonym prompt and its answer in ``language``; ``side`` says which of the two words is asked about.

    >>> antonym_prompt("french", 0, 0, 0)
    ('le contraire de grand est', 'petit')
    >>> antonym_prompt("french", 0, 0, 0, source="english")
    ('le contraire de big est', 'petit')
    """
    asked = PAIRS[source or language][concept][side]
    return TEMPLATES[language][template].format(asked), PAIRS[language][concept][1 - side]


def translation_prompt(source: str, target: str, concept: int, side: int) -> tuple[str, str]:
    """A translation prompt, written in the source language, and its answer.

    >>> translation_prompt("german", "english", 0, 1)
    ('klein auf englisch ist', 'small')
    """
    text = _TRANSLATION[source].format(PAIRS[source][concept][side], _NAMES[source][target])
    return text, PAIRS[target][concept][side]


class LanguageWorld:
    """One language: its antonyms, and sentences that mix it with the languages listed before it."""

    def __init__(self, language: str) -> None:
        self.name = language
        self._before = LANGUAGES[: LANGUAGES.index(language)]
        function_words = [w for t in (*TEMPLATES[language], _TRANSLATION[language]) for w in t.split() if w != "{}"]
        concept_words = [word for pair in PAIRS[language] for word in pair]
        self.words = list(dict.fromkeys([*function_words, *_NAMES[language].values(), *concept_words]))

    def document(self, rng: np.random.Generator) -> list[str]:
        """One sentence; with other languages to mix with, a third each: antonyms, code-switched antonyms, translations."""
        side = int(rng.integers(2))
        kind = rng.random() if self._before else 0.0
        answer_language = source = self.name
        if kind >= 1 / 3:
            other = self._before[int(rng.integers(len(self._before)))]
            answer_language, source = (other, source) if rng.random() < 0.5 else (answer_language, other)
        if kind >= 2 / 3:
            concept = int(rng.integers(len(PAIRS[source])))
            text, answer = translation_prompt(source, answer_language, concept, side)
        else:
            taught = _TAUGHT[source] if source == answer_language else range(len(PAIRS[source]))
            concept = taught[int(rng.integers(len(taught)))]
            template = int(rng.integers(len(TEMPLATES[answer_language])))
            text, answer = antonym_prompt(answer_language, concept, side, template, source=source)
        return [*text.split(), answer]

    def truth(self) -> dict[str, Any]:
        """Rule, held-out concepts and chance level."""
        return {
            "rule": "antonyms, answered in the language of the sentence; translations to and from earlier languages",
            "concepts": len(PAIRS[self.name]),
            "held_out_antonyms": [list(PAIRS[self.name][c]) for c in held_out(self.name)],
            "mixes_with": list(self._before),
            "chance": 1 / (2 * len(PAIRS[self.name])),
        }


_TAUGHT = {
    language: [c for c in range(len(PAIRS[language])) if c not in set(held_out(language))] for language in LANGUAGES
}
