"""Curves of addition: behaviour, what is decodable where, periodic structure, neurons shared between contexts."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from dynamics.analysis.findings import (
    Definition,
    Finding,
    Summary,
    best_layer,
    from_draws,
    from_units,
    shuffled_answers,
)
from dynamics.emergence import shuffled_match_null
from dynamics.numerics import MAGNITUDE, decode_classes, decode_number, folds_of, fourier_r2, relabelled_digits
from dynamics.numerics.draws import DRAWS
from dynamics.probes import LAST
from dynamics.store import Trace

from .causal import causal_parts
from .features import DEFINITIONS as FEATURE_DEFINITIONS
from .features import feature_parts
from .prompts import NUMBERS, SUMS

__all__ = ["summarise"]


def summarise(trace: Trace) -> Summary:
    """See the package's docstring for definitions."""
    labels = {k: trace.label(SUMS, k) for k in ("context", "digit", "pair", "ones", "total")}
    contexts = list(dict.fromkeys(labels["context"].tolist()))
    digits = list(dict.fromkeys(labels["digit"].tolist()))
    arrays: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    findings = _behaviour(trace, labels, contexts, digits)
    findings += _decoding(trace, labels, contexts, digits, arrays)
    findings += _structure(trace, arrays)
    findings += _shared_neurons(trace, contexts)
    causal = causal_parts(trace)
    features = feature_parts(trace)
    findings += [*causal.findings, *features.findings]
    findings.sort(key=lambda f: not f.headline)
    layers = next(v.shape[1] for k, (_, v) in arrays.items() if k == "ones_by_layer")
    coords = {"step": ("checkpoint", trace.steps), "layer": np.arange(layers)}
    data = xr.Dataset(arrays | causal.arrays | features.arrays, coords=coords | causal.coords | features.coords)
    notes = []
    held = "never occur in training in any context or order" if len(digits) > 1 else "may occur in training"
    notes.append(
        f"{len(set(labels['pair'].tolist()))} sums, different ones in each of {len(contexts)} contexts; they {held}."
    )
    return Summary(
        analysis="addition",
        title="Addition",
        question="When does the model learn to add two-digit numbers, which digit first, and do a plain sum, a sum in "
        "words and a citation (founding year plus volume gives a year) use the same components?",
        findings=tuple(findings),
        definitions=(*_DEFINITIONS, *causal.definitions, *(FEATURE_DEFINITIONS if features.findings else ())),
        notes=(*notes, *causal.notes, *features.notes),
        data=data,
    )


def _behaviour(trace: Trace, labels: dict[str, np.ndarray], contexts: list[str], digits: list[str]) -> list[Finding]:
    predicted = trace.values(SUMS, "predicted").astype(int)
    answers = trace.probe(SUMS)["answer_id"].values
    logprob = trace.values(SUMS, "answer_logprob")
    said = predicted >= 0  # a model whose logits are not finite said nothing
    hits, guesses = np.where(said, predicted == answers, np.nan), np.where(said, predicted, np.nan)
    groups = _asked_alike(labels)
    common: dict[str, Any] = {"steps": trace.steps, "tokens": trace.tokens}

    exact, pair, pair_context = _per_pair(hits, labels["pair"], labels["context"])
    exact_null = _exact_null(predicted, answers, labels, DRAWS)
    result = [
        from_units(
            "addition.accuracy",
            "addition: held-out sums" if len(digits) > 1 else "addition: sums",
            exact,
            clusters=pair,
            null=exact_null,
            null_name="answers of other sums",
            metric="accuracy (all digits right)",
            limits=(0.0, 1.0),
            unit="sums",
            headline=True,
            twin="addition.logprob",
            reach=0.5,
            definition="share of sums with every digit right, all contexts",
            **common,
        )
    ]
    for context in contexts:
        mine = pair_context == context
        result.append(
            from_units(
                f"addition.accuracy.{context}",
                f"addition in context '{context}'",
                exact[:, mine],
                clusters=pair[mine],
                null=_exact_null(predicted, answers, labels, DRAWS, context),
                null_name="answers of other sums",
                metric="accuracy (all digits right)",
                limits=(0.0, 1.0),
                unit="sums",
                definition=f"share of sums with every digit right, context {context}",
                **common,
            )
        )
    if len(digits) > 1:
        for digit in digits:  # in the order in which they are written
            rows = labels["digit"] == digit
            result.append(
                from_units(
                    f"addition.digit.{digit}",
                    f"addition: {digit} digit",
                    hits[:, rows],
                    clusters=labels["pair"][rows],
                    null=shuffled_match_null(guesses[:, rows], answers[rows], groups=groups[rows], draws=DRAWS),
                    null_name="digits of sums that begin alike",
                    metric="accuracy",
                    limits=(0.0, 1.0),
                    unit="sums",
                    headline=digit in ("tens", "ones"),
                    definition=f"share of sums whose {digit} digit is right, given the digits before it",
                    **common,
                )
            )
    result.append(
        from_units(
            "addition.logprob",
            "addition: log-probability of the right digit",
            logprob,
            clusters=labels["pair"],
            null=shuffled_answers(trace, SUMS, np.arange(len(groups)), groups),
            null_name="digits of sums that begin alike",
            metric="log-probability (nat)",
            unit="sums",
            definition="mean log p(right digit | digits before it): the continuous twin of accuracy",
            **common,
        )
    )
    return result


def _asked_alike(labels: dict[str, np.ndarray]) -> np.ndarray:
    """(prompt,) prompts with one context, one digit asked and the same digits of the answer given before it.

    The digits given say something about the next one (a sum that begins with 19 ends its tens early), which a model
    can know without adding; answers are shuffled among such prompts only.
    """
    given = {"carry": 1000, "tens": 100, "ones": 10}
    before = [total // given.get(str(d), 1000) for total, d in zip(labels["total"], labels["digit"], strict=True)]
    return np.array([f"{c}/{d}/{b}" for c, d, b in zip(labels["context"], labels["digit"], before, strict=True)])


def _per_pair(hits: np.ndarray, pair: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(checkpoint, pair) whether every digit of a sum is right, the pairs, and the context of each."""
    pairs, first, index = np.unique(pair, return_index=True, return_inverse=True)
    wrong = np.zeros((len(hits), len(pairs)))
    for row in range(hits.shape[1]):
        wrong[:, index[row]] += 1 - hits[:, row]  # NaN stays NaN
    return np.where(np.isnan(wrong), np.nan, wrong == 0), pairs, context[first]


def _exact_null(
    predicted: np.ndarray, answers: np.ndarray, labels: dict[str, np.ndarray], draws: int, context: str | None = None
) -> np.ndarray:
    """(checkpoint, draw) exact accuracy against the answers of other sums of the same context."""
    rng = np.random.default_rng(0)
    pairs, index = np.unique(labels["pair"], return_inverse=True)
    digits = list(dict.fromkeys(labels["digit"].tolist()))
    table = np.empty((len(pairs), len(digits)), dtype=int)  # pair x digit -> prompt
    for prompt, (p, d) in enumerate(zip(index, labels["digit"], strict=True)):
        table[p, digits.index(d)] = prompt
    of_pair = labels["context"][table[:, 0]]
    kept = [c for c in dict.fromkeys(of_pair.tolist()) if context in (None, c)]
    rows = [np.flatnonzero(of_pair == c) for c in kept]
    result = np.empty((len(predicted), draws))
    said = (predicted >= 0).all(axis=1)
    for draw in range(draws):
        own = np.concatenate(rows)
        other = np.concatenate([rng.permutation(r) for r in rows])
        result[:, draw] = (predicted[:, table[own]] == answers[table[other]]).all(-1).mean(1)
    result[~said] = np.nan
    return result


def _decoding(
    trace: Trace,
    labels: dict[str, np.ndarray],
    contexts: list[str],
    digits: list[str],
    arrays: dict[str, tuple[tuple[str, ...], np.ndarray]],
) -> list[Finding]:
    """Ones digit within and across contexts, and the sum, by layer; headline at the best layer."""
    ones_rows = np.flatnonzero(labels["digit"] == digits[-1])
    sum_rows = np.flatnonzero(labels["digit"] == digits[0])
    fold = folds_of(labels["pair"])
    group = labels["context"][ones_rows]
    own = np.searchsorted(np.unique(group), group)
    n, shuffles = len(trace.steps), 40
    layers = trace.probe(SUMS).sizes["layer"]
    within = np.full((n, layers, len(ones_rows)), np.nan)
    across = np.full_like(within, np.nan)
    sums = np.full((n, layers, len(sum_rows)), np.nan)
    nulls = {k: np.full((n, layers, shuffles), np.nan) for k in ("within", "across", "sums")}
    every = np.arange(len(ones_rows))
    for checkpoint, values in trace.each(SUMS, "resid_post", position=LAST):
        for layer in range(layers):
            x = values[:, layer]
            hits, null = decode_classes(
                x[ones_rows], labels["ones"][ones_rows], fold[ones_rows], group, shuffles=shuffles
            )
            within[checkpoint, layer] = hits[own, every]
            nulls["within"][checkpoint, layer] = null[own, every].mean(0)
            others = np.ones_like(hits, dtype=bool)
            others[own, every] = False
            across[checkpoint, layer] = np.where(others, hits, 0).sum(0) / (len(contexts) - 1)
            nulls["across"][checkpoint, layer] = np.where(others[..., None], null, 0).sum(0).mean(0) / (
                len(contexts) - 1
            )
            sums[checkpoint, layer], nulls["sums"][checkpoint, layer] = decode_number(
                x[sum_rows], labels["total"][sum_rows], fold[sum_rows], shuffles=shuffles
            )
    layered = ("checkpoint", "layer")
    arrays["ones_by_layer"] = (layered, within.mean(-1))
    arrays["ones_across_by_layer"] = (layered, across.mean(-1))
    arrays["sum_by_layer"] = (layered, sums.mean(-1))
    where = "the position that predicts it"
    common: dict[str, Any] = {"steps": trace.steps, "tokens": trace.tokens, "unit": "sums"}
    common["null_name"] = "shuffled labels, best layer"
    return [
        best_layer(
            "addition.ones_decodable",
            "addition: ones digit of the sum decodable",
            within,
            nulls["within"],
            clusters=labels["pair"][ones_rows],
            metric="decoding accuracy",
            limits=(0.0, 1.0),
            definition=f"linear classifier of (a + b) mod 10 from resid_post at {where}, trained and tested in one context, "
            "best layer",
            **common,
        ),
        best_layer(
            "addition.ones_across",
            "addition: ones-digit code carries over between contexts",
            across,
            nulls["across"],
            clusters=labels["pair"][ones_rows],
            metric="decoding accuracy in other contexts",
            limits=(0.0, 1.0),
            headline=True,
            definition=f"the same classifier tested in the contexts that it was not trained in, at {where}, best layer",
            **common,
        ),
        best_layer(
            "addition.sum_decodable",
            "addition: sum decodable before the answer",
            sums,
            nulls["sums"],
            clusters=labels["pair"][sum_rows],
            metric="cross-validated R²",
            definition="linear read-out of a + b from resid_post at the last token of the question, best layer; the sum is "
            "linear in the operands, which an untrained network passes on too",
            **common,
        ),
    ]


def _structure(trace: Trace, arrays: dict[str, tuple[tuple[str, ...], np.ndarray]]) -> list[Finding]:
    """Structure of number representations by layer: magnitude, and periods beyond it."""
    numbers = trace.label(NUMBERS, "number")
    layers = trace.probe(NUMBERS).sizes["layer"]
    renamed = relabelled_digits(numbers, 100)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=100)
    n = len(trace.steps)
    names = ("magnitude", "fourier")
    r2 = {k: np.full((n, layers), np.nan) for k in names}
    null = {k: np.full((n, layers, len(renamed)), np.nan) for k in names}
    draws = {k: np.full((n, layers, len(counts)), np.nan) for k in names}

    def both(x: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """R² of magnitude, and what the other periods add to it."""
        magnitude = fourier_r2(x, labels, weights, periods=MAGNITUDE)
        return magnitude, fourier_r2(x, labels, weights) - magnitude

    for checkpoint, values in trace.each(NUMBERS, "resid_post", position="number"):
        x = np.moveaxis(values, 1, 0)  # layer, number, d_model
        for table, found in ((r2, both(x, numbers)), (null, both(x, renamed)), (draws, both(x, numbers, counts))):
            for name, value in zip(names, found, strict=True):
                table[name][checkpoint] = value
    result = []
    for name, title, what in (
        (
            "fourier",
            "addition: periodic structure of numbers",
            "periods 2, 5 and 10 beyond period 100 and a linear term",
        ),
        ("magnitude", "addition: numbers represented in order", "period 100 and a linear term"),
    ):
        arrays[f"{name}_by_layer"] = (("checkpoint", "layer"), r2[name])
        expected = null[name].mean(-1, keepdims=True)
        # resampled numbers repeat, which raises every fit alike: keep the draws' spread, not their shift
        drawn = draws[name] + r2[name][..., None] - draws[name].mean(-1, keepdims=True)
        result.append(
            from_draws(
                f"addition.{name}",
                title,
                steps=trace.steps,
                tokens=trace.tokens,
                values=(r2[name] - expected[..., 0]).max(axis=1),
                draws=(drawn - expected).max(axis=1),
                null=(null[name] - expected).max(axis=1),
                null_name="renamed digits, best layer",
                metric="R² above renamed digits",
                unit="numbers",
                sample="addition.numbers",
                headline=True,
                definition=f"share of the variance of the representations of 10 to 99 (resid_post at the number's last "
                f"token) explained by {what}, minus the mean for renamed digits, best layer",
            )
        )
    return result


def _shared_neurons(trace: Trace, contexts: list[str]) -> list[Finding]:
    """Overlap of the most selective neurons between contexts, against shuffled labels."""
    top = trace.values(SUMS, "selectivity_top")  # (checkpoint, context, permutation, rank)
    n, _, permutations, count = top.shape
    pairs = list(combinations(range(len(contexts)), 2))
    overlap = np.full((n, len(pairs), permutations), np.nan)
    for checkpoint in np.flatnonzero((top >= 0).all((1, 2, 3))):
        for p, (one, other) in enumerate(pairs):
            for permutation in range(permutations):
                shared = np.intersect1d(top[checkpoint, one, permutation], top[checkpoint, other, permutation])
                overlap[checkpoint, p, permutation] = len(shared) / count
    return [
        from_draws(
            "addition.shared_neurons",
            "addition: ones-digit neurons shared by contexts",
            steps=trace.steps,
            tokens=trace.tokens,
            values=overlap[..., 0].mean(1),
            draws=None,  # three pairs of contexts are no sample to draw from
            null=overlap[..., 1:].mean(1),
            null_name="neurons most selective for shuffled labels",
            metric="share of top neurons in common",
            unit="pairs of contexts",
            headline=True,
            definition=f"overlap of the {count} neurons with the largest eta² for the ones digit of the sum, mean over "
            f"pairs of contexts",
        )
    ]


_DEFINITIONS = (
    Definition(
        "accuracy",
        "Share of sums whose every digit is the model's first choice given the digits before it, which is the same as "
        "greedy decoding being right. Null: the same predictions against the answers of other sums.",
    ),
    Definition("log-probability", "Mean log p of the right digit, in nats: the continuous twin of accuracy."),
    Definition(
        "decoding accuracy",
        "Ridge classifier of (a + b) mod 10 on resid_post, five folds by operand pair. Across contexts: trained in one "
        "context and tested in the others. Null: labels shuffled within context; the best layer is taken of the null too.",
    ),
    Definition(
        "magnitude, periodic structure",
        "Magnitude: R² of a least-squares fit of number representations on a linear term and cos, sin(2πn/100). Periodic: "
        "what cos, sin(2πn/T) for T = 2, 5, 10 add to it. Null: the digits renamed at random, which keeps every "
        "digit distinct but not in order.",
        "Zhou et al. 2024; Kantamneni and Tegmark 2025",
    ),
    Definition(
        "shared neurons",
        "eta² = SS_between / SS_total of a neuron's activation for the ones digit of the sum; overlap of the top "
        "neurons of two contexts. Null: the same for labels shuffled within each context.",
        "after Lindsey et al. 2025, 'On the Biology of a Large Language Model'",
    ),
)
