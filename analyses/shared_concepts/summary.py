"""Curves of shared concepts: answers per language, transfer, and similarity of representations between languages."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from dynamics.analysis import (
    LAST,
    AnalysisOptions,
    Curve,
    CurveSpec,
    Definition,
    Finding,
    Null,
    Section,
    Trace,
    best_layer,
    from_units,
    shuffled_answers,
)
from dynamics.emergence import shuffled_match_null
from dynamics.numerics.draws import DRAWS
from dynamics.numerics.similarity import centred_cosines, concept_margins, nearest_other

from .causal import exchanged
from .features import feature_section
from .prompts import ANTONYMS, WORDS

__all__ = ["summarise"]

_SHUFFLES = 60


def summarise(trace: Trace, options: AnalysisOptions) -> Section:
    """See the package's docstring for definitions."""
    spoken = trace.label(WORDS, "language")
    languages = list(dict.fromkeys(spoken.tolist()))
    asked, splits = (trace.label(ANTONYMS, k) for k in ("language", "split"))
    notes = [
        "Antonym questions with a one-token answer: "
        + ", ".join(f"{int((asked == language).sum())} in {language}" for language in languages)
        + f"; words compared between languages: {int((spoken == languages[0]).sum())} a language."
    ]
    behaviour = _behaviour(trace)
    if "natural" in splits:
        notes.append(_languages(languages, asked, spoken, behaviour))
    if "held out" not in splits:
        notes.append(
            "What this model met in training is not known, so that no prompt counts as held out and transfer is not measurable."
        )
    return (
        Section(behaviour, notes, _DEFINITIONS)
        + _similarity(trace, languages)
        + exchanged(trace)
        + feature_section(trace)
    )


def _languages(languages: list[str], asked: np.ndarray, spoken: np.ndarray, behaviour: list[Curve | Finding]) -> str:
    """What languages the tokenizer and the model have."""
    states = {f.key: f.emergence.state for f in behaviour if isinstance(f, Finding)}
    words = ", ".join(
        f"{language} {(asked == language).sum() / (2 * max((spoken == language).sum(), 1)):.0%} "
        f"({states.get(f'accuracy.{language}', 'too few questions')})"
        for language in languages
    )
    return (
        "Every language is reported by itself, because there are not as many questions in each. Share of its words that are one "
        f"token, and whether the model answers in it: {words}."
    )


def _behaviour(trace: Trace) -> list[Curve | Finding]:
    predicted = trace.values(ANTONYMS, "predicted").astype(int)
    answers = trace.probe(ANTONYMS)["answer_id"].values
    language, concept, side, split = (trace.label(ANTONYMS, k) for k in ("language", "concept", "side", "split"))
    # both templates and both directions ask about the same pair: they are resampled together
    pairs = np.array([f"{w}/{c}" for w, c in zip(language, concept, strict=True)])
    cluster = np.unique(pairs, return_inverse=True)[1]
    # two templates ask one question, and a model tends to answer both alike: every shuffle deals them one answer
    question = np.array([f"{w}/{c}/{s}" for w, c, s in zip(language, concept, side, strict=True)])
    guesses = np.where(predicted >= 0, predicted, np.nan)  # a model whose logits are not finite said nothing
    hits = np.where(predicted >= 0, predicted == answers, np.nan)
    logprob = trace.values(ANTONYMS, "answer_logprob")
    null_name = "answers of other questions"
    spec = CurveSpec("accuracy", "concepts", limits=(0.0, 1.0), reach=0.5)

    def accuracy(key: str, title: str, rows: np.ndarray, spec: CurveSpec) -> Curve:
        null = shuffled_match_null(
            guesses[:, rows], answers[rows], groups=language[rows], questions=question[rows], draws=DRAWS
        )
        return from_units(
            key, f"concepts: {title}", hits[:, rows], Null(null, null_name), spec.but(clusters=cluster[rows])
        )

    def logprobs(key: str, title: str, what: str, rows: np.ndarray) -> Curve:
        null = shuffled_answers(trace, ANTONYMS, np.flatnonzero(rows), language, questions=question)
        twin = CurveSpec(
            "log-probability (nat)",
            "concepts",
            clusters=cluster[rows],
            definition=f"mean log p(answer) on {what}: the continuous twin of accuracy",
        )
        text = f"concepts: log-probability of the answer ({title})"
        return from_units(key, text, logprob[:, rows], Null(null, null_name), twin)

    result: list[Curve | Finding] = []
    for kind in dict.fromkeys(split.tolist()):
        rows = split == kind
        key = "transfer" if kind == "held out" else "accuracy"
        name = "held-out transfer" if kind == "held out" else "antonyms answered"
        what = {
            "held out": "antonyms never met within the language of the question",
            "trained": "antonyms met in training",
        }.get(kind, "antonyms")
        natural = kind == "natural"  # there are not as many questions in each language: no headline pools them
        text = f"accuracy on {what}, all languages"
        twin = spec.but(headline=not natural, twin=f"{key}.logprob", definition=text)
        result.append(accuracy(key, name, rows, twin))
        for spoken in dict.fromkeys(language.tolist()):
            mine = rows & (language == spoken)
            if mine.sum() >= 8:
                own = spec.but(headline=kind != "trained", definition=f"accuracy on {what}, in {spoken}")
                if natural:
                    own = own.but(twin=f"{key}.{spoken}.logprob")
                    result.append(logprobs(f"{key}.{spoken}.logprob", f"in {spoken}", what, mine))
                curve = accuracy(f"{key}.{spoken}", f"{name} in {spoken}", mine, own)
                result.append(curve.assessed(trace) if natural else curve)
        result.append(logprobs(f"{key}.logprob", kind, what, rows))
    return result


def _similarity(trace: Trace, languages: list[str]) -> Section:
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
    section = Section(
        arrays={
            "retrieval_by_layer": (("checkpoint", "position", "layer"), hits.mean((-2, -1))),
            "cosine_by_layer": (("checkpoint", "position", "layer"), margins.mean((-2, -1))),
        },
        coords={"layer": np.arange(layers), "position": ["word", "last"]},
    )
    clusters = trace.label(WORDS, "concept")[rows[languages[0]]]
    pairs = f"mean over {len(ordered)} ordered pairs of languages"

    def curve(key: str, title: str, units: np.ndarray, null: np.ndarray, spec: CurveSpec) -> Curve:
        return best_layer(key, title, units.mean(2), Null(null, "shuffled translations, best layer"), spec)

    for position, where, short, suffix in (
        (1, "where the answer is predicted", "at the answer", ""),
        (0, "at the word", "at the word", ".word"),
    ):
        similar = CurveSpec(
            "cosine above mismatched concepts",
            "concepts",
            clusters=clusters,
            headline=position == 1,
            definition=f"centred cosine of translations minus that of mismatched concepts, resid_post {where}, best layer",
        )
        nearest_spec = similar.but(
            metric="retrieval@1",
            twin=f"cosine{suffix}",
            definition="share of words whose nearest vector in another language is the translation, resid_post "
            f"{where}, best layer, {pairs}",
        )
        section.findings += [
            curve(
                f"retrieval{suffix}",
                f"concepts: translations nearest ({short})",
                hits[:, position],
                null_hits[:, position],
                nearest_spec,
            ),
            curve(
                f"cosine{suffix}",
                f"concepts: translations similar ({short})",
                margins[:, position],
                null_margin[:, position],
                similar,
            ),
        ]
    return section


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
