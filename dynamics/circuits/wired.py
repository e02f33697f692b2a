"""A model whose edges can be cut: each reader of the residual stream gets an input of its own.

In the model as it is, all readers of a layer see one stream. Here hooks give every query, key and value input, every
MLP and the logits their own copy of it, to which something may be added:

- nothing, but with a gradient (:meth:`Wired.gradients`): how the metric would change with that reader's input;
- for cut edges, the difference between what the source wrote in another run and what it writes now
  (:meth:`Wired.patched`): the reader sees the other run's source, everything else of this one.

Nothing is approximated: with no edge cut the logits are the model's own, with all edges cut those of the other run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch

from checkpoints.errors import UserError

from ..models.architecture import Architecture
from ..models.wiring import Wiring
from .graph import Graph, graph_of

__all__ = ["Gradients", "Metric", "Wired"]

Metric = Callable[[torch.Tensor], torch.Tensor]
"""(row, vocab) logits at one position per row, to (row,) numbers."""


@dataclass(frozen=True)
class Gradients:
    """How a metric changes with what is read.

    Attributes:
        readers: (reader, row, token, d_model), with respect to each reader's input.
        metric: (row,) the metric itself.
        reached: where asked for, per layer what a difference written by each source does to the metric, to first order,
            through keys and values at each position at which a head acts, and by head also where heads share keys and
            values: (position of the head, token, source, kind and head), summed over rows; keys of all heads first,
            then values.
    """

    readers: torch.Tensor
    metric: torch.Tensor
    reached: list[torch.Tensor]


@dataclass
class _Pass:
    """What the hooks do in one forward pass, and what they saw."""

    start: torch.Tensor | None = None  # the stream to begin with, instead of the embedding
    leaves: bool = False  # a leaf with a gradient for every reader
    cut: torch.Tensor | None = None  # (source, reader) or (row or 1, token or 1, source, reader)
    other: torch.Tensor | None = None  # (source, row, token, d_model) what sources wrote in the other run
    written: torch.Tensor | None = None  # the same of this run
    streams: dict[int, torch.Tensor] = field(default_factory=dict)
    read: dict[int, torch.Tensor] = field(default_factory=dict)  # first reader of a group to its leaf
    mixed: dict[int, torch.Tensor] = field(default_factory=dict)  # layer to z
    opened: dict[int, torch.Tensor] = field(default_factory=dict)  # layer to normed inputs, for three projections


class Wired:
    """See the module's docstring. The model is changed only while one of the methods runs.

    Args:
        model: a causal language model in evaluation mode.
        architecture: its sizes, sites and wiring.

    Raises:
        UserError: for an architecture whose wiring is not known, or does not fit the model.
    """

    def __init__(self, model: torch.nn.Module, architecture: Architecture) -> None:
        self.graph: Graph = graph_of(architecture.shape)
        self.model = model
        self.architecture = architecture
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        table = architecture.table
        assert table.wiring is not None
        self.wiring: Wiring = table.wiring
        try:
            self._blocks = [model.get_submodule(table.block.format(layer)) for layer in range(self.graph.layers)]
            for block in self._blocks:
                for path in (self.wiring.out, self.wiring.mlp, *self.wiring.projections):
                    block.get_submodule(path)
        except AttributeError as error:
            raise UserError(
                f"the model is not wired as its table says: {error}", expected="a wiring that fits"
            ) from error

    def written(self, ids: torch.Tensor) -> torch.Tensor:
        """(source, row, token, d_model) what every source writes to the stream for these token ids (row, token).

        The sources' sum, with the output projections' biases, is the stream before the final norm.
        """
        state = _Pass(written=self._space(ids))
        with torch.no_grad(), self._hooked(state):
            self._forward(ids)
        assert state.written is not None
        return state.written

    def logits(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(row, vocab) logits of the model as it is, at one position per row."""
        with torch.no_grad():
            return self._forward(ids, positions)

    def patched(
        self, ids: torch.Tensor, positions: torch.Tensor, other: torch.Tensor, cut: torch.Tensor
    ) -> torch.Tensor:
        """(row, vocab) logits at one position per row, with edges cut: their readers see the other run's source.

        Args:
            ids: (row, token) token ids.
            positions: (row,) where the logits are wanted.
            other: (source, row, token, d_model) what sources wrote in the other run (:meth:`written`).
            cut: (source, reader), or (row or 1, token or 1, source, reader) where it differs: 1 where an edge is cut, 0
                where it is kept.
        """
        state = _Pass(cut=cut.to(other.dtype), other=other, written=self._space(ids))
        with torch.no_grad(), self._hooked(state):
            return self._forward(ids, positions)

    def gradients(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        metric: Metric,
        start: torch.Tensor,
        *,
        reach: torch.Tensor | None = None,
    ) -> Gradients:
        """Gradients of the metric's sum over rows with respect to every reader's input.

        Args:
            ids: (row, token) token ids (their embedding is not used).
            positions: (row,) where the logits are wanted.
            metric: what to differentiate; rows must not depend on each other.
            start: (row, token, d_model) the stream to begin with.
            reach: (source, row, token, d_model) differences; key and value gradients are also taken apart by the position
                at which heads act, and multiplied with these (the gradients themselves would fill the memory).
        """
        state = _Pass(start=start, leaves=True)
        with torch.enable_grad(), self._hooked(state):
            value = metric(self._forward(ids, positions).float())
            order = sorted(state.read)
            wanted = [state.read[first] for first in order]
            mixed = [] if reach is None else [state.mixed[layer] for layer in range(self.graph.layers)]
            found = torch.autograd.grad(value.sum(), [*wanted, *mixed], retain_graph=reach is not None)
            reached = []
            for layer, z in enumerate(mixed):
                assert reach is not None
                readers = self.graph.attention_readers(layer)
                difference = reach[: self.graph.seen_by(readers)].float()
                leaf, at_z = state.read[readers.start], found[len(wanted) + layer]
                through = (self._through(z, leaf, at_z, position).float() for position in range(ids.shape[1]))
                reached.append(torch.stack([torch.einsum("srtd,krtd->tsk", difference, part) for part in through]))
        return Gradients(torch.cat([g.detach() for g in found[: len(wanted)]]), value.detach(), reached)

    def _through(self, z: torch.Tensor, leaf: torch.Tensor, at_z: torch.Tensor, position: int) -> torch.Tensor:
        """(kind and head, row, token, d_model) gradients at keys and values through heads that act at one position."""
        g = self.graph
        share = g.heads // g.kv_heads
        found: list[torch.Tensor] = []
        for member in range(share):  # heads of different groups do not share, so that they can be taken together
            only = torch.zeros_like(at_z)
            heads = at_z[:, position].unflatten(-1, (g.kv_heads, share, -1))  # type: ignore[no-untyped-call]
            chosen = torch.zeros_like(heads)
            chosen[:, :, member] = heads[:, :, member]
            only[:, position] = chosen.flatten(1)
            found.append(torch.autograd.grad(z, leaf, only, retain_graph=True)[0][g.heads :].detach())
        kinds = torch.stack(found, dim=1).unflatten(0, (2, g.kv_heads))  # type: ignore[no-untyped-call]
        return cast(torch.Tensor, kinds.flatten(0, 2))

    def output_matrices(self, layer: int) -> torch.Tensor:
        """(head, d_head, d_model) each head's rows of the output projection."""
        matrix = self._matrix(self._blocks[layer].get_submodule(self.wiring.out))  # (d_model, head * d_head)
        return matrix.T.reshape(self.graph.heads, -1, matrix.shape[0])

    def reading_matrices(self, layer: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(reader, d_head, d_model) each attention reader's projection in a layer, and its bias (reader, d_head)."""
        modules = [self._blocks[layer].get_submodule(path) for path in self.wiring.projections]
        weights = [self._matrix(module) for module in modules]
        biases = [cast("torch.Tensor | None", getattr(module, "bias", None)) for module in modules]
        weight = torch.cat(weights)
        bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
        return self._by_reader(weight), None if bias is None else self._by_reader(bias)

    def unembedding_module(self) -> torch.nn.Module:
        """From the final norm to logits.

        Raises:
            UserError: for a model that does not say which module that is.
        """
        head = getattr(self.model, "get_output_embeddings", lambda: None)()
        if head is None:
            raise UserError("the model has no get_output_embeddings()", expected="a module whose weight is (vocab, d)")
        return cast(torch.nn.Module, head)

    def unembedding(self) -> torch.Tensor:
        """(vocab, d_model) the matrix from the final norm to logits; raises as :meth:`unembedding_module`."""
        return cast(torch.Tensor, self.unembedding_module().weight)

    def norm(self, layer: int) -> torch.nn.Module | None:
        """What attention of a layer reads through."""
        return None if self.wiring.norm is None else self._blocks[layer].get_submodule(self.wiring.norm)

    # how heads lie in the projections' output, there and back

    def _by_reader(self, packed: torch.Tensor) -> torch.Tensor:
        """(feature, ...) of the projections, to (reader, d_head, ...)."""
        g = self.graph
        rest = packed.shape[1:]
        if self.wiring.layout == "by head":
            return packed.reshape(g.heads, 3, -1, *rest).transpose(0, 1).reshape(3 * g.heads, -1, *rest)
        return packed.reshape(g.heads + 2 * g.kv_heads, -1, *rest)

    def _packed(self, values: torch.Tensor) -> torch.Tensor:
        """(reader, row, token, d_head) to (row, token, feature)."""
        values = values.permute(1, 2, 0, 3)
        if self.wiring.layout == "by head":
            values = values.reshape(*values.shape[:2], 3, self.graph.heads, -1).transpose(2, 3)
        return values.flatten(2)

    @staticmethod
    def _matrix(module: torch.nn.Module) -> torch.Tensor:
        """(out, in) of a linear map; GPT-2 stores it the other way round."""
        weight = cast(torch.Tensor, module.weight)
        return weight.T if type(module).__name__ == "Conv1D" else weight

    def _space(self, ids: torch.Tensor) -> torch.Tensor:
        size = (len(self.graph.sources), *ids.shape, self.architecture.shape.d_model)
        return torch.empty(size, device=self.device, dtype=self.dtype)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """(row, vocab) logits at one position per row."""
        if positions is None:
            positions = torch.full((len(ids),), ids.shape[1] - 1, device=self.device)
        kept, column = torch.unique(positions, return_inverse=True)
        logits = self.architecture.logits(self.model, ids, kept)
        return logits[torch.arange(len(ids), device=self.device), column]

    @contextmanager
    def _hooked(self, state: _Pass) -> Iterator[None]:
        handles: list[Any] = []
        learning = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in learning:  # the weights' own gradients would cost memory and are not wanted
            parameter.requires_grad_(False)
        try:
            for layer, block in enumerate(self._blocks):
                self._attach(handles, state, layer, block)
            final = self.model.get_submodule(self.architecture.table.outside["ln_final"].module)
            reader = self.graph.logits_reader
            _before(handles, final, lambda x: self._with(state, reader, x))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter in learning:
                parameter.requires_grad_(True)

    def _attach(self, handles: list[Any], state: _Pass, layer: int, block: torch.nn.Module) -> None:
        graph, wiring = self.graph, self.wiring
        heads = graph.attention_sources(layer)

        def enter(x: torch.Tensor) -> torch.Tensor | None:
            if layer == 0 and state.start is not None:
                x = state.start
            if layer == 0 and state.written is not None:
                state.written[0] = x
            state.streams[layer] = x
            return x if layer == 0 else None

        def mix(z: torch.Tensor) -> None:
            if state.leaves:
                state.mixed[layer] = z
            if state.written is not None:
                split = z.reshape(*z.shape[:2], graph.heads, -1)
                state.written[heads] = torch.einsum("rthe,hed->hrtd", split, self.output_matrices(layer))

        def after(raw: torch.Tensor) -> None:
            if state.written is not None:
                state.written[heads] *= _scale(norm, raw)

        def write_mlp(value: torch.Tensor) -> None:
            if state.written is not None:
                state.written[graph.mlp_source(layer).start] = value

        _before(handles, block, enter)
        for index, path in enumerate(wiring.projections):
            _replaced(handles, block.get_submodule(path), partial(self._project, state, layer, index))
        _before(handles, block.get_submodule(wiring.out), mix)
        if wiring.after is not None:
            norm = block.get_submodule(wiring.after)
            _before(handles, norm, after)
        _before(handles, block.get_submodule(wiring.mlp), lambda x: self._with(state, graph.mlp_reader(layer), x))
        where = self.architecture.table.in_block["mlp_out"]
        _after(handles, block.get_submodule(where.module), write_mlp)

    def _with(self, state: _Pass, reader: slice, x: torch.Tensor) -> torch.Tensor | None:
        """The stream as one reader sees it, or None for as it is."""
        added = self._added(state, reader, x)
        return None if added is None else x + added[0]

    def _added(self, state: _Pass, readers: slice, x: torch.Tensor) -> torch.Tensor | None:
        """(reader, row, token, d_model) what is added to the stream ``x`` for these readers."""
        if state.leaves:
            leaf = x.new_zeros((readers.stop - readers.start, *x.shape)).requires_grad_()
            state.read[readers.start] = leaf
            return leaf
        if state.cut is None or state.other is None or state.written is None:
            return None
        seen = self.graph.seen_by(readers)
        mask = state.cut[..., :seen, readers]
        if not bool(mask.any()):
            return None
        difference = state.other[:seen] - state.written[:seen]
        if mask.ndim == 2:  # one matrix product for all rows and tokens
            return (mask.T @ difference.flatten(1)).unflatten(1, difference.shape[1:])  # type: ignore[no-untyped-call,no-any-return]
        return torch.einsum("srtd,rtsk->krtd", difference, mask.expand(*x.shape[:2], -1, -1))

    def _project(self, state: _Pass, layer: int, index: int) -> torch.Tensor | None:
        """What the projection number ``index`` of a layer returns when its readers have inputs of their own."""
        readers = self.graph.attention_readers(layer)
        if index == 0:
            stream = state.streams[layer]
            added = self._added(state, readers, stream)
            if added is None:
                return None
            norm = self.norm(layer)
            inputs = stream + added
            inputs = inputs if norm is None else norm(inputs)
            weight, bias = self.reading_matrices(layer)
            values = torch.einsum("krtd,ked->krte", inputs, weight)
            state.opened[layer] = values if bias is None else values + bias[:, None, None]
        elif layer not in state.opened:
            return None
        values = state.opened[layer]
        if len(self.wiring.projections) == 1:
            return self._packed(values)
        g = self.graph
        first = [0, g.heads, g.heads + g.kv_heads][index]
        return values[first : first + (g.heads if index == 0 else g.kv_heads)].permute(1, 2, 0, 3).flatten(2)


def _scale(norm: torch.nn.Module, raw: torch.Tensor) -> torch.Tensor:
    """(row, token, d_model) what a root-mean-square norm multiplies each coordinate by."""
    epsilon = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    weight = cast(torch.Tensor, norm.weight)
    return weight * torch.rsqrt(raw.float().pow(2).mean(-1, keepdim=True) + epsilon).to(raw.dtype)


def _before(handles: list[Any], module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Call ``change`` with the module's input; what it returns, if anything, takes its place."""

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = change(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))


def _after(handles: list[Any], module: torch.nn.Module, look: Callable[[torch.Tensor], None]) -> None:
    """Call ``look`` with the module's output."""

    def hook(_module: Any, _args: Any, output: Any) -> None:
        look(output[0] if isinstance(output, tuple) else output)

    handles.append(module.register_forward_hook(hook))


def _replaced(handles: list[Any], module: torch.nn.Module, change: Callable[[], torch.Tensor | None]) -> None:
    """What ``change`` returns, if anything, takes the place of the module's output."""

    def hook(_module: Any, _args: Any, _output: Any) -> Any:
        return change()

    handles.append(module.register_forward_hook(hook))
