"""Where the strongest attention of a flowchart comes from: its score by what wrote the query and what wrote the key.

A head that carries much from another token into its own is drawn with edges into its keys and values there. Of the
largest of these, at each checkpoint and at the last one, the attention is said, for the prompt and for the corrupted
prompts, and its score is taken apart (:mod:`dynamics.circuits.looking`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from checkpoints.errors import UserError

from ..circuits.graph import Graph
from ..numerics.arrays import FloatArray
from .prompts import Question

if TYPE_CHECKING:
    from ..circuits.looking import Look, LookedAt
    from ..circuits.wired import Wired
    from .flow import Flow

__all__ = ["BIASES", "Attending", "strongest_attention"]

MOST = 6
"""Pairs of a head's position and a token, of one checkpoint."""

PARTS = 5
"""Queries, keys, and pairs of them that are named."""

BIASES = "biases"
"""What no part of the model wrote."""

Place = tuple[int, int, int]
"""A head's number among the sources, its position, and the position that it looks at."""


def strongest_attention(flow: Flow, graph: Graph) -> list[Place]:
    """Those with the largest sizes of the attributions of a flowchart's edges into keys and values."""
    size: defaultdict[Place, float] = defaultdict(float)
    for edge in flow.shown[0]:
        if edge.port in ("k", "v"):
            size[*edge.target, edge.source[1]] += abs(edge.score)
    return sorted(size, key=lambda place: (-size[place], place))[:MOST]


@dataclass
class Attending:
    """What is said of attention, checkpoint by checkpoint; the last one has to come first.

    Attributes:
        final: the strongest at the last checkpoint, which are looked at at every one.
    """

    final: list[Place] | None = field(default=None)

    @classmethod
    def asked_for(cls, sites: Container[str]) -> Self:
        """Of a model with these sites.

        Raises:
            UserError: for a model that does not say where it looks.
        """
        if "pattern" not in sites:
            raise UserError(
                "this model does not say where its heads look",
                expected="an adapter with the site 'pattern'",
                remedy="leave --attention out, or name where attention weights are in the adapter's table",
            )
        return cls()

    def rows(self, wired: Wired, question: Question, part: dict[str, Any], flow: Flow | None) -> list[dict[str, Any]]:
        """Of one checkpoint, as JSON values; none where it has no numbers."""
        import torch

        from ..circuits.looking import looks, weights

        own = [] if flow is None else strongest_attention(flow, wired.graph)
        if self.final is None:
            self.final = own
        if part["state"] == "failed":
            return []
        places = list(dict.fromkeys((*own, *self.final)))
        if not places:
            return []
        ids, twins = (torch.from_numpy(x).to(wired.device) for x in (question.ids[None], question.twins))
        at = [_looked_at(wired.graph, place) for place in places]
        found = looks(wired, ids, wired.run(ids), at)
        corrupted = weights(wired, twins, at).double().mean(0).tolist()
        rows = zip(at, found, corrupted, strict=True)
        return [_row(wired.graph, *row) for row in rows if row[1] is not None]


def _looked_at(graph: Graph, place: Place) -> LookedAt:
    from ..circuits.looking import LookedAt

    source, position, token = place
    about = graph.sources[source]
    assert about.layer is not None and about.head is not None
    return LookedAt(about.layer, about.head, position, token)


def _row(graph: Graph, at: LookedAt, look: Look | None, corrupted: float) -> dict[str, Any]:
    assert look is not None
    row = {
        "head": f"L{at.layer}H{at.head}@{at.position}",
        "token": at.token,
        "weight": look.weight,
        "corrupted": min(max(corrupted, 0.0), 1.0) if np.isfinite(corrupted) else None,
        "score": look.score,
        "rest": look.rest,
        "queries": [],
        "keys": [],
        "parts": [],
    }
    if look.parts is not None:
        names = [*(source.name for source in graph.sources), BIASES]
        parts = look.parts.double().numpy()
        row["queries"] = [[names[i], value] for (i,), value in _largest(parts.sum(1))]
        row["keys"] = [[names[i], value] for (i,), value in _largest(parts.sum(0))]
        row["parts"] = [[names[i], names[j], value] for (i, j), value in _largest(parts)]
    return row


def _largest(parts: FloatArray) -> list[tuple[tuple[int, ...], float]]:
    """Indices and values of the largest sizes, none of them 0."""
    order = np.argsort(-np.abs(parts), axis=None, kind="stable")[:PARTS]
    indices = zip(*np.unravel_index(order, parts.shape), strict=True)
    return [(tuple(map(int, at)), float(parts[at])) for at in indices if parts[at]]
