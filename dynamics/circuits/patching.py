"""Activation patching, exactly: the metric with whole sources taken from another run.

A source's effect is what the metric loses when all that read it see what it wrote in the twin's run; what follows is
computed anew (the total effect). Prompt and twin exchanged, it is what denoising gains, with the other sign (Heimersheim
and Nanda 2024). Each takes a pass from the source's layer on: nothing before it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

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
    sources = list(range(len(wired.graph.sources)) if chosen is None else chosen)
    effects = base.new_empty((len(base), len(sources)))
    together = wired.at_once(ids.numel())
    columns = sorted(range(len(sources)), key=lambda column: wired.read_from(sources[column]))
    for _, alike in groupby(columns, key=lambda column: wired.read_from(sources[column])):
        left = list(alike)
        while left:
            some, left = left[:together], left[together:]
            own = [sources[column] for column in some]
            added = torch.stack([wired.source(twin, source) - wired.source(clean, source) for source in own])
            if tokens is not None:
                added = added * tokens[:, :, None].to(added.dtype)
            changed = wired.resumed(ids, positions, clean, own[0], added).float()
            effects[:, some] = torch.stack([base - metric(logits) for logits in changed], dim=1)
    return effects
