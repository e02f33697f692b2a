"""What each source is for: patched exactly, and directly.

A source's effect takes a pass of its own (from its layer on), so that the price of all of them grows with the number of
heads. Where they cost more than ``passes``, the sources that attribution ranks highest are patched, and others at
random, which say how good the ranking is; what is known of the rest is their attribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..circuits.graph import Graph, graph_of, passes_of
from ..models.architecture import Architecture, ModelShape
from ..names import POSITION, PROMPT
from ..probes import TokenizedProbe
from ..store.variable import Variable
from .base import require_positions
from .pairs import attributed, numbers, pairs_of, require_pairs, share_apart, tokens_at_once

__all__ = ["AT_RANDOM", "HIGHEST", "SourceEffects"]

HIGHEST, AT_RANDOM = 1, 2
"""Values of ``source_patched``: why a source was patched."""

RANKED = 2 / 3
"""Of the passes, for the sources that attribution ranks highest."""


@dataclass(frozen=True)
class SourceEffects:
    """What each source is for.

    Variables:

    - ``source_effect`` (prompt, source): what the logit difference loses when a source is taken from the twin's run
      everywhere and all that follows is computed anew (activation patching, exact); NaN where it was not patched;
    - ``direct_effect`` (prompt, source): what the source itself adds to the logit difference (direct logit attribution);
    - with ``positions`` also ``source_effect_at`` (prompt, position, source): ``source_effect`` at one token alone;
    - where not all sources are patched also ``source_attribution`` (prompt, source), the estimate of the effect to first
      order (EAP-IG, all edges of the source together), and ``source_patched`` (source): 1 for those with the largest mean
      attribution, 2 for those patched at random, 0 for the others.

    Attributes:
        positions: named positions of the probe at which sources are also patched alone.
        passes: how many passes of the model through all prompts patching may take (with ``positions``, each as many
            again); None for all sources.
        steps: points of the integrated gradient.
        seed: chooses what is patched at random, and the halves as in :class:`Circuit`.
    """

    positions: tuple[str, ...] = ()
    passes: float | None = 30.0
    steps: int = 5
    seed: int = 0

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variables; needs answers, foils and corrupted twins, and the positions."""
        require_pairs(probe)
        require_positions(probe, self.positions)
        graph = graph_of(shape)
        coords = {"source": tuple(s.name for s in graph.sources)}
        n, sources = len(probe.ids), len(graph.sources)
        some = not self._all(graph)
        words = "effect of taking the source from the twin's run"
        which = ", of those patched" if some else ""

        def of(name: str, words: str, sampled: bool = False) -> Variable:
            return Variable(name, (PROMPT, "source"), (n, sources), "float", words, "logits", sampled, coords)

        found = [of("source_effect", words + which, some), of("direct_effect", "direct logit attribution")]
        if some:
            patched = "1: patched for its attribution, 2: at random, 0: not"
            found += [
                of("source_attribution", "attribution of the source (EAP-IG)"),
                Variable("source_patched", ("source",), (sources,), "int", patched, coords=coords),
            ]
        if self.positions:
            found.append(
                Variable(
                    "source_effect_at",
                    (PROMPT, POSITION, "source"),
                    (n, len(self.positions), sources),
                    "float",
                    f"{words} at one position{which}",
                    "logits",
                    some,
                    {**coords, POSITION: self.positions},
                )
            )
        return found

    def cost(self, probe: TokenizedProbe, shape: ModelShape) -> float:
        """See :class:`dynamics.measurements.base.Priced`; attribution is the circuit's."""
        every = float(passes_of(graph_of(shape)).sum())
        patching = every if self.passes is None else min(every, self.passes)
        return share_apart(probe) * (2 + patching * (1 + len(self.positions)))

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        import torch

        from ..circuits.patching import source_effects
        from ..circuits.wired import Wired

        wired = Wired(model, architecture)
        graph, n = wired.graph, len(probe.ids)
        known = attributed(wired, probe, batch_tokens, self.steps, self.seed)
        patched = self._patched(graph, np.abs(known.source.mean(0)))
        chosen = np.flatnonzero(patched)
        effect = np.full((n, len(graph.sources)), np.nan)
        at = np.full((n, len(self.positions), len(graph.sources)), np.nan)
        # both runs, and what a block needs
        width = architecture.shape.d_model * (8 * graph.layers + 20)
        for batch in pairs_of(wired, probe, tokens_at_once(batch_tokens, width), np.arange(n)):
            wired = batch.wired
            runs = wired.run(batch.ids, batch.positions), wired.run(batch.corrupted, batch.positions)
            for index, name in enumerate((None, *self.positions)):
                where = None
                if name is not None:
                    where = torch.zeros(batch.ids.shape, device=wired.device)
                    token = probe.positions[name][batch.rows] - batch.start  # before, both runs are the same
                    there = np.flatnonzero(token >= 0)
                    where[there, token[there]] = 1
                found = source_effects(
                    wired,
                    batch.ids,
                    batch.corrupted,
                    batch.positions,
                    batch.metric,
                    tokens=where,
                    chosen=chosen.tolist(),
                    runs=runs,
                )
                into = effect if name is None else at[:, index - 1]
                into[np.ix_(batch.rows, chosen)] = numbers(found)
        result = {"source_effect": effect, "direct_effect": known.direct}
        if not self._all(graph):
            result |= {"source_attribution": known.source, "source_patched": patched}
        return result | ({"source_effect_at": at} if self.positions else {})

    def _all(self, graph: Graph) -> bool:
        return self.passes is None or float(passes_of(graph).sum()) <= self.passes

    def _patched(self, graph: Graph, size: np.ndarray) -> np.ndarray:
        """(source,) whether and why each is patched, by the size of its mean attribution."""
        if self.passes is None or self._all(graph):
            return np.full(len(size), HIGHEST)
        cost = passes_of(graph)
        found = np.zeros(len(size), dtype=int)
        ranked = np.argsort(-size, kind="stable")
        found[ranked[np.cumsum(cost[ranked]) <= RANKED * self.passes]] = HIGHEST
        left = self.passes - cost[found > 0].sum()
        # the same at all checkpoints, as far as may be
        dealt = np.random.default_rng(self.seed).permutation(len(size))
        dealt = dealt[found[dealt] == 0]
        found[dealt[np.cumsum(cost[dealt]) <= left]] = AT_RANDOM
        return found
