"""Gradients of a metric with respect to every reader's input.

One forward and one backward pass: a head's projections depend on one reader's input alone, so that the gradient there
gives the gradient at that input. MLPs and logits read an alias of the stream.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch

from .hooks import before, replaced
from .parts import Parts

__all__ = ["Differentiating"]


class Differentiating:
    """A forward pass from a given stream; see :class:`dynamics.circuits.hooks.Hooks`.

    Args:
        parts: the model.
        start: (row, token, d_model) what enters the first block.
    """

    def __init__(self, parts: Parts, start: torch.Tensor) -> None:
        self.parts, self.graph = parts, parts.graph
        self.start = start.detach().requires_grad_()
        self.streams: dict[int, torch.Tensor] = {}  # layer to what enters it
        self.read: dict[int, torch.Tensor] = {}  # readers that are alone to what they read
        self.projected: dict[tuple[int, int], torch.Tensor] = {}  # layer and number of the projection to its output
        self.mixed: dict[int, torch.Tensor] = {}

    def attach(self, handles: list[Any], layer: int, block: torch.nn.Module) -> None:
        """Hook one block."""
        wiring = self.parts.wiring

        def enter(x: torch.Tensor) -> torch.Tensor | None:
            self.streams[layer] = self.start if layer == 0 else x
            return self.start if layer == 0 else None

        before(handles, block, enter)
        for index, path in enumerate(wiring.projections):
            replaced(handles, block.get_submodule(path), partial(self._see, (layer, index)))
        before(handles, block.get_submodule(wiring.out), partial(self.mixed.__setitem__, layer))
        before(handles, block.get_submodule(wiring.mlp), partial(self._alone, self.graph.mlp_reader(layer).start))

    def last(self, x: torch.Tensor) -> torch.Tensor:
        """What the logits read."""
        return self._alone(self.graph.logits_reader.start, x)

    def _see(self, key: tuple[int, int], output: torch.Tensor) -> torch.Tensor:
        self.projected[key] = output
        return output.clone()  # a model may clip it in place

    def _alone(self, reader: int, x: torch.Tensor) -> torch.Tensor:
        self.read[reader] = x.view_as(x)
        return self.read[reader]

    def readers(self, value: torch.Tensor, onto: torch.Tensor, *, again: bool) -> list[torch.Tensor]:
        """Add the readers' gradients of ``value`` to ``onto`` (reader, row, token, d_model).

        Args:
            again: whether gradients will be asked for once more.

        Returns:
            Per layer (row, token, head * d_head) gradients at what the output projection reads, with ``again``.
        """
        mixed = list(self.mixed.values()) if again else []
        wanted = [*self.read.values(), *self.projected.values(), *mixed]
        found = list(torch.autograd.grad(value, wanted, retain_graph=again))
        for reader in self.read:
            onto[reader] += found.pop(0)
        for layer in range(self.graph.layers):
            projected = [found.pop(0) for _ in self.parts.wiring.projections]
            onto[self.graph.attention_readers(layer)] += self._pulled(layer, projected)
        return found

    def _pulled(self, layer: int, projected: list[torch.Tensor]) -> torch.Tensor:
        """(reader, row, token, d_model) gradients at the inputs of a layer's attention, from those at its projections."""
        values = self.parts.by_reader(torch.cat(projected, dim=-1).permute(2, 0, 1)).flatten(2)
        gradient = values.transpose(1, 2) @ self.parts.reading_matrices(layer)[0]  # (reader, row and token, d_model)
        stream, norm = self.streams[layer].detach(), self.parts.norm(layer)
        gradient = gradient.unflatten(1, stream.shape[:2])  # type: ignore[no-untyped-call]
        if norm is not None:
            stream.requires_grad_()
            (gradient,) = torch.autograd.grad(norm(stream), stream, gradient, is_grads_batched=True)
        return gradient

    def reached(self, layer: int, at_z: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
        """(position of the head, token, source, kind and head) of :class:`dynamics.circuits.wired.Gradients`."""
        seen = difference[: self.graph.seen_by(self.graph.attention_readers(layer))].float()
        through = (self._through(layer, at_z, position).float() for position in range(at_z.shape[1]))
        return torch.stack([torch.einsum("srtd,krtd->tsk", seen, part) for part in through])

    def _through(self, layer: int, at_z: torch.Tensor, position: int) -> torch.Tensor:
        """(kind and head, row, token, d_model) gradients at keys and values through heads that act at one position."""
        g = self.graph
        share = g.heads // g.kv_heads
        projected = [of for key, of in self.projected.items() if key[0] == layer]
        found: list[torch.Tensor] = []
        for member in range(share):  # heads of different groups do not share, so that they can be taken together
            only = torch.zeros_like(at_z)
            heads = at_z[:, position].unflatten(-1, (g.kv_heads, share, -1))  # type: ignore[no-untyped-call]
            chosen = torch.zeros_like(heads)
            chosen[:, :, member] = heads[:, :, member]
            only[:, position] = chosen.flatten(1)
            at = torch.autograd.grad(self.mixed[layer], projected, only, retain_graph=True)
            found.append(self._pulled(layer, list(at))[g.heads :].detach())
        kinds = torch.stack(found, dim=1).unflatten(0, (2, g.kv_heads))  # type: ignore[no-untyped-call]
        return cast(torch.Tensor, kinds.flatten(0, 2))
