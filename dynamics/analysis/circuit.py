"""Three onsets of one circuit kept apart: represented, used, done; and whether it stays the same circuit.

- *represented*: a label can be read off the stream by a linear classifier (cross-validated, best layer) better than at
  the first checkpoint: random attention mixes what came before, so that a good deal can be read off an untrained model.
  Null: the first checkpoint, or shuffled labels where that is more; not measurable where the first is perfect.
- *used*: mean loss of logit difference when one of the final circuit's heads and MLPs is taken from the corrupted
  twin's run (activation patching, exact), over the prompts that did not rank the edges: those that did chose the
  sources. Null: no effect, or that of the sources outside the circuit where it is larger.
- *done*: mean logit(answer) - logit(foil). Null: signs at random, or the same after the corrupted twins where that is
  more. Its thresholded twin is the share of prompts on which the answer is preferred; null: 1/2, by random signs too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..emergence import sign_flip_null
from ..emergence.bootstrap import random_signs
from ..measurements.source_effects import AT_RANDOM, HIGHEST
from ..numerics.draws import FINE_DRAWS
from ..numerics.ranking import resampled_counts
from ..probes import LAST
from ..store import Trace
from .circuit_identity import CURVES, Identity, checking_half, identity, values_at
from .curves import Curve, CurveSpec, Null, best_layer, from_units
from .decoding import decoded_by_layer
from .findings import Definition, Finding
from .section import Section

__all__ = ["DEFINITIONS", "CircuitTask", "circuit_section", "faithfulness", "members_of"]

_SHUFFLES = 60
"""Labels dealt anew: each trains a decoder in every layer at every checkpoint."""


@dataclass(frozen=True)
class CircuitTask:
    """What to chart about one circuit.

    Attributes:
        probe: the probe, measured with ``Circuit`` and ``SourceEffects`` and, where ``label`` is given, with
            ``Activations("resid_post", (position,))``.
        name: what the circuit is called in titles, e.g. ``"indirect object"``.
        label: label of the probe to decode, or None.
        meaning: what the label is, in words.
        position: where it is decoded.
        units: label whose values are resampled together (prompts that share an item), or None for prompts.
        part: added to keys where an analysis has several circuits, e.g. ``"words_"``.
        headline: whether the onsets belong in the emergence table.
    """

    probe: str
    name: str
    label: str | None = None
    meaning: str = ""
    position: str = LAST
    units: str | None = None
    part: str = ""
    headline: bool = True


def circuit_section(trace: Trace, task: CircuitTask) -> Section:
    """Curves, notes and arrays of one circuit."""
    same = identity(trace, task.probe)
    clean, twins = (trace.values(task.probe, f"{of}_difference").astype(np.float64) for of in ("clean", "corrupted"))
    clusters = None if task.units is None else trace.label(task.probe, task.units)
    spec = CurveSpec("", "prompts", clusters=clusters, headline=task.headline)
    findings: list[Curve | Finding] = [*_done(task, clean, twins, spec), _used(trace, task, same, spec)]
    if task.label is not None:
        # to learn a label takes some of each of its values
        findings.append(_represented(trace, task, spec.but(clusters=None) if task.units == task.label else spec))
    findings.append(_identity(task, same))
    arrays, coords = _arrays(trace, task, same)
    return Section(findings, _notes(trace, task, same, clean), DEFINITIONS, arrays, coords)


def faithfulness(trace: Trace, task: CircuitTask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faithfulness (checkpoint, size), completeness (checkpoint, size), and faithfulness of the smallest circuit
    (checkpoint,); NaN where prompts and twins do not differ beyond noise."""
    rows = checking_half(trace, task.probe)
    values = {
        name: trace.values(task.probe, f"{name}_difference")[:, rows].astype(np.float64).mean(1)
        for name in ("clean", "corrupted", "circuit", "complement", "found")
    }
    whole = values["clean"] - values["corrupted"]
    whole = np.where(np.isfinite(values["found"]), whole, np.nan)
    low = values["corrupted"]
    return (
        (values["circuit"] - low[:, None]) / whole[:, None],
        (values["complement"] - low[:, None]) / whole[:, None],
        (values["found"] - low) / whole,
    )


def _done(task: CircuitTask, clean: np.ndarray, twins: np.ndarray, spec: CurveSpec) -> list[Curve]:
    clusters = spec.clusters
    preferred, liked = (np.where(np.isfinite(x), (x > 0).astype(np.float64), np.nan) for x in (clean, twins))
    chance = 0.5 + _chance(preferred - 0.5, clusters)
    return [
        from_units(
            f"{task.part}done",
            f"{task.name}: done",
            clean,
            Null(
                np.fmax(_chance(clean, clusters), _resampled(twins, clusters)),
                "signs at random, or the same difference after the twins",
            ),
            spec.but(
                metric="logit(answer) - logit(foil)",
                definition="mean logit difference between answer and foil at the last token",
            ),
        ),
        from_units(
            f"{task.part}preferred",
            f"{task.name}: answer preferred",
            preferred,
            Null(np.fmax(chance, _resampled(liked, clusters)), "one half, or the share after the twins"),
            spec.but(
                metric="share of prompts",
                headline=False,
                limits=(0.0, 1.0),
                definition="share of prompts on which the answer's logit is larger than the foil's",
            ),
        ),
    ]


def _chance(units: np.ndarray, clusters: Any) -> np.ndarray:
    """(checkpoint, draw) means of the units with signs at random, the same signs at every checkpoint.

    The units keep their full size: without knowledge, a model's preference on a prompt is as large, and as often right
    as wrong; prompts of one cluster are right or wrong together.
    """
    signs = random_signs(np.random.default_rng(1), units.shape[1], FINE_DRAWS, clusters)
    return np.asarray(units @ signs.T / units.shape[1])


def _resampled(units: np.ndarray, clusters: Any) -> np.ndarray:
    """(checkpoint, draw) means of resampled prompts.

    What answers have in advance of foils whatever was asked (larger digits, commoner words) is there after the twins too.
    """
    counts = resampled_counts(units.shape[1], clusters=clusters, draws=FINE_DRAWS, seed=2)
    return np.asarray(units @ (counts / counts.sum(1, keepdims=True)).T)


def _used(trace: Trace, task: CircuitTask, same: Identity, spec: CurveSpec) -> Curve:
    checking = checking_half(trace, task.probe)
    effects = _effects(trace, task.probe)[:, checking]
    spec = spec.but(clusters=None if spec.clusters is None else np.asarray(spec.clusters)[checking])
    members, others = members_of(same)
    inside = effects[:, :, members].mean(2) if members.any() else np.full(effects.shape[:2], np.nan)
    outside = effects[:, :, others].mean(2) if others.any() else None
    null = sign_flip_null(inside, outside, clusters=spec.clusters) if members.any() else None
    return from_units(
        f"{task.part}used",
        f"{task.name}: used",
        inside,
        Null(null, "no effect, or that of sources outside the circuit"),
        spec.but(
            metric="logit difference lost per patched source",
            definition="mean effect of patching one head or MLP of the final circuit from the corrupted twin, over the "
            "prompts that did not choose the circuit",
        ),
    )


def _effects(trace: Trace, probe: str) -> np.ndarray:
    """(checkpoint, prompt, source) effects of patching; the attribution where a source was not patched."""
    effects = trace.values(probe, "source_effect").astype(np.float64)
    if "source_patched" not in trace.probe(probe):
        return effects
    patched = trace.values(probe, "source_patched") > 0
    return np.where(patched[:, None], effects, trace.values(probe, "source_attribution").astype(np.float64))


def _sampled(trace: Trace, task: CircuitTask) -> list[str]:
    """How many sources were patched, and what those patched at random say of the others; nothing where all were."""
    if "source_patched" not in trace.probe(task.probe):
        return []
    from scipy.stats import spearmanr  # takes a second to import

    patched = trace.values(task.probe, "source_patched")
    effect = trace.values(task.probe, "source_effect").astype(np.float64).mean(1)
    estimate = trace.values(task.probe, "source_attribution").astype(np.float64).mean(1)
    random = (patched == AT_RANDOM) & np.isfinite(effect) & np.isfinite(estimate)
    if not random.any():
        return []
    exact, estimated = effect[random], estimate[random]
    counts = [int(np.median((patched == why).sum(1)[random.any(1)])) for why in (HIGHEST, AT_RANDOM)]
    return [
        f"{task.name}: at a checkpoint {sum(counts)} of {patched.shape[1]} sources were patched, {counts[0]} with the "
        f"largest attribution and {counts[1]} at random; for the others their attribution stands in for the effect. Where "
        f"sources were patched at random, the two differ by {np.median(np.abs(exact - estimated)):.2g} logits in the median "
        f"(effects: {np.median(np.abs(exact)):.2g}), rank correlation {spearmanr(exact, estimated).statistic:.2f}."
    ]


def members_of(same: Identity) -> tuple[np.ndarray, np.ndarray]:
    """(source,) the heads and MLPs of the final circuit, and those outside it; the embedding is neither."""
    members = np.asarray(same.kept.any(1))
    others = np.asarray(~members)
    members[0] = others[0] = False
    return members, others


def _represented(trace: Trace, task: CircuitTask, spec: CurveSpec) -> Curve:
    assert task.label is not None
    hits, null = decoded_by_layer(
        trace, task.probe, task.label, position=task.position, clusters=spec.clusters, shuffles=_SHUFFLES
    )
    return best_layer(
        f"{task.part}represented",
        f"{task.name}: represented",
        hits,
        Null(
            np.fmax(null, _first(hits, _SHUFFLES)) if np.isfinite(hits).any() else null,
            "the first checkpoint, or shuffled labels, best layer",
        ),
        spec.but(
            metric="decoding accuracy",
            limits=(0.0, 1.0),
            definition=f"cross-validated accuracy of a linear classifier of {task.meaning} from resid_post, best layer",
        ),
    )


def _first(hits: np.ndarray, draws: int) -> np.ndarray:
    """(checkpoint, layer, draw) resamples of the first measured checkpoint; NaN where a checkpoint was not measured.

    At half their size, so that the draws carry the noise of this sample and of the curve's.
    """
    measured = np.isfinite(hits).all((1, 2))
    first = hits[int(np.flatnonzero(measured)[0])] if measured.any() else np.full(hits.shape[1:], np.nan)
    n = hits.shape[2]
    size = max(1, n // 2)
    counts = np.random.default_rng(3).multinomial(size, np.full(n, 1 / n), size=draws) / size
    return np.where(measured[:, None, None], (first @ counts.T)[None], np.nan)


def _identity(task: CircuitTask, same: Identity) -> Curve:
    return Curve(
        f"{task.part}identity",
        f"{task.name}: the final circuit's edges",
        same.with_final,
        None,
        Null(same.null if same.final is not None else None, "the final edges dealt anew among sources"),
        CurveSpec(
            "weighted overlap of edges",
            "halves of the prompts",
            limits=(0.0, 1.0),
            definition="weighted overlap of |EAP-IG scores| with the final checkpoint's, between different halves of prompts",
        ),
    )


def _arrays(trace: Trace, task: CircuitTask, same: Identity) -> tuple[dict[str, Any], dict[str, Any]]:
    dataset = trace.probe(task.probe)
    faithful, complete, found = faithfulness(trace, task)
    p = task.part
    effect = _effects(trace, task.probe).mean(1)
    direct = trace.values(task.probe, "direct_effect").astype(np.float64).mean(1)
    curves = {f"{p}{name}": ("checkpoint", getattr(same, name)) for name in CURVES}
    turned = np.where(np.isfinite(same.with_previous), 0.0, np.nan)
    turned[list(same.turnover)] = 1
    arrays = {
        **curves,
        f"{p}turnover": ("checkpoint", turned),
        f"{p}strength": (("checkpoint", "source"), same.strength),
        f"{p}source_effect": (("checkpoint", "source"), effect),
        f"{p}direct_effect": (("checkpoint", "source"), direct),
        f"{p}faithfulness": (("checkpoint", "size"), faithful),
        f"{p}completeness": (("checkpoint", "size"), complete),
        f"{p}found_faithfulness": ("checkpoint", found),
        f"{p}area": ("checkpoint", _area(faithful, dataset["size"].values)),
        f"{p}final_circuit": (("source", "reader"), same.kept.astype(np.int64)),
    }
    if "source_effect_at" in dataset:
        at = np.full((len(trace.steps), *dataset["source_effect_at"].shape[2:]), np.nan)
        for index, values in trace.each(task.probe, "source_effect_at"):
            at[index] = values.mean(0)
        arrays[f"{p}source_effect_at"] = (("checkpoint", f"{p}patched_at", "source"), at)
    names: dict[str, Any] = {k: [str(v) for v in dataset[k].values] for k in ("source", "reader")}
    coords = {**names, "size": dataset["size"].values}
    if "source_effect_at" in dataset:
        coords[f"{p}patched_at"] = [str(v) for v in dataset["source_effect_at"]["position"].values]
    return arrays, coords


def _notes(trace: Trace, task: CircuitTask, same: Identity, clean: np.ndarray) -> list[str]:
    if same.final is None:
        return [f"{task.name}: no circuit, because prompts and their twins differ at no checkpoint beyond noise."]
    sources, readers = (trace.probe(task.probe)[k].values for k in ("source", "reader"))
    faithful, _, found = faithfulness(trace, task)
    sizes = trace.probe(task.probe)["size"].values
    step = int(trace.steps[same.final])
    order = np.argsort(-np.abs(values_at(trace, task.probe, "edge_score", same.final).mean(0)[same.kept]))[:6]
    edges = np.argwhere(same.kept)[order]
    area = _area(faithful, sizes)[same.final]
    notes = [
        *_sampled(trace, task),
        f"{task.name}: at step {step} {int(same.kept.sum())} of {sizes[-1]} edges reach a faithfulness of "
        f"{found[same.final]:.2f} (checked by cutting all others, on prompts that did not choose them); the area under "
        f"faithfulness over log edges is {area:.2f}. Strongest: "
        + ", ".join(f"{sources[s]} to {readers[r]}" for s, r in edges)
        + ".",
    ]
    change = [f"step {int(trace.steps[i])} ({_stable(clean, i)})" for i in same.turnover]
    notes.append(
        f"{task.name}: the circuit became another one at {', '.join(change)}."
        if change
        else f"{task.name}: no turnover; wherever there was a circuit, neighbouring checkpoints share more than half of "
        "what two samples of prompts agree on."
    )
    return notes


def _area(faithful: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(checkpoint,) area under faithfulness over the logarithm of the number of edges, 1 for a circuit of one edge."""
    width = np.log(sizes[-1] / sizes[0]) if len(sizes) > 1 else np.nan
    return np.asarray(np.trapezoid(np.clip(faithful, 0, 1), np.log(sizes), axis=1) / width)


def _stable(clean: np.ndarray, index: int) -> str:
    """Whether what the model does changed with the circuit: paired over prompts, beyond three standard errors."""
    earlier = np.flatnonzero(np.isfinite(clean[:index]).all(1))
    if not len(earlier):
        return "nothing before to compare with"
    moved = clean[index] - clean[earlier[-1]]
    error = moved.std(ddof=1) / np.sqrt(len(moved))
    return "behaviour changed too" if abs(moved.mean()) > 3 * error else "behaviour stable"


DEFINITIONS = (
    Definition(
        "edge attribution (EAP-IG)",
        "(what the source writes for the prompt minus for its twin) times the gradient of the logit difference with "
        "respect to the reader's input, averaged over five points between the twin's embeddings and the prompt's.",
        "Syed et al. 2023; Hanna et al. 2024",
    ),
    Definition(
        "faithfulness, completeness",
        "(m - m_corrupt) / (m_base - m_corrupt), with m the logit difference when all edges outside the circuit "
        "(faithfulness) or inside it (completeness) read the corrupted twin's run. Measured, not estimated. Not "
        "measurable where m_base - m_corrupt is within three standard errors.",
        "Wang et al. 2023; Marks et al. 2024; Hanna et al. 2024",
    ),
    Definition(
        "source effect, direct effect",
        "What the logit difference loses when one head or MLP is taken from the twin's run and everything after it is "
        "computed anew; and what it adds to the logits by itself (direct logit attribution). Where a model has more heads "
        "and MLPs than 30 passes pay for, those with the largest attribution are patched and some at random, and the "
        "attribution stands in for the others' effects.",
        "Heimersheim and Nanda 2024; Elhage et al. 2021",
    ),
    Definition(
        "overlap, turnover",
        "Sum of min over sum of max of two circuits' shares of |score|, between different halves of the prompts. "
        "Turnover: the overlap with the checkpoint before is less than half of what the two halves of one checkpoint "
        "agree on. Null: each reader's edges dealt anew among its sources.",
        "Ruzicka 1958; Tigges et al. 2024 follow circuits through training by Jaccard",
    ),
)
