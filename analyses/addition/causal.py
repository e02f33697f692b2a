"""Do a sum, a sum in words and a citation use the same parts? Overlap of circuits, and parts exchanged between contexts.

- *Same parts*: each context has a circuit of its own, found on sums of its own. Mean over pairs of contexts of the
  weighted overlap of their |EAP-IG scores|, between different halves of the prompts, so that it compares with what the
  two halves of one context agree on (the ceiling). Null: each reader's edges dealt anew among its sources; prompts of one
  shape use an untrained network alike, and what its contexts share beyond that null at step 0 is added to it, as is the
  noise of the curve.
- *Ones digit exchanged*: a head's or MLP's output at the last token is replaced by that of another sum in another
  context. Gain of the donor's digit on the prompt's own, in logits; largest head or MLP. Null: no gain, or that of
  donors with the prompt's own ones digit, where it is larger.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from dynamics.analysis import Curve, CurveSpec, Definition, Null, Section, Trace, best_layer, sign_flip_null
from dynamics.analysis.circuit import CircuitTask, circuit_section
from dynamics.emergence import shuffled_match_null
from dynamics.numerics.draws import COSTLY_DRAWS
from dynamics.numerics.overlap import deals, dealt, dealt_anew, jaccard, jaccards, weighted_overlap, weighted_overlaps

from .pairs import CONTEXTS, DONORS, EXCHANGE, pair_probe_name

__all__ = ["causal_section"]


def causal_section(trace: Trace) -> Section:
    """Everything that was measured of it; a note where it was not."""
    contexts = [c for c in CONTEXTS if pair_probe_name(c) in trace.probes]
    if not contexts or EXCHANGE not in trace.probes:
        note = (
            "Circuits and exchanges between contexts are not part of this trace: the prompts do not fit its tokenizer, or "
            "it is not known what reads and writes where in its architecture."
        )
        return Section(notes=[note])
    section = Section(definitions=_DEFINITIONS)
    for context in contexts:
        name = f"ones digit in context '{context}'"
        task = CircuitTask(pair_probe_name(context), name, part=f"{context}_", headline=False)
        section += circuit_section(trace, task)
    return section + _same_parts(trace, contexts) + _exchanged(trace)


def _same_parts(trace: Trace, contexts: list[str]) -> Section:
    pairs = list(combinations(contexts, 2))
    n = len(trace.steps)
    overlap, ceiling = np.full((n, len(pairs)), np.nan), np.full((n, len(contexts)), np.nan)
    null = np.full((n, COSTLY_DRAWS), np.nan)
    scores = {c: dict(trace.each(pair_probe_name(c), "edge_score")) for c in contexts}
    rng = np.random.default_rng(0)
    orders: list[np.ndarray] | None = None  # the same at every checkpoint, unless other edges are possible
    for index in sorted(set.intersection(*(set(s) for s in scores.values()))):
        here = {c: scores[c][index] for c in contexts}
        possible = np.isfinite(here[contexts[0]][0])
        if not possible.any() or any(np.isnan(s[:, possible]).any() for s in here.values()):
            continue  # a broken model
        here = {c: np.where(possible, s, 0.0) for c, s in here.items()}
        if orders is None or not np.array_equal(possible, orders[0][0] >= 0):
            orders = [deals(possible, COSTLY_DRAWS, seed=i) for i in (0, 1)]
        anew = {c: [dealt(half, order) for half, order in zip(s, orders, strict=True)] for c, s in here.items()}
        ceiling[index] = [weighted_overlap(*here[c]) for c in contexts]
        drawn, every = [], []
        for p, (one, other) in enumerate(pairs):
            crossed = [(here[one][h], here[other][1 - h]) for h in (0, 1)]
            every += [weighted_overlap(*c) for c in crossed]
            overlap[index, p] = np.mean(every[-2:])
            drawn.append([weighted_overlaps(here[one][h], anew[other][1 - h]) for h in (0, 1)])
        error = np.std(every, ddof=1) / np.sqrt(len(every))  # the curve's own noise belongs in its null
        null[index] = np.mean(drawn, axis=(0, 1)) + error * rng.standard_normal(COSTLY_DRAWS)
    means = overlap.mean(1)
    untrained = trace.steps[0] == 0 and np.isfinite(means[0])
    if untrained:  # the same last token, the same few edges into the logits: shared before anything is learnt
        null = null + max(0.0, means[0] - null[0].mean())
    finding = Curve(
        "same_parts",
        "addition: the same parts in all contexts",
        means,
        None,  # three pairs of contexts are no sample to draw from
        Null(null, "edges dealt anew among sources" + (", and what the untrained model shares" if untrained else "")),
        CurveSpec(
            "weighted overlap of edges",
            "pairs of contexts",
            limits=(0.0, 1.0),
            headline=True,
            definition="weighted overlap of |EAP-IG scores| of two contexts, between different halves of prompts, mean "
            "over pairs of contexts",
        ),
    ).assessed(trace)
    alike = _kept_alike(trace, contexts, pairs)
    section = Section([finding], coords={"contexts": [" and ".join(pair) for pair in pairs]})
    section.arrays = {
        "same_parts_by_pair": (("checkpoint", "contexts"), overlap),
        "same_parts_ceiling": ("checkpoint", ceiling.mean(1)),
        **{f"same_{name}": ("checkpoint", values) for name, values in alike.items()},
    }
    known = np.flatnonzero(np.isfinite(means))
    if not len(known):
        return section
    last = known[-1]
    upper = finding.emergence.null_upper[last]
    text = (
        f"Same parts, step {int(trace.steps[last])}: circuits of two contexts overlap by {means[last]:.2f} on average "
        f"({', '.join(f'{a} and {b} {v:.2f}' for (a, b), v in zip(pairs, overlap[last], strict=True))}); two samples of "
        f"prompts of one context by {ceiling[last].mean():.2f}; the null reaches {upper:.2f}."
    )
    if untrained:
        text += f" At step 0 they overlap by {means[0]:.2f}, which is in the null."
    else:
        text += " No untrained model was measured: some of the overlap may have been there before training."
    at = {name: values[last] for name, values in alike.items()}
    if np.isfinite(at["edges"]):
        text += (
            f" Their smallest circuits share {at['edges']:.0%} of edges and {at['nodes']:.0%} of nodes (Jaccard; of "
            f"circuits dealt anew 95% share less than {at['edges_null']:.0%} and {at['nodes_null']:.0%})."
        )
    section.notes.append(text)
    return section


def _kept_alike(trace: Trace, contexts: list[str], pairs: list[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Jaccard of the smallest faithful circuits, edges and nodes, mean over pairs; NaN where a context has none."""
    curves = {name: np.full(len(trace.steps), np.nan) for name in ("edges", "nodes", "edges_null", "nodes_null")}
    kept = {c: dict(trace.each(pair_probe_name(c), "edge_kept")) for c in contexts}
    for index in kept[contexts[0]]:
        edges = {c: kept[c][index] == 1 for c in contexts if index in kept[c]}
        if len(edges) < len(contexts) or not all(k.any() for k in edges.values()):
            continue
        possible = kept[contexts[0]][index] >= 0
        anew = {c: dealt_anew(k, possible, COSTLY_DRAWS, seed=2) > 0 for c, k in edges.items()}
        nodes, nodes_anew = ({c: np.asarray(k.any(-1)) for c, k in table.items()} for table in (edges, anew))
        for name, here, random in (("edges", edges, anew), ("nodes", nodes, nodes_anew)):
            curves[name][index] = np.mean([jaccard(here[a], here[b]) for a, b in pairs])
            drawn = [jaccards(here[a], random[b]) for a, b in pairs]
            curves[f"{name}_null"][index] = np.quantile(np.mean(drawn, axis=0), 0.95)
    return curves


def _exchanged(trace: Trace) -> Section:
    # (checkpoint, donor, prompt, source or layer): one position is exchanged
    moved, layers_moved = (
        trace.values(EXCHANGE, f"interchange_{part}").astype(np.float64)[:, :, 0] for part in ("source", "layer")
    )
    said, layers_said = (trace.values(EXCHANGE, f"interchange_{part}_said")[:, :, 0] for part in ("source", "layer"))
    answers = trace.probe(EXCHANGE)["answer_id"].values
    target = {d: answers[trace.label(EXCHANGE, f"{d}_target")] for d in DONORS}
    pair, context = trace.label(EXCHANGE, "pair"), trace.label(EXCHANGE, "context")
    at = {d: i for i, d in enumerate(DONORS)}
    hits = {d: _share(said[:, at[d]], target[d]) for d in DONORS}
    spec = CurveSpec("", "sums", clusters=pair)
    section = Section(notes=[_exchange_note(trace, moved, layers_moved, hits, context, at)])
    control = moved[:, at["same"]]
    for donor, key, words in (("other", "exchange", "another context"), ("own", "exchange_own", "the same context")):
        gain, sources = moved[:, at[donor]], range(moved.shape[-1])
        null = np.stack([sign_flip_null(gain[..., s], control[..., s]) for s in sources], axis=1)
        chance = [
            shuffled_match_null(np.where(x >= 0, x, np.nan), target[donor], groups=context)
            for x in np.moveaxis(said[:, at[donor]], -1, 0)
        ]
        section.findings += [
            best_layer(
                key,
                f"addition: ones digit moves with a part of {words}",
                np.moveaxis(gain, -1, 1),
                Null(null, "no gain, or that of donors with the same ones digit, largest part"),
                spec.but(
                    metric="gain of the donor's digit (logits)",
                    headline=donor == "other",
                    definition=f"logit(donor's answer) - logit(own answer), gained when a head's or MLP's output at the "
                    f"last token is that of another sum in {words}; largest head or MLP",
                ),
            ),
            best_layer(
                f"{key}_said",
                f"addition: the donor's digit is said ({words})",
                np.moveaxis(hits[donor], -1, 1),
                Null(np.stack(chance, axis=1), "digits of other donors, largest part"),
                spec.but(
                    metric="share of prompts",
                    limits=(0.0, 1.0),
                    twin=key,
                    definition="share of prompts whose first choice is the donor's answer then; largest head or MLP",
                ),
            ),
        ]
    empty = np.full((len(trace.steps), 1), np.nan)  # the embedding is no part that is exchanged
    dims = ("checkpoint", "source")
    for donor in DONORS:
        section.arrays |= {
            f"exchange_{donor}": (dims, np.hstack([empty, moved[:, at[donor]].mean(1)])),
            f"exchange_{donor}_said": (dims, np.hstack([empty, hits[donor].mean(1)])),
            f"exchange_{donor}_layers": (
                ("checkpoint", "layer"),
                _share(layers_said[:, at[donor]], target[donor]).mean(1),
            ),
        }
    return section


def _share(said: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(checkpoint, prompt, part) whether the target is said; NaN where nothing is."""
    return np.where(said >= 0, said == target[:, None], np.nan)


def _exchange_note(
    trace: Trace,
    moved: np.ndarray,
    whole: np.ndarray,
    hits: dict[str, np.ndarray],
    context: np.ndarray,
    at: dict[str, int],
) -> str:
    known = np.flatnonzero(np.isfinite(moved).all((1, 2, 3)))
    if not len(known):
        return "Parts could not be exchanged: the model's logits are not finite."
    last = known[-1]
    names = [str(s) for s in trace.probe(EXCHANGE)["source"].values]
    gain = moved[last].mean(1)  # (donor, source)
    order = np.argsort(-gain[at["other"]])[:3]
    giver = context[trace.label(EXCHANGE, "other_donor")]
    best = int(order[0])
    by = {
        f"{to} from {of}": hits["other"][last, (context == to) & (giver == of), best].mean()
        for to in dict.fromkeys(context.tolist())
        for of in dict.fromkeys(giver[context == to].tolist())
    }
    worst = min(by, key=lambda k: float(by[k]))
    return (
        f"Exchanges at the last token, step {int(trace.steps[last])}, gain of the donor's digit in logits (own context, "
        f"another context, control with the same ones digit): "
        + "; ".join(
            f"{names[s]} {gain[at['own'], s]:.1f}, {gain[at['other'], s]:.1f}, {gain[at['same'], s]:.1f}" for s in order
        )
        + f". The whole stream after the last layer, which is the donor's answer, gains "
        f"{whole[last, at['other'], :, -1].mean():.1f}. With {names[best]} of another context the donor's digit is said in "
        f"{hits['other'][last, :, best].mean():.0%} of prompts, least in {worst} ({by[worst]:.0%})."
    )


_DEFINITIONS = (
    Definition(
        "same parts",
        "Weighted overlap of the edge attributions of two contexts, found on different sums, mean over pairs of contexts. "
        "The ceiling is what two halves of the prompts of one context agree on. Null: one context's scores dealt anew "
        "among the sources of each reader, and what the contexts share beyond that in the untrained model (step 0).",
        "Ruzicka 1958; after Lindsey et al. 2025",
    ),
    Definition(
        "ones digit exchanged",
        "The output of a head or MLP at the last token, where the ones digit is predicted, is replaced by that of another "
        "sum in another context, and everything after it computed anew. Gain of logit(donor's answer) - logit(own "
        "answer). Control: donors whose sum has the prompt's own ones digit.",
        "Geiger et al. 2021, interchange interventions",
    ),
)
