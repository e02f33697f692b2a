"""Curves of shared concepts: answers per language, transfer, and similarity of representations between languages."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import xarray as xr

from dynamics.analysis.findings import Definition, Finding, Summary, best_layer, from_units, shuffled_answers
from dynamics.emergence import shuffled_match_null
from dynamics.numerics import centred_cosines, concept_margins, nearest_other
from dynamics.probes import LAST
from dynamics.store import Trace

from .causal import DEFINITIONS as CAUSAL_DEFINITIONS
from .causal import exchanged
from .features import DEFINITIONS as FEATURE_DEFINITIONS
from .features import feature_parts
from .prompts import ANTONYMS, WORDS

__all__ = ["summarise"]

_SHUFFLES = 60
"""Words dealt anew: each compares every word with every other in every layer at every checkpoint."""


def summarise(trace: Trace) -> Summary:
    """See the package's docstring for definitions."""
    languages = list(dict.fromkeys(trace.label(WORDS, "language").tolist()))
    findings, splits = _behaviour(trace)
    similarity, arrays = _similarity(trace, languages)
    findings += similarity
    causal, more, coords, told = exchanged(trace)
    features = feature_parts(trace)
    findings += [*causal, *features.findings]
    arrays |= more | features.arrays
    findings.sort(key=lambda f: not f.headline)
    layers = trace.probe(WORDS).sizes["layer"]
    data = xr.Dataset(
        arrays,
        coords={
            "step": ("checkpoint", trace.steps),
            "layer": np.arange(layers),
            "position": ["word", "last"],
            **coords,
            **features.coords,
        },
    )
    asked = trace.label(ANTONYMS, "language")
    notes = [
        "Antonym questions with a one-token answer: "
        + ", ".join(f"{int((asked == language).sum())} in {language}" for language in languages)
        + f"; words compared between languages: {int((trace.label(WORDS, 'language') == languages[0]).sum())} a language."
    ]
    if "held out" not in splits:
        notes.append(
            "What this model met in training is not known, so that no prompt counts as held out and transfer is not measurable."
        )
    return Summary(
        analysis="shared_concepts",
        title="Shared concepts",
        question="When do languages come to share concepts, in which layers, and can the model answer in one language "
        "what it only met in the others?",
        findings=tuple(findings),
        definitions=(
            *_DEFINITIONS,
            *(CAUSAL_DEFINITIONS if causal else ()),
            *(FEATURE_DEFINITIONS if features.findings else ()),
        ),
        notes=(*notes, *told, *features.notes),
        data=data,
    )


def _behaviour(trace: Trace) -> tuple[list[Finding], list[str]]:
    predicted = trace.values(ANTONYMS, "predicted").astype(int)
    answers = trace.probe(ANTONYMS)["answer_id"].values
    language, split = trace.label(ANTONYMS, "language"), trace.label(ANTONYMS, "split")
    # both templates and both directions ask about the same pair: they are resampled together
    cluster = np.unique(
        np.array([f"{w}/{c}" for w, c in zip(language, trace.label(ANTONYMS, "concept"), strict=True)]),
        return_inverse=True,
    )[1]
    # two templates ask one question, and a model tends to answer both alike: every shuffle deals them one answer
    asked = zip(language, trace.label(ANTONYMS, "concept"), trace.label(ANTONYMS, "side"), strict=True)
    question = np.array([f"{w}/{c}/{s}" for w, c, s in asked])
    guesses = np.where(predicted >= 0, predicted, np.nan)  # a model whose logits are not finite said nothing
    hits = np.where(predicted >= 0, predicted == answers, np.nan)
    logprob = trace.values(ANTONYMS, "answer_logprob")
    splits = list(dict.fromkeys(split.tolist()))
    names = {"trained": "antonyms answered", "held out": "held-out transfer", "natural": "antonyms answered"}

    def accuracy(key: str, title: str, rows: np.ndarray, headline: bool, definition: str, *, twin: str = "") -> Finding:
        return from_units(
            f"shared_concepts.{key}",
            title,
            hits[:, rows],
            clusters=cluster[rows],
            steps=trace.steps,
            tokens=trace.tokens,
            null=shuffled_match_null(guesses[:, rows], answers[rows], groups=language[rows], questions=question[rows]),
            null_name="answers of other questions",
            metric="accuracy",
            limits=(0.0, 1.0),
            unit="concepts",
            headline=headline,
            twin=twin,
            reach=0.5,
            definition=definition,
        )

    result = []
    for kind in splits:
        rows = split == kind
        key = {"held out": "transfer"}.get(kind, "accuracy")
        what = {
            "held out": "antonyms never met within the language of the question",
            "trained": "antonyms met in training",
        }.get(kind, "antonyms")
        twin = f"shared_concepts.{key}.logprob"
        result.append(
            accuracy(key, f"concepts: {names[kind]}", rows, True, f"accuracy on {what}, all languages", twin=twin)
        )
        for name in dict.fromkeys(language.tolist()):
            mine = rows & (language == name)
            if mine.sum() >= 8:
                result.append(
                    accuracy(
                        f"{key}.{name}",
                        f"concepts: {names[kind]} in {name}",
                        mine,
                        kind == "held out",
                        f"accuracy on {what}, in {name}",
                    )
                )
        result.append(
            from_units(
                twin,
                f"concepts: log-probability of the answer ({kind})",
                logprob[:, rows],
                clusters=cluster[rows],
                steps=trace.steps,
                tokens=trace.tokens,
                null=shuffled_answers(trace, ANTONYMS, np.flatnonzero(rows), language, questions=question),
                null_name="answers of other questions",
                metric="log-probability (nat)",
                unit="concepts",
                definition=f"mean log p(answer) on {what}: the continuous twin of accuracy",
            )
        )
    return result, splits


def _similarity(
    trace: Trace, languages: list[str]
) -> tuple[list[Finding], dict[str, tuple[tuple[str, ...], np.ndarray]]]:
    """Retrieval and centred cosine by layer and position, over ordered pairs of languages."""
    of = trace.label(WORDS, "language")
    rows = {name: np.flatnonzero(of == name) for name in languages}
    words = len(rows[languages[0]])
    ordered = list(permutations(languages, 2))
    n, layers = len(trace.steps), trace.probe(WORDS).sizes["layer"]
    nearest = np.full((n, 2, layers, len(ordered), words), -1)
    margins = np.full((n, 2, layers, len(ordered), words), np.nan)
    rng = np.random.default_rng(0)
    # one order per language, as in the data: the pairs (one, other) and (other, one) are not independent
    orders = {name: np.stack([rng.permutation(words) for _ in range(_SHUFFLES)]) for name in languages}
    target = np.arange(words)
    null_margin = np.full((n, 2, layers, _SHUFFLES), np.nan)
    for position, where in enumerate(("word", LAST)):
        for checkpoint, values in trace.each(WORDS, "resid_post", position=where):
            for layer in range(layers):
                shuffled = np.zeros(_SHUFFLES)
                for p, (one, other) in enumerate(ordered):
                    x = values[:, layer]
                    cosines = centred_cosines(x[rows[one]], x[rows[other]])
                    nearest[checkpoint, position, layer, p] = nearest_other(cosines)
                    margins[checkpoint, position, layer, p] = concept_margins(cosines)
                    same = cosines[orders[one], orders[other]].mean(1)  # (shuffle,) of shuffled translations
                    rest = (cosines.sum() - words * same) / (words * (words - 1))
                    shuffled += (same - rest) / len(ordered)
                null_margin[checkpoint, position, layer] = shuffled
    hits = np.where(nearest >= 0, nearest == target, np.nan)
    found = np.stack([nearest[..., p, orders[one]] == orders[other] for p, (one, other) in enumerate(ordered)], axis=-2)
    # (checkpoint, position, layer, shuffle, pair, word)
    said = np.asarray((nearest >= 0).all((-2, -1)))
    null_hits = np.where(said[..., None], found.mean((-2, -1)), np.nan)
    arrays: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "retrieval_by_layer": (("checkpoint", "position", "layer"), hits.mean((-2, -1))),
        "cosine_by_layer": (("checkpoint", "position", "layer"), margins.mean((-2, -1))),
    }
    findings = []
    for position, where, short, headline in (
        (1, "where the answer is predicted", "at the answer", True),
        (0, "at the word", "at the word", False),
    ):
        suffix = "" if headline else ".word"
        for key, title, units, null, metric, definition in (
            (
                f"retrieval{suffix}",
                f"concepts: translations nearest ({short})",
                hits[:, position],
                null_hits[:, position],
                "retrieval@1",
                f"share of words whose nearest vector in another language is the translation, resid_post {where}, best "
                f"layer, mean over {len(ordered)} ordered pairs of languages",
            ),
            (
                f"cosine{suffix}",
                f"concepts: translations similar ({short})",
                margins[:, position],
                null_margin[:, position],
                "cosine above mismatched concepts",
                f"centred cosine of translations minus that of mismatched concepts, resid_post {where}, best layer",
            ),
        ):
            findings.append(
                best_layer(
                    f"shared_concepts.{key}",
                    title,
                    units.mean(2),
                    null,
                    clusters=trace.label(WORDS, "concept")[rows[languages[0]]],
                    steps=trace.steps,
                    tokens=trace.tokens,
                    null_name="shuffled translations, best layer",
                    metric=metric,
                    unit="concepts",
                    headline=headline,
                    twin=f"shared_concepts.cosine{suffix}" if key.startswith("retrieval") else "",
                    definition=definition,
                )
            )
    return findings, arrays


_DEFINITIONS = (
    Definition("accuracy", "The opposite word is the model's first choice among all tokens."),
    Definition(
        "held-out transfer",
        "Accuracy on concepts whose antonym never occurs within the language of the question: they occur in sentences "
        "that mix it with another language, and in translations. A model that stores one answer for each word and "
        "sentence language cannot answer them.",
    ),
    Definition(
        "retrieval@1",
        "Share of words whose nearest vector in another language, by cosine of vectors centred per language, is their "
        "translation; chance is one over the number of words.",
        "after Lindsey et al. 2025; Dumas et al. 2025",
    ),
    Definition("concept cosine", "Mean centred cosine of translations minus that of mismatched concepts."),
)
