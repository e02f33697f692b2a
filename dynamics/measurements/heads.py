"""What attention heads look at in a text.

Per prompt and head, means over the queries t = 2, 3, ... (at 0 and 1 the first, the previous and the current
token are not three different ones):

- entropy: of the attention over the t + 1 keys, divided by log(t + 1): 1 for uniform attention, 0 for one key
- first, previous, current: attention to token 0, t - 1 and t
- occurrence: attention to the last previous occurrence p of the current token, over the t that have one (duplicate token
  heads)
- after occurrence: attention to p + 1, over the t that have one and p + 1 < t (prefix matching, Olsson et al. 2022)
- delimiter: attention to all delimiters at 1 .. t - 1 together, over the t that have one before them
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

__all__ = ["ATTENTION_SCORES", "HeadAttention", "attention_scores"]

ATTENTION_SCORES = {
    "attention_entropy": "entropy of attention relative to uniform attention",
    "attention_first": "mean attention to the first token",
    "attention_previous": "mean attention to the previous token",
    "attention_current": "mean attention to the current token",
    "attention_occurrence": "mean attention to the previous occurrence of the current token",
    "attention_after_occurrence": "mean attention to the token after the previous occurrence",
    "attention_delimiter": "mean attention to delimiters after the first token",
}
"""Variable name to what it is in words."""

_SPARSE = ("attention_occurrence", "attention_after_occurrence", "attention_delimiter")
"""Scores that a prompt may have no query for."""

_FIRST_QUERY = 2
_CHUNK = 2**24
"""At most this many attention probabilities are copied at once."""


def attention_scores(pattern: torch.Tensor, ids: torch.Tensor, delimiters: torch.Tensor) -> dict[str, torch.Tensor]:
    """The scores of attention patterns; see the module's docstring.

    Args:
        pattern: (row, head, query, key) attention probabilities.
        ids: (row, token) token ids.
        delimiters: (id,) token ids that count as delimiters.

    Returns:
        Score name to (row, head); NaN where no query of the prompt counts.
    """
    import torch

    length = ids.shape[1]
    index = torch.arange(length, device=ids.device)
    before = index[:, None] > index  # (query, key)
    # one more than the last previous occurrence of each query's token, 0 where there is none
    after = (((ids[:, :, None] == ids[:, None, :]) & before) * (index + 1)).amax(-1)
    counts = torch.ones_like(ids, dtype=torch.bool)
    counts[:, :_FIRST_QUERY] = False
    diagonal = pattern.diagonal(dim1=-2, dim2=-1)
    previous = torch.zeros_like(diagonal)
    previous[..., 1:] = pattern.diagonal(offset=-1, dim1=-2, dim2=-1)
    marks = torch.isin(ids, delimiters)
    marks[:, 0] = False
    any_before = (marks[:, None, :] & before).any(-1)
    to_marks = torch.einsum("rhqk,rk->rhq", pattern, marks.to(pattern.dtype)) - diagonal * marks[:, None]
    entropy = -torch.xlogy(pattern, pattern).sum(-1) / torch.log(index + 1.0).clamp(min=1e-9)

    def at(key: torch.Tensor) -> torch.Tensor:
        keys = key.clamp(min=0)[:, None, :, None].expand(-1, pattern.shape[1], -1, 1)
        return pattern.gather(-1, keys)[..., 0]

    parts = {
        "attention_entropy": (entropy, counts),
        "attention_first": (pattern[..., 0], counts),
        "attention_previous": (previous, counts),
        "attention_current": (diagonal, counts),
        "attention_occurrence": (at(after - 1), counts & (after > 0)),
        "attention_after_occurrence": (at(after.clamp(max=length - 1)), counts & (after > 0) & (after < index)),
        "attention_delimiter": (to_marks, counts & any_before),
    }
    # a sum over no query is 0, and 0 / 0 the NaN that is wanted
    return {
        name: torch.where(where[:, None], value, 0.0).sum(-1) / where.sum(-1)[:, None]
        for name, (value, where) in parts.items()
    }


@dataclass(frozen=True)
class HeadAttention:
    """Where each head looks: the variables :data:`ATTENTION_SCORES` (prompt, layer, head); see the module's docstring.

    Attributes:
        delimiters: token ids that count as delimiters (punctuation, newlines, special tokens), in increasing order.
    """

    each_prompt: ClassVar[bool] = True

    delimiters: tuple[int, ...] = ()

    def sites(self) -> frozenset[str]:
        """Attention patterns, reduced to a few numbers per head as each layer passes."""
        return frozenset({"pattern"})

    def logits(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """None."""
        return []

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """One variable per score."""
        require_causal(probe, shape, "attention to earlier tokens")
        short = int(probe.lengths.min())
        if short <= _FIRST_QUERY:
            raise UserError(
                f"probe {probe.probe.name!r} has a prompt of {short} tokens",
                expected=f"at least {_FIRST_QUERY + 1}, so that first, previous and current token differ",
                remedy="write longer prompts",
            )
        size = (len(probe.ids), shape.layers, shape.heads)
        return [
            Variable(name, (PROMPT, LAYER, "head"), size, "float", words, padded=name in _SPARSE)
            for name, words in ATTENTION_SCORES.items()
        ]

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> _Attention:
        """Space for all prompts."""
        return _Attention(self.delimiters, (len(probe.ids), shape.layers, shape.heads))


class _Attention:
    def __init__(self, delimiters: tuple[int, ...], shape: tuple[int, int, int]) -> None:
        self._delimiters = delimiters
        self._values = {name: np.full(shape, np.nan, dtype=np.float32) for name in ATTENTION_SCORES}
        self._heads = shape[2]

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        import torch

        if value.ndim != 4 or value.shape[1] != self._heads:
            raise UserError(
                f"site {site!r} gave values of shape {tuple(value.shape)}",
                expected="an attention pattern (row, head, query, key)",
                remedy="correct the site's place in the SiteTable (index 1 of the attention module's output?)",
            )
        delimiters = torch.tensor(self._delimiters, dtype=batch.ids.dtype, device=batch.ids.device)
        size = max(1, _CHUNK // max(1, value[0].numel()))
        for start in range(0, len(value), size):
            rows = slice(start, start + size)
            found = attention_scores(value[rows].float(), batch.ids[rows], delimiters)
            for name, score in found.items():
                self._values[name][batch.rows[rows], layer] = score.cpu().numpy()

    def finish(self, batch: Batch) -> None:
        pass

    def result(self) -> dict[str, np.ndarray]:
        return self._values
