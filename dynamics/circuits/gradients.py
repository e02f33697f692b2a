"""Gradients of a metric with respect to every reader's input.

One forward and one backward pass: a head's projections depend on one reader's input alone, so that the gradient there
gives the gradient at that input. MLPs and logits read an alias of the stream.

A layer may have hundreds of readers, whose gradients are d_model wide each, and only d_head at their projections. So
they are kept as they are there, and points on a way are summed there: pulled back through the norm (see
:mod:`dynamics.circuits.norms`) the points of a reader differ in one number per token besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .hooks import before, before_mlp, replaced
from .norms import norm_of
from .parts import Parts

__all__ = ["Differentiating", "ReaderGradients"]


@dataclass(frozen=True)
class AtProjections:
    """One pass's gradients at a layer's attention.

    Attributes:
        values: (reader, ..., token, d_head) at the projections, over s(x) of the norm before them.
        unit, share: (row, token, d_model) u of that norm, and (reader, ..., token) how much of it is to be subtracted from
            what the folded matrices make of the values; None where there is no norm.
        pulled: (reader, ..., token, d_model) at the inputs, where the norm has no closed form; the values are not used then.
    """

    values: torch.Tensor
    unit: torch.Tensor | None = None
    share: torch.Tensor | None = None
    pulled: torch.Tensor | None = None


class ReaderGradients:
    """Gradients at all readers' inputs, summed over passes.

    Args:
        parts: the model.
        size: numbers of rows and tokens.
    """

    def __init__(self, parts: Parts, size: torch.Size) -> None:
        self.parts, self.graph, self.size = parts, parts.graph, size
        self.alone: dict[int, torch.Tensor] = {}  # MLPs and logits to (row, token, d_model)
        # by layer, (reader, row, token, ...)
        self.values: dict[int, torch.Tensor] = {}
        self.pulled: dict[int, torch.Tensor] = {}
        self.along: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def add(self, layer: int, found: AtProjections) -> None:
        """Add gradients at a layer's attention; rows are those of one pass, or of several one after the other."""
        if found.pulled is not None:
            self._add(self.pulled, layer, found.pulled, 1)
            return
        self._add(self.values, layer, found.values, 1)
        if found.unit is not None and found.share is not None:
            parts = torch.split(found.unit, self.size[0]), torch.split(found.share, self.size[0], dim=1)
            self.along.setdefault(layer, []).extend(zip(*parts, strict=True))

    def add_alone(self, reader: int, gradient: torch.Tensor) -> None:
        """Add the gradient (row, token, d_model) at an MLP's or the logits' input; see :meth:`add`."""
        self._add(self.alone, reader, gradient.float(), 0)

    def _add(self, sums: dict[int, torch.Tensor], key: int, value: torch.Tensor, rows: int) -> None:
        if value.shape[rows] != self.size[0]:
            value = value.unflatten(rows, (-1, self.size[0])).sum(rows)  # type: ignore[no-untyped-call]
        sums[key] = sums[key].add_(value) if key in sums else value

    def scaled(self, factor: float) -> None:
        """Multiply all by a number."""
        for of in (self.alone, self.values, self.pulled):
            for key in of:
                of[key] = of[key] * factor
        self.along = {layer: [(u, share * factor) for u, share in found] for layer, found in self.along.items()}

    def total(self, readers: slice) -> torch.Tensor:
        """(row, token, d_model) the sum over readers of one group."""
        straight, along = self._pulled(readers)
        total = straight.sum(0)
        for unit, share in along:
            total = total - unit * share.sum(0)[..., None]
        return total

    def times(
        self,
        difference: torch.Tensor,
        readers: slice,
        *,
        by_token: bool = False,
        rows: Sequence[slice] | None = None,
    ) -> torch.Tensor:
        """(source, reader) products with differences (source, row, token, d_model) of one group's readers, summed over
        rows and tokens; (token, source, reader) with ``by_token``; of each of several sets of rows by itself, (set, source,
        reader), with ``rows``."""
        straight, along = self._pulled(readers)
        if by_token:
            found = torch.einsum("srtd,krtd->tsk", difference, straight)
            for unit, share in along:
                found -= torch.einsum("srt,krt->tsk", torch.einsum("srtd,rtd->srt", difference, unit), share)
            return found
        sets = (slice(None),) if rows is None else rows
        products = [difference[:, some].flatten(1) @ straight[:, some].flatten(1).T for some in sets]
        if along:  # of all passes at once: it is the reading of the differences that takes time
            units, shares = (torch.stack(of, 2) for of in zip(*((u[None], s) for u, s in along), strict=True))
            projected = torch.einsum("srtd,rptd->srpt", difference, units[0])
            for found, some in zip(products, sets, strict=True):
                found -= projected[:, some].flatten(1) @ shares[:, some].flatten(1).T
        return products[0] if rows is None else torch.stack(products)

    def dense(self) -> torch.Tensor:
        """(reader, row, token, d_model)."""
        first = self.alone[self.graph.logits_reader.start]
        found = first.new_empty((len(self.graph.readers), *first.shape))
        for layer in range(self.graph.layers):
            straight, along = self._pulled(readers := self.graph.attention_readers(layer))
            for unit, share in along:
                straight = straight - share[..., None] * unit
            found[readers] = straight
        for reader, gradient in self.alone.items():
            found[reader] = gradient
        return found

    def _pulled(self, readers: slice) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """(reader, row, token, d_model), and what is to be subtracted along units."""
        about = self.graph.readers[readers.start]
        if about.role in ("mlp", "logits"):
            return self.alone[readers.start][None], []
        assert about.layer is not None
        if about.layer in self.pulled:
            return self.pulled[about.layer], []
        straight = self.values[about.layer].flatten(1, 2) @ self.parts.folded_matrices(about.layer)
        return straight.unflatten(1, self.size), self.along.get(about.layer, [])  # type: ignore[no-untyped-call]


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
        before_mlp(handles, self.parts, block, partial(self._alone, self.graph.mlp_reader(layer).start))

    def last(self, x: torch.Tensor) -> torch.Tensor:
        """What the logits read."""
        return self._alone(self.graph.logits_reader.start, x)

    def _see(self, key: tuple[int, int], output: torch.Tensor) -> torch.Tensor:
        self.projected[key] = output
        return output.clone()  # a model may clip it in place

    def _alone(self, reader: int, x: torch.Tensor) -> torch.Tensor:
        self.read[reader] = x.view_as(x)
        return self.read[reader]

    def readers(self, value: torch.Tensor, onto: ReaderGradients, *, again: bool) -> list[torch.Tensor]:
        """Add the readers' gradients of ``value``.

        Args:
            again: whether gradients will be asked for once more.

        Returns:
            Per layer (row, token, head * d_head) gradients at what the output projection reads, with ``again``.
        """
        mixed = list(self.mixed.values()) if again else []
        wanted = [*self.read.values(), *self.projected.values(), *mixed]
        found = list(torch.autograd.grad(value, wanted, retain_graph=again))
        for reader in self.read:
            onto.add_alone(reader, found.pop(0))
        for layer in range(self.graph.layers):
            onto.add(layer, self._at_heads(layer, [found.pop(0) for _ in self.parts.wiring.projections]))
        return found

    def _at_heads(self, layer: int, projected: list[torch.Tensor]) -> AtProjections:
        """Gradients at a layer's attention, from those at its projections, (..., row, token, feature)."""
        values = self._by_reader(projected)
        module = self.parts.norm(layer)
        if module is None:
            return AtProjections(values)
        stream, norm = self.streams[layer].detach(), norm_of(module)
        if norm is None or not norm.computes(module, stream):
            gradient = torch.einsum("k...d,kde->k...e", values, self.parts.reading_matrices(layer)[0].detach().float())
            stream.requires_grad_()
            flat = gradient.to(stream.dtype).flatten(0, -4)
            (flat,) = torch.autograd.grad(module(stream), stream, flat, is_grads_batched=True)
            return AtProjections(values, pulled=flat.view_as(gradient).float())
        unit, inverse = norm.unit(stream)
        values = values * inverse
        read = self._by_reader([self.projected[layer, i].detach() for i in range(len(projected))])
        linear = read - self.parts.offsets(layer)[:, None, None]
        if values.ndim > linear.ndim:
            linear = linear[:, None]
        return AtProjections(values, unit, (values * linear).sum(-1) / unit.shape[-1])

    def _by_reader(self, projected: list[torch.Tensor]) -> torch.Tensor:
        """(reader, ..., d_head) float32 of what lies as the projections' output does."""
        values = torch.cat(projected, dim=-1).float()
        return self.parts.by_reader(values.movedim(-1, 0)).movedim(1, -1)

    def reached(self, layer: int, at_z: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
        """(position of the head, token, source, kind and head) of :class:`dynamics.circuits.wired.Gradients`."""
        g = self.graph
        seen = difference[: g.seen_by(g.attention_readers(layer))].float()
        found = self._at_heads(layer, self._apart(layer, at_z))
        size = at_z.shape[1], g.heads // g.kv_heads
        if found.pulled is not None:
            mine, values = seen.expand(2 * g.kv_heads, *seen.shape), found.pulled
        else:
            matrices = self.parts.folded_matrices(layer)[g.heads :]
            mine, values = torch.einsum("srte,kde->ksrtd", seen, matrices), found.values
        values = values[g.heads :].unflatten(1, size)  # type: ignore[no-untyped-call]
        result = torch.einsum("ksrtd,kpmrtd->ptskm", mine, values)
        if found.unit is not None and found.share is not None:
            share = found.share[g.heads :].unflatten(1, size)  # type: ignore[no-untyped-call]
            along = torch.einsum("srtd,rtd->srt", seen, found.unit)
            result -= torch.einsum("srt,kpmrt->ptskm", along, share)
        return result.flatten(-2)

    def _apart(self, layer: int, at_z: torch.Tensor) -> list[torch.Tensor]:
        """Per projection (position and member, row, token, feature): gradients through heads that act at one position.

        Heads of different groups share no keys and values, so that one member of each is taken at a time.
        """
        g = self.graph
        projected = [of for key, of in self.projected.items() if key[0] == layer]
        heads = at_z.unflatten(-1, (g.kv_heads, g.heads // g.kv_heads, -1))  # type: ignore[no-untyped-call]
        found: list[tuple[torch.Tensor, ...]] = []
        for position in range(at_z.shape[1]):
            for member in range(heads.shape[3]):
                only = torch.zeros_like(heads)
                only[:, position, :, member] = heads[:, position, :, member]
                found.append(torch.autograd.grad(self.mixed[layer], projected, only.flatten(2), retain_graph=True))
        return [torch.stack(of) for of in zip(*found, strict=True)]
