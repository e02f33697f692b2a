"""A forward pass in which edges are cut, from whichever side is shorter.

With D_u = (what source u wrote in the other run) - (what it writes now), S and S' the streams of this run and of the
other one, a reader with the edges C cut and K kept sees

    S + sum of D_u over C  =  S' - sum of D_u over K,

so that a circuit of few edges needs few D_u, and so does its complement. A D_u is computed once, when u has written.
Readers that see all of the other run, or nothing of it, share one input; layers in which all see the other run are not
computed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import torch

from .hooks import ForwardPass, after_mlp, before, before_mlp, instead
from .norms import scale_of
from .parts import Parts

__all__ = ["Cutting"]

DENSE = 16
"""Where fewer than one of so many weights is not zero, a processor adds up the terms of each reader faster than it multiplies
matrices (measured: as fast at one of ten, seven times as fast at one of a hundred)."""


class Cutting:
    """See the module's docstring, and :class:`dynamics.circuits.hooks.Hooks`.

    Args:
        parts: the model.
        cut: (source, reader), or (row or 1, token or 1, source, reader): how much of an edge is cut.
        other: the other run, or (source, row, token, d_model) what its sources wrote: then all is added to this run's
            stream.
        size: numbers of rows and tokens.
    """

    def __init__(
        self, parts: Parts, cut: torch.Tensor, other: torch.Tensor | ForwardPass, size: tuple[int, ...]
    ) -> None:
        self.parts, self.graph, self.other = parts, parts.graph, other
        possible = torch.from_numpy(self.graph.edges).to(cut.device, parts.dtype)
        cut = cut.to(parts.dtype) * possible
        self.far = np.zeros(len(self.graph.readers), dtype=bool)  # whose input is made from the other run's stream
        if isinstance(other, ForwardPass):
            kept = possible - cut
            far = _many(kept) < _many(cut)
            self.far, cut = far.cpu().numpy(), torch.where(far, -kept, cut)
        ends = np.asarray((cut != 0).flatten(0, -3).any(0).cpu().numpy() if cut.ndim > 2 else (cut != 0).cpu().numpy())
        self.own: np.ndarray = np.asarray(ends.any(0))  # to whose stream any D_u is added
        self.active = np.flatnonzero(ends.any(1))  # the sources whose D_u are
        self.sides = 2 if self.far.any() else 1
        self.share = torch.cat([self._begins(cut), cut[..., self.active, :]], dim=-2)
        shape = (self.sides + len(self.active), *size, parts.architecture.shape.d_model)
        # what enters this layer in either run, then every D_u: a reader's input is one sum over them
        self.terms = torch.empty(shape, device=cut.device, dtype=parts.dtype)
        self.sums: torch.Tensor = self.terms[:0]  # (reader of this layer with its own input, row, token, d_model)
        self.opened: torch.Tensor = self.terms[:0]  # (reader of this layer's attention, row, token, d_head)
        self.mixed: torch.Tensor = self.terms[:0]  # this layer's

    def _begins(self, cut: torch.Tensor) -> torch.Tensor:
        """(..., side, reader) 1 for the run from whose stream an attention reader's input is made."""
        attention = [r.role in ("q", "k", "v") for r in self.graph.readers]
        sides = np.array([attention & ~self.far, attention & self.far])[: self.sides]
        return torch.from_numpy(sides).to(cut.device, cut.dtype).expand(*cut.shape[:-2], -1, -1)

    def attach(self, handles: list[Any], layer: int, block: torch.nn.Module) -> None:
        """Hook one block."""
        parts, wiring, graph = self.parts, self.parts.wiring, self.graph
        heads, mlp = graph.attention_sources(layer), graph.mlp_source(layer)
        attention, reader = graph.attention_readers(layer), graph.mlp_reader(layer)
        both = slice(attention.start, reader.stop)
        writing = len(self._among(slice(heads.start, mlp.stop)))
        before(handles, block, partial(self._enter, layer))
        if isinstance(self.other, ForwardPass) and self.far[both].all() and not self.own[both].any() and not writing:
            streams = self.other.streams
            instead(handles, block, lambda x: x + (streams[reader.stop] - streams[both.start]), parts.rest[layer])
            return
        if (self.far | self.own)[attention].any():
            for index, path in enumerate(wiring.projections):
                instead(handles, block.get_submodule(path), partial(self._project, layer, index))
        before_mlp(handles, parts, block, partial(self._mlp, layer))
        if not writing:
            return
        out = block.get_submodule(wiring.out)
        if wiring.after is None:
            before(handles, out, lambda z: self._heads(layer, z))
        else:
            norm = block.get_submodule(wiring.after)
            before(handles, out, lambda z: setattr(self, "mixed", z))
            before(handles, norm, lambda raw: self._heads(layer, self.mixed, scale_of(norm, raw)))
        after_mlp(handles, parts, block, lambda x: self._alone(mlp, lambda run: run.mlp[layer], x))

    def last(self, x: torch.Tensor) -> torch.Tensor | None:
        """What the logits read."""
        reader = self.graph.logits_reader
        at = reader.start
        every = slice(self.sides, len(self.terms))
        return self._seen(at, x, self._sum([at] if self.own[at] else [], every))

    def _enter(self, layer: int, x: torch.Tensor) -> None:
        if layer == 0:
            self._alone(slice(0, 1), lambda run: run.streams[0], x)
        attention, mlp = self.graph.attention_readers(layer), self.graph.mlp_reader(layer)
        self.terms[0] = x
        if isinstance(self.other, ForwardPass) and self.sides > 1:
            self.terms[1] = self.other.streams[attention.start]
        # one product for the whole layer: it is the reading of the differences that takes time
        readers = np.flatnonzero(self.own[attention.start : mlp.stop]) + attention.start
        self.sums = self._sum(readers, slice(0, self._where(slice(0, self.graph.seen_by(attention))).stop))

    def _mlp(self, layer: int, x: torch.Tensor) -> torch.Tensor | None:
        at, heads = self.graph.mlp_reader(layer).start, self.graph.attention_sources(layer)
        total = self.sums[-1:]
        if self.own[at] and not self.graph.parallel:
            total = total + self._sum([at], self._where(heads))
        return self._seen(at, x, total)

    def _seen(self, reader: int, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor | None:
        """What one reader sees, or None for the stream as it is."""
        if self.far[reader]:
            x = cast(ForwardPass, self.other).streams[reader]
        elif not self.own[reader]:
            return None
        return x + total[-1] if self.own[reader] else x

    def _project(self, layer: int, index: int, _input: torch.Tensor) -> torch.Tensor:
        """What the projection number ``index`` of a layer returns."""
        if index == 0:
            self.opened = self._open(layer)
        values, g = self.opened, self.graph
        if len(self.parts.wiring.projections) == 1:
            return self.parts.packed(values)
        first = [0, g.heads, g.heads + g.kv_heads][index]
        return values[first : first + (g.heads if index == 0 else g.kv_heads)].permute(1, 2, 0, 3).flatten(2)

    def _open(self, layer: int) -> torch.Tensor:
        """(reader, row, token, d_head) projections of what each reader of a layer's attention sees."""
        readers = self.graph.attention_readers(layer)
        far, own = self.far[readers], self.own[readers]
        weight, bias = self.parts.reading_matrices(layer)
        norm = self.parts.norm(layer) or torch.nn.Identity()
        size = self.terms.shape[1:3]
        alone = np.flatnonzero(own)
        inputs = self.sums[: len(alone)]
        if len(alone) == len(own):
            product = torch.bmm(norm(inputs).flatten(1, 2), weight.mT)
            values = product.view(len(own), *size, -1)
            return values if bias is None else values + bias[:, None, None]
        values = inputs.new_empty((len(weight), *size, weight.shape[1]))
        for side in range(self.sides):
            shared = np.flatnonzero((far == side) & ~own)
            if len(shared):
                product = norm(self.terms[side]) @ weight[shared].flatten(0, 1).T
                values[shared] = product.view(*size, len(shared), -1).movedim(2, 0)
        if len(alone):
            product = torch.bmm(norm(inputs).flatten(1, 2), weight[alone].mT)
            values[alone] = product.view(-1, *values.shape[1:])
        return values if bias is None else values + bias[:, None, None]

    def _among(self, sources: slice) -> np.ndarray:
        """Which of these sources matter, counted from the first of them."""
        inside = self.active[(self.active >= sources.start) & (self.active < sources.stop)]
        return np.asarray(inside - sources.start)

    def _where(self, sources: slice) -> slice:
        """Where their D_u are."""
        first, stop = np.searchsorted(self.active, (sources.start, sources.stop)) + self.sides
        return slice(int(first), int(stop))

    def _sum(self, readers: Any, terms: slice) -> torch.Tensor:
        """(reader, row, token, d_model) what these readers see of some terms."""
        what, share = self.terms[terms], self.share[..., terms, readers]
        if share.ndim == 2:
            return _weighted(what.flatten(1), share.T).view(-1, *what.shape[1:])
        return torch.einsum("srtd,rtsk->krtd", what, share.expand(*what.shape[1:3], -1, -1))

    def _alone(self, source: slice, of: Any, now: torch.Tensor) -> None:
        """D_u of a source that is no head."""
        if len(self._among(source)):
            theirs = of(self.other) if isinstance(self.other, ForwardPass) else self.other[source.start]
            torch.sub(theirs, now, out=self.terms[self._where(source)][0])

    def _heads(self, layer: int, z: torch.Tensor, scale: torch.Tensor | None = None) -> None:
        """D_u of a layer's heads."""
        heads, parts = self.graph.attention_sources(layer), self.parts
        which, into = self._among(heads), self.terms[self._where(heads)]
        if not len(which):
            return
        if not isinstance(self.other, ForwardPass):
            now = parts.heads(layer, z, which)
            torch.sub(self.other[heads][which], now if scale is None else now * scale, out=into)
        elif scale is None:
            parts.heads(layer, self.other.mixed[layer] - z, which, out=into)
        else:
            torch.mul(parts.heads(layer, self.other.mixed[layer], which), self.other.scale[layer], out=into)
            into -= parts.heads(layer, z, which) * scale


def _weighted(terms: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(reader, number) sums of terms (term, number) with weights (reader, term)."""
    if terms.device.type == "cpu" and terms.dtype == torch.float32:
        reader, term = weights.nonzero(as_tuple=True)
        if len(term) * DENSE <= weights.numel():
            begins = torch.searchsorted(reader, torch.arange(len(weights)))
            return torch.nn.functional.embedding_bag(
                term, terms, begins, mode="sum", per_sample_weights=weights[reader, term]
            )
    return weights @ terms


def _many(edges: torch.Tensor) -> torch.Tensor:
    """(reader,) how many of (..., source, reader) are not zero."""
    return (edges != 0).sum(tuple(range(edges.ndim - 1)))
