"""Activation patching, exactly: the metric with whole sources taken from another run.

A source's effect is what the metric loses when all that read it see what it wrote in the twin's run; what follows is
computed anew (the total effect). Prompt and twin exchanged, it is what denoising gains, with the other sign (Heimersheim
and Nanda 2024). Each takes a pass from the source's layer on: nothing before it changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .hooks import ForwardPass
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
    chosen: Sequence[int] | None = None,
    runs: tuple[ForwardPass, ForwardPass] | None = None,
) -> torch.Tensor:
    """(row, source) the effect of taking each source from the other run.

    Args:
        tokens: (row, token) where sources are taken from the other run; None for everywhere.
        chosen: numbers of the sources; None for all.
        runs: of ``ids`` and of ``corrupted``, if they are known already.
    """
    clean, twin = runs or (wired.run(ids, positions), wired.run(corrupted, positions))
    base = metric(clean.logits.float())
    effects = []
    for source in range(len(wired.graph.sources)) if chosen is None else chosen:
        added = wired.source(twin, source) - wired.source(clean, source)
        if tokens is not None:
            added = added * tokens[:, :, None].to(added.dtype)
        changed = metric(wired.resumed(ids, positions, clean, source, added).float())
        effects.append(base - changed)
    return torch.stack(effects, dim=1) if effects else base.new_empty((len(base), 0))
