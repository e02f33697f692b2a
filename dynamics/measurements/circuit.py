"""Measurements that intervene: what each edge carries, which circuit does the task, and what each source is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.errors import UserError

from ..circuits.graph import Graph, graph_of
from ..models.architecture import Architecture, ModelShape
from ..names import POSITION, PROMPT
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import require_positions

if TYPE_CHECKING:
    from ..circuits.search import Prompts
    from ..circuits.wired import Wired

__all__ = ["Circuit", "SourceEffects", "discovery_half", "sizes_of"]

MEMORY = 2**30
"""Bytes that one batch's inputs and gradients may take."""

NOISE = 3.0
"""Standard errors by which prompts and twins must differ for faithfulness to mean anything."""


def discovery_half(prompts: int, seed: int) -> np.ndarray:
    """(prompt,) true where a prompt is used to rank edges; the others check the circuit.

    >>> int(discovery_half(10, 0).sum())
    5
    """
    half = np.zeros(prompts, dtype=bool)
    half[np.random.default_rng(seed).permutation(prompts)[: prompts // 2]] = True
    return half


def sizes_of(graph: Graph, points: int) -> tuple[int, ...]:
    """The numbers of edges at which circuits are measured: about evenly on a log scale, from 1 to all of them.

    >>> sizes_of(Graph(1, 1, 1, True), 3)
    (1, 3, 7)
    """
    return tuple(int(n) for n in np.unique(np.geomspace(1, graph.edges.sum(), points).round()))


@dataclass(frozen=True)
class Circuit:
    """EAP-IG on half of the prompts, and circuits of growing size checked by ablation on the other half.

    Variables (see :mod:`dynamics.circuits.attribution` and ``search`` for the definitions; logit difference means
    logit(answer) - logit(foil) at the last token):

    - ``edge_score`` (half, source, reader): mean attribution over each half of the prompts, in logits; half 0 ranks the
      edges, half 1 says how far another sample of prompts would agree;
    - ``edge_kept`` (source, reader): 1 for the smallest circuit whose faithfulness reaches the threshold, 0 for other
      edges, -1 where there is no such edge, or prompts and twins do not differ beyond noise;
    - ``clean_difference``, ``corrupted_difference`` (prompt): logit differences of prompts and twins;
    - ``circuit_difference``, ``complement_difference`` (prompt, size): logit differences of circuits of that many edges
      and of their complements, on the checking half, NaN on the other;
    - ``found_difference``, ``found_complement`` (prompt): the same of the smallest circuit.

    Attributes:
        steps: points of the integrated gradient.
        threshold: faithfulness that the circuit must reach.
        points: how many sizes are measured.
        seed: chooses the halves.
    """

    steps: int = 5
    threshold: float = 0.8
    points: int = 12
    seed: int = 0

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variables; needs answers, foils and corrupted twins."""
        _require_pairs(probe)
        if len(probe.ids) < 4:
            raise UserError(f"probe {probe.probe.name!r} has {len(probe.ids)} prompts", expected="at least 4")
        graph = graph_of(shape)
        n, edges = len(probe.ids), graph.edges.shape
        sizes = sizes_of(graph, self.points)
        names = {
            "source": tuple(s.name for s in graph.sources),
            "reader": tuple(r.name for r in graph.readers),
        }
        size = {"size": sizes}
        logits = "logits"
        return [
            Variable(
                "edge_score",
                ("half", "source", "reader"),
                (2, *edges),
                "float",
                "EAP-IG attribution of each edge",
                logits,
                True,
                names,
            ),
            Variable(
                "edge_kept", ("source", "reader"), edges, "int", "edges of the smallest faithful circuit", coords=names
            ),
            Variable("clean_difference", (PROMPT,), (n,), "float", "logit difference of the prompts", logits),
            Variable("corrupted_difference", (PROMPT,), (n,), "float", "logit difference of the twins", logits),
            *(
                Variable(
                    f"{name}_difference",
                    (PROMPT, "size"),
                    (n, len(sizes)),
                    "float",
                    f"logit difference of the {name}",
                    logits,
                    True,
                    size,
                )
                for name in ("circuit", "complement")
            ),
            Variable(
                "found_difference", (PROMPT,), (n,), "float", "logit difference of the smallest circuit", logits, True
            ),
            Variable("found_complement", (PROMPT,), (n,), "float", "logit difference without it", logits, True),
        ]

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        from ..circuits.attribution import attribute
        from ..circuits.search import effect_size, sweep
        from ..circuits.wired import Wired

        wired = Wired(model, architecture)
        graph = wired.graph
        half = discovery_half(len(probe.ids), self.seed)
        n = len(half)
        clean, corrupted = np.full(n, np.nan), np.full(n, np.nan)
        score = np.zeros((2, *graph.edges.shape))
        for rows, batch in _prompts(wired, probe, batch_tokens, np.arange(n)):
            clean[rows] = _values(batch.metric(wired.logits(batch.ids, batch.positions).float()))
            corrupted[rows] = _values(batch.metric(wired.logits(batch.corrupted, batch.positions).float()))
        for index, chosen in enumerate((np.flatnonzero(half), np.flatnonzero(~half))):
            for _, batch in _prompts(wired, probe, batch_tokens, chosen, gradients=True):
                found = attribute(wired, batch.ids, batch.corrupted, batch.positions, batch.metric, steps=self.steps)
                score[index] += found.edges.double().cpu().numpy() / len(chosen)
        score = np.where(graph.edges, score, np.nan)
        sizes = np.array(sizes_of(graph, self.points))
        result = {
            "edge_score": score,
            "edge_kept": np.full(graph.edges.shape, -1),
            "clean_difference": clean,
            "corrupted_difference": corrupted,
            "circuit_difference": np.full((n, len(sizes)), np.nan),
            "complement_difference": np.full((n, len(sizes)), np.nan),
            "found_difference": np.full(n, np.nan),
            "found_complement": np.full(n, np.nan),
        }
        base, errors = effect_size(clean[~half], corrupted[~half])
        if not abs(errors) >= NOISE or not np.isfinite(score[0][graph.edges]).all():
            return result
        order = np.argsort(-np.abs(np.where(graph.edges, score[0], 0)).reshape(-1), kind="stable")[: graph.edges.sum()]
        checking = np.flatnonzero(~half)
        checked = np.concatenate(_rows(wired, probe, batch_tokens, checking))

        def batches() -> Iterator[Prompts]:
            return (batch for _, batch in _prompts(wired, probe, batch_tokens, checking))

        curve = sweep(wired, batches, order, sizes, both=True)
        result["circuit_difference"][checked], result["complement_difference"][checked] = (
            curve.circuit,
            curve.complement,
        )

        def faithful(values: np.ndarray) -> bool:
            return bool((values.mean() - corrupted[checked].mean()) / base >= self.threshold)

        first = next(i for i in range(len(sizes)) if i == len(sizes) - 1 or faithful(curve.circuit[:, i]))
        low, high = (int(sizes[first - 1]) if first else 0), int(sizes[first])
        while high - low > 1:
            middle = (low + high) // 2
            tried = sweep(wired, batches, order, np.array([middle]), both=False)
            low, high = (low, middle) if faithful(tried.circuit[:, 0]) else (middle, high)
        smallest = sweep(wired, batches, order, np.array([high]), both=True)
        result["found_difference"][checked] = smallest.circuit[:, 0]
        result["found_complement"][checked] = smallest.complement[:, 0]
        kept = np.zeros(graph.edges.shape, dtype=bool)
        kept.reshape(-1)[order[:high]] = True
        result["edge_kept"] = np.where(graph.edges, graph.connected(kept), -1)
        return result


@dataclass(frozen=True)
class SourceEffects:
    """What each source is for: exactly, and directly.

    Variables: ``source_effect`` (prompt, source), what the logit difference loses when a source is taken from the
    twin's run everywhere and all that follows is computed anew (activation patching, exact); ``direct_effect``
    (prompt, source), what the source itself adds to the logit difference (direct logit attribution). With ``positions``
    also ``source_effect_at`` (prompt, position, source), the same as ``source_effect`` at one token alone.

    Attributes:
        positions: named positions of the probe at which sources are also patched alone.
    """

    positions: tuple[str, ...] = ()

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variables; needs answers, foils and corrupted twins, and the positions."""
        _require_pairs(probe)
        require_positions(probe, self.positions)
        graph = graph_of(shape)
        coords = {"source": tuple(s.name for s in graph.sources)}
        n, sources = len(probe.ids), len(graph.sources)
        found = [
            Variable(name, (PROMPT, "source"), (n, sources), "float", words, "logits", coords=coords)
            for name, words in (
                ("source_effect", "effect of taking the source from the twin's run"),
                ("direct_effect", "direct logit attribution"),
            )
        ]
        if self.positions:
            found.append(
                Variable(
                    "source_effect_at",
                    (PROMPT, POSITION, "source"),
                    (n, len(self.positions), sources),
                    "float",
                    "effect of taking the source from the twin's run at one position",
                    "logits",
                    coords={**coords, POSITION: self.positions},
                )
            )
        return found

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        import torch

        from ..circuits.attribution import direct_logits
        from ..circuits.patching import source_effects
        from ..circuits.wired import Wired

        wired = Wired(model, architecture)
        n, sources = len(probe.ids), len(wired.graph.sources)
        effect, direct = np.full((n, sources), np.nan), np.full((n, sources), np.nan)
        at = np.full((n, len(self.positions), sources), np.nan)
        for rows, batch in _prompts(wired, probe, batch_tokens, np.arange(n)):
            answer, foil = _pair(wired, probe, rows)
            run = (wired, batch.ids, batch.corrupted, batch.positions, batch.metric)
            effect[rows] = _values(source_effects(*run, other=batch.other))
            direct[rows] = _values(direct_logits(wired, batch.ids, batch.positions, answer, foil)[0])
            for index, name in enumerate(self.positions):
                where = torch.zeros(batch.ids.shape, device=wired.device)
                where[torch.arange(len(rows)), torch.from_numpy(probe.positions[name][rows]).to(wired.device)] = 1
                at[rows, index] = _values(source_effects(*run, tokens=where, other=batch.other))
        result = {"source_effect": effect, "direct_effect": direct}
        return result | ({"source_effect_at": at} if self.positions else {})


def _require_pairs(probe: TokenizedProbe) -> None:
    if probe.answer_ids is None or probe.foil_ids is None or probe.corrupted_ids is None:
        raise UserError(
            f"probe {probe.probe.name!r} cannot be patched",
            expected="an answer, a foil and a corrupted twin for every prompt",
        )


def _values(tensor: Any) -> np.ndarray:
    return np.asarray(tensor.detach().double().cpu().numpy())


def _pair(wired: Wired, probe: TokenizedProbe, rows: np.ndarray) -> tuple[Any, Any]:
    import torch

    assert probe.answer_ids is not None and probe.foil_ids is not None
    return tuple(torch.from_numpy(ids[rows]).to(wired.device) for ids in (probe.answer_ids, probe.foil_ids))  # type: ignore[return-value]


def _rows(
    wired: Wired, probe: TokenizedProbe, batch_tokens: int, chosen: np.ndarray, *, gradients: bool = False
) -> list[np.ndarray]:
    """The chosen prompts in batches of equal length that keep to :data:`MEMORY`."""
    graph, d_model = wired.graph, wired.architecture.shape.d_model
    # with gradients every reader's input, its norm and its gradient exist at once
    per_token = 4 * d_model * (3 * len(graph.sources) + (6 if gradients else 1) * len(graph.readers))
    batches = probe.batches(max(1, min(batch_tokens, MEMORY // per_token)))
    return [rows for same in batches if len(rows := same[np.isin(same, chosen)])]


def _prompts(
    wired: Wired, probe: TokenizedProbe, batch_tokens: int, chosen: np.ndarray, *, gradients: bool = False
) -> Iterator[tuple[np.ndarray, Prompts]]:
    """(rows, their tensors) of the chosen prompts, in batches of equal length that keep to :data:`MEMORY`."""
    import torch

    from ..circuits.attribution import logit_difference
    from ..circuits.search import Prompts

    assert probe.corrupted_ids is not None
    for rows in _rows(wired, probe, batch_tokens, chosen, gradients=gradients):
        ids = torch.from_numpy(np.stack([probe.ids[r] for r in rows])).to(wired.device)
        twins = torch.from_numpy(np.stack([probe.corrupted_ids[r] for r in rows])).to(wired.device)
        positions = torch.from_numpy(probe.positions[LAST][rows]).to(wired.device)
        metric = logit_difference(*_pair(wired, probe, rows))
        yield rows, Prompts(ids, twins, positions, metric, wired.written(twins))
