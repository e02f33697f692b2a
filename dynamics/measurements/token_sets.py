"""How probable is any of a set of tokens, and how sure is the model of what it says first?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checkpoints.errors import UserError

from ..models.architecture import ModelShape
from ..names import PROMPT
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import Batch

if TYPE_CHECKING:
    import torch

__all__ = ["TokenSets"]


@dataclass(frozen=True)
class TokenSets:
    """The next-token distribution at the last position, added up over sets of tokens.

    Variables: ``set_logprob`` (prompt, token_set), the log of the summed probability of each set (nats);
    ``choice_logprob`` (prompt), the log-probability of the first choice among all tokens: its *confidence* (nats); and
    ``choice_set`` (prompt), the number of the first set that holds that first choice, -1 where none does or the largest
    logit is not finite.

    Attributes:
        sets: name of each set and its token ids.
    """

    sets: tuple[tuple[str, tuple[int, ...]], ...]

    def sites(self) -> frozenset[str]:
        """None: logits only."""
        return frozenset()

    def logits(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """The last position."""
        return [probe.positions[LAST]]

    def reads(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """No site."""
        return []

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """See the class; every set needs a token, and all of them must be in the vocabulary."""
        if not self.sets:
            raise UserError("no set of tokens was named", expected="at least one", remedy="name a set of tokens")
        for name, ids in self.sets:
            if not ids or min(ids) < 0 or max(ids) >= shape.vocab or len(set(ids)) != len(ids):
                raise UserError(
                    f"the token set {name!r} is {list(ids)[:8]}",
                    expected=f"at least one token id, each once, 0 to {shape.vocab - 1}",
                    remedy="give ids that the tokenizer of this model knows, none of them twice",
                )
        n = len(probe.ids)
        coords = {"token_set": tuple(name for name, _ in self.sets)}
        return [
            Variable(
                "set_logprob",
                (PROMPT, "token_set"),
                (n, len(self.sets)),
                "float",
                "log-probability of a set of tokens",
                "nat",
                coords=coords,
            ),
            Variable(
                "choice_logprob", (PROMPT,), (n,), "float", "log-probability of the most likely continuation", "nat"
            ),
            Variable("choice_set", (PROMPT,), (n,), "int", "number of the set that holds the most likely continuation"),
        ]

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> _TokenSets:
        """Space for all prompts."""
        return _TokenSets(self, probe)


class _TokenSets:
    def __init__(self, asked: TokenSets, probe: TokenizedProbe) -> None:
        n = len(probe.ids)
        self._asked, self._probe = asked, probe
        self._values = {
            "set_logprob": np.full((n, len(asked.sets)), np.nan, dtype=np.float32),
            "choice_logprob": np.full(n, np.nan, dtype=np.float32),
            "choice_set": np.full(n, -1, dtype=np.int32),
        }

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        raise AssertionError("sets of tokens need no site")

    def finish(self, batch: Batch) -> None:
        import torch

        logits = batch.logits_at(self._probe.positions[LAST])
        logprobs = torch.log_softmax(logits, dim=-1)
        choice = logits.argmax(-1).cpu().numpy()
        finite = torch.isfinite(logits.amax(-1)).cpu().numpy()
        rows = batch.rows
        for index, (_, ids) in enumerate(self._asked.sets):
            self._values["set_logprob"][rows, index] = logprobs[:, list(ids)].logsumexp(-1).cpu().numpy()
            holds = finite & np.isin(choice, ids) & (self._values["choice_set"][rows] < 0)
            self._values["choice_set"][rows[holds]] = index
        best = logprobs.max(-1).values.cpu().numpy()
        self._values["choice_logprob"][rows] = np.where(finite, best, np.nan)

    def result(self) -> dict[str, np.ndarray]:
        return self._values
