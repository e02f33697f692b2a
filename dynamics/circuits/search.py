"""The smallest circuit that does the task, found by attribution and checked by ablation.

Edges are ranked by the size of their mean attribution on one half of the prompts. For growing numbers of them, all
other edges are cut on the other half of the prompts, and the metric is measured: nothing here rests on the linear
estimate but the order. With m the metric of the circuit alone, m_base of the whole model, m_corrupt of the twin's run,

    faithfulness = (m - m_corrupt) / (m_base - m_corrupt),

and completeness is the same for the circuit's complement: what the model still does without the circuit (Marks et al.
2024; Hanna et al. 2024). Edges that lie on no path from embedding to logits are dropped: they cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..numerics.arrays import BoolArray, FloatArray
from .graph import Graph
from .hooks import ForwardPass
from .wired import Metric, Wired

__all__ = ["FaithfulnessCurve", "Prompts", "circuit_at", "effect_size", "sweep"]


@dataclass(frozen=True)
class Prompts:
    """Prompts of equal length with their twins.

    Attributes:
        wired: the model, behind what they have in common.
        ids: (row, token) token ids of the rest.
        positions: (row,) where the metric is taken.
        metric: of the logits there.
        other: the twins' run.
        clean, corrupted: (row,) the metric of prompts and twins.
    """

    wired: Wired
    ids: torch.Tensor
    positions: torch.Tensor
    metric: Metric
    other: ForwardPass
    clean: FloatArray
    corrupted: FloatArray


@dataclass(frozen=True)
class FaithfulnessCurve:
    """The metric of growing circuits and of their complements, per prompt.

    Attributes:
        edges: (point,) how many edges were asked for.
        kept: (point,) how many of them lie on a path.
        circuit, complement: (prompt, point) the metric with all other, or just these, edges cut.
    """

    edges: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    circuit: FloatArray
    complement: FloatArray


def effect_size(clean: FloatArray, corrupted: FloatArray) -> tuple[float, float]:
    """Mean difference between prompts and twins, and how many of its standard errors it is.

    >>> effect_size(np.array([2.0, 2.2, 1.8]), np.array([0.0, 0.0, 0.0]))[0]
    2.0
    """
    difference = clean - corrupted
    mean = float(difference.mean())
    if len(difference) < 2:
        return mean, float("nan")
    error = float(difference.std(ddof=1)) / np.sqrt(len(difference))
    return mean, float("inf") if error == 0 and mean else mean / error if error else 0.0


def circuit_at(graph: Graph, order: npt.NDArray[np.int64], count: int) -> BoolArray:
    """(source, reader) the first ``count`` edges of an order (flat indices), without those on no path."""
    kept = np.zeros(graph.edges.shape, dtype=bool)
    kept.reshape(-1)[order[:count]] = True
    return graph.connected(kept)


def sweep(
    graph: Graph,
    prompts: Iterable[Prompts],
    order: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    *,
    both: bool,
) -> FaithfulnessCurve:
    """The metric of circuits of ``counts`` edges, and with ``both`` also of their complements (else NaN).

    Args:
        prompts: the batches.
        order: flat indices of edges, the first to be kept first.
    """
    circuits = [circuit_at(graph, order, int(count)) for count in counts]
    cuts = [graph.edges & ~kept for kept in circuits]
    if both:
        cuts += circuits
    values = np.concatenate([_metrics(batch, cuts) for batch in prompts])
    circuit, complement = values[:, : len(circuits)], values[:, len(circuits) :]
    if not both:
        complement = np.full_like(circuit, np.nan)
    return FaithfulnessCurve(counts, np.array([kept.sum() for kept in circuits]), circuit, complement)


def _metrics(batch: Prompts, cuts: list[BoolArray]) -> FloatArray:
    """(prompt, cut) the metric with each of several sets of edges cut."""
    values = []
    for cut in cuts:
        if not cut.any():
            values.append(batch.clean)
        elif cut.sum() == batch.wired.graph.edges.sum():
            values.append(batch.corrupted)
        else:
            edges = torch.from_numpy(cut).to(batch.ids.device)
            logits = batch.wired.patched(batch.ids, batch.positions, batch.other, edges)
            values.append(batch.metric(logits.float()).double().cpu().numpy())
    return np.stack(values, axis=1)
