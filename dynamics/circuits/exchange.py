"""One part of a run, at one token, exchanged for what it was in another prompt's run; all that follows is computed anew.

A run is kept, and begun again at the layer of the part: nothing before it changes. Rows of one batch exchange parts of one
layer, each its own head, at a token and from a prompt of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from .hooks import ForwardPass, Hooks, Resuming, before
from .wired import Wired

__all__ = ["Begun", "Exchange", "Exchanged"]

Exchanged = Literal["head", "mlp", "layer"]
"""What a head or an MLP wrote, or the stream after a layer."""


class Exchange:
    """What every part wrote for every prompt at its named tokens, and runs in which one of them is another prompt's.

    Args:
        wired: the model.
        tokens: (position, prompt) token index of each named position.
    """

    def __init__(self, wired: Wired, tokens: np.ndarray) -> None:
        self.wired = wired
        self.tokens = torch.from_numpy(tokens).to(wired.device)
        self.kept: dict[tuple[Exchanged, int], torch.Tensor] = {}  # (position, prompt, width)

    def remember(self, rows: np.ndarray, ids: np.ndarray) -> None:
        """Keep what the parts write for the prompts ``rows`` (row,), whose ids are (row, token)."""
        run = self.wired.run(torch.from_numpy(ids).to(self.wired.device))
        prompts = torch.from_numpy(rows).to(self.wired.device)
        at = self.tokens[:, prompts]
        for layer in range(self.wired.graph.layers):
            for kind in ("head", "mlp", "layer"):
                written = self.written(run, kind, layer)
                found = written[torch.arange(len(prompts), device=at.device), at]  # (position, row, width)
                if (kind, layer) not in self.kept:
                    self.kept[kind, layer] = found.new_zeros((*self.tokens.shape, found.shape[-1]))
                self.kept[kind, layer][:, prompts] = found

    def written(self, run: ForwardPass, kind: Exchanged, layer: int) -> torch.Tensor:
        """(row, token, width) of a run: heads still together and before the output projection, or (..., d_model)."""
        if kind == "head":
            return run.mixed[layer]
        return run.mlp[layer] if kind == "mlp" else self.wired.entering(run, layer + 1)

    def begin(self, ids: np.ndarray, start: int = 0) -> Begun:
        """Run the model on prompts of one length (row, token), of which nothing before the token ``start`` will be replaced."""
        given = torch.from_numpy(ids).to(self.wired.device)
        wired = self.wired.behind(given[:, :start]) if start and self.wired.architecture.cached else self.wired
        start = start if wired is not self.wired else 0
        return Begun(self, wired, given[:, start:], start)


class Begun:
    """A run of some prompts, from which others go on.

    Args:
        exchange: what the parts wrote.
        wired: the model, behind the first ``start`` tokens.
        ids: (row, token) those that follow.
        start: see there.
    """

    def __init__(self, exchange: Exchange, wired: Wired, ids: torch.Tensor, start: int) -> None:
        self.exchange, self.wired, self.ids, self.start = exchange, wired, ids, start
        self.run = wired.run(ids)

    @property
    def logits(self) -> np.ndarray:
        """(row, vocab) float32 at the last token, of the model as it is."""
        return np.asarray(self.run.logits.float().cpu().numpy())

    def logits_with(
        self,
        kind: Exchanged,
        layer: int,
        row: np.ndarray,
        at: np.ndarray,
        position: np.ndarray,
        donor: np.ndarray,
        head: np.ndarray,
    ) -> np.ndarray:
        """(job, vocab) float32 logits at the last token, with a part of ``layer`` replaced in each job.

        Args:
            kind: the part.
            layer: whose part it is.
            row: (job,) of the prompts that were begun.
            at: (job,) token of the whole prompt at which it is replaced.
            position: (job,) number of the named position, at which the donor's is taken.
            donor: (job,) prompt of the donor.
            head: (job,) which head; 0 for others.
        """
        wired = self.wired
        rows, tokens, named, donors, heads = (
            torch.from_numpy(np.ascontiguousarray(x)).to(wired.device)
            for x in (row, at - self.start, position, donor, head)
        )
        new = self.exchange.kept[kind, layer][named, donors]  # (job, width)
        each = torch.arange(len(rows), device=wired.device)
        hooks: Hooks
        if kind == "head" and not (wired.graph.parallel and not self.run.scale):
            start = wired.entering(self.run, layer)[rows]
            hooks = _WithHead(wired, layer, start, partial(_put_head, wired.graph.heads, each, tokens, heads, new))
        else:
            stream = wired.entering(self.run, layer + 1)[rows]
            less = new - self.exchange.written(self.run, kind, layer)[rows, tokens]
            if kind == "head":  # what the one head writes more than it did
                only = torch.zeros_like(less).unflatten(-1, (wired.graph.heads, -1))  # type: ignore[no-untyped-call]
                only[each, heads] = less.unflatten(-1, (wired.graph.heads, -1))[each, heads]  # type: ignore[no-untyped-call]
                matrices = wired.output_matrices(layer)
                less = only.flatten(1) @ matrices.reshape(-1, matrices.shape[-1])
            stream[each, tokens] = new if kind == "layer" else stream[each, tokens] + less
            hooks = Resuming(wired, layer + 1, stream)
        return np.asarray(wired.going_on(self.ids[rows], hooks, rows=rows).float().cpu().numpy())


class _WithHead(Resuming):
    """Begins at a layer, whose output projection reads something else."""

    def __init__(self, wired: Wired, layer: int, stream: torch.Tensor, change: Any) -> None:
        super().__init__(wired, layer, stream)
        self.change = change

    def attach(self, handles: list[Any], layer: int, block: torch.nn.Module) -> None:
        """See :class:`dynamics.circuits.hooks.Hooks`."""
        super().attach(handles, layer, block)
        if layer == self.first:
            before(handles, block.get_submodule(self.parts.wiring.out), self.change)


def _put_head(
    heads: int, each: torch.Tensor, tokens: torch.Tensor, head: torch.Tensor, new: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """``x`` (job, token, head * d_head) with one head at one token of each job replaced."""
    changed = x.clone()
    apart = changed.unflatten(-1, (heads, -1))  # type: ignore[no-untyped-call]  # a view of it
    apart[each, tokens, head] = new.unflatten(-1, (heads, -1))[each, head]  # type: ignore[no-untyped-call]
    return changed
