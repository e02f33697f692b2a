"""The parts of a model that a circuit is made of: what its heads read and write with, and where that is."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

from checkpoints.errors import UserError

from ..models.architecture import Architecture
from ..models.wiring import Wiring
from .graph import Graph, graph_of
from .norms import Norm, norm_of

__all__ = ["Parts"]


class Parts:
    """Modules and matrices of a model, by the names of its graph.

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
        self.parameters = list(model.parameters())
        self.device, self.dtype = self.parameters[0].device, self.parameters[0].dtype
        table = architecture.table
        assert table.wiring is not None
        self.wiring: Wiring = table.wiring
        self.rest: dict[int, tuple[Any, ...] | None] = {}  # what blocks returned besides the stream in the last run
        try:
            self.blocks = [model.get_submodule(table.block.format(layer)) for layer in range(self.graph.layers)]
            for block in self.blocks:
                for path in (self.wiring.out, self.wiring.mlp, *self.wiring.projections):
                    block.get_submodule(path)
        except AttributeError as error:
            raise UserError(
                f"the model is not wired as its table says: {error}",
                expected="a wiring that fits",
                remedy="correct the `wiring` of the adapter, or leave out analyses of circuits",
            ) from error

    def heads(
        self,
        layer: int,
        mixed: torch.Tensor,
        which: slice | np.ndarray = slice(None),
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(head, ..., d_model) what heads of a layer write, before a norm, for (..., head * d_head)."""
        split, matrices = mixed.unflatten(-1, (self.graph.heads, -1)).flatten(0, -3), self.output_matrices(layer)  # type: ignore[no-untyped-call]
        if isinstance(which, slice) or len(which) < self.graph.heads:
            split, matrices = split[:, which], matrices[which]
        flat = torch.bmm(split.transpose(0, 1), matrices, out=None if out is None else out.flatten(1, -2))
        return flat.view(-1, *mixed.shape[:-1], flat.shape[-1])

    def output_matrices(self, layer: int) -> torch.Tensor:
        """(head, d_head, d_model) each head's rows of the output projection, a view of it."""
        matrix = self._matrix(self.blocks[layer].get_submodule(self.wiring.out))  # (d_model, head * d_head)
        return matrix.view(matrix.shape[0], self.graph.heads, -1).permute(1, 2, 0)

    def reading_matrices(self, layer: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(reader, d_head, d_model) each attention reader's projection in a layer, and its bias (reader, d_head)."""
        modules = [self.blocks[layer].get_submodule(path) for path in self.wiring.projections]
        weights = [self._matrix(module) for module in modules]
        biases = [cast("torch.Tensor | None", getattr(module, "bias", None)) for module in modules]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
        return self.by_reader(weight), None if bias is None else self.by_reader(bias)

    def folded_matrices(self, layer: int) -> torch.Tensor:
        """(reader, d_head, d_model) float32: :meth:`reading_matrices` with the norm's gain, and without the mean."""
        weight, norm = self.reading_matrices(layer)[0], self._norm(layer)
        return weight.detach().float() if norm is None else norm.folded(weight)

    def offsets(self, layer: int) -> torch.Tensor:
        """(reader, d_head) float32 what the projections of a layer's attention return where the norm's unit is zero."""
        weight, bias = self.reading_matrices(layer)
        found = weight.new_zeros(weight.shape[:2]).float() if bias is None else bias.detach().float()
        norm = self._norm(layer)
        return found if norm is None or norm.bias is None else found + weight.detach().float() @ norm.bias

    def _norm(self, layer: int) -> Norm | None:
        module = self.norm(layer)
        return None if module is None else norm_of(module)

    def unembedding_module(self) -> torch.nn.Module:
        """From the final norm to logits.

        Raises:
            UserError: for a model that does not say which module that is.
        """
        head = getattr(self.model, "get_output_embeddings", lambda: None)()
        if head is None:
            raise UserError(
                "the model has no get_output_embeddings()",
                expected="a module whose weight is (vocab, d)",
                remedy="give the model a `get_output_embeddings()`, or leave out analyses of circuits",
            )
        return cast(torch.nn.Module, head)

    def unembedding(self) -> torch.Tensor:
        """(vocab, d_model) the matrix from the final norm to logits; raises as :meth:`unembedding_module`."""
        return cast(torch.Tensor, self.unembedding_module().weight)

    def mlp_out(self, block: torch.nn.Module) -> torch.nn.Module:
        """The module whose output a block's MLP writes."""
        return block.get_submodule(self.architecture.table.place("mlp_out").module)

    def norm(self, layer: int) -> torch.nn.Module | None:
        """What attention of a layer reads through."""
        return None if self.wiring.norm is None else self.blocks[layer].get_submodule(self.wiring.norm)

    # how heads lie in the projections' output, there and back

    def by_reader(self, packed: torch.Tensor) -> torch.Tensor:
        """(feature, ...) of the projections, to (reader, d_head, ...)."""
        g = self.graph
        rest = packed.shape[1:]
        if self.wiring.layout == "by head":
            groups = packed.reshape(g.kv_heads, g.heads // g.kv_heads + 2, -1, *rest)
            return torch.cat([groups[:, :-2].flatten(0, 1), groups[:, -2], groups[:, -1]])
        return packed.reshape(g.heads + 2 * g.kv_heads, -1, *rest)

    def packed(self, values: torch.Tensor) -> torch.Tensor:
        """(reader, row, token, d_head) to (row, token, feature)."""
        values = values.permute(1, 2, 0, 3)
        if self.wiring.layout == "by head":
            size, g = values.shape, self.graph
            queries = values[:, :, : g.heads].reshape(*size[:2], g.kv_heads, -1, size[-1])
            others = values[:, :, g.heads :].reshape(*size[:2], 2, g.kv_heads, size[-1]).transpose(2, 3)
            values = torch.cat([queries, others], dim=3)
        return values.flatten(2)

    @staticmethod
    def _matrix(module: torch.nn.Module) -> torch.Tensor:
        """(out, in) of a linear map; GPT-2 stores it the other way round."""
        weight = cast(torch.Tensor, module.weight)
        return weight.T if type(module).__name__ == "Conv1D" else weight
