"""The kinds of heads: which score makes one, against which null, and how many there are when.

Everything is computed from scores per prompt (checkpoint, prompt, head) with heads of all layers in one axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dynamics.analysis import Curve, CurveSpec, Null, Trace
from dynamics.emergence import Onset, count_onset, found_since, shuffled_match_null
from dynamics.numerics.draws import DRAWS

from .prompts import CONTROL, DOCUMENTS, LISTS, REPEATS, WORDS

__all__ = ["KINDS", "Kind", "Scores", "curve_of", "read_scores", "since", "when"]

_LEAST_DRAWS = 1000
_RATE = 0.05
_VALUES = 2**22
"""Null draws of so many values at once."""


@dataclass(frozen=True)
class Kind:
    """One kind of head.

    Attributes:
        name: key of its finding and its arrays.
        title: what such a head is called.
        group: where it looks, or what it does with a token.
        probe, variable: its score.
        control: probe or variable with which the null is made.
        null: what the null is, in words.
        headline: whether it belongs in the emergence table.
        definition: of the score.
    """

    name: str
    title: str
    group: Literal["attention", "token"]
    probe: str
    variable: str
    control: str
    null: str
    headline: bool
    definition: str


_UNTRAINED = "heads of the first checkpoint"
_UNREPEATED = "sequences without a repeat"

KINDS = (
    Kind("previous_token", "previous-token head", "attention", DOCUMENTS, "attention_previous", "", _UNTRAINED, True,
         "mean attention to the token before, on documents"),
    Kind("current_token", "current-token head", "attention", DOCUMENTS, "attention_current", "", _UNTRAINED, False,
         "mean attention to the token itself, on documents"),
    Kind("first_token", "first-token head", "attention", DOCUMENTS, "attention_first", "", _UNTRAINED, False,
         "mean attention to the first token, on documents"),
    Kind("delimiter", "delimiter head", "attention", DOCUMENTS, "attention_delimiter", "", _UNTRAINED, False,
         "mean attention to all earlier delimiters but the first token, on documents, over tokens that have one"),
    Kind("duplicate_token", "duplicate-token head", "attention", REPEATS, "duplicate_token", CONTROL, _UNREPEATED, False,
         "mean attention to the previous occurrence of the current token, on random words written twice"),
    Kind("induction", "induction head", "attention", REPEATS, "prefix_matching", CONTROL, _UNREPEATED, True,
         "mean attention to the token after the previous occurrence of the current token, on random words written twice"),
    Kind("copying", "copying head", "token", WORDS, "copying", "copying_control", "other words", True,
         "share of words whose own logit is among the five largest when the head attends to them alone"),
    Kind("negative_copying", "negative copying head", "token", WORDS, "negative_copying", "negative_control", "other words",
         False,
         "share of words whose own logit is among the five smallest when the head attends to them alone"),
    Kind("successor", "successor head", "token", LISTS, "raised", "", "successors shuffled within their list", True,
         "share of members of ordered lists for which the next member's logit is the largest of its list"),
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """One kind's scores in one trace.

    Attributes:
        kind: which.
        values: (checkpoint, prompt, head); NaN where a checkpoint, or a head, was not measured.
        null: (draws, slice of heads) to (checkpoint, draw, head) draws of each head's mean under the null, with the
            sampling noise of curve and null.
        measured: (checkpoint,) whether there is anything.
        left_out: prompts without such a score.
    """

    kind: Kind
    values: np.ndarray
    null: Callable[[int, slice], np.ndarray]
    measured: np.ndarray
    left_out: int = 0

    @property
    def mean(self) -> np.ndarray:
        """(checkpoint, head)"""
        result: np.ndarray = self.values.mean(1)
        return result


def read_scores(trace: Trace, kind: Kind) -> Scores | None:
    """Scores and null of one kind; None where its probe was not asked, or no prompt of it has such a score."""
    if kind.probe not in trace.probes:
        return None
    if kind.variable == "raised":
        return _succession(trace, kind)
    values = _flat(trace.values(kind.probe, kind.variable))
    rows = np.isfinite(values).any((0, 2))  # prompts without, say, a delimiter have no score at any checkpoint
    if not rows.any():
        return None
    values = values[:, rows]
    measured = np.isfinite(values).all(1).any(1)
    if kind.null == _UNTRAINED:
        first = values[np.flatnonzero(measured)[0]]

        def untrained(draws: int, piece: slice) -> np.ndarray:
            return _untrained(first, measured, draws, piece)

        return Scores(kind, values, untrained, measured, int((~rows).sum()))
    if kind.control == CONTROL:
        control = _flat(trace.values(CONTROL, kind.variable))
        return Scores(kind, values, lambda draws, piece: _resampled(control[..., piece], draws), measured)
    rate = _flat(trace.values(kind.probe, kind.control)).mean(1)  # (checkpoint, head)
    trials = values.shape[1] * (values.shape[1] - 1)
    # a rate of exactly zero would make a null without any spread; the half keeps it above chance in large vocabularies
    rate = (rate * trials + 0.5) / (trials + 1)
    return Scores(kind, values, lambda draws, piece: _binomial(rate[:, piece], values.shape[1], draws), measured)


def curve_of(scores: Scores, level: float) -> Curve:
    """The curve of the head in which the score is largest; the null takes the largest head as well.

    ``level`` is that of the definition of onsets by first passage.
    """
    kind, heads = scores.kind, scores.values.shape[2]
    values = _largest(scores.mean)
    counts = _counts(scores.values.shape[1], DRAWS, 0, share=1.0)
    draws = np.stack([_largest(counts @ at) for at in scores.values])
    pieces = [slice(start, start + 64) for start in range(0, heads, 64)]
    null = np.fmax.reduce([_largest(scores.null(DRAWS, piece)) for piece in pieces])
    spec = CurveSpec(
        ("attention probability" if kind.group == "attention" else "share of tokens") + " (largest head)",
        "prompts" if kind.group == "attention" else "tokens",
        headline=kind.headline,
        definition=f"{kind.definition}; the head in which it is largest",
        limits=(0.0, 1.0),
        sample=f"{kind.probe}.{scores.values.shape[1]}",
        reach=level,
    )
    return Curve(kind.name, f"heads: {kind.title}", values, draws, Null(null, f"largest head, {kind.null}"), spec)


def since(scores: Scores, steps: np.ndarray) -> np.ndarray:
    """(head,) index of the checkpoint from which a head is found for good; the number of checkpoints for never."""
    n, heads = len(steps), scores.values.shape[2]
    measured = np.flatnonzero(scores.measured)
    if len(measured) < 2:
        return np.full(heads, n)
    draws = max(_LEAST_DRAWS, 20 * heads)  # fewer could not find one head among all
    chunk = max(1, _VALUES // (draws * len(measured)))

    def null(piece: slice) -> np.ndarray:
        return np.moveaxis(scores.null(draws, piece)[measured], 2, 0)

    found = found_since(steps[measured], scores.mean[measured].T, null=null, rate=_RATE, chunk=chunk)
    return np.append(measured, n)[found]


def when(scores: Scores, begun: np.ndarray, steps: np.ndarray) -> Onset:
    """When half of the heads that are ever found were, between measured checkpoints."""
    measured = np.flatnonzero(scores.measured)
    return count_onset(steps[measured], np.searchsorted(measured, begun))


def _flat(values: np.ndarray) -> np.ndarray:
    """(checkpoint, prompt, layer, head) to (checkpoint, prompt, head)."""
    return values.reshape(*values.shape[:2], -1).astype(np.float64)


def _largest(values: np.ndarray) -> np.ndarray:
    """The largest over the last axis, NaN only where all are."""
    result: np.ndarray = np.fmax.reduce(values, axis=-1)
    return result


def _counts(prompts: int, draws: int, seed: int, *, share: float) -> np.ndarray:
    """(draw, prompt) weights of resampled prompts; at half the size they carry the noise of curve and null together."""
    size = max(1, round(share * prompts))
    drawn: np.ndarray = np.random.default_rng(seed).multinomial(size, np.full(prompts, 1 / prompts), size=draws)
    return drawn / size


def _resampled(control: np.ndarray, draws: int) -> np.ndarray:
    """Each head on resampled controls (checkpoint, prompt, head)."""
    counts = _counts(control.shape[1], draws, 1, share=0.5)
    return np.stack([counts @ at for at in control])


def _untrained(first: np.ndarray, measured: np.ndarray, draws: int, piece: slice) -> np.ndarray:
    """Any head of the first checkpoint (prompt, head) on resampled prompts, the same throughout training.

    Heads of an untrained model differ by chance alone: which of them a later head began as says nothing, and their
    spread belongs to the null.
    """
    prompts, heads = first.shape
    means = _counts(prompts, draws, 1, share=0.5) @ first
    means = means[:, np.isfinite(means).all(0)]
    count = len(range(*piece.indices(heads)))
    rng = np.random.default_rng([2, piece.indices(heads)[0]])
    chosen = np.take_along_axis(means, rng.integers(means.shape[1], size=(draws, count)), axis=1)
    return np.where(measured[:, None, None], chosen, np.nan)


def _binomial(rate: np.ndarray, tokens: int, draws: int) -> np.ndarray:
    """Shares of so many tokens at the rates (checkpoint, head)."""
    rng = np.random.default_rng(3)
    known = np.isfinite(rate)
    drawn = rng.binomial(tokens, np.where(known, rate, 0)[:, None], size=(len(rate), draws, rate.shape[1])) / tokens
    return np.where(known[:, None], drawn, np.nan)


def _succession(trace: Trace, kind: Kind) -> Scores:
    """Members that have a successor, and whether each head raises it most."""
    series, rank = trace.label(LISTS, "series"), trace.label(LISTS, "place")
    last = {name: rank[series == name].max() for name in np.unique(series)}
    rows = rank < np.array([last[name] for name in series])
    raised = _flat(trace.values(LISTS, kind.variable))
    raised[(raised < 0).all(1, keepdims=True).repeat(raised.shape[1], axis=1)] = np.nan  # broken, or writes nothing
    raised, answer, group = raised[:, rows], rank[rows] + 1, series[rows]
    values = np.where(np.isfinite(raised), raised == answer[:, None], np.nan)

    def null(draws: int, piece: slice) -> np.ndarray:
        heads = np.moveaxis(raised[..., piece], 2, 0)
        # one seed: a draw is one shuffle for all heads
        return np.stack([shuffled_match_null(at, answer, groups=group, draws=draws) for at in heads], axis=-1)

    whole = np.asarray(np.isfinite(values).all(axis=1))
    return Scores(kind, values, null, np.array([bool(at.any()) for at in whole]))
