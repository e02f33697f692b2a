"""Activation patching, exactly: the metric with whole sources taken from another run.

A source's effect is what the metric loses when the source is cut from all its readers, so that they see the twin's; what
follows is computed anew (the total effect). ``denoise`` runs the twin instead and puts in what the prompt's run wrote (Heimersheim and Nanda 2024).
"""

from __future__ import annotations

import torch

from .wired import Metric, Wired

__all__ = ["source_effects"]


def source_effects(
    wired: Wired,
    ids: torch.Tensor,
    corrupted: torch.Tensor,
    positions: torch.Tensor,
    metric: Metric,
    *,
    tokens: torch.Tensor | None = None,
    denoise: bool = False,
    other: torch.Tensor | None = None,
) -> torch.Tensor:
    """(row, source) the effect of taking each source from the other run.

    Args:
        tokens: (row, token) where sources are taken from the other run; None for everywhere.
        denoise: run the twin and put in the prompt's sources; the effect is then what the metric gains.
        other: what sources write in the run that they are taken from, if that is known already.
    """
    run, donor = (corrupted, ids) if denoise else (ids, corrupted)
    other = wired.written(donor) if other is None else other
    base = metric(wired.logits(run, positions).float())
    graph = wired.graph
    effects = []
    for source in range(len(graph.sources)):
        cut = torch.zeros((len(graph.sources), len(graph.readers)), device=ids.device)
        cut[source] = 1
        where = cut if tokens is None else cut * tokens.to(cut.dtype)[:, :, None, None]
        changed = metric(wired.patched(run, positions, other, where).float())
        effects.append(changed - base if denoise else base - changed)
    return torch.stack(effects, dim=1)
