"""The probe as questions about known and unknown entities, and what the model said to each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynamics.analysis import Probe, Trace
from dynamics.probes import tokenize
from dynamics.probes.encoding import single_tokens

from .prompts import ENTITIES, FREQUENCIES

__all__ = ["FEWEST", "SETS", "WILLING", "Questions", "as_asked", "read_questions", "token_sets", "with_aliases"]

SETS = ("decline", "attributes")
"""Token sets: the words that decline, and what may be known of an entity."""

FEWEST = 40
"""Questions that must be answered in kind before calibration means anything."""

WILLING = 0.5
"""Probability of declining or naming any attribute from which a question is answered in kind."""


@dataclass(frozen=True)
class Questions:
    """What was said; every array is (checkpoint, question), NaN where the logits are not finite.

    Attributes:
        known: (question,) whether something is known of the entity.
        entity, frequency, kind, held_out: (question,) labels; the entity is what is resampled.
        question: (question,) entity and attribute: questions that have one answer.
        answer: (question,) token id of the right answer, which declines where nothing is known.
        predicted: token id of the first choice; that of the right answer where it is another word for it.
        picked: number of the likeliest among the answers that the probe has for this kind of question, and declining.
        answer_picked: (question,) which number would be right.
        right: 1 where the first choice is the right answer.
        chat: whether the questions are a user's, to be answered in prose, where the first token tells little.
        declined: 1 where it declines.
        named: 1 where it is an attribute, right or wrong.
        willing: probability of declining or naming any attribute: whether it answers in kind at all.
        confidence: its probability.
        decline_odds: log-odds of declining against all else.
    """

    known: np.ndarray
    entity: np.ndarray
    frequency: np.ndarray
    kind: np.ndarray
    held_out: np.ndarray
    question: np.ndarray
    answer: np.ndarray
    predicted: np.ndarray
    picked: np.ndarray
    answer_picked: np.ndarray
    right: np.ndarray
    declined: np.ndarray
    named: np.ndarray
    willing: np.ndarray
    confidence: np.ndarray
    decline_odds: np.ndarray
    chat: bool

    @property
    def frequencies(self) -> list[str]:
        """How often known entities occur in training, most often first, as the probe has it."""
        there = list(dict.fromkeys(self.frequency[self.known].tolist()))
        return sorted(there, key=lambda name: FREQUENCIES.index(name) if name in FREQUENCIES else len(FREQUENCIES))


def as_asked(probe: Probe) -> Probe:
    """The probe with the word that declines as the foil of what is known.

    logit(answer) - logit(foil) is then, for known and unknown alike, an attribute against declining.
    """
    assert probe.answer is not None and probe.foil is not None
    decline = _decline(probe)
    known = probe.labels["known"]
    foil = tuple(decline if k else other for k, other in zip(known, probe.foil, strict=True))
    return replace(probe, foil=foil)


def _decline(probe: Probe) -> str:
    """The most frequent answer where nothing is known."""
    assert probe.answer is not None
    said = Counter(a for a, known in zip(probe.answer, probe.labels["known"], strict=True) if not known)
    return said.most_common(1)[0][0]


def with_aliases(probe: Probe, tokenizer: Any) -> Probe:
    """The probe with the label ``accepted``: token ids, with spaces between, of other words that are as right in place.

    Words that are several tokens are left out, and so are those that another question of this kind has as its answer.
    """
    assert probe.answer is not None
    also = probe.labels.get("also", ("",) * len(probe))
    asked = [(i, word) for i, words in enumerate(also) for word in str(words).split("/") if word]
    leads = ["" if probe.answer[i] == probe.answer[i].lstrip() else " " for i, _ in asked]
    ids = single_tokens(
        tokenizer,
        [lead + word for lead, (_, word) in zip(leads, asked, strict=True)],
        [probe.text[i] for i, _ in asked],
    )
    accepted: list[list[str]] = [[] for _ in probe.text]
    for (i, _), token in zip(asked, ids, strict=True):
        accepted[i] += [] if token is None else [str(token)]
    return replace(probe, labels={**probe.labels, "accepted": tuple(" ".join(tokens) for tokens in accepted)})


def token_sets(probe: Probe, tokenizer: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The sets :data:`SETS` as token ids: what is answered where nothing is known, and all other answers, foils and other words for them."""
    tokens = tokenize(probe, tokenizer)
    assert tokens.answer_ids is not None and tokens.foil_ids is not None
    known = np.array([bool(k) for k in probe.labels["known"]])
    declines = set(tokens.answer_ids[~known].tolist())
    accepted = {int(token) for ids in probe.labels.get("accepted", ()) for token in str(ids).split()}
    attributes = {*tokens.answer_ids[known].tolist(), *tokens.foil_ids.tolist(), *accepted} - declines
    return tuple((name, tuple(sorted(ids))) for name, ids in zip(SETS, (declines, attributes), strict=True))


def read_questions(trace: Trace) -> Questions:
    """The questions and what was said to them."""
    labels = {k: trace.label(ENTITIES, k) for k in ("known", "entity", "frequency", "attribute", "held_out")}
    predicted = trace.values(ENTITIES, "predicted").astype(np.float64)
    predicted[predicted < 0] = np.nan
    said = np.isfinite(predicted)
    choice = trace.values(ENTITIES, "choice_set")
    dataset = trace.probe(ENTITIES)
    answer = dataset["answer_id"].values
    for i, ids in enumerate(trace.label(ENTITIES, "accepted") if "accepted" in dataset.coords else ()):
        predicted[np.isin(predicted[:, i], [int(token) for token in str(ids).split()]), i] = answer[i]
    sets = trace.values(ENTITIES, "set_logprob").astype(np.float64)
    logp = sets[..., SETS.index("decline")]
    # log(1 - p) from log p, and nothing is impossible or certain beyond what float32 can tell
    odds = logp - np.log(np.clip(-np.expm1(np.minimum(logp, -1e-7)), 1e-7, 1.0))
    pairs = zip(labels["entity"].tolist(), labels["attribute"].tolist(), strict=True)

    def when(condition: np.ndarray) -> np.ndarray:
        return np.where(said, condition.astype(np.float64), np.nan)

    known = labels["known"].astype(int) == 1
    picked, answer_picked = _picked(trace, known, labels["attribute"])
    return Questions(
        known=known,
        entity=labels["entity"],
        frequency=labels["frequency"],
        kind=labels["attribute"],
        held_out=labels["held_out"].astype(int) == 1,
        question=np.array([f"{entity}/{kind}" for entity, kind in pairs]),
        answer=answer,
        predicted=predicted,
        picked=np.where(said, picked, np.nan),
        answer_picked=answer_picked,
        right=when(predicted == answer),
        declined=when(choice == SETS.index("decline")),
        named=when(choice == SETS.index("attributes")),
        willing=np.exp(sets).sum(-1),
        confidence=np.where(said, np.exp(trace.values(ENTITIES, "choice_logprob").astype(np.float64)), np.nan),
        decline_odds=odds,
        chat=bool(dataset.attrs.get("template")),
    )


def _picked(trace: Trace, known: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(checkpoint, question) number of the likeliest candidate of its kind, and (question,) that of the right one."""
    order = {str(c): i for i, c in enumerate(trace.probe(ENTITIES)["candidate"].values)}
    own = np.array([order[text] for text in trace.label(ENTITIES, "answer")])
    declines = np.unique(own[~known])
    allowed = np.zeros((len(own), len(order)), dtype=bool)
    for each in np.unique(kind):
        allowed[np.ix_(kind == each, np.union1d(own[known & (kind == each)], declines))] = True
    picked = np.full((len(trace.steps), len(own)), np.nan)
    for checkpoint, values in trace.each(ENTITIES, "candidate_logprob"):
        picked[checkpoint] = np.where(allowed, values, -np.inf).argmax(-1)
    return picked, own
