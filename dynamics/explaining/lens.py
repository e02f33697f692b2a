"""The logit lens: what the model would say if it stopped after each block (nostalgebraist 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..circuits.wired import Wired
from ..models.architecture import Architecture
from ..models.sites import observe

__all__ = ["LogitLens", "logit_lens"]


@dataclass(frozen=True)
class LogitLens:
    """What the stream after each block says, all (layer, token).

    Attributes:
        token: the most probable token's id.
        probability: its probability.
        answer: the probability of the answer.
    """

    token: torch.Tensor
    probability: torch.Tensor
    answer: torch.Tensor


def logit_lens(wired: Wired, ids: torch.Tensor, answer: int) -> LogitLens:
    """Probabilities from the stream after each block, through the model's final norm and unembedding.

    Args:
        wired: the model.
        ids: (1, token) token ids.
        answer: token id.

    Raises:
        UserError: for a model that does not say what its unembedding is.
    """
    head = wired.unembedding_module()
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
    found = []
    with torch.no_grad():
        for stream in streams:  # one layer at a time: all layers' probabilities of a large vocabulary are gigabytes
            probabilities = head(final(stream)).float().softmax(-1)
            found.append((*probabilities.max(-1), probabilities[:, answer]))
    probability, token, own = (torch.stack(values) for values in zip(*found, strict=True))
    return LogitLens(token, probability, own)
