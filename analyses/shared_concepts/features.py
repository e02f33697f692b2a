"""Which sparse features do translations share, and which stand for one concept in every language?

- *Shared features*: weighted intersection over union of the features that answer two words,
  sum_j min(x_j, y_j) / sum_j max(x_j, y_j), for translations minus the same for unrelated words of the other language; mean
  over pairs of languages (Lindsey et al. 2025 count features that are active; weights keep weak answers from counting as
  much as strong ones). Null: shuffled translations; of a crosscoder, whose code knows all checkpoints, added to what is
  shared at the first of them.
- *Concept feature*: a feature that answers the same words in all languages: the least, over pairs of languages, of the
  correlation of its answers over words. Null: concepts shuffled within each language, both words of a concept together,
  so that what opposite words share is no evidence; false discovery rate over features.

Of a crosscoder answers count with the length of the decoder (see :mod:`dynamics.analysis.features`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dynamics.analysis import LAST, Curve, CurveSpec, Definition, Null, Section, Trace, from_units
from dynamics.analysis.features import HINT, FeatureReader, feature_readers, leading
from dynamics.emergence import discover

from .prompts import WORDS, antonym_of

__all__ = ["concept_features", "feature_section"]

_SHUFFLES = 200
_DEALS = 1999
LEAST = 5
"""Words in all languages together that a feature has to answer to be tested."""
SHOWN = 24
"""Concept features in the figure."""


@dataclass(frozen=True)
class _Words:
    """Words of one probe, in the same order in every language."""

    languages: list[str]
    rows: list[np.ndarray]
    concept: np.ndarray
    side: np.ndarray

    @classmethod
    def of(cls, reader: FeatureReader) -> _Words:
        language = reader.label(WORDS, "language")
        names = list(dict.fromkeys(language.tolist()))
        rows = [np.flatnonzero(language == name) for name in names]
        return cls(names, rows, *(reader.label(WORDS, of)[rows[0]] for of in ("concept", "side")))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(language, word, feature) from (prompt, feature)."""
        return np.stack([x[r] for r in self.rows])


def feature_section(trace: Trace) -> Section:
    """Of every dictionary through which the words were read; a note where there is none."""
    readers = feature_readers(trace, WORDS)
    if not readers:
        return Section(notes=[HINT])
    section = Section(definitions=_DEFINITIONS)
    for reader in readers:
        words = _Words.of(reader)
        for position, suffix, where in ((LAST, "", "at the answer"), ("word", ".word", "at the word")):
            headline = reader.name == leading(readers) and position == LAST
            section.findings.append(_shared(reader, words, position, suffix, where, headline))
            section += _concepts(reader, words, position, where)
    return section


def _shared(reader: FeatureReader, words: _Words, position: str, suffix: str, where: str, headline: bool) -> Curve:
    """Weighted intersection over union of translations above that of unrelated words, through training."""
    count, n = len(words.concept), len(reader.steps)
    pairs = list(combinations(range(len(words.languages)), 2))
    rng = np.random.default_rng(0)
    orders = [np.stack([rng.permutation(count) for _ in range(_SHUFFLES)]) for _ in words.languages]
    units, null = np.zeros((n, count)), np.zeros((n, _SHUFFLES))
    for t in range(n):
        x = words(reader.at(WORDS, position, t))
        for one, other in pairs:
            alike = _overlap(x[one], x[other])
            own, every = np.diag(alike), alike.sum()
            rest = (alike.sum(axis=0) + alike.sum(axis=1) - 2 * own) / (2 * (count - 1))
            units[t] += (own - rest) / len(pairs)
            same = alike[orders[one], orders[other]].mean(axis=1)
            null[t] += (same - (every - count * same) / (count * (count - 1))) / len(pairs)
    null_name = "shuffled translations"
    if reader.joint:  # which features answer is one fact about all checkpoints, the first of them included
        null += max(0.0, float(units[0].mean() - null[0].mean()))
        null_name += f", and what is shared at step {reader.steps[0]}"
    return from_units(
        f"features.{reader.name}{suffix}",
        f"concepts: translations share features ({where})",
        reader.spread(units),
        Null(reader.spread(null), null_name),
        CurveSpec(
            "intersection over union above unrelated words",
            "concepts",
            headline=headline,
            clusters=words.concept,
            definition=f"dictionary {reader.name} ({reader.where}), {where}: weighted intersection over union of the "
            "features that answer translations minus that of unrelated words, mean over pairs of languages",
        ),
    )


def _overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(word, word) weighted intersection over union of answers (word, feature); 0 where neither is answered."""
    both = np.maximum(np.concatenate([one, other]), 0.0)
    both = both[:, both.any(axis=0)]
    a, b = both[: len(one)], both[len(one) :]
    least = np.stack([np.minimum(row, b).sum(axis=1) for row in a])
    most = a.sum(axis=1)[:, None] + b.sum(axis=1) - least
    return np.asarray(np.where(most > 0, least / np.where(most > 0, most, 1.0), 0.0))


def concept_features(answers: np.ndarray, concept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which features answer the same words in every language?

    Args:
        answers: (language, word, feature).
        concept: (word,) words of one concept are shuffled together; they stand in the same order for every concept.

    Returns:
        (feature,) least correlation of two languages over words, NaN where a language is not answered or always alike;
        (feature,) p value; (feature,) found at a false discovery rate of 5%.
    """
    languages, words, features = answers.shape
    centred = answers - answers.mean(axis=1, keepdims=True)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    known = (size > 1e-9).all(axis=(0, 1)) & ((answers != 0).sum(axis=(0, 1)) >= LEAST)
    least, p = np.full(features, np.nan), np.full(features, np.nan)
    if not known.any():
        return least, p, np.zeros(features, dtype=bool)
    z = (centred / np.where(size > 0, size, 1.0))[:, :, known]
    pairs = list(combinations(range(languages), 2))

    def smallest(z: list[np.ndarray]) -> np.ndarray:
        return np.asarray(np.min([(z[a] * z[b]).sum(axis=0) for a, b in pairs], axis=0))

    own = smallest(list(z))
    rng = np.random.default_rng(0)
    members = np.stack([np.flatnonzero(concept == c) for c in np.unique(concept)])  # (concept, word of it)

    def beaten(some: np.ndarray) -> np.ndarray:
        dealt = []
        for one in z:
            order = np.empty(words, dtype=int)
            order[members] = members[rng.permutation(len(members))]
            dealt.append(one[order][:, some])
        return np.asarray(smallest(dealt) >= own[some] - 1e-9)

    larger, drawn = np.zeros(len(own)), np.full(len(own), _DEALS)
    for _ in range(_DEALS):
        larger += beaten(np.ones(len(own), dtype=bool))
    best = larger == 0
    if best.any():  # few among many need small p values
        more = max(0, int(np.ceil(2.0 * len(own) / (0.05 * best.sum()))) - _DEALS)
        for _ in range(more):
            larger[best] += beaten(best)
        drawn[best] += more
    least[known], p[known] = own, (1.0 + larger) / (1.0 + drawn)
    return least, p, discover(p)


def _concepts(reader: FeatureReader, words: _Words, position: str, where: str) -> Section:
    """Concept features at the last snapshot: a note, and arrays for the figure."""
    answers = words(reader.last(WORDS, position))
    least, p, there = concept_features(answers, words.concept)
    order = np.flatnonzero(there)[np.argsort(-least[there])]
    short = "last" if position == LAST else "word"
    tested = int(np.isfinite(p).sum())
    begin = (
        f"Concept features, dictionary {reader.name} ({reader.where}), {where}, step {int(reader.steps[-1])}: of {tested} features "
        f"that answer in all languages "
    )
    section, name = Section(), f"{reader.name}_{short}"
    since = [reader.since(int(j)) if reader.kept else "no birth is known" for j in order]
    labels = [_words_of(words, answers[:, :, j]) for j in order]
    section.arrays[f"{name}_least"] = (f"{reader.name}_feature", least.astype(np.float32))
    section.arrays[f"{name}_concept"] = (f"{reader.name}_feature", there)
    if not len(order):
        best = f"; the best correlates by {np.nanmax(least):.2f}, p = {np.nanmin(p):.2g}" if tested else ""
        section.notes.append(f"{begin}none answers the same words in all of them beyond shuffled translations{best}.")
        return section
    few = order[:SHOWN]
    section.arrays[f"{name}_answers"] = (
        (f"{name}_shown", "language", "word_of_concept"),
        np.moveaxis(answers[:, :, few], -1, 0).astype(np.float32),
    )
    if reader.joint:
        section.arrays[f"{name}_weight"] = ((f"{name}_shown", "checkpoint"), reader.spread(reader.weight[few].T).T)
    section.coords |= {
        f"{name}_shown": [f"{j} {label}" for j, label in zip(few, labels, strict=False)],
        "language": words.languages,
        "word_of_concept": [_word(words, w) for w in range(len(words.concept))],
    }
    listed = "; ".join(
        f"{j} ({label}; {least[j]:.2f}; {when})" for j, label, when in zip(order[:10], labels, since, strict=False)
    )
    section.notes.append(
        f"{begin}{len(order)} answer{'' if len(order) > 1 else 's'} the same words in all of them, with the least "
        f"correlation of two languages: {listed}{'; ...' if len(order) > 10 else ''}.{_births(reader, order)}"
    )
    return section


def _births(reader: FeatureReader, features: np.ndarray) -> str:
    if "born" not in reader.table.about:
        return ""
    born = reader.table.about["born"].values[features]
    late = born[:, 1] >= 0
    if not late.any():
        return " None of them is shown to be born during training."
    return (
        f" {int(late.sum())} of them are born during training, the first by step {int(born[late, 1].min())}, half by step "
        f"{int(np.quantile(born[late, 1], 0.5, method='higher'))}, the last by step {int(born[late, 1].max())}."
    )


def _word(words: _Words, index: int) -> str:
    return antonym_of("english", int(words.concept[index]), 1 - int(words.side[index])).strip()


def _words_of(words: _Words, answers: np.ndarray) -> str:
    """The words that a feature answers most in its weakest language, from (language, word)."""
    peak = np.maximum(answers.max(axis=1, keepdims=True), 1e-9)
    level = (answers / peak).min(axis=0)
    best = [int(w) for w in np.argsort(-level)[:3] if level[w] >= 0.3]
    return ", ".join(_word(words, w) for w in best) or _word(words, int(level.argmax()))


_DEFINITIONS = (
    Definition(
        "features shared by translations",
        "Weighted intersection over union Σ min(x, y) / Σ max(x, y) of the features that answer two words, for translations "
        "minus unrelated words of the other language. Null: shuffled translations; of a crosscoder on top of what the first "
        "checkpoint shares.",
        "after Lindsey et al. 2025, 'On the Biology of a Large Language Model' (intersection over union of active features)",
    ),
    Definition(
        "concept feature",
        "A feature whose answers correlate over words between every two languages, more than with concepts shuffled within "
        "languages; false discovery rate of 5% over features.",
    ),
)
