"""Activation patching of single edges, exactly: what the estimates of edges are held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dynamics.circuits.wired import Metric, Wired


def edge_effects(
    wired: Wired,
    ids: torch.Tensor,
    corrupted: torch.Tensor,
    positions: torch.Tensor,
    metric: Metric,
    edges: Sequence[tuple[int, int]],
) -> torch.Tensor:
    """(row, edge) what the metric loses when each edge (source, reader) alone is cut."""
    other = wired.written(corrupted)
    base = metric(wired.logits(ids, positions).float())
    size = (len(wired.graph.sources), len(wired.graph.readers))
    effects = []
    for source, reader in edges:
        cut = torch.zeros(size, device=ids.device)
        cut[source, reader] = 1
        effects.append(base - metric(wired.patched(ids, positions, other, cut).float()))
    return torch.stack(effects, dim=1)
