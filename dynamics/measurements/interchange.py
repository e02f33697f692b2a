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
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from checkpoints.errors import UserError

from ..circuits.graph import graph_of
from ..models.architecture import Architecture, ModelShape
from ..names import LAYER, PROMPT
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import require_positions

if TYPE_CHECKING:
    import torch

    from ..models.wiring import Wiring

__all__ = ["Interchange", "donor_label", "target_label"]

Part = Literal["source", "layer"]
_WORDS = {"source": "a head or MLP", "layer": "the stream after a layer"}
LOGITS = 2**25
"""At most this many logits in one batch."""


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
        parts = {"source": len(graph_of(shape).sources) - 1, "layer": shape.layers}
        having = np.mean([[d != -1 for d in probe.probe.labels[donor_label(donor)]] for donor in self.donors])
        return float(2 + having * len(self.donors) * len(self.positions) * sum(parts[part] for part in self.parts))

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        assert probe.answer_ids is not None
        exchange = _Exchange(model, architecture)
        labels = probe.probe.labels
        donor, target = (
            np.array([labels[of(d)] for d in self.donors]) for of in (donor_label, target_label)
        )  # (donor, prompt)
        n = len(probe.ids)
        layers = np.arange(exchange.layers)
        wanted = {
            "source": np.arange(exchange.sources),
            "layer": exchange.sources + layers,
        }
        parts = np.concatenate([wanted[part] for part in self.parts])
        size = (len(self.donors), len(self.positions), n, len(parts))
        moved, said = np.full(size, np.nan), np.full(size, -1)
        base = np.full((len(self.donors), n), np.nan)
        tokens = np.stack([probe.positions[p] for p in self.positions])  # (position, prompt)
        exchange.remember(probe, tokens, batch_tokens)
        for same in probe.batches(n * int(probe.lengths.max())):  # all prompts of one length
            ids = np.stack([probe.ids[row] for row in same])
            rows = max(1, min(batch_tokens // ids.shape[1], LOGITS // architecture.shape.vocab))
            for start in range(0, len(same), rows):
                some = same[start : start + rows]
                logits = exchange.logits(ids[start : start + rows])
                base[:, some] = np.where(
                    donor[:, some] >= 0, _difference(logits, probe.answer_ids, some, target), np.nan
                )
            jobs = np.argwhere(
                np.broadcast_to((donor[:, None, same] >= 0)[..., None], (*size[:2], len(same), len(parts)))
            )
            for start in range(0, len(jobs), rows):
                d, p, local, part = jobs[start : start + rows].T
                row = same[local]
                logits = exchange.logits(ids[local], tokens[p, row], p, donor[d, row], parts[part])
                pair = logits[np.arange(len(row))[:, None], np.stack([probe.answer_ids[target[d, row]], probe.answer_ids[row]], 1)]  # fmt: skip
                moved[d, p, row, part] = pair[:, 0] - pair[:, 1] - base[d, row]
                said[d, p, row, part] = np.where(np.isfinite(logits.max(1)), logits.argmax(1), -1)
        result = {"interchange_base": base}
        at = 0
        for name in self.parts:
            chosen = slice(at, at + len(wanted[name]))
            result[f"interchange_{name}"], result[f"interchange_{name}_said"] = moved[..., chosen], said[..., chosen]
            at = chosen.stop
        return result


def _difference(logits: np.ndarray, answers: np.ndarray, rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(donor, row) logit(target) - logit(answer)."""
    at = np.arange(len(rows))
    return np.asarray(logits[at, answers[target[:, rows]]] - logits[at, answers[rows]])


@dataclass
class _Now:
    """What is exchanged in the forward pass that runs: each (row,)."""

    at: torch.Tensor  # token
    position: torch.Tensor  # which of the named positions that is
    donor: torch.Tensor  # prompt
    part: torch.Tensor  # number of the part: heads and MLPs in the order of sources, then layers


class _Exchange:
    """Runs a model with a part of each row replaced; rows of one batch may exchange different parts.

    Args:
        model: in evaluation mode; it is changed only while a pass runs.
        architecture: its sizes, sites and wiring.
    """

    def __init__(self, model: Any, architecture: Architecture) -> None:
        self.graph = graph_of(architecture.shape)
        self.model, self.architecture = model, architecture
        self.layers, self.sources = architecture.shape.layers, len(self.graph.sources) - 1
        self.device = next(model.parameters()).device
        assert architecture.table.wiring is not None
        self.wiring: Wiring = architecture.table.wiring
        self.store: dict[tuple[str, int], torch.Tensor] = {}  # (kind, layer) to (position, prompt, width)

    def remember(self, probe: TokenizedProbe, tokens: np.ndarray, batch_tokens: int) -> None:
        """Keep what every part writes for every prompt at the ``tokens`` (position, prompt)."""
        import torch

        for rows in probe.batches(batch_tokens):
            ids = torch.from_numpy(np.stack([probe.ids[row] for row in rows])).to(self.device)
            at = torch.from_numpy(tokens[:, rows]).to(self.device)
            prompts = torch.from_numpy(rows).to(self.device)

            def keep(kind: str, layer: int, x: torch.Tensor, at: Any = at, prompts: Any = prompts) -> None:
                found = x[torch.arange(len(prompts), device=x.device), at]  # (position, row, width)
                if (kind, layer) not in self.store:
                    self.store[kind, layer] = x.new_zeros((len(tokens), len(probe.ids), x.shape[-1]))
                self.store[kind, layer][:, prompts] = found

            with torch.no_grad(), self._hooked(keep):
                self._forward(ids)

    def logits(
        self,
        ids: np.ndarray,
        at: np.ndarray | None = None,
        position: np.ndarray | None = None,
        donor: np.ndarray | None = None,
        part: np.ndarray | None = None,
    ) -> np.ndarray:
        """(row, vocab) float32 logits at the last token, of the model as it is or with one part of each row replaced."""
        import torch

        given = torch.from_numpy(ids).to(self.device)
        with torch.no_grad():
            if at is None:
                return self._forward(given)
            now = _Now(*(torch.as_tensor(x, device=self.device) for x in (at, position, donor, part)))
            with self._hooked(partial(self._replace, now)):
                return self._forward(given)

    def _forward(self, ids: torch.Tensor) -> np.ndarray:
        import torch

        last = torch.tensor([ids.shape[1] - 1], device=self.device)
        return np.asarray(self.architecture.logits(self.model, ids, last)[:, 0].float().cpu().numpy())

    def _replace(self, now: _Now, kind: str, layer: int, x: torch.Tensor) -> torch.Tensor | None:
        """``x`` (row, token, width) with the donor's part in those rows that exchange it, or None for as it is."""
        first = self.graph.attention_sources(layer).start - 1
        number = {"head": first, "mlp": self.graph.mlp_source(layer).start - 1, "layer": self.sources + layer}[kind]
        heads = self.graph.heads if kind == "head" else 1
        rows = ((now.part >= number) & (now.part < number + heads)).nonzero()[:, 0]
        if not len(rows):
            return None
        new = x.clone()
        parts = new.unflatten(-1, (heads, -1))  # type: ignore[no-untyped-call]  # a view of new
        kept = self.store[kind, layer][now.position[rows], now.donor[rows]].unflatten(-1, (heads, -1))  # type: ignore[no-untyped-call]
        which = now.part[rows] - number
        parts[rows, now.at[rows], which] = kept[_counted(rows), which]
        return new

    @contextmanager
    def _hooked(self, see: Any) -> Iterator[None]:
        """``see(kind, layer, value)`` looks at each part's output, and may return another."""
        table = self.architecture.table
        handles: list[Any] = []
        try:
            for layer in range(self.layers):
                block = self.model.get_submodule(table.block.format(layer))
                handles += [
                    block.get_submodule(self.wiring.out).register_forward_pre_hook(
                        partial(_given, see, "head", layer), with_kwargs=True
                    ),
                    block.get_submodule(table.in_block["mlp_out"].module).register_forward_hook(
                        partial(_returned, see, "mlp", layer)
                    ),
                    block.get_submodule(table.in_block["resid_post"].module).register_forward_hook(
                        partial(_returned, see, "layer", layer)
                    ),
                ]
            yield
        finally:
            for handle in handles:
                handle.remove()


def _counted(rows: torch.Tensor) -> torch.Tensor:
    """(row,) 0, 1, ... on the device of ``rows``."""
    import torch

    return torch.arange(len(rows), device=rows.device)


def _given(see: Any, kind: str, layer: int, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A hook before a module, whose input may be replaced."""
    name = next(iter(kwargs), "")
    new = see(kind, layer, args[0] if args else kwargs[name])
    if new is None:
        return None
    return ((new, *args[1:]), kwargs) if args else (args, kwargs | {name: new})


def _returned(see: Any, kind: str, layer: int, _module: Any, _args: Any, output: Any) -> Any:
    """A hook after a module, whose output may be replaced."""
    new = see(kind, layer, output[0] if isinstance(output, tuple) else output)
    if new is None:
        return None
    return (new, *output[1:]) if isinstance(output, tuple) else new
