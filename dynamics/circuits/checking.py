"""Does a wiring say what a model computes? Found out on random token ids, before anything is measured.

With what every source wrote in two runs, and the streams that readers read (:class:`dynamics.circuits.wired.Wired`):

1. every stream is the sum of what was written before (as differences of the runs, in which biases cancel);
2. a pass in which edges are cut and replaced by what the same run wrote gives the model's own logits (a pass of zero cuts,
   in which every cut reader's input is made anew, through its norm and its matrix);
3. one in which all edges are cut gives the logits of the other run;
4. what a head's query reads at a token acts there alone, what its key reads at later tokens, and what its value reads through
   the heads of its group alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from checkpoints.errors import UserError, first_line

from ..models.architecture import Architecture
from .hooks import ForwardPass, before
from .wired import Wired

__all__ = ["check_wiring"]

_ROWS, _TOKENS = 2, 6


def check_wiring(model: torch.nn.Module, architecture: Architecture, *, random: bool = False) -> None:
    """Refuse a wiring that is not the model's; it takes about a dozen passes of two short rows.

    Args:
        model: in evaluation mode; it is changed only while this runs.
        architecture: its sizes, sites and wiring.
        random: whether its weights are random and large, so that every head does something: one that does nothing is wired
            wrongly then, and in a model that has learned nothing yet need not be.

    Raises:
        UserError: with the layer, and the attributes of the wiring that are likely to be wrong.
    """
    try:
        _Check(model, architecture, random).all()
    except UserError:
        raise
    except Exception as error:  # of a table of the user's own, or of a model that takes another input
        raise _wrong(
            f"a pass with cut edges fails: {first_line(error)}", "`projections`, `out`, `norm`, `mlp`"
        ) from error


def _wrong(what: str, suspects: str) -> UserError:
    return UserError(
        f"the wiring is not the model's: {what}",
        expected="a wiring with which a pass of zero cuts gives the logits of the model",
        remedy=f"correct {suspects} in the Wiring of the table, or leave `wiring` out (analyses then have no circuits)",
    )


class _Check:
    def __init__(self, model: torch.nn.Module, architecture: Architecture, random: bool) -> None:
        self.random = random
        self.wired = Wired(model, architecture)
        self.graph = self.wired.graph
        shape = architecture.shape
        tokens = min(_TOKENS, shape.context or _TOKENS)
        rng = np.random.default_rng(0)
        ids = rng.integers(0, shape.vocab, (2, _ROWS, tokens))
        self.ids, self.twins = (torch.from_numpy(rows).to(self.wired.device) for rows in ids)
        self.last = torch.full((_ROWS,), tokens - 1, device=self.wired.device)
        self.close = 2e-3 if self.wired.dtype == torch.float32 else 0.1

    def all(self) -> None:
        """The four of the module's docstring."""
        here, there = self.wired.run(self.ids, self.last), self.wired.run(self.twins, self.last)
        self._streams(here, there)
        mine, theirs = self.wired.sources(here), self.wired.sources(there)
        edges = torch.from_numpy(self.graph.edges)
        half = edges & torch.from_numpy(np.random.default_rng(1).random(edges.shape) < 0.5)
        base = self._patched(mine, half)
        self._same(base, here.logits, "a pass of zero cuts gives other logits", "`norm`, `projections`, `layout`")
        other = self._patched(theirs, edges)
        self._same(
            other, there.logits, "with all edges cut the logits are not those of the other run", "`out`, `after`, `mlp`"
        )
        for layer in sorted({0, self.graph.layers - 1}):
            self._heads(layer, theirs)

    def _streams(self, here: ForwardPass, there: ForwardPass) -> None:
        written, graph = self.wired.sources(here, less=there), self.graph
        total = written.cumsum(0)
        for layer in range(graph.layers + 1):
            last = layer == graph.layers
            readers = [graph.logits_reader] if last else [graph.attention_readers(layer), graph.mlp_reader(layer)]
            for reader in readers:
                name = graph.readers[reader.start].name
                role = graph.readers[reader.start].role
                read = here.streams[reader.start] - there.streams[reader.start]
                what = f"what {'attention of layer ' + str(layer) if role == 'q' else name} reads is not the sum of what was written"
                if role == "mlp":
                    suspects = "`mlp` (the first module that reads the stream), `shared`, `parallel`, `out`, `after`"
                else:
                    suspects = "`out`, `after`, and the site `mlp_out`"
                self._same(total[graph.seen_by(reader) - 1], read, what, suspects)

    def _heads(self, layer: int, theirs: torch.Tensor) -> None:
        """Queries act at their own token alone, keys at later ones, values on the heads of their group."""
        graph = self.graph
        readers = graph.attention_readers(layer)
        moved = {
            role: self._moved(layer, theirs, readers.start + number, token)
            for role, number, token in (("q", 0, 1), ("k", graph.heads, 0), ("v", graph.heads + graph.kv_heads, 0))
        }
        mine = np.isin(np.arange(graph.heads), np.arange(graph.heads // graph.kv_heads))  # of the first group
        wrong = (
            ("q", "acts at later tokens too", moved["q"][2:].any()),
            ("q", "does nothing at its own token", self.random and not moved["q"][1].any()),
            ("k", "acts at its own token, which sees nothing else", moved["k"][0].any()),
            ("k", "does nothing at later tokens", self.random and not moved["k"][1:].any()),
            ("v", "acts through other heads too", moved["v"][:, ~mine].any()),
            ("v", "does nothing at its own token", self.random and not moved["v"][0, mine].any()),
        )
        for role, what, found in wrong:
            if found:
                number = readers.start + {"q": 0, "k": graph.heads, "v": graph.heads + graph.kv_heads}[role]
                name = graph.readers[number].name
                raise _wrong(
                    f"what {name} reads {what}", "`layout` and `projections` (queries, keys, values, in this order)"
                )

    def _moved(self, layer: int, theirs: torch.Tensor, reader: int, token: int) -> np.ndarray:
        """(token, head) whether it changes what a layer's heads give when a reader reads the other run at one token."""
        seen: list[torch.Tensor] = []
        handles: list[Any] = []
        before(handles, self.wired.blocks[layer].get_submodule(self.wired.wiring.out), seen.append)
        cut = torch.zeros((1, self.ids.shape[1], *self.graph.edges.shape))
        try:
            self._patched(theirs, cut)
            cut[:, token, : self.graph.seen_by(self.graph.attention_readers(layer)), reader] = 1
            self._patched(theirs, cut)
        finally:
            for handle in handles:
                handle.remove()
        as_it_is, cut_off = (z.unflatten(-1, (self.graph.heads, -1)).float() for z in seen)  # type: ignore[no-untyped-call]
        moved = (cut_off - as_it_is).abs().amax((0, 3))
        return np.asarray((moved > self.close * float(as_it_is.abs().max())).cpu())

    def _patched(self, other: torch.Tensor, cut: torch.Tensor) -> torch.Tensor:
        return self.wired.patched(self.ids, self.last, other, cut.to(self.wired.device))

    def _same(self, found: torch.Tensor, expected: torch.Tensor, what: str, suspects: str) -> None:
        scale = float(expected.abs().max())
        if not float((found - expected).abs().max()) <= self.close * scale + 1e-6:
            raise _wrong(what, suspects)
