"""The smallest circuit that does the task, found by attribution and checked by ablation.

Edges are ranked by the size of their mean attribution on one half of the prompts. For growing numbers of them, all
other edges are cut on the other half of the prompts, and the metric is measured: nothing here rests on the linear
estimate but the order. With m the metric of the circuit alone, m_base of the whole model, m_corrupt of the twin's run,

    faithfulness = (m - m_corrupt) / (m_base - m_corrupt),

and completeness is the same for the circuit's complement: what the model still does without the circuit (Marks et al.
2024; Hanna et al. 2024). Edges that lie on no path from embedding to logits are dropped: they cannot matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .wired import Metric, Wired

__all__ = ["Curve", "Prompts", "circuit_at", "effect_size", "sweep"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prompts:
    """Prompts of equal length with their twins.

    Attributes:
        ids, corrupted: (row, token) token ids.
        positions: (row,) where the metric is taken.
        metric: of the logits there.
        other: (source, row, token, d_model) what sources write for the twins.
    """

    ids: torch.Tensor
    corrupted: torch.Tensor
    positions: torch.Tensor
    metric: Metric
    other: torch.Tensor


@dataclass(frozen=True)
class Curve:
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


def circuit_at(wired: Wired, order: npt.NDArray[np.int64], count: int) -> BoolArray:
    """(source, reader) the first ``count`` edges of an order (flat indices), without those on no path."""
    graph = wired.graph
    kept = np.zeros(graph.edges.shape, dtype=bool)
    kept.reshape(-1)[order[:count]] = True
    return graph.connected(kept)


def sweep(
    wired: Wired, prompts: list[Prompts], order: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], *, both: bool
) -> Curve:
    """The metric of circuits of ``counts`` edges, and with ``both`` also of their complements (else NaN)."""
    circuits = [circuit_at(wired, order, int(count)) for count in counts]
    circuit = np.stack([_with_only(wired, prompts, kept) for kept in circuits], axis=1)
    complement = np.full_like(circuit, np.nan)
    if both:
        complement = np.stack([_with_only(wired, prompts, wired.graph.edges & ~kept) for kept in circuits], axis=1)
    return Curve(counts, np.array([kept.sum() for kept in circuits]), circuit, complement)


def _with_only(wired: Wired, prompts: list[Prompts], kept: BoolArray) -> FloatArray:
    """(prompt,) the metric with all edges cut but these."""
    cut = torch.from_numpy(wired.graph.edges & ~kept)
    values = []
    for batch in prompts:
        logits = wired.patched(batch.ids, batch.positions, batch.other, cut.to(batch.ids.device))
        values.append(batch.metric(logits.float()).double().cpu().numpy())
    return np.concatenate(values)
