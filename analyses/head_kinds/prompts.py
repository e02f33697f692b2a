"""What heads are looked at on: documents, repeated and unrepeated random words, single words, ordered lists."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

from checkpoints.organism.tokenizer import speaks
from checkpoints.organism.worlds import all_worlds
from dynamics.probes import Probe
from dynamics.probes.encoding import encode, single_tokens
from dynamics.probes.sources import PlainWords
from dynamics.probes.sources import repeat_probes as _repeat_probes

from .texts import TEXTS

__all__ = [
    "CONTROL",
    "DOCUMENTS",
    "LISTS",
    "REPEATS",
    "WORDS",
    "delimiter_ids",
    "document_probe",
    "list_probe",
    "repeat_probes",
    "word_probe",
]

DOCUMENTS, REPEATS, CONTROL, WORDS, LISTS = (
    f"head_kinds_{name}" for name in ("documents", "repeats", "control", "words", "lists")
)

_ORDERED = {
    "digits": "0 1 2 3 4 5 6 7 8 9",
    "number words": "one two three four five six seven eight nine ten eleven twelve",
    "days": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "months": "January February March April May June July August September October November December",
    "letters": "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
}
_SHORTEST_LIST = 5
_REMEDY = "lower its options, as in `{name: head_kinds, options: {period: 8, words: 16}}`, or leave out `head_kinds`"


def document_probe(tokenizer: Any, count: int, seed: int) -> Probe:
    """Ordinary text: documents of every world whose words the tokenizer knows, or short passages of English.

    The organism's documents are drawn anew, as in its training; worlds without words of their own (random sequences) are
    left out. Passages are taken in turn until ``count``, or until there are no more.
    """
    description = "ordinary documents, for where heads look"
    if not speaks(tokenizer):
        return Probe(DOCUMENTS, TEXTS[:count], description=description)
    known = tokenizer.get_vocab()
    worlds = [w for w in all_worlds().values() if w.words and all(word in known for word in w.words)]
    rng = np.random.default_rng(seed)
    drawn = [(worlds[i % len(worlds)], rng) for i in range(count)]
    return Probe(
        DOCUMENTS,
        tuple(" ".join(world.document(random)) for world, random in drawn),
        labels={"world": tuple(world.name for world, _ in drawn)},
        description=description,
    )


def delimiter_ids(tokenizer: Any, probe: Probe) -> tuple[int, ...]:
    """Ids in the probe's prompts whose text is only punctuation, symbols or space, or that are special tokens."""
    ids = {i for row, _ in encode(tokenizer, probe.text, ended=True) for i in row}
    special = set(tokenizer.all_special_ids)
    return tuple(sorted(i for i in ids if i in special or _is_mark(tokenizer.decode([i]))))


def _is_mark(text: str) -> bool:
    return all(unicodedata.category(c)[0] in "PSZC" for c in text)


def repeat_probes(words: PlainWords, count: int, period: int, seed: int) -> tuple[Probe, Probe]:
    """Distinct random words, twice; and the same first halves before unrelated second halves."""
    return _repeat_probes((REPEATS, CONTROL), words, count, period, seed, what="words", remedy=_REMEDY)


def word_probe(tokenizer: Any, words: PlainWords, count: int, seed: int) -> Probe:
    """Single words to copy, and the digits that are one token."""
    pool = [w for w in words.require(count, _REMEDY) if not w.strip().isdigit()]
    rng = np.random.default_rng(seed)
    chosen = [words.joined([pool[i]]) for i in sorted(rng.permutation(len(pool))[:count])]
    digits = _longest_run(tokenizer, _ORDERED["digits"].split())
    texts = list(dict.fromkeys([*chosen, *digits]))
    return Probe(WORDS, tuple(texts), description="single words and digits, for copying")


def list_probe(tokenizer: Any) -> Probe | None:
    """Members of ordered lists; None where the tokenizer has none of which five in a row are one token each."""
    runs = {name: _longest_run(tokenizer, members.split()) for name, members in _ORDERED.items()}
    rows = [
        (text, name, rank) for name, run in runs.items() if len(run) >= _SHORTEST_LIST for rank, text in enumerate(run)
    ]
    if not rows:
        return None
    text, series, rank = zip(*rows, strict=True)
    return Probe(LISTS, text, labels={"series": series, "place": rank}, description="members of ordered lists")


def _longest_run(tokenizer: Any, members: list[str]) -> list[str]:
    """The most members in a row that are one token each, all of them with a space before them or all without."""
    best: list[str] = []
    for prefix in (" ", ""):
        run: list[str] = []
        written = [prefix + member for member in members]
        for text, token in zip(written, single_tokens(tokenizer, written), strict=True):
            run = [] if token is None else [*run, text]
            best = run if len(run) > len(best) else best
    return best
