"""Curves of addition: behaviour, what is decodable where, periodic structure, neurons shared between contexts."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from checkpoints.organism.worlds import addition as world
from dynamics.analysis import (
    LAST,
    AnalysisOptions,
    Curve,
    CurveSpec,
    Definition,
    Null,
    Section,
    Trace,
    best_layer,
    from_units,
    shuffled_answers,
)
from dynamics.emergence import shuffled_match_null
from dynamics.numerics.decoding import ClassDecoder, decode_number, folds_of
from dynamics.numerics.draws import DRAWS
from dynamics.numerics.fourier import MAGNITUDE, FourierFits, relabelled_digits

from .causal import causal_section
from .features import feature_section
from .prompts import NUMBERS, SUMS

__all__ = ["summarise"]


def summarise(trace: Trace, options: AnalysisOptions) -> Section:
    """See the package's docstring for definitions."""
    labels = {k: trace.label(SUMS, k) for k in ("context", "digit", "pair", "ones", "total")}
    contexts = list(dict.fromkeys(labels["context"].tolist()))
    digits = list(dict.fromkeys(labels["digit"].tolist()))
    held = "never occur in training in any context or order" if _held_out(digits) else "may occur in training"
    note = f"{len(set(labels['pair'].tolist()))} sums, different ones in each of {len(contexts)} contexts; they {held}."
    return (
        Section([*_behaviour(trace, labels, contexts, digits)], [note], _DEFINITIONS)
        + _decoding(trace, labels, contexts, digits)
        + _structure(trace)
        + Section([_shared_neurons(trace, contexts)])
        + causal_section(trace)
        + feature_section(trace)
    )


def _held_out(digits: list[str]) -> bool:
    """Whether these are sums of the organism, whose training is known; they alone have a carry."""
    return world.DIGITS[0] in digits


def _behaviour(trace: Trace, labels: dict[str, np.ndarray], contexts: list[str], digits: list[str]) -> list[Curve]:
    predicted = trace.values(SUMS, "predicted").astype(int)
    answers = trace.probe(SUMS)["answer_id"].values
    logprob = trace.values(SUMS, "answer_logprob")
    said = predicted >= 0  # a model whose logits are not finite said nothing
    hits, guesses = np.where(said, predicted == answers, np.nan), np.where(said, predicted, np.nan)
    groups = _asked_alike(labels)
    exact, pair, pair_context = _per_pair(hits, labels["pair"], labels["context"])

    def null(context: str | None = None) -> Null:
        return Null(_exact_null(predicted, answers, labels, DRAWS, context), "answers of other sums")

    spec = CurveSpec("accuracy (all digits right)", "sums", limits=(0.0, 1.0), clusters=pair)
    every = spec.but(
        headline=True, twin="logprob", reach=0.5, definition="share of sums with every digit right, all contexts"
    )
    title = "addition: held-out sums" if _held_out(digits) else "addition: sums"
    result = [from_units("accuracy", title, exact, null(), every)]
    for context in contexts:
        mine = pair_context == context
        text = f"share of sums with every digit right, context {context}"
        own = spec.but(clusters=pair[mine], definition=text)
        title = f"addition in context '{context}'"
        result.append(from_units(f"accuracy.{context}", title, exact[:, mine], null(context), own))
    alike = "digits of sums that begin alike"
    for digit in digits if len(digits) > 1 else ():  # in the order in which they are written
        rows = labels["digit"] == digit
        chance = shuffled_match_null(guesses[:, rows], answers[rows], groups=groups[rows], draws=DRAWS)
        asked = spec.but(
            metric="accuracy",
            clusters=labels["pair"][rows],
            headline=digit in ("tens", "ones"),
            definition=f"share of sums whose {digit} digit is right, given the digits before it",
        )
        result.append(
            from_units(f"digit.{digit}", f"addition: {digit} digit", hits[:, rows], Null(chance, alike), asked)
        )
    twin = CurveSpec(
        "log-probability (nat)",
        "sums",
        clusters=labels["pair"],
        definition="mean log p(right digit | digits before it): the continuous twin of accuracy",
    )
    shuffled = Null(shuffled_answers(trace, SUMS, np.arange(len(groups)), groups), alike)
    result.append(from_units("logprob", "addition: log-probability of the right digit", logprob, shuffled, twin))
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


def _decoding(trace: Trace, labels: dict[str, np.ndarray], contexts: list[str], digits: list[str]) -> Section:
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
    decoder = ClassDecoder(labels["ones"][ones_rows], fold[ones_rows], group, shuffles=shuffles)
    for checkpoint, values in trace.each(SUMS, "resid_post", position=LAST):
        for layer in range(layers):
            x = values[:, layer]
            hits, null = decoder.hits(x[ones_rows])
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

    def decoded(key: str, title: str, units: np.ndarray, null: np.ndarray, spec: CurveSpec) -> Curve:
        return best_layer(key, f"addition: {title}", units, Null(null, "shuffled labels, best layer"), spec)

    where = "the position that predicts it"
    ones = CurveSpec(
        "decoding accuracy",
        "sums",
        limits=(0.0, 1.0),
        clusters=labels["pair"][ones_rows],
        definition=f"linear classifier of (a + b) mod 10 from resid_post at {where}, trained and tested in one context, "
        "best layer",
    )
    other = ones.but(
        metric="decoding accuracy in other contexts",
        headline=True,
        definition=f"the same classifier tested in the contexts that it was not trained in, at {where}, best layer",
    )
    total = CurveSpec(
        "cross-validated R²",
        "sums",
        clusters=labels["pair"][sum_rows],
        definition="linear read-out of a + b from resid_post at the last token of the question, best layer; the sum is "
        "linear in the operands, which an untrained network passes on too",
    )
    across_title = "ones-digit code carries over between contexts"
    curves = [
        decoded("ones_decodable", "ones digit of the sum decodable", within, nulls["within"], ones),
        decoded("ones_across", across_title, across, nulls["across"], other),
        decoded("sum_decodable", "sum decodable before the answer", sums, nulls["sums"], total),
    ]
    by_layer = {"ones": within, "ones_across": across, "sum": sums}
    arrays = {f"{name}_by_layer": (("checkpoint", "layer"), units.mean(-1)) for name, units in by_layer.items()}
    return Section([*curves], arrays=arrays, coords={"layer": np.arange(layers)})


def _structure(trace: Trace) -> Section:
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

    def both(*of: np.ndarray) -> tuple[FourierFits, FourierFits]:
        """Fits of magnitude, and of the other periods too."""
        return FourierFits(*of, periods=MAGNITUDE), FourierFits(*of)

    fits = (r2, both(numbers)), (null, both(renamed)), (draws, both(numbers, counts))
    for checkpoint, values in trace.each(NUMBERS, "resid_post", position="number"):
        x = np.moveaxis(values, 1, 0)  # layer, number, d_model
        for table, (magnitude, every) in fits:
            table["magnitude"][checkpoint] = magnitude.r2(x)
            # what the other periods add
            table["fourier"][checkpoint] = every.r2(x) - table["magnitude"][checkpoint]
    section = Section()
    beyond = "periods 2, 5 and 10 beyond period 100 and a linear term"
    for name, title, what in (
        ("fourier", "addition: periodic structure of numbers", beyond),
        ("magnitude", "addition: numbers represented in order", "period 100 and a linear term"),
    ):
        section.arrays[f"{name}_by_layer"] = (("checkpoint", "layer"), r2[name])
        expected = null[name].mean(-1, keepdims=True)
        # resampled numbers repeat, which raises every fit alike: keep the draws' spread, not their shift
        drawn = draws[name] + r2[name][..., None] - draws[name].mean(-1, keepdims=True)
        section.findings.append(
            Curve(
                name,
                title,
                (r2[name] - expected[..., 0]).max(axis=1),
                (drawn - expected).max(axis=1),
                Null((null[name] - expected).max(axis=1), "renamed digits, best layer"),
                CurveSpec(
                    "R² above renamed digits",
                    "numbers",
                    sample="numbers",
                    headline=True,
                    definition="share of the variance of the representations of 10 to 99 (resid_post at the number's last "
                    f"token) explained by {what}, minus the mean for renamed digits, best layer",
                ),
            )
        )
    return section


def _shared_neurons(trace: Trace, contexts: list[str]) -> Curve:
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
    return Curve(
        "shared_neurons",
        "addition: ones-digit neurons shared by contexts",
        overlap[..., 0].mean(1),
        None,  # three pairs of contexts are no sample to draw from
        Null(overlap[..., 1:].mean(1), "neurons most selective for shuffled labels"),
        CurveSpec(
            "share of top neurons in common",
            "pairs of contexts",
            headline=True,
            definition=f"overlap of the {count} neurons with the largest eta² for the ones digit of the sum, mean over "
            f"pairs of contexts",
        ),
    )


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
