"""The attribution of every edge over groups of prompts, to hold circuits of different prompts against one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..circuits.graph import graph_of
from ..models.architecture import Architecture, ModelShape
from ..probes import TokenizedProbe
from ..store.variable import Variable
from .pairs import attributed, groups_of, require_pairs, share_apart

__all__ = ["EdgeGroups"]


@dataclass(frozen=True)
class EdgeGroups:
    """EAP-IG of every edge, over groups of prompts.

    Half of the prompts say which edges matter, and how sure that is only groups of them can say: where a model knows nothing of
    which answer is right, the answer and the foil of a prompt could as well be exchanged, which changes the sign of its
    attribution and nothing else. Exchanged group by group, prompts become prompts of the same shape that ask for nothing
    (:mod:`dynamics.analysis.shared_circuits`).

    Variable ``edge_score_group`` (group, source, reader): mean attribution over the prompts of each group, in logits; NaN where
    there is no such edge. The first half of the groups are the prompts that rank edges for
    :class:`dynamics.measurements.circuit.Circuit`, whose ``edge_score`` are the means of the halves. What both need is
    computed once.

    Attributes:
        steps: points of the integrated gradient.
        seed: chooses the halves.
    """

    steps: int = 5
    seed: int = 0

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variable; needs answers, foils and corrupted twins."""
        require_pairs(probe)
        graph, count = graph_of(shape), groups_of(len(probe.ids))
        names = {"source": tuple(s.name for s in graph.sources), "reader": tuple(r.name for r in graph.readers)}
        dimensions, size = ("group_of_prompts", "source", "reader"), (count, *graph.edges.shape)
        text = "EAP-IG attribution of each edge, by group of prompts"
        return [Variable("edge_score_group", dimensions, size, "float", text, "logits", True, names)]

    def cost(self, probe: TokenizedProbe, shape: ModelShape) -> float:
        """See :class:`dynamics.measurements.base.Priced`."""
        return share_apart(probe) * (2 + 3 * self.steps)

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        from ..circuits.wired import Wired

        known = attributed(Wired(model, architecture), probe, batch_tokens, self.steps, self.seed)
        return {"edge_score_group": known.groups}
