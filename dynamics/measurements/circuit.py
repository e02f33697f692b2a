"""Measurements that intervene: what each edge carries, which circuit does the task, and what each source is for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.errors import UserError

from ..circuits.graph import Graph, graph_of
from ..models.architecture import Architecture, ModelShape
from ..names import PROMPT
from ..probes import TokenizedProbe
from ..store.variable import Variable
from .pairs import MEMORY, Attributed, attributed, discovery_half, pairs_of, require_pairs, share_apart, tokens_at_once

if TYPE_CHECKING:
    from ..circuits.search import Prompts
    from ..circuits.wired import Wired

__all__ = ["Circuit", "sizes_of"]

NOISE = 3.0
"""Standard errors by which prompts and twins must differ for faithfulness to mean anything."""

EXACT = 500
"""The smallest circuit is found to one edge up to twice so many edges, and to this part of its edges beyond: otherwise the
search alone would take more passes the more edges there are."""


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
    - ``edge_kept`` (source, reader): 1 for the smallest circuit whose faithfulness reaches the threshold (of more than 1,000
      edges to 1/500 of them), 0 for other edges, -1 where there is no such edge, or prompts and twins do not differ beyond
      noise;
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
        require_pairs(probe)
        if len(probe.ids) < 4:
            raise UserError(
                f"probe {probe.probe.name!r} has {len(probe.ids)} prompts",
                expected="at least 4",
                remedy="ask for more prompts",
            )
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

    def cost(self, probe: TokenizedProbe, shape: ModelShape) -> float:
        """See :class:`dynamics.measurements.base.Priced`: attribution, and cuts, each two passes on half of the prompts."""
        halvings = np.log2(min(graph_of(shape).edges.sum(), EXACT))
        return share_apart(probe) * float(2 + 3 * self.steps + 2 * self.points + halvings)

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        from ..circuits.search import effect_size, sweep
        from ..circuits.wired import Wired

        wired = Wired(model, architecture)
        graph, n = wired.graph, len(probe.ids)
        half = discovery_half(n, self.seed)
        known = attributed(wired, probe, batch_tokens, self.steps, self.seed)
        clean, corrupted, score = known.clean, known.corrupted, known.edge
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
        batches = _Checking(wired, probe, batch_tokens, np.flatnonzero(~half), known)
        checked = batches.rows
        curve = sweep(graph, batches, order, sizes, both=True)
        result["circuit_difference"][checked] = curve.circuit
        result["complement_difference"][checked] = curve.complement

        def faithful(values: np.ndarray) -> bool:
            return bool((values.mean() - corrupted[checked].mean()) / base >= self.threshold)

        first = next(i for i in range(len(sizes)) if i == len(sizes) - 1 or faithful(curve.circuit[:, i]))
        low, high = (int(sizes[first - 1]) if first else 0), int(sizes[first])
        while high - low > max(1, high // EXACT):
            middle = (low + high) // 2
            tried = sweep(graph, batches, order, np.array([middle]), both=False)
            low, high = (low, middle) if faithful(tried.circuit[:, 0]) else (middle, high)
        if high in sizes:
            result["found_difference"], result["found_complement"] = (
                result[f"{name}_difference"][:, sizes.tolist().index(high)] for name in ("circuit", "complement")
            )
        else:
            smallest = sweep(graph, batches, order, np.array([high]), both=True)
            result["found_difference"][checked] = smallest.circuit[:, 0]
            result["found_complement"][checked] = smallest.complement[:, 0]
        kept = np.zeros(graph.edges.shape, dtype=bool)
        kept.reshape(-1)[order[:high]] = True
        result["edge_kept"] = np.where(graph.edges, graph.connected(kept), -1)
        return result


class _Checking:
    """The prompts that check circuits, with their twins' runs, which are kept where there is room.

    Attributes:
        rows: numbers of the prompts, in the order of the batches.
    """

    def __init__(
        self, wired: Wired, probe: TokenizedProbe, batch_tokens: int, chosen: np.ndarray, known: Attributed
    ) -> None:
        self.known = known
        graph, shape = wired.graph, wired.architecture.shape
        streams = 4 * graph.layers + 20  # of the twins' run, and of what a block needs
        inputs = 3 * (graph.attention_readers(0).stop + 1)
        width = shape.d_model * (len(graph.sources) + inputs + streams)
        self.pairs = list(pairs_of(wired, probe, tokens_at_once(batch_tokens, width), chosen))
        self.rows = np.concatenate([batch.rows for batch in self.pairs])
        tokens = sum(batch.ids.numel() for batch in self.pairs)
        self.kept = list(self._made()) if tokens * 4 * shape.d_model * streams <= MEMORY else None

    def __iter__(self) -> Iterator[Prompts]:
        made: Iterable[Prompts] = self._made() if self.kept is None else self.kept
        return iter(made)

    def _made(self) -> Iterator[Prompts]:
        from ..circuits.search import Prompts

        for batch in self.pairs:
            other = batch.wired.run(batch.corrupted, batch.positions)
            values = self.known.clean[batch.rows], self.known.corrupted[batch.rows]
            yield Prompts(batch.wired, batch.ids, batch.positions, batch.metric, other, *values)
