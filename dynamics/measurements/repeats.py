"""Attention and loss on repeated sequences: per-head prefix-matching, previous-token and duplicate-token scores.

Definitions (Olsson et al. 2022, "In-context Learning and Induction Heads"), for a prompt of random tokens that is
written twice with period L, averaged over the queries t of the second copy:

- prefix matching: attention from t to t - L + 1, the token after the previous occurrence of the current token
- duplicate token: attention from t to t - L, that previous occurrence itself
- previous token: attention from t to t - 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from checkpoints.errors import UserError

from ..models.architecture import ModelShape
from ..names import LAYER, PROMPT
from ..probes import TokenizedProbe
from ..store.variable import Variable
from .base import Batch, require_causal

if TYPE_CHECKING:
    import torch

__all__ = ["RepeatAttention", "TokenLoss", "repeat_scores"]

SCORES = ("prefix_matching", "duplicate_token", "previous_token")


def repeat_scores(pattern: torch.Tensor, period: int) -> dict[str, torch.Tensor]:
    """The three scores of one attention pattern.

    Args:
        pattern: (..., query, key) attention probabilities of prompts whose last ``2 * period`` tokens are two copies.
        period: length of one copy in tokens.

    Returns:
        Score name to (...,) mean attention probability over the queries of the second copy.
    """
    import torch

    length = pattern.shape[-1]
    query = torch.arange(length - period, length, device=pattern.device)
    offsets = {"prefix_matching": period - 1, "duplicate_token": period, "previous_token": 1}
    return {name: pattern[..., query, query - offset].mean(-1) for name, offset in offsets.items()}


@dataclass(frozen=True)
class RepeatAttention:
    """Per-head scores on prompts that end in two copies of a sequence: three variables (prompt, layer, head).

    The probe's integer label named ``period`` says how long one copy is; all prompts have the same.
    """

    period: str = "period"

    def sites(self) -> frozenset[str]:
        """Attention patterns, reduced to one number per head as each layer passes."""
        return frozenset({"pattern"})

    def logits(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """None."""
        return []

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The three scores."""
        require_causal(probe, shape, "repeats of a text")
        self.copy_length(probe)
        return [
            Variable(
                name,
                (PROMPT, LAYER, "head"),
                (len(probe.ids), shape.layers, shape.heads),
                "float",
                f"mean attention probability: {name.replace('_', ' ')}",
            )
            for name in SCORES
        ]

    def copy_length(self, probe: TokenizedProbe) -> int:
        """The period, checked."""
        values = set(probe.probe.labels.get(self.period, ()))
        lengths = set(probe.lengths.tolist())
        if len(values) != 1 or len(lengths) != 1 or not isinstance(value := next(iter(values)), int):
            raise UserError(
                f"probe {probe.probe.name!r} is not made of repeats: label {self.period!r} has values {sorted(map(str, values))}, "
                f"prompts have {sorted(lengths)} tokens",
                expected="one integer period, and prompts of one length",
                remedy=f"write {self.period} as one number for all, and prompts of equal length",
            )
        if value < 2:
            raise UserError(
                f"probe {probe.probe.name!r}: a period of {value} is no repeat",
                expected="2 or more",
                remedy=f"write prompts that repeat, and after how many tokens as {self.period}",
            )
        if 2 * value > next(iter(lengths)):
            raise UserError(
                f"probe {probe.probe.name!r}: two periods of {value} do not fit its {next(iter(lengths))} tokens",
                expected=f"prompts of {2 * value} tokens or more, or a shorter period",
                remedy="write every prompt at least twice its period long",
            )
        return value

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> _Scores:
        """Space for all prompts."""
        return _Scores(self.copy_length(probe), (len(probe.ids), shape.layers, shape.heads))


class _Scores:
    def __init__(self, period: int, shape: tuple[int, int, int]) -> None:
        self._period = period
        self._values = {name: np.full(shape, np.nan, dtype=np.float32) for name in SCORES}

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        if value.ndim != 4 or value.shape[1] != self._values[SCORES[0]].shape[2]:
            raise UserError(
                f"site {site!r} gave values of shape {tuple(value.shape)}",
                expected="an attention pattern (row, head, query, key)",
                remedy="correct the site's place in the SiteTable (index 1 of the attention module's output?)",
            )
        for name, score in repeat_scores(value.float(), self._period).items():
            self._values[name][batch.rows, layer] = score.cpu().numpy()

    def finish(self, batch: Batch) -> None:
        pass

    def result(self) -> dict[str, np.ndarray]:
        return self._values


@dataclass(frozen=True)
class TokenLoss:
    """Loss at every token: variable ``token_loss`` (prompt, token) in nats.

    Entry *t* is the loss of predicting token *t* from those before it; token 0 is never predicted and is NaN.
    """

    each_prompt: ClassVar[bool] = True

    def sites(self) -> frozenset[str]:
        """None: logits only."""
        return frozenset()

    def logits(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """Every position."""
        return [np.minimum(t, probe.lengths - 1) for t in range(int(probe.lengths.max()))]

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """See the class."""
        require_causal(probe, shape, "the loss at each token")
        size = (len(probe.ids), int(probe.lengths.max()))
        return [Variable("token_loss", (PROMPT, "token"), size, "float", "loss at each token", "nat", padded=True)]

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> _Loss:
        """Space for all prompts."""
        return _Loss((len(probe.ids), int(probe.lengths.max())))


class _Loss:
    def __init__(self, shape: tuple[int, int]) -> None:
        self._values = np.full(shape, np.nan, dtype=np.float32)

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        raise AssertionError("losses need no site")

    def finish(self, batch: Batch) -> None:
        import torch

        assert batch.logits is not None
        length = batch.ids.shape[1]
        kept = [batch.logits_index.index(t) for t in range(length - 1)]
        logprobs = torch.log_softmax(batch.logits[:, kept].float(), dim=-1)
        loss = -logprobs.gather(-1, batch.ids[:, 1:, None])[..., 0]
        self._values[batch.rows, 1:length] = loss.cpu().numpy()

    def result(self) -> dict[str, np.ndarray]:
        return {"token_loss": self._values}
