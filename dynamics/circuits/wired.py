"""A model whose edges can be cut: each reader of the residual stream gets an input of its own.

In the model as it is, all readers of a layer see one stream. Here hooks see what is read and written
(:meth:`Wired.run`), and give every query, key and value input, every MLP and the logits

- a gradient of their own (:meth:`Wired.gradients`): how the metric would change with that reader's input;
- an input of their own (:meth:`Wired.patched`), where edges are cut: the reader sees what the source wrote in another
  run, everything else of this one. It is made from whichever side is shorter, this run's stream with what is cut
  replaced, or the other run's with what is kept;
- or, from one layer on, a stream to which something was added (:meth:`Wired.resumed`).

Tokens that all runs have in common, and that nothing changes, need not be computed in each of them (:meth:`Wired.behind`).

Nothing is approximated: with no edge cut the logits are the model's own, with all edges cut those of the other run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch

from ..models.prefixes import Prefixes, begin, go_on
from .cuts import Cutting
from .gradients import Differentiating, ReaderGradients
from .hooks import ForwardPass, Hooks, Keeping, Resuming, before
from .parts import Parts

__all__ = ["Gradients", "Metric", "Wired"]

TOGETHER = 2**24
"""Numbers that gradients of several passes, made as one, may keep of all layers."""

Metric = Callable[[torch.Tensor], torch.Tensor]
"""(row, vocab) logits at one position per row, to (row,) numbers."""


@dataclass(frozen=True)
class Gradients:
    """How a metric changes with what is read.

    Attributes:
        at: with respect to each reader's input.
        metric: (pass x row,) the metric itself.
        reached: where asked for, per layer what a difference written by each source does to the metric, to first order,
            through keys and values at each position at which a head acts, and by head also where heads share keys and
            values: (position of the head, token, source, kind and head), summed over rows; keys of all heads first,
            then values.
    """

    at: ReaderGradients
    metric: torch.Tensor
    reached: list[torch.Tensor]

    @property
    def readers(self) -> torch.Tensor:
        """(reader, row, token, d_model) with respect to each reader's input; large."""
        return self.at.dense()


class Wired(Parts):
    """See the module's docstring. The model is changed only while one of the methods runs.

    Args and errors are those of :class:`dynamics.circuits.parts.Parts`.
    """

    prefixes: Prefixes | None = None

    def behind(self, prefix: torch.Tensor) -> Wired:
        """The same model behind some tokens (row, token), whose keys and values are computed once.

        All that its methods take and return is of the tokens that follow, positions counted from the first of them; rows
        are those of ``prefix``. Not for models that are not ``cached``
        (:class:`dynamics.models.architecture.Architecture`).
        """
        found = copy(self)
        found.rest = {}
        with torch.no_grad():
            found.prefixes = begin(self.model, prefix)
        return found

    def run(self, ids: torch.Tensor, positions: torch.Tensor | None = None) -> ForwardPass:
        """The model as it is, with all that is read and written.

        Args:
            ids: (row, token) token ids.
            positions: (row,) where the logits are wanted; None for the last token.
        """
        keeping = Keeping(self)
        with torch.no_grad(), self._hooked(keeping):
            return keeping.run(self._forward(ids, positions))

    def written(self, ids: torch.Tensor) -> torch.Tensor:
        """(source, row, token, d_model) what every source writes to the stream for these token ids (row, token).

        The sources' sum, with the output projections' biases, is the stream before the final norm.
        """
        return self.sources(self.run(ids))

    @torch.no_grad()
    def sources(self, run: ForwardPass, less: ForwardPass | None = None, at: tuple[Any, ...] = ()) -> torch.Tensor:
        """(source, row, token, d_model) what every source wrote in a run.

        Args:
            less: another run, whose sources are subtracted.
            at: an index of (row, token): only there, e.g. one position per row.
        """
        graph = self.graph

        def of(kind: str, index: int) -> torch.Tensor:
            values: torch.Tensor = getattr(run, kind)[index][at]
            return values if less is None else values - getattr(less, kind)[index][at]

        embed = of("streams", 0)
        found = embed.new_empty((len(graph.sources), *embed.shape))
        found[0] = embed
        for layer in range(graph.layers):
            sources = graph.attention_sources(layer)
            if run.scale:  # what is scaled differently cannot be subtracted before
                mine = self.heads(layer, run.mixed[layer][at]) * run.scale[layer][at]
                found[sources] = (
                    mine if less is None else mine - self.heads(layer, less.mixed[layer][at]) * less.scale[layer][at]
                )
            else:
                found[sources] = self.heads(layer, of("mixed", layer))
            found[graph.mlp_source(layer).start] = of("mlp", layer)
        return found

    @torch.no_grad()
    def source(self, run: ForwardPass, source: int) -> torch.Tensor:
        """(row, token, d_model) what one source wrote in a run."""
        about = self.graph.sources[source]
        if about.layer is None:
            return run.streams[0]
        if about.head is None:
            return run.mlp[about.layer]
        found = self.heads(about.layer, run.mixed[about.layer], slice(about.head, about.head + 1))[0]
        return found * run.scale[about.layer] if run.scale else found

    def logits(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(row, vocab) logits of the model as it is, at one position per row."""
        with torch.no_grad():
            return self._forward(ids, positions)

    def patched(
        self, ids: torch.Tensor, positions: torch.Tensor, other: torch.Tensor | ForwardPass, cut: torch.Tensor
    ) -> torch.Tensor:
        """(row, vocab) logits at one position per row, with edges cut: their readers see the other run's source.

        Args:
            ids: (row, token) token ids.
            positions: (row,) where the logits are wanted.
            other: the other run (:meth:`run`), or (source, row, token, d_model) what its sources wrote; a run is the
                faster the fewer edges are cut, or kept.
            cut: (source, reader), or (row or 1, token or 1, source, reader) where it differs: 1 where an edge is cut, 0
                where it is kept.
        """
        with torch.no_grad(), self._hooked(Cutting(self, cut, other, tuple(ids.shape))):
            return self._forward(ids, positions)

    def resumed(
        self, ids: torch.Tensor, positions: torch.Tensor, run: ForwardPass, source: int, added: torch.Tensor
    ) -> torch.Tensor:
        """(run, row, vocab) logits at one position per row, with something added to what a source wrote, in several runs.

        What comes before is not computed again.

        Args:
            ids, positions: as of :meth:`run`.
            run: the run that it is added to, of the same ``ids``.
            source: number of the source, or of any that is read from the same place on (:meth:`read_from`).
            added: (run, row, token, d_model).
        """
        layer, within = self.read_from(source)
        stream, more = self.entering(run, layer).repeat(len(added), 1, 1), added.flatten(0, 1)
        hooks = Resuming(self, layer, stream, more) if within else Resuming(self, layer, stream + more)
        every, at, rows = self._again(len(added), ids, positions)
        return self.going_on(every, hooks, at, rows).view(len(added), len(ids), -1)

    def read_from(self, source: int) -> tuple[int, bool]:
        """The first layer whose readers see a source, and whether only its MLP does."""
        about = self.graph.sources[source]
        within = about.head is not None and not self.graph.parallel
        return 0 if about.layer is None else about.layer + (not within), within

    def at_once(self, tokens: int) -> int:
        """How many passes of so many tokens are best made as one: in a small model the Python of a pass takes longer."""
        shape = self.architecture.shape
        return max(1, TOGETHER // (tokens * shape.layers * (20 * shape.d_model + 4 * shape.d_mlp)))

    def _again(
        self, times: int, ids: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Ids and positions so many times, and which row each one is, None where it is its own."""
        rows = None if times == 1 else torch.arange(len(ids), device=self.device).repeat(times)
        return ids.repeat(times, 1), positions.repeat(times), rows

    def going_on(
        self,
        ids: torch.Tensor,
        hooks: Hooks,
        positions: torch.Tensor | None = None,
        rows: torch.Tensor | None = None,
        *,
        differentiable: bool = False,
    ) -> torch.Tensor:
        """(row, vocab) logits at one position per row, None for the last, of a pass with hooks.

        Args:
            rows: (row,) which row of the prefixes each one follows, where they are not those (:meth:`behind`).
            differentiable: whether gradients will be asked for by what the hooks put in.
        """
        with torch.set_grad_enabled(differentiable), self._hooked(hooks):
            return self._forward(ids, positions, rows)

    def entering(self, run: ForwardPass, layer: int) -> torch.Tensor:
        """(row, token, d_model) the stream before a layer of a run; before the final norm for the number of layers."""
        graph = self.graph
        return run.streams[(graph.logits_reader if layer == graph.layers else graph.attention_readers(layer)).start]

    def says(self, ids: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
        """(row, token, vocab) the model's logits, if this (row, token, d_model) were the stream before its final norm.

        ``ids`` (row, token) have been run before (:meth:`run`).
        """
        every = torch.arange(ids.shape[1], device=self.device)
        with torch.no_grad(), self._hooked(Resuming(self, self.graph.layers, stream)):
            return self._logits(ids, every)

    def gradients(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        metric: Metric,
        start: torch.Tensor,
        *,
        reach: torch.Tensor | None = None,
        onto: ReaderGradients | None = None,
    ) -> Gradients:
        """Gradients of the metric's sum over rows with respect to every reader's input.

        Args:
            ids: (row, token) token ids (their embedding is not used).
            positions: (row,) where the logits are wanted.
            metric: what to differentiate; rows must not depend on each other.
            start: (row, token, d_model) the stream to begin with; those of several passes one after the other, which are
                made as one and their readers' gradients added up (not with ``reach``).
            reach: (source, row, token, d_model) differences; key and value gradients are also taken apart by the position
                at which heads act, and multiplied with these (the gradients themselves would fill the memory).
            onto: what the readers' gradients are added to.
        """
        onto = self.no_gradients(ids.shape) if onto is None else onto
        passed = Differentiating(self, start)
        with torch.enable_grad(), self._hooked(passed):
            logits = self._forward(*self._again(len(start) // len(ids), ids, positions)).float()
            value = torch.cat([metric(one) for one in torch.split(logits, len(ids))])
            at_mixed = passed.readers(value.sum(), onto, again=reach is not None)
            reached = [] if reach is None else [passed.reached(i, at, reach) for i, at in enumerate(at_mixed)]
        return Gradients(onto, value.detach(), reached)

    def no_gradients(self, size: torch.Size) -> ReaderGradients:
        """Where gradients of several passes of (row, token) are added up."""
        return ReaderGradients(self, size)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor | None = None, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(row, vocab) logits at one position per row."""
        if positions is None:
            positions = torch.full((len(ids),), ids.shape[1] - 1, device=self.device)
        kept, column = torch.unique(positions, return_inverse=True)
        return self._logits(ids, kept, rows)[torch.arange(len(ids), device=self.device), column]

    def _logits(self, ids: torch.Tensor, kept: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """(row, kept, vocab)."""
        if self.prefixes is None:
            return self.architecture.logits(self.model, ids, kept)
        return go_on(self.model, ids, kept, self.prefixes, rows)

    @contextmanager
    def _hooked(self, hooks: Hooks) -> Iterator[None]:
        handles: list[Any] = []
        learning = [p for p in self.parameters if p.requires_grad]
        for parameter in learning:  # the weights' own gradients would cost memory and are not wanted
            parameter.requires_grad_(False)
        try:
            for layer, block in enumerate(self.blocks):
                hooks.attach(handles, layer, block)
            before(handles, self.model.get_submodule(self.architecture.table.place("ln_final").module), hooks.last)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter in learning:
                parameter.requires_grad_(True)
