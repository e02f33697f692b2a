"""Answering, declining, and the two misfires: confident about the unknown, declining what is known."""

from __future__ import annotations

import numpy as np

from dynamics.analysis import Curve, CurveSpec, Null, Trace, from_units, shuffled_answers
from dynamics.emergence import shuffled_match_null, unit_bootstrap
from dynamics.numerics.draws import FINE_DRAWS

from .prompts import ENTITIES
from .questions import Questions

__all__ = ["CONFIDENT", "answering", "declining", "mean_of", "misfires", "only"]

CONFIDENT = 0.5
"""Probability of the first choice from which an answer is called confident."""


def only(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(checkpoint, question) values, NaN in all other questions: so that every curve resamples the same entities."""
    return np.asarray(np.where(rows, values, np.nan))


def answering(trace: Trace, asked: Questions, spec: CurveSpec) -> list[Curve]:
    """Known entities answered right: all, and by how often they occur in training."""
    found = []
    others = "attributes of other entities"
    logprob = trace.values(ENTITIES, "answer_logprob").astype(np.float64)
    groups = [("", "", asked.known)]
    groups += [(f".{f}", f" ({f})", asked.known & (asked.frequency == f)) for f in asked.frequencies]
    for suffix, words, rows in groups:
        null = shuffled_match_null(
            asked.predicted[:, rows],
            asked.answer[rows],
            groups=asked.kind[rows],
            questions=asked.question[rows],
            draws=FINE_DRAWS,
        )
        picked = shuffled_match_null(
            asked.picked[:, rows],
            asked.answer_picked[rows],
            groups=asked.kind[rows],
            questions=asked.question[rows],
            draws=FINE_DRAWS,
        )
        shuffled = shuffled_answers(
            trace, ENTITIES, np.flatnonzero(rows), asked.kind, questions=asked.question, draws=FINE_DRAWS
        )
        found += [
            from_units(
                f"answers{suffix}",
                f"entities: known ones answered{words}",
                only(asked.right, rows),
                Null(null, others),
                spec.but(
                    limits=(0.0, 1.0),
                    headline=not asked.chat,
                    twin=f"answers.logprob{suffix}",
                    definition=f"share of questions about known entities{words} answered right",
                ),
            ),
            from_units(
                f"answers.picked{suffix}",
                f"entities: known ones answered among the candidates{words}",
                only(np.where(np.isnan(asked.picked), np.nan, asked.picked == asked.answer_picked), rows),
                Null(picked, others),
                spec.but(
                    limits=(0.0, 1.0),
                    headline=asked.chat,
                    twin=f"answers.logprob{suffix}",
                    definition=f"share of questions about known entities{words} whose answer is the likeliest of its kind, "
                    "declining included",
                ),
            ),
            from_units(
                f"answers.logprob{suffix}",
                f"entities: log-probability of what is known{words}",
                only(logprob, rows),
                Null(shuffled, others),
                spec.but(
                    metric="log-probability (nat)", definition=f"mean log p(right attribute), known entities{words}"
                ),
            ),
        ]
    return found


def declining(asked: Questions, spec: CurveSpec) -> list[Curve]:
    """Declining where nothing is known more than where something is: knowing what it knows, as behaviour."""
    what = "declining on entities that never occurred in training, minus on known ones"
    share = spec.but(
        metric="declining: unknown minus known",
        limits=(-1.0, 1.0),
        headline=True,
        twin="discerns.odds",
        definition=what,
    )
    odds = spec.but(metric="log-odds (nat)", definition=what + ": mean log p(decline) - log(1 - p(decline))")
    result = []
    for key, title, units, how in (
        ("discerns", "declines the unknown, not the known", asked.declined, share),
        ("discerns.odds", "log-odds of declining, unknown minus known", asked.decline_odds, odds),
    ):
        unknown, known = (only(units, rows) for rows in (~asked.known, asked.known))
        drawn = [unit_bootstrap(u, draws=FINE_DRAWS, clusters=asked.entity) for u in (unknown, known)]
        null = Null(_relabelled(units, asked), "entities called known or unknown at random")
        values = mean_of(unknown) - mean_of(known)
        result.append(Curve(key, f"entities: {title}", values, drawn[0] - drawn[1], null, how))
    return result


def mean_of(units: np.ndarray) -> np.ndarray:
    """(checkpoint,) means without NaN; NaN where nothing is left."""
    count = np.isfinite(units).sum(1)
    return np.asarray(np.divide(np.nansum(units, 1), count, out=np.full(len(units), np.nan), where=count > 0))


def _relabelled(units: np.ndarray, asked: Questions) -> np.ndarray:
    """(checkpoint, draw) the difference when as many entities, chosen at random, are called unknown."""
    rng = np.random.default_rng(1)
    entities, index = np.unique(asked.entity, return_inverse=True)
    unknown = np.zeros(len(entities))
    unknown[index[~asked.known]] = 1
    called = np.stack([rng.permutation(unknown) for _ in range(FINE_DRAWS)])[:, index]
    weights = called / called.sum(1, keepdims=True) - (1 - called) / (1 - called).sum(1, keepdims=True)
    return np.asarray(units @ weights.T)


def misfires(asked: Questions, spec: CurveSpec) -> list[Curve]:
    """Both misfires, each beyond what a model would show that is right as often as it is sure.

    Of n questions the null counts those that a perfectly calibrated model gets wrong when it says the same with the same
    confidence: each with probability one minus its confidence.
    """
    sure = asked.confidence >= CONFIDENT
    result = []
    for key, title, rows, said, words in (
        (
            "confident_wrong",
            "confident about the unknown",
            ~asked.known,
            asked.named * sure,
            f"unknown entities answered with an attribute, with a probability of at least {CONFIDENT:g}",
        ),
        ("declines_known", "the known declined", asked.known, asked.declined, "known entities that are declined"),
    ):
        units = only(said, rows)
        luck = np.random.default_rng(2).random((FINE_DRAWS, len(rows)))
        null = np.full((len(units), FINE_DRAWS), np.nan)
        for c in np.flatnonzero(np.isfinite(units[:, rows]).all(1)):
            wrong = luck[:, rows] >= asked.confidence[c, rows]
            null[c] = (wrong * units[c, rows]).mean(1)
        result.append(
            from_units(
                key,
                f"entities: {title}",
                units,
                Null(null, "a model that is right as often as it is sure"),
                spec.but(limits=(0.0, 1.0), definition=f"share of questions about {words}"),
            )
        )
    return result
