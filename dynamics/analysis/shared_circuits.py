"""Do several sets of prompts use the same circuit? What they share, against what any two sets share in the same model.

Two sets of prompts of a trained model always share something: both end in the same unembedding, pass through the same MLPs, and
carry what differs from one position to the last. None of it says that one circuit serves both.

- *Share*: an edge's EAP-IG score over a part of the prompts, divided by the sum over edges of its root mean square over the groups
  of prompts (:class:`dynamics.measurements.edge_groups.EdgeGroups`). Edges on which prompts agree have large shares, those on
  which prompts differ in sign next to none.
- *Shared attribution* of two sets: sum over edges of min(|a|, |b|), less where the signs differ; 1 for equal shares of prompts
  that all agree, 0 where signs agree by chance. Between different halves of the prompts, mean over pairs of sets. The *ceiling*
  is what two halves of one set share.
- *Null*, three things together: **nothing asked**, answers and foils exchanged in groups of prompts at random, which is exact where
  the model does not know which of them is right, and keeps everything else that prompts of one shape do in this model at this
  checkpoint; **other tasks**, what a set shares on average with the circuit of another task in the same model, the largest of
  them; **the untrained model**, what the sets share beyond that at step 0.

Without another task in the trace it is not measurable whether what the sets share is more than any two tasks do. With some, it is
more than *these* do, which the null's name says. Other tasks may answer with other tokens and in other places: parts that write
any digit, where no other task answers with one, serve all sums and are no circuit of addition, and yet are not in this null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from ..numerics.draws import COSTLY_DRAWS
from ..numerics.overlap import dealt_anew, jaccard, jaccards, shared
from ..store import Trace
from .circuit_identity import with_circuit
from .curves import Curve, CurveSpec, Null
from .findings import Definition
from .section import Section

__all__ = ["other_circuits", "shared_circuits"]

GROUPS, HALVES = "edge_score_group", "edge_score"


def shared_circuits(trace: Trace, sets: Mapping[str, str], *, key: str, title: str, what: str) -> Section:
    """The curve of what several sets of prompts share, with its arrays and a note.

    Args:
        trace: in which ``EdgeGroups`` was measured on every set, and ``Circuit`` where smallest circuits are to be compared.
        sets: name of each set to its probe.
        key: of the curve, and what names of arrays begin with: ``<key>_by_pair`` (checkpoint, pair), ``<key>_ceiling``,
            ``<key>_flipped`` (mean where nothing is asked), ``<key>_tasks`` (checkpoint, task), and Jaccard of the smallest
            circuits with the 95% quantile of circuits dealt anew (``<key>_edges``, ``_nodes``, ``_edges_null``, ``_nodes_null``).
        title: of the curve.
        what: what the sets are, in the plural (``contexts``).

    Returns:
        A section with one headline.
    """
    pairs, n = list(combinations(sets, 2)), len(trace.steps)
    alike = _kept_alike(trace, sets, pairs)
    section = Section(definitions=(_DEFINITION,), coords={what: [" and ".join(pair) for pair in pairs]})
    section.arrays = {f"{key}_{name}": ("checkpoint", values) for name, values in alike.items()}
    measured = all(GROUPS in trace.probe(probe) for probe in sets.values())
    tasks = other_circuits(trace, *sets.values())
    by_pair, ceiling, means = np.full((n, len(pairs)), np.nan), np.full((n, len(sets)), np.nan), np.full(n, np.nan)
    flipped, drawn = np.full((n, COSTLY_DRAWS), np.nan), np.full((n, COSTLY_DRAWS), np.nan)
    with_tasks = np.full((n, len(tasks)), np.nan)
    error = np.full((n, len(tasks)), np.nan)
    scores = {s: dict(trace.each(probe, GROUPS)) for s, probe in sets.items()} if measured else {}
    others = {t: dict(trace.each(t, _scores(trace.probe(t)) or HALVES)) for t in tasks}
    at = set.intersection(*(set(s) for s in scores.values())) if measured else set()
    dealt = _Dealt.to([len(next(iter(one.values()))) for one in scores.values()]) if at else None
    for index in sorted(at):
        here = {s: _Set.of(scores[s][index]) for s in sets}
        if any(one is None for one in here.values()):
            continue  # a broken model
        made = {s: one for s, one in here.items() if one is not None}
        by_pair[index] = [_crossed(made[a].halves, made[b].halves) for a, b in pairs]
        ceiling[index] = [float(shared(*one.halves)) for one in made.values()]
        means[index] = by_pair[index].mean()
        assert dealt is not None
        nothing = {s: one.flipped(signs) for (s, one), signs in zip(made.items(), dealt.signs, strict=True)}
        flipped[index] = np.mean([_crossed(nothing[a], nothing[b]) for a, b in pairs], axis=0)
        again = {s: one.resampled(rows) for (s, one), rows in zip(made.items(), dealt.rows, strict=True)}
        drawn[index] = np.mean([_crossed(again[a], again[b]) for a, b in pairs], axis=0)
        for i, task in enumerate(tasks):
            if index in others[task] and (other := _Set.of(others[task][index])) is not None:
                crossed = [
                    shared(one.halves[h], other.halves[k]) for one in made.values() for h in (0, 1) for k in (0, 1)
                ]
                with_tasks[index, i], error[index, i] = np.mean(crossed), np.std(crossed) / np.sqrt(len(made))
    drawn += (means - drawn.mean(1))[
        :, None
    ]  # groups that are drawn twice count twice: their spread counts, not their mean
    null: np.ndarray | None
    null, name = _null(trace, means, flipped, with_tasks, error, tasks)
    if not measured:
        null, name = None, "not measured: collect the run again for the attribution of groups of prompts"
    elif not tasks:
        null, name = None, "no other task in this trace has a circuit to compare with"
    spec = CurveSpec(
        "shared attribution",
        "groups of prompts",
        limits=(-1.0, 1.0),
        headline=True,
        sample=f"{key} groups",
        definition=f"attribution (EAP-IG) that two {what} give to the same edges with the same sign, as a share of all, "
        f"between different halves of prompts, mean over pairs of {what}",
    )
    finding = Curve(key, title, means, drawn if null is not None else None, Null(null, name), spec).assessed(trace)
    if null is None:
        finding = replace(finding, emergence=replace(finding.emergence, reason=name))
    section.findings.append(finding)
    section.coords["task"] = tasks
    section.arrays |= {
        f"{key}_by_pair": (("checkpoint", what), by_pair),
        f"{key}_ceiling": ("checkpoint", ceiling.mean(1)),
        f"{key}_flipped": ("checkpoint", flipped.mean(1)),
        f"{key}_tasks": (("checkpoint", "task"), with_tasks),
    }
    known = np.flatnonzero(np.isfinite(means))
    if null is None:
        section.notes.append(f"{title}: not measurable: {name}.")
    elif len(known):
        last = int(known[-1])
        pair = ", ".join(f"{a} and {b} {v:.2f}" for (a, b), v in zip(pairs, by_pair[last], strict=True))
        with_each = ", ".join(f"{t} {v:.2f}" for t, v in zip(tasks, with_tasks[last], strict=True))
        upper = finding.emergence.null_upper[last] if finding.emergence.null_upper else np.nan
        text = (
            f"{title}, step {int(trace.steps[last])}: two {what} share {means[last]:.2f} of their attribution on average "
            f"({pair}); two samples of prompts of one of them {ceiling[last].mean():.2f}; {what} and other tasks ({with_each}); "
            f"where nothing is asked {flipped[last].mean():.2f}; the null reaches {upper:.2f}."
        )
        if trace.steps[0] == 0 and np.isfinite(means[0]):
            text += f" At step 0 they share {means[0]:.2f}, which is in the null."
        else:
            text += " No untrained model was measured: some of what they share may have been there before training."
        kept = {name: values[last] for name, values in alike.items()}
        if np.isfinite(kept["edges"]):
            text += (
                f" Their smallest circuits share {kept['edges']:.0%} of edges and {kept['nodes']:.0%} of nodes (Jaccard; of "
                f"circuits dealt anew 95% share less than {kept['edges_null']:.0%} and {kept['nodes_null']:.0%})."
            )
        section.notes.append(text)
    return section


def other_circuits(trace: Trace, *probes: str) -> list[str]:
    """Probes of the trace whose edges were attributed in the same graph, other than these."""
    here = trace.probe(probes[0])
    if "reader" not in here:
        return []
    names = [here[of].values.tolist() for of in ("source", "reader")]

    def fits(name: str) -> bool:
        group = trace.probe(name)
        return _scores(group) is not None and [group[of].values.tolist() for of in ("source", "reader")] == names

    return [name for name in trace.probes if name not in probes and fits(name)]


def _scores(group: Any) -> str | None:
    """The variable of attributed edges that a probe's group has, if it has one."""
    return next((name for name in (GROUPS, HALVES) if name in group), None)


class _Set:
    """Shares of one set of prompts at one checkpoint.

    Attributes:
        groups: (group, edge), scaled so that the root mean squares over groups add up to 1.
        halves: (half, edge) their means over the groups of each half.
    """

    def __init__(self, groups: np.ndarray) -> None:
        self.groups = groups
        self.halves = self._halves(groups)

    @classmethod
    def of(cls, scores: np.ndarray) -> _Set | None:
        """From scores (group, source, reader), NaN where there is no edge; None where they are not finite, or all zero."""
        flat = scores.astype(np.float64).reshape(len(scores), -1)
        flat = flat[:, ~np.isnan(flat).all(0)]
        total = np.sqrt((flat**2).mean(0)).sum()
        return cls(flat / total) if flat.size and np.isfinite(total) and total > 0 else None

    @staticmethod
    def _halves(groups: np.ndarray) -> np.ndarray:
        """(..., half, edge) means of (..., group, edge)."""
        count = groups.shape[-2]
        return np.asarray(groups.reshape(*groups.shape[:-2], 2, count // 2, -1).mean(-2))

    def flipped(self, signs: np.ndarray) -> np.ndarray:
        """(draw, half, edge) with answers and foils exchanged in groups where (draw, group) signs are negative."""
        return self._halves(self.groups * signs[..., None])

    def resampled(self, rows: np.ndarray) -> np.ndarray:
        """(draw, half, edge) of these groups (draw, group)."""
        return self._halves(self.groups[rows])


@dataclass(frozen=True)
class _Dealt:
    """What is dealt to the groups of every set: the same at every checkpoint, as its prompts are the same.

    Attributes:
        signs: (draw, group) signs at random, for every set.
        rows: (draw, group) groups drawn with replacement within halves.
    """

    signs: list[np.ndarray]
    rows: list[np.ndarray]

    @classmethod
    def to(cls, groups: Sequence[int]) -> _Dealt:
        """To sets of so many groups; a draw deals to all sets before the next one does."""
        rng = np.random.default_rng(0)
        signs = [[rng.choice([-1.0, 1.0], size=n) for n in groups] for _ in range(COSTLY_DRAWS)]
        halves = [n // 2 for n in groups]
        rows = [
            [np.concatenate([rng.integers(n, size=n) + h * n for h in (0, 1)]) for n in halves]
            for _ in range(COSTLY_DRAWS)
        ]
        return cls(*([np.stack(of) for of in zip(*dealt, strict=True)] for dealt in (signs, rows)))


def _crossed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(...) shared attribution of (..., half, edge) shares, between different halves."""
    return (shared(one[..., 0, :], other[..., 1, :]) + shared(one[..., 1, :], other[..., 0, :])) / 2


def _null(
    trace: Trace,
    means: np.ndarray,
    flipped: np.ndarray,
    with_tasks: np.ndarray,
    error: np.ndarray,
    tasks: Sequence[str],
) -> tuple[np.ndarray, str]:
    """(checkpoint, draw) the null of the module's docstring, and its name, which says with which tasks and how many."""
    others = f"{len(tasks)} other task{'' if len(tasks) == 1 else 's'} ({', '.join(tasks)})"
    null, name = flipped.copy(), f"nothing asked, and the most shared with {others}"
    if with_tasks.shape[1]:
        known = np.where(np.isfinite(with_tasks), with_tasks, -np.inf)
        top = known.argmax(1)
        rows = np.arange(len(top))
        level = np.maximum(with_tasks[rows, top], 0.0)
        noise = np.random.default_rng(1).standard_normal(null.shape[1])
        null += level[:, None] + error[rows, top][:, None] * noise
    if trace.steps[0] == 0 and np.isfinite(means[0]) and np.isfinite(null[0]).all():
        null += max(0.0, float(means[0] - null[0].mean()))
        name = f"nothing asked, the most shared with {others}, and what the untrained model shares"
    return null, name


def _kept_alike(trace: Trace, sets: Mapping[str, str], pairs: list[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Jaccard of the smallest faithful circuits, edges and nodes, mean over pairs; NaN where a set has none (``with_circuit``)."""
    curves = {name: np.full(len(trace.steps), np.nan) for name in ("edges", "nodes", "edges_null", "nodes_null")}
    if not all("edge_kept" in trace.probe(probe) for probe in sets.values()):
        return curves
    kept = {s: dict(trace.each(probe, "edge_kept")) for s, probe in sets.items()}
    for index in sorted(set.intersection(*(set(with_circuit(trace, probe)) for probe in sets.values()))):
        edges = {s: k[index] == 1 for s, k in kept.items()}
        possible = next(iter(kept.values()))[index] >= 0
        anew = {s: dealt_anew(k, possible, COSTLY_DRAWS, seed=2) > 0 for s, k in edges.items()}
        nodes, nodes_anew = ({s: np.asarray(k.any(-1)) for s, k in table.items()} for table in (edges, anew))
        for name, here, random in (("edges", edges, anew), ("nodes", nodes, nodes_anew)):
            curves[name][index] = np.mean([jaccard(here[a], here[b]) for a, b in pairs])
            dealt = [jaccards(here[a], random[b]) for a, b in pairs]
            curves[f"{name}_null"][index] = np.quantile(np.mean(dealt, axis=0), 0.95)
    return curves


_DEFINITION = Definition(
    "shared attribution",
    "Sum over edges of min(|a|, |b|), less where signs differ, of two sets of prompts' EAP-IG scores, each divided by the sum over "
    "edges of their root mean square over groups of prompts. The ceiling is what two halves of one set share. Null: answers and "
    "foils exchanged in groups of prompts at random, plus the most that another task's circuit in the same model shares with the "
    "sets, plus what they share in the untrained model (step 0). The tasks are those of the trace, which the null's name lists; they "
    "may answer with other tokens, so that parts that serve every answer of this kind (that write any digit, say) can be beyond it.",
    "histogram intersection, Swain and Ballard 1991; sign flips, Winkler et al. 2014; after Lindsey et al. 2025",
)
