"""Interchange: what one part wrote in another prompt's run is put into this prompt's run. Does the answer follow?

For a prompt p, a donor d, a named token position and a part (a head, an MLP, or the whole stream after a layer), the
model runs on p with the part's output at that position replaced by what it was at the same named position of d; all
that follows is computed anew. Where the part carries what distinguishes the two prompts, in a form that the rest of the
run understands, the answer moves to a *target*: what p would be answered if it asked what d asks (Geiger et al. 2021,
"Causal Abstractions of Neural Networks": interchange interventions). Only one position is exchanged, so that prompts
and donors may differ in length.

Donors and targets are labels of the probe, so that the trace says itself what was exchanged: for a donor named
``other``, the labels ``other_donor`` and ``other_target`` hold the number of a prompt of the same probe for each prompt,
the one that gives the part, and the one whose answer is looked for; -1 for none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from checkpoints.errors import UserError

from ..circuits.graph import graph_of, passes_of
from ..models.architecture import Architecture, ModelShape
from ..names import LAYER, PROMPT
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import require_positions
from .pairs import tokens_at_once

if TYPE_CHECKING:
    from ..circuits.exchange import Begun, Exchanged

__all__ = ["Interchange", "donor_label", "target_label"]

Part = Literal["source", "layer"]
_WORDS = {"source": "a head or MLP", "layer": "the stream after a layer"}
LOGITS = 2**25
"""At most this many logits in one batch."""

KEPT = 4
"""Times as many tokens as are computed in one batch may be there with their keys and values."""


def donor_label(donor: str) -> str:
    """The label that names each prompt's donor.

    >>> donor_label("other")
    'other_donor'
    """
    return f"{donor}_donor"


def target_label(donor: str) -> str:
    """The label that names the prompt whose answer is looked for."""
    return f"{donor}_target"


@dataclass(frozen=True)
class Interchange:
    """Parts of each prompt's run, one at a time, replaced by a donor's; see the module's docstring.

    Variables, each over (donor, exchanged, prompt), where ``exchanged`` is the named position:

    - ``interchange_base``, without the position: logit(target) - logit(answer) of the prompt as it is;
    - ``interchange_source`` (..., source), ``interchange_layer`` (..., layer): how much that difference grows when a
      head's or MLP's output, or the stream after a layer, is the donor's; NaN where the prompt has no donor;
    - ``interchange_source_said``, ``interchange_layer_said``: the first choice among all tokens then; -1 where there is no
      donor or the logits are not finite.

    Attributes:
        donors: names of donors; the probe's labels say which prompts they are.
        positions: named positions at which parts are exchanged.
        parts: ``source``: each head and MLP; ``layer``: the stream after each layer.
    """

    donors: tuple[str, ...]
    positions: tuple[str, ...] = (LAST,)
    parts: tuple[Part, ...] = ("source", "layer")

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variables; needs answers, and labels that name donors and targets."""
        if probe.answer_ids is None:
            raise UserError(
                f"probe {probe.probe.name!r} has no answers",
                expected="an answer for every prompt",
                remedy="give every prompt an `answer`",
            )
        n = len(probe.ids)
        for donor in self.donors:
            for label in (donor_label(donor), target_label(donor)):
                values = probe.probe.labels.get(label)
                if values is None or any(not isinstance(v, int) or not -1 <= v < n for v in values):
                    raise UserError(
                        f"probe {probe.probe.name!r} does not say which prompt is the donor {donor!r}",
                        expected=f"a label {label!r} with the number of a prompt, 0 to {n - 1}, or -1 for none",
                        remedy=f"label every prompt with {label}",
                    )
        require_positions(probe, self.positions)
        names: dict[str, tuple[str | int, ...]] = {
            "source": tuple(s.name for s in graph_of(shape).sources[1:]),
            LAYER: tuple(range(shape.layers)),
        }
        axes: dict[str, tuple[str | int, ...]] = {"donor": self.donors, "exchanged": self.positions}
        base = ("donor", PROMPT)
        variables = [
            Variable(
                "interchange_base",
                base,
                (len(self.donors), n),
                "float",
                "logit of the target minus logit of the answer",
                "logits",
                True,
                {"donor": self.donors},
            )
        ]
        for part in self.parts:
            dims = ("donor", "exchanged", PROMPT, part)
            size = (len(self.donors), len(self.positions), n, len(names[part]))
            coords = axes | ({"source": names["source"]} if part == "source" else {})
            words = _WORDS[part]
            variables += [
                Variable(
                    f"interchange_{part}",
                    dims,
                    size,
                    "float",
                    f"gain of the target on the answer with {words} of the donor",
                    "logits",
                    True,
                    coords,
                ),
                Variable(
                    f"interchange_{part}_said",
                    dims,
                    size,
                    "int",
                    f"first choice with {words} of the donor",
                    coords=coords,
                ),
            ]
        return variables

    def cost(self, probe: TokenizedProbe, shape: ModelShape) -> float:
        """See :class:`dynamics.measurements.base.Priced`."""
        graph = graph_of(shape)
        source = passes_of(graph)
        after = source[[graph.mlp_source(layer).start for layer in range(shape.layers)]]
        each = {"source": source[1:].sum(), "layer": after.sum()}
        having = np.mean([[d != -1 for d in probe.probe.labels[donor_label(donor)]] for donor in self.donors])
        behind = sum(float(np.mean(1 - probe.positions[name] / probe.lengths)) for name in self.positions)
        return float(2 + having * len(self.donors) * behind * sum(each[part] for part in self.parts))

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        from ..circuits.exchange import Exchange
        from ..circuits.wired import Wired

        assert probe.answer_ids is not None
        wired = Wired(model, architecture)
        labels, answers = probe.probe.labels, probe.answer_ids
        donor, target = (
            np.array([labels[of(d)] for d in self.donors]) for of in (donor_label, target_label)
        )  # (donor, prompt)
        n, layers, heads = len(probe.ids), wired.graph.layers, wired.graph.heads
        size = (len(self.donors), len(self.positions), n)
        width = {"source": layers * (heads + 1), "layer": layers}
        moved = {part: np.full((*size, width[part]), np.nan) for part in self.parts}
        said = {part: np.full((*size, width[part]), -1) for part in self.parts}
        base = np.full((len(self.donors), n), np.nan)
        tokens = np.stack([probe.positions[p] for p in self.positions])  # (position, prompt)
        exchange = Exchange(wired, tokens)
        # a run keeps what every layer read and wrote
        held = architecture.shape.d_model * (4 * layers + 20)
        for rows in probe.batches(tokens_at_once(batch_tokens, held)):
            exchange.remember(rows, np.stack([probe.ids[row] for row in rows]))
        # prompts of one length stay together: the more there are, the fewer batches
        for same in probe.batches(tokens_at_once(batch_tokens * max(1, n), held)):
            ids = np.stack([probe.ids[row] for row in same])
            jobs = np.argwhere(donor[:, same] >= 0)
            for p, at in enumerate(tokens[:, same]):
                begun = exchange.begin(ids, int(at.min()))  # nothing before changes
                if p == 0:
                    here = _difference(begun.logits, answers, same, target)
                    base[:, same] = np.where(donor[:, same] >= 0, here, np.nan)
                most = self._at_once(batch_tokens, ids.shape[1], begun, architecture.shape)
                for kind, layer, part, first in self._exchanged(layers, heads):
                    counted = heads if kind == "head" else 1
                    which = np.tile(np.arange(counted), len(jobs))
                    for start in range(0, len(which), most):
                        head = which[start : start + most]
                        d, local = jobs[np.arange(start, start + len(head)) // counted].T
                        row, number = same[local], first + head
                        named = np.full(len(row), p)
                        logits = begun.logits_with(kind, layer, local, at[local], named, donor[d, row], head)
                        each = np.arange(len(row))
                        gain = logits[each, answers[target[d, row]]] - logits[each, answers[row]]
                        moved[part][d, p, row, number] = gain - base[d, row]
                        said[part][d, p, row, number] = np.where(np.isfinite(logits.max(1)), logits.argmax(1), -1)
        result: dict[str, np.ndarray] = {"interchange_base": base}
        for part in self.parts:
            result |= {f"interchange_{part}": moved[part], f"interchange_{part}_said": said[part]}
        return result

    @staticmethod
    def _at_once(batch_tokens: int, length: int, begun: Begun, shape: ModelShape) -> int:
        """How many runs in one batch; keys and values of tokens that are not computed anew take memory too."""
        most = min(batch_tokens // begun.ids.shape[1], KEPT * batch_tokens // length, LOGITS // shape.vocab)
        return max(1, most)

    def _exchanged(self, layers: int, heads: int) -> Iterator[tuple[Exchanged, int, Part, int]]:
        """What is exchanged, in which layer, of which part, and the number of its first one there."""
        for layer in range(layers):
            if "source" in self.parts:
                yield "head", layer, "source", layer * (heads + 1)
                yield "mlp", layer, "source", layer * (heads + 1) + heads
            if "layer" in self.parts:
                yield "layer", layer, "layer", layer


def _difference(logits: np.ndarray, answers: np.ndarray, rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(donor, row) logit(target) - logit(answer)."""
    at = np.arange(len(rows))
    return np.asarray(logits[at, answers[target[:, rows]]] - logits[at, answers[rows]])
