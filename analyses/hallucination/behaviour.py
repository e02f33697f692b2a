"""Answering, declining, and the two misfires: confident about what nobody knows, declining what is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynamics.analysis.findings import Finding, from_draws, from_units, shuffled_answers
from dynamics.emergence import shuffled_match_null, unit_bootstrap
from dynamics.numerics.draws import FINE_DRAWS
from dynamics.store import Trace

from .prompts import ENTITIES
from .questions import Questions

__all__ = ["CONFIDENT", "answering", "declining", "mean_of", "misfires", "only"]

CONFIDENT = 0.5
"""Probability of the first choice from which an answer is called confident."""


def only(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(checkpoint, question) values, NaN in all other questions: so that every curve resamples the same entities."""
    return np.asarray(np.where(rows, values, np.nan))


def answering(trace: Trace, asked: Questions, common: dict[str, Any]) -> list[Finding]:
    """Known entities answered right: all, and by how often they occur in training."""
    found = []
    rest = {**common, "draws": FINE_DRAWS}
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
        found.append(
            from_units(
                f"hallucination.answers{suffix}",
                f"entities: known ones answered{words}",
                only(asked.right, rows),
                null=null,
                null_name="attributes of other entities",
                metric="share of questions",
                limits=(0.0, 1.0),
                headline=True,
                twin=f"hallucination.answers.logprob{suffix}",
                definition=f"share of questions about known entities{words} answered right",
                **rest,
            )
        )
        index = np.flatnonzero(rows)
        found.append(
            from_units(
                f"hallucination.answers.logprob{suffix}",
                f"entities: log-probability of what is known{words}",
                only(trace.values(ENTITIES, "answer_logprob").astype(np.float64), rows),
                null=shuffled_answers(trace, ENTITIES, index, asked.kind, questions=asked.question, draws=FINE_DRAWS),
                null_name="attributes of other entities",
                metric="log-probability (nat)",
                definition=f"mean log p(right attribute), known entities{words}",
                **rest,
            )
        )
    return found


def declining(asked: Questions, common: dict[str, Any]) -> list[Finding]:
    """Declining where nothing is known more than where something is: knowing what it knows, as behaviour."""
    result = []
    for key, title, units, metric, limits, twin in (
        (
            "discerns",
            "entities: declines the unknown, not the known",
            asked.declined,
            "declining: unknown minus known",
            (-1.0, 1.0),
            "hallucination.discerns.odds",
        ),
        (
            "discerns.odds",
            "entities: log-odds of declining, unknown minus known",
            asked.decline_odds,
            "log-odds (nat)",
            None,
            "",
        ),
    ):
        unknown, known = (only(units, rows) for rows in (~asked.known, asked.known))
        drawn = [unit_bootstrap(u, draws=FINE_DRAWS, clusters=asked.entity) for u in (unknown, known)]
        result.append(
            from_draws(
                f"hallucination.{key}",
                title,
                values=mean_of(unknown) - mean_of(known),
                draws=drawn[0] - drawn[1],
                null=_relabelled(units, asked),
                null_name="entities called known or unknown at random",
                metric=metric,
                limits=limits,
                headline=key == "discerns",
                twin=twin,
                definition="declining on entities that never occurred in training, minus on known ones"
                + ("" if twin else ": mean log p(decline) - log(1 - p(decline))"),
                **{k: v for k, v in common.items() if k != "clusters"},
            )
        )
    return result


def mean_of(units: np.ndarray) -> np.ndarray:
    """(checkpoint,) means without NaN; NaN where nothing is left."""
    count = np.isfinite(units).sum(1)
    return np.asarray(np.divide(np.nansum(units, 1), count, out=np.full(len(units), np.nan), where=count > 0))


def _relabelled(units: np.ndarray, asked: Questions, *, seed: int = 1) -> np.ndarray:
    """(checkpoint, draw) the difference when as many entities, chosen at random, are called unknown."""
    rng = np.random.default_rng(seed)
    entities, index = np.unique(asked.entity, return_inverse=True)
    unknown = np.zeros(len(entities))
    unknown[index[~asked.known]] = 1
    called = np.stack([rng.permutation(unknown) for _ in range(FINE_DRAWS)])[:, index]
    weights = called / called.sum(1, keepdims=True) - (1 - called) / (1 - called).sum(1, keepdims=True)
    return np.asarray(units @ weights.T)


def misfires(asked: Questions, common: dict[str, Any]) -> list[Finding]:
    """Both misfires, each beyond what a model would show that is right as often as it is sure.

    Of n questions the null counts those that a perfectly calibrated model gets wrong when it says the same with the same
    confidence: each with probability one minus its confidence.
    """
    sure = asked.confidence >= CONFIDENT
    result = []
    for key, title, rows, said, words in (
        (
            "confident_wrong",
            "entities: confident about the unknown",
            ~asked.known,
            asked.named * sure,
            f"share of questions about unknown entities answered with an attribute, with a probability of at least "
            f"{CONFIDENT:g}",
        ),
        (
            "declines_known",
            "entities: the known declined",
            asked.known,
            asked.declined,
            "share of questions about known entities that are declined",
        ),
    ):
        units = only(said, rows)
        luck = np.random.default_rng(2).random((FINE_DRAWS, len(rows)))
        null = np.full((len(units), FINE_DRAWS), np.nan)
        for c in np.flatnonzero(np.isfinite(units[:, rows]).all(1)):
            wrong = luck[:, rows] >= asked.confidence[c, rows]
            null[c] = (wrong * units[c, rows]).mean(1)
        result.append(
            from_units(
                f"hallucination.{key}",
                title,
                units,
                null=null,
                null_name="a model that is right as often as it is sure",
                metric="share of questions",
                limits=(0.0, 1.0),
                draws=FINE_DRAWS,
                definition=words,
                **common,
            )
        )
    return result
