r"""Heads by their weights: what they read and write once norms are folded in, and how they compose (Elhage et al. 2021).

With row vectors of one head in (d_head, d_model) matrices Q, K, V (reading) and O (writing), the head scores keys by
x_q^T (Q^T K) x_k and moves (O^T V) x_k. Norms are linear once their scale is left out: their gain is multiplied into
what reads through them, and where a LayerNorm takes the mean off the stream, the mean is taken off both what is read and
what is written (nothing reads it). Biases are left out: they are the same for every token. So are rotary positions, norms
and clipping of queries and keys (and of values), so that Q^T K is what the scores would be without them, and the norm
that BLOOM has behind its embedding.

Composition of an earlier head 1 with a later head 2:

    q: ||K2^T Q2 O1^T V1|| / (||K2^T Q2|| ||O1^T V1||)     (Frobenius norms)
    k: ||Q2^T K2 O1^T V1|| / (...)
    v: ||O2^T V2 O1^T V1|| / (...)

For two matrices whose directions have nothing to do with each other the mean of the square of this ratio is 1/d,
whatever their singular values (d is the dimension of the stream, one less where the mean is taken off). Its spread
depends on the singular values: the square times d is nearly chi-squared over its degrees of freedom r1 * r2, with
r = (sum s^2)^2 / sum s^4 the effective rank of each. No matrix here is larger than (d_head, d_model), except one
(d_model, d_model) product of embedding and unembedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from checkpoints.errors import UserError

from .norms import gain_of
from .wired import Wired

__all__ = ["Composition", "HeadMatrices", "compositions", "head_matrices", "positivity", "unembedding", "written_by"]

_VOCAB = 2**14
"""Rows of the embeddings that are converted to float32 at a time."""


@dataclass(frozen=True)
class HeadMatrices:
    """One layer's heads with norms folded in, float32.

    Attributes:
        query: (head, d_head, d_model).
        key, value: (kv head, d_head, d_model).
        output: (head, d_head, d_model), without the mean over d_model where the final norm takes it off.
        share: query heads per key-value head.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    share: int

    def values(self) -> torch.Tensor:
        """(head, d_head, d_model) the value matrix that each query head uses."""
        return self.value.repeat_interleave(self.share, dim=0)


@dataclass(frozen=True)
class Composition:
    """Composition of all heads with all readers.

    Attributes:
        scores: (source head, reader) ratios of norms; NaN where the source does not come in an earlier layer. Readers
            are in the order of the graph: per layer queries, keys, values. Heads that share keys and values are one
            reader, with their matrices stacked.
        source_rank, reader_rank: effective ranks (see the module's docstring).
        dimensions: of the stream.
    """

    scores: torch.Tensor
    source_rank: torch.Tensor
    reader_rank: torch.Tensor
    dimensions: int


def head_matrices(wired: Wired, layer: int) -> HeadMatrices:
    """The heads of one layer."""
    graph, norm = wired.graph, wired.norm(layer)
    weight = wired.reading_matrices(layer)[0].detach().float()
    read = weight if norm is None else _folded(weight, norm)
    output = wired.output_matrices(layer).detach().float()
    if wired.wiring.after is not None:
        block = wired.model.get_submodule(wired.architecture.table.block.format(layer))
        output = _folded(output, block.get_submodule(wired.wiring.after))
    if _centres(_final(wired)):
        output = output - output.mean(-1, keepdim=True)
    keys = slice(graph.heads, graph.heads + graph.kv_heads)
    return HeadMatrices(read[: graph.heads], read[keys], read[keys.stop :], output, graph.heads // graph.kv_heads)


def written_by(wired: Wired, layer: int, stream: torch.Tensor) -> torch.Tensor:
    """(row, head, d_model) what each head of a layer writes when it attends to ``stream`` (row, d_model) alone.

    The norm's scale is that of the stream, but biases are left out, and the scale of a norm behind the head.
    """
    heads, norm = head_matrices(wired, layer), wired.norm(layer)
    x = stream.float()
    if norm is not None:
        centred = x - x.mean(-1, keepdim=True) if _centres(norm) else x
        x = centred / centred.pow(2).mean(-1, keepdim=True).add(1e-12).sqrt()
    moved = torch.einsum("rd,hed->rhe", x, heads.values())
    return torch.einsum("rhe,hed->rhd", moved, heads.output)


def unembedding(wired: Wired) -> torch.Tensor:
    """(vocab, d_model) from the stream to logits, with the final norm's gain folded in, without its bias and scale."""
    return _folded(wired.unembedding().detach().float(), _final(wired))


def positivity(wired: Wired) -> torch.Tensor:
    """(layer, head) sum of the eigenvalues of W_U O^T V W_E over the sum of their absolute values, in [-1, 1].

    1 for a head that raises the logits of what it attends to, as a copying head does; -1 for one that lowers them; 0 on
    average for a head without regard to tokens (Elhage et al. 2021). The non-zero eigenvalues of this (vocab, vocab)
    matrix are those of the (d_head, d_head) matrix V W_E W_U O^T. NaN where the weights are not finite or zero.
    """
    model = wired.model
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    if embedding is None:
        raise UserError(
            "the model has no get_input_embeddings()",
            expected="a module whose weight is (vocab, d)",
            remedy="give the model a `get_input_embeddings()`, or leave out what reads heads from weights",
        )
    first, last = cast(torch.Tensor, embedding.weight).detach(), wired.unembedding().detach()
    middle = torch.zeros(first.shape[1], last.shape[1], device=first.device)
    for start in range(0, min(len(first), len(last)), _VOCAB):
        rows = slice(start, start + _VOCAB)
        size = min(len(first[rows]), len(last[rows]))
        middle += first[rows][:size].float().T @ last[rows][:size].float()
    middle = _folded(middle, _final(wired))
    found = []
    for layer in range(wired.graph.layers):
        heads = head_matrices(wired, layer)
        small = torch.einsum("hed,df,hgf->heg", heads.values(), middle, heads.output)
        finite = torch.isfinite(small).all(-1).all(-1)
        values = torch.linalg.eigvals(torch.where(finite[:, None, None], small, 0.0).cpu())
        size_of = values.abs().sum(-1)
        ratio = values.real.sum(-1) / size_of
        found.append(torch.where(finite.cpu() & (size_of > 0), ratio, torch.nan))
    return torch.stack(found)


def compositions(wired: Wired) -> Composition:
    """How much of what each head writes each later head reads; see the module's docstring.

    A ratio ||A B|| is computed as ||S_A B~||: with A = M^T R and S the square root of M M^T, (d_head, d_head), the norm
    of M^T R X is that of S R X.
    """
    graph = wired.graph
    writers: list[torch.Tensor] = []
    ranks: list[list[torch.Tensor]] = [[], []]
    scores = []
    for layer in range(graph.layers):
        heads = head_matrices(wired, layer)
        gram = heads.key @ heads.key.mT
        # query heads that share a key are one reader: their matrices are stacked
        asked, wrote = (
            (own @ own.mT).reshape(graph.kv_heads, heads.share, own.shape[1], own.shape[1]).sum(1)
            for own in (heads.query, heads.output)
        )
        readers = torch.cat(
            [
                _root(gram.repeat_interleave(heads.share, dim=0)) @ heads.query,
                _root(asked) @ heads.key,
                _root(wrote) @ heads.value,
            ]
        )
        values = heads.values()
        sources = _root(values @ values.mT) @ heads.output
        for mine, found in zip(ranks, (sources, readers), strict=True):
            mine.append(_rank(found))
        readers = readers / torch.linalg.matrix_norm(readers)[:, None, None]
        columns = readers.new_full((graph.layers * graph.heads, len(readers)), torch.nan)
        for earlier, writer in enumerate(writers):
            rows = slice(earlier * graph.heads, (earlier + 1) * graph.heads)
            product = torch.einsum("red,hfd->rhef", readers, writer)
            columns[rows] = torch.linalg.matrix_norm(product).T
        scores.append(columns)
        writers.append(sources / torch.linalg.matrix_norm(sources)[:, None, None])
    d_model = writers[0].shape[-1]
    return Composition(
        torch.cat(scores, dim=1), torch.cat(ranks[0]), torch.cat(ranks[1]), d_model - int(_centres(_final(wired)))
    )


def _root(gram: torch.Tensor) -> torch.Tensor:
    """(..., e, e) symmetric square roots of positive semidefinite matrices; NaN where there is a NaN."""
    finite = torch.isfinite(gram).all(-1).all(-1)[..., None, None]
    values, vectors = torch.linalg.eigh(torch.where(finite, gram, 0.0))
    root = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT
    return torch.where(finite, root, torch.nan)


def _rank(matrix: torch.Tensor) -> torch.Tensor:
    """(...) effective rank (sum s^2)^2 / sum s^4 of matrices (..., e, d); NaN for a zero matrix."""
    gram = matrix @ matrix.mT
    return gram.diagonal(dim1=-2, dim2=-1).sum(-1).pow(2) / gram.pow(2).sum((-2, -1))


def _final(wired: Wired) -> torch.nn.Module:
    return wired.model.get_submodule(wired.architecture.table.place("ln_final").module)


def _centres(norm: torch.nn.Module) -> bool:
    """Whether a norm takes the mean off (LayerNorm), or not (root mean square)."""
    return isinstance(norm, torch.nn.LayerNorm) or "LayerNorm" in type(norm).__name__


def _folded(matrix: torch.Tensor, norm: torch.nn.Module) -> torch.Tensor:
    """(..., d_model) a map from (or to) the stream, with the norm's gain, and without the mean where that is taken off."""
    gain = gain_of(norm)
    if gain is not None:
        matrix = matrix * gain.detach().float()
    return matrix - matrix.mean(-1, keepdim=True) if _centres(norm) else matrix
