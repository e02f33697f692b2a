"""The logit lens: what the model would say if it stopped after each block (nostalgebraist 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..circuits.wired import Wired

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

    What the model does to its logits afterwards (a cap, a scale) is done to these, too.

    Args:
        wired: the model.
        ids: (1, token) token ids.
        answer: token id.
    """
    run = wired.run(ids)
    layers = range(1, wired.graph.layers + 1)
    found = []
    for layer in layers:  # one at a time: all layers' probabilities of a large vocabulary are gigabytes
        probabilities = wired.says(ids, wired.entering(run, layer))[0].float().softmax(-1)
        found.append((*probabilities.max(-1), probabilities[:, answer]))
    probability, token, own = (torch.stack(values) for values in zip(*found, strict=True))
    return LogitLens(token, probability, own)
