"""The logit lens: what the model would say if it stopped after each block (nostalgebraist 2020)."""

from __future__ import annotations

from typing import Any

import torch

from ..architecture import Architecture
from ..circuits.wired import Wired
from ..sites import observe

__all__ = ["logit_lens"]


def logit_lens(wired: Wired, ids: torch.Tensor) -> torch.Tensor:
    """(layer, token, vocab) probabilities from the stream after each block, through the model's final norm.

    Args:
        wired: the model.
        ids: (1, token) token ids.
    """
    architecture: Architecture = wired.architecture
    model: Any = wired.model
    streams: list[torch.Tensor] = []
    layers = wired.graph.layers
    keep = torch.tensor([ids.shape[1] - 1], device=ids.device)
    with (
        torch.no_grad(),
        observe(model, architecture.table, frozenset({"resid_post"}), layers, lambda _s, _l, x: streams.append(x[0])),
    ):
        architecture.logits(model, ids, keep)
    final = model.get_submodule(architecture.table.outside["ln_final"].module)
    head = wired.unembedding_module()
    with torch.no_grad():
        return torch.stack([head(final(stream)).float().softmax(-1) for stream in streams])
