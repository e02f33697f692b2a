"""Attribution of a metric to the edges of a circuit graph: EAP-IG, and direct logit attribution.

Edge attribution patching (Syed et al. 2023): what corrupting one edge would do to the metric, to first order,

    score(u -> v) = (u - u') . dm/d(input of v),

with u what the source writes for the prompt, u' for its corrupted twin. With integrated gradients (EAP-IG, Hanna et al.
2024) the gradient is the mean over ``steps`` points on the way from the twin's embeddings to the prompt's, at k/steps
for k = 1 .. steps. A score above zero supports the metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .hooks import ForwardPass
from .norms import norm_of
from .wired import Metric, Wired

__all__ = ["Attribution", "attribute", "direct_logits", "logit_difference"]


@dataclass(frozen=True)
class Attribution:
    """Scores of every edge, in the metric's unit; zero where there is no such edge.

    Attributes:
        edges: (source, reader) sums over rows and tokens; (token, source, reader) with ``by_token``, (set, source, reader)
            with sets of rows.
        sources: (row, source) sums over tokens and over all readers of a source.
        reached: where asked for, per layer (position of the head, token, source, kind and head), summed over rows; keys
            of all heads first, then values.
    """

    edges: torch.Tensor
    sources: torch.Tensor
    reached: list[torch.Tensor]


def logit_difference(answer: torch.Tensor, foil: torch.Tensor) -> Metric:
    """The metric logit(answer) - logit(foil), for token ids (row,)."""

    def metric(logits: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(logits), device=logits.device)
        return logits[rows, answer] - logits[rows, foil]

    return metric


def attribute(
    wired: Wired,
    ids: torch.Tensor,
    corrupted: torch.Tensor,
    positions: torch.Tensor,
    metric: Metric,
    *,
    steps: int = 5,
    by_token: bool = False,
    reach: bool = False,
    between: tuple[torch.Tensor, torch.Tensor] | None = None,
    rows: Sequence[slice] | None = None,
) -> Attribution:
    """EAP-IG scores of all edges, summed over rows.

    Args:
        wired: the model.
        ids, corrupted: (row, token) token ids of the prompts and of their twins.
        positions: (row,) where the metric is taken.
        metric: of the logits there.
        steps: points of the path; 1 is plain attribution patching at the prompt itself.
        by_token: keep the tokens at which edges are read apart.
        reach: take key and value edges apart by the position at which heads act.
        between: the twins' stream before the first layer, and (source, row, token, d_model) what sources write for
            ``ids`` less what they write for ``corrupted``, if that is known already.
        rows: sets of rows over which edges are summed apart; excludes ``by_token``.
    """
    graph = wired.graph
    if between is None:
        other = wired.run(corrupted)
        between = other.streams[0], wired.sources(wired.run(ids), other)
    begin, difference = between[0], between[1].float()
    mean = wired.no_gradients(begin.shape[:2])
    reached: list[torch.Tensor] = []
    points = [begin + (k / steps) * difference[0].to(begin.dtype) for k in range(1, steps + 1)]
    together = 1 if reach else wired.at_once(ids.numel())
    for first in range(0, steps, together):
        start = torch.cat(points[first : first + together])
        found = wired.gradients(ids, positions, metric, start, reach=difference if reach else None, onto=mean)
        layers = [layer / steps for layer in found.reached]
        reached = [a + b for a, b in zip(reached, layers, strict=True)] if reached else layers
    mean.scaled(1 / steps)
    apart = (ids.shape[1],) if by_token else () if rows is None else (len(rows),)
    edges = torch.zeros((*apart, len(graph.sources), len(graph.readers)), device=ids.device)
    sources = torch.zeros((len(ids), len(graph.sources)), device=ids.device)
    groups = [of(layer) for layer in range(graph.layers) for of in (graph.attention_readers, graph.mlp_reader)]
    total, last = torch.zeros_like(difference[0]), len(graph.sources)  # of what reads later
    for readers in reversed((*groups, graph.logits_reader)):
        seen = graph.seen_by(readers)
        sources[:, seen:last] = torch.einsum("srtd,rtd->rs", difference[seen:last], total)
        total, last = total + mean.total(readers), seen
        edges[..., :seen, readers] = mean.times(difference[:seen], readers, by_token=by_token, rows=rows)
    sources[:, :last] = torch.einsum("srtd,rtd->rs", difference[:last], total)
    return Attribution(edges, sources, reached)


def direct_logits(
    wired: Wired,
    ids: torch.Tensor,
    positions: torch.Tensor,
    answer: torch.Tensor,
    foil: torch.Tensor,
    run: ForwardPass | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Direct logit attribution: what each source adds to logit(answer) - logit(foil) by itself.

    The final norm is linear once its scale is held at what it is for the prompt (Elhage et al. 2021), so that the
    sources' shares, and that of the biases, add up to the logit difference exactly.

    Args:
        run: of ``ids`` with its logits at ``positions``, if it is known already.

    Returns:
        (row, source) shares, and (row,) the biases' share: logit difference minus the sum of the shares.
    """
    run = run or wired.run(ids, positions)
    rows = torch.arange(len(ids), device=ids.device)
    at = wired.sources(run, at=(rows, positions))  # (source, row, d_model)
    final = wired.model.get_submodule(wired.architecture.table.place("ln_final").module)
    logits = run.logits.float()
    stream = run.streams[wired.graph.logits_reader.start][rows, positions]
    difference = logits[rows, answer] - logits[rows, foil]
    leaf = stream.clone().requires_grad_()
    with torch.enable_grad():
        normed = final(leaf)
        matrix = wired.unembedding().detach()
        direction = (matrix[answer] - matrix[foil]).to(normed.dtype)
        (gradient,) = torch.autograd.grad((normed * direction).sum(), leaf)
    # the norm's gradient lacks what a longer stream loses to its scale: n(x) has no first-order change along x itself,
    # and the frozen-scale map differs from the gradient exactly by that part
    frozen = gradient + _lost_to_scale(final, stream, direction)
    shares = torch.einsum("srd,rd->rs", at.float(), frozen.float())
    return shares, difference - shares.sum(1)


def _lost_to_scale(norm: torch.nn.Module, stream: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """(row, d_model) difference between the norm's linear map at a fixed scale and its gradient, in one direction.

    The gradient's part along u, see :mod:`dynamics.circuits.norms`.
    """
    form = norm_of(norm)
    if form is None:  # an identity, say: no scale
        return torch.zeros_like(stream)
    if not form.computes(norm, stream):  # what its scale is cannot be known: not measurable
        return torch.full_like(stream, torch.nan)
    unit, inverse = form.unit(stream)
    along = (form.folded(direction) * unit).mean(-1, keepdim=True)
    return (unit * along * inverse).to(stream.dtype)
