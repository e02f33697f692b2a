"""From head scores to findings, labels and notes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from dynamics.analysis import AnalysisOptions, Curve, CurveSpec, Definition, Null, Section, Trace
from dynamics.numerics.draws import DRAWS

from .kinds import KINDS, Kind, Scores, curve_of, read_scores, since, when
from .pairs import ROLES, Pairs, read_pairs, unrelated
from .prompts import DOCUMENTS, REPEATS, WORDS

__all__ = ["Options", "summarise"]

_SHOWN = 6


@dataclass(frozen=True)
class _History:
    """One kind in one trace: scores, since when each head is found (head,), and which are of the kind when."""

    scores: Scores
    since: np.ndarray
    named: np.ndarray  # (checkpoint, head), before other kinds are considered


class Options(AnalysisOptions):
    """Options of this analysis."""

    documents: int = Field(64, ge=8, description="Documents of the organism; of other models at most 24 passages.")
    repeats: int = Field(32, ge=8, description="Random sequences, and as many controls.")
    period: int | None = Field(None, ge=4, description="Words in one copy; 10 for the organism, 25 otherwise if None.")
    words: int = Field(40, ge=8, description="Words to copy, besides digits.")
    least_attention: float = Field(0.3, gt=0, le=1, description="Mean attention from which a head is of a kind.")
    least_tokens: float = Field(0.5, gt=0, le=1, description="Share of tokens from which a head is of a kind.")
    seed: int = Field(0, ge=0, description="Chooses documents and words.")


def summarise(trace: Trace, options: Options) -> Section:
    """See the package's docstring."""
    levels = {"attention": options.least_attention, "token": options.least_tokens}
    found: dict[str, _History] = {}
    notes = [
        f"Found: risen for good above its null, at a false discovery rate of 5% over the heads of a kind. Of a kind: found, "
        f"and a score of at least {levels['attention']:g} (attention) or {levels['token']:g} (tokens)."
    ]
    for kind in KINDS:
        scores = read_scores(trace, kind)
        if scores is None or not scores.measured.any():
            notes.append(f"{_plural(kind)}: not measurable, no prompt of this tokenizer and these weights has a score.")
            continue
        begun = since(scores, trace.steps)
        with np.errstate(invalid="ignore"):
            named = (np.arange(len(trace.steps))[:, None] >= begun) & (scores.mean >= levels[kind.group])
        found[kind.name] = _History(scores, begun, named)
    layers, heads = trace.values(WORDS, "copying_positivity").shape[1:]
    names = [f"L{layer}H{head}" for layer in range(layers) for head in range(heads)]
    labels = {group: _labels(found, group, len(trace.steps), len(names)) for group in levels}
    notes += [_note(f, labels[f.scores.kind.group], trace.steps, names) for f in found.values()]
    curves = [curve_of(f.scores, levels[f.scores.kind.group]) for f in found.values()]
    section = Section([*curves, _positivity(trace)], notes, _DEFINITIONS)
    section += _arrays(trace, found, labels, (layers, heads)) + _composition(trace, found, names)
    section.notes.append("Rotary positions and biases are left out of copying, succession and composition.")
    return section


def _labels(found: dict[str, _History], group: str, checkpoints: int, heads: int) -> np.ndarray:
    """(checkpoint, head) position in KINDS of what a head is; -1 for none.

    Duplicate-token and induction heads first: in most texts what they look for is absent, and they rest elsewhere, often
    on the first token. Then the kind with the largest score.
    """
    result, best = np.full((checkpoints, heads), -1), np.zeros((checkpoints, heads))
    for number, kind in enumerate(KINDS):
        if kind.group == group and kind.name in found:
            rank = found[kind.name].scores.mean + (kind.probe == REPEATS)
            score = np.where(found[kind.name].named, rank, 0)
            result, best = np.where(score > best, number, result), np.maximum(score, best)
    return result


def _note(f: _History, labels: np.ndarray, steps: np.ndarray, names: list[str]) -> str:
    """How many heads of a kind there are at the end, which, and since when."""
    kind, n = f.scores.kind, len(steps)
    last = int(np.flatnonzero(f.scores.measured)[-1])
    total = int((f.since < n).sum())
    if not total:
        return f"{_plural(kind)}: none found of {len(names)} heads."
    onset = when(f.scores, f.since, steps)
    text = f"{_plural(kind)}: {total} of {len(names)} heads are found, half of them by {onset.between}"
    if f.scores.left_out:
        text += f" (on {f.scores.values.shape[1]} prompts; the other {f.scores.left_out} have none)"
    mine = np.flatnonzero(labels[last] == KINDS.index(kind))
    if not len(mine):
        best = int(np.nanargmax(np.where(f.since < n, f.scores.mean[last], -np.inf)))
        why = "all that reach the level are of another kind" if f.named[last].any() else "none reaches the level"
        return f"{text}; {why} ({names[best]} has {f.scores.mean[last, best]:.2f})."
    mine = mine[np.argsort(-f.scores.mean[last, mine])]
    listed = ", ".join(f"{names[i]} ({f.scores.mean[last, i]:.2f})" for i in mine[:_SHOWN])
    more = f" and {len(mine) - _SHOWN} more" if len(mine) > _SHOWN else ""
    return f"{text}; of the kind at step {steps[last]}: {listed}{more}."


def _plural(kind: Kind) -> str:
    return f"{kind.title[0].upper()}{kind.title[1:]}s"


def _positivity(trace: Trace) -> Curve:
    """The head whose copying matrix has the most positive eigenvalues."""
    values = trace.values(WORDS, "copying_positivity").astype(np.float64).reshape(len(trace.steps), -1)
    known = np.isfinite(values).any(1)
    null = np.full((len(values), DRAWS), np.nan)
    if known.any():
        first = values[np.flatnonzero(known)[0]]
        first = first[np.isfinite(first)]
        drawn = np.random.default_rng(4).normal(first.mean(), first.std(), size=(DRAWS, values.shape[1])).max(1)
        null[known] = drawn
    return Curve(
        "positivity",
        "heads: positive copying eigenvalues",
        np.fmax.reduce(values, axis=1),
        None,
        Null(null, "largest of as many normal draws with mean and spread of the first checkpoint's heads"),
        CurveSpec(
            "sum of eigenvalues / sum of their sizes (largest head)",
            "none (weights alone)",
            limits=(-1.0, 1.0),
            definition="eigenvalues of the head's map from tokens to logits, W_U W_O W_V W_E; the head in which the ratio "
            "is largest",
        ),
    )


def _composition(trace: Trace, found: dict[str, _History], names: list[str]) -> Section:
    """The strongest pair of each role, and the pair that induction is made of."""
    pairs = read_pairs(trace)
    if pairs is None:
        return Section(notes=["Composition: not measurable, the model has one layer or its weights are not finite."])
    last = int(np.flatnonzero(np.isfinite(pairs.scores).any((1, 2)))[-1])
    strongest = Section(
        [pairs.strongest(role) for role in ROLES],
        [_pair_note(pairs, last, int(trace.steps[last]))],
        arrays={"final_composition": (("source", "reader"), pairs.scores[last])},
        coords={"source": np.array(pairs.sources, dtype=object), "reader": np.array(pairs.readers, dtype=object)},
    )
    return strongest + _induction_pair(pairs, found, names, trace.steps)


def _pair_note(pairs: Pairs, last: int, step: int) -> str:
    """The strongest pairs at the end, and how many pairs exceed the strongest of unrelated ones."""
    parts = []
    for role in ROLES:
        columns = np.flatnonzero(pairs.role(role))
        scores = pairs.scores[last][:, columns]
        known = np.isfinite(scores)
        null = unrelated(pairs.freedom[last][:, columns][known], pairs.dimensions, DRAWS, 5).max(1)
        bound = np.quantile(null, 0.95)
        source, reader = np.unravel_index(np.nanargmax(scores), scores.shape)
        parts.append(
            f"{role.upper()} {pairs.sources[source]} to {pairs.readers[columns[reader]]} ({scores[source, reader]:.2f}; "
            f"{int((scores[known] > bound).sum())} of {int(known.sum())} pairs exceed {bound:.2f}, the 95% bound of the "
            f"strongest unrelated pair)"
        )
    return f"Strongest composition at step {step}, beyond unrelated directions: " + "; ".join(parts) + "."


def _induction_pair(pairs: Pairs, found: dict[str, _History], names: list[str], steps: np.ndarray) -> Section:
    """Composition of the final previous-token head with the keys of the final induction head, if both are found; and
    where it stands among all pairs at the last checkpoint."""
    ends, kinds = [], []
    for name in ("previous_token", "induction"):
        if name not in found or not (found[name].since < len(steps)).any():
            return Section()
        f = found[name]
        last = int(np.flatnonzero(f.scores.measured)[-1])
        ends.append(names[int(np.nanargmax(np.where(f.since < len(steps), f.scores.mean[last], -np.inf)))])
        kinds.append({names[i] for i in np.flatnonzero(f.named[last])})
    source, reader = ends[0], pairs.keys_of(ends[1])
    curve = pairs.scores[:, pairs.sources.index(source), pairs.readers.index(reader)]
    if np.isnan(curve).all():
        return Section()  # not in an earlier layer
    keys = {pairs.keys_of(name) for name in kinds[1]}
    alike = np.outer([name in kinds[0] for name in pairs.sources], [name in keys for name in pairs.readers])
    title = f"heads: {source} composes with {ends[1]}'s keys"
    end = int(np.flatnonzero(np.isfinite(curve))[-1])
    rivals = pairs.scores[end][:, pairs.role("k")]
    note = (
        f"{source}, the strongest previous-token head, composes with the keys of {ends[1]}, the strongest induction head: "
        f"{curve[end]:.2f} at step {steps[end]}, number {int((rivals > curve[end]).sum()) + 1} of "
        f"{int(np.isfinite(rivals).sum())} pairs."
    )
    return Section([pairs.between(source, reader, alike, "composition_induction", title)], [note])


def _arrays(trace: Trace, found: dict[str, _History], labels: dict[str, np.ndarray], shape: tuple[int, int]) -> Section:
    """Scores, entropy and kinds of every head, and how many there are of each kind."""
    n = len(trace.steps)
    per_head = ("checkpoint", "layer", "head")
    section = Section(coords={"layer": np.arange(shape[0]), "head": np.arange(shape[1])})
    section.arrays = {f"{group}_kind": (per_head, at.reshape(n, *shape)) for group, at in labels.items()}
    section.arrays["attention_entropy"] = (per_head, trace.values(DOCUMENTS, "attention_entropy").mean(1))
    section.arrays["copying_positivity"] = (per_head, trace.values(WORDS, "copying_positivity"))
    for name, f in found.items():
        section.arrays[name] = (per_head, f.scores.mean.reshape(n, *shape))
        for what, number in (
            ("found", (np.arange(n)[:, None] >= f.since).sum(1)),
            ("named", (labels[f.scores.kind.group] == KINDS.index(f.scores.kind)).sum(1)),
        ):
            section.arrays[f"{name}_{what}"] = ("checkpoint", np.where(f.scores.measured, number, np.nan))
    return section


_DEFINITIONS = (
    Definition(
        "previous, current, first token, delimiter",
        "Mean attention on documents, over all tokens but the first two: to the token before, to the token itself, to the "
        "first token, to all earlier delimiters but the first token. Null: any head of the first measured checkpoint, on "
        "resampled prompts; a head that was there by then cannot be found.",
    ),
    Definition(
        "duplicate token, induction",
        "Mean attention to the previous occurrence of the current token, and to the token after it, on random words "
        "written twice. Null: the same offsets on words that do not repeat.",
        "Olsson et al. 2022",
    ),
    Definition(
        "copying, negative copying",
        "Share of words whose own logit is among the five largest (smallest) of the vocabulary when the head attends to "
        "the word alone: the stream after the first block (for layer 0 the embedding), through the head's value and "
        "output matrices, the final norm and the unembedding. Null: the other words of the sample.",
        "Wang et al. 2023",
    ),
    Definition(
        "successor",
        "Share of members of ordered lists for which the logit of the next member is the largest of its list, in the same "
        "way. Null: successors shuffled within their list.",
        "Gould et al. 2023",
    ),
    Definition(
        "copying eigenvalues",
        "Sum of the eigenvalues of the head's map from tokens to logits over the sum of their sizes: 1 if it raises what "
        "it attends to, -1 if it lowers it.",
        "Elhage et al. 2021",
    ),
    Definition(
        "composition",
        "||W_2 W_1|| / (||W_2|| ||W_1||) in Frobenius norms, with W_1 what an earlier head moves (W_O W_V) and W_2 what a "
        "later head reads with its queries or keys (W_QK) or values (W_O W_V), norms folded in; minus 1/sqrt(d). Null: "
        "unrelated directions with the same singular values, whose square times d is nearly chi-squared.",
        "Elhage et al. 2021",
    ),
    Definition(
        "found, of a kind",
        "Found: risen for good above its null, at a false discovery rate of 5% over all heads. Of a kind: found and at "
        "least at the stated level. Of several kinds of attention a head is an induction or duplicate-token head first, because "
        "those rest elsewhere when what they look for is not in the text; otherwise the kind with the largest score.",
        "Benjamini and Hochberg 1995",
    ),
)
