"""What the model answers: log-probabilities and ranks of the right answer, the foil and all candidate answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from checkpoints.errors import UserError

from ..models.architecture import ModelShape
from ..names import PROMPT
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import Batch

if TYPE_CHECKING:
    import torch

__all__ = ["Answers"]


_AT_ONCE = 16
"""Prompts whose words are walked over together on a processor."""

_NOTHING = -200.0
"""Nats below the likeliest word at which a word's probability is 0 in single precision."""


@dataclass(frozen=True)
class Answers:
    """The next-token distribution at the last position, against the probe's answers.

    Variables, each (prompt,): ``answer_logprob`` (nats), ``answer_rank`` (0 = the model's first choice among all
    tokens; ties count against the model), ``predicted`` (token id of the first choice), ``entropy`` (nats), and
    ``foil_logprob`` where the probe has foils. With ``candidates`` also ``candidate_logprob`` (prompt, candidate): the
    log-probability of every distinct answer of the probe, from which nulls with shuffled answers follow exactly.

    A checkpoint whose largest logit is not finite (or that has a NaN) has ``predicted`` and ``answer_rank`` -1: it said
    nothing. Tokens with logit -inf, such as those that only pad the vocabulary, are impossible, and no more than that.
    """

    each_prompt: ClassVar[bool] = True

    candidates: bool = False

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
        """See the class."""
        if probe.answer_ids is None:
            raise UserError(
                f"probe {probe.probe.name!r} has no answers to measure",
                remedy="give every prompt an `answer`",
                expected="a next token to compare with, for every prompt",
            )
        n = (len(probe.ids),)
        result = [
            Variable("answer_logprob", (PROMPT,), n, "float", "log-probability of the right answer", "nat"),
            Variable("answer_rank", (PROMPT,), n, "int", "tokens that are at least as likely as the right answer"),
            Variable("predicted", (PROMPT,), n, "int", "token id of the most likely continuation"),
            Variable("entropy", (PROMPT,), n, "float", "entropy of the next-token distribution", "nat"),
        ]
        if probe.foil_ids is not None:
            result.append(Variable("foil_logprob", (PROMPT,), n, "float", "log-probability of the foil", "nat"))
        if self.candidates:
            result.append(
                Variable(
                    "candidate_logprob",
                    (PROMPT, "candidate"),
                    (*n, len(probe.candidates)),
                    "float",
                    "log-probability of each distinct answer of the probe",
                    "nat",
                    coords={"candidate": tuple(probe.candidates.values())},
                )
            )
        return result

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> _Answers:
        """Space for all prompts."""
        return _Answers(probe, self.declare(probe, shape))


class _Answers:
    def __init__(self, probe: TokenizedProbe, variables: list[Variable]) -> None:
        self._probe = probe
        self._values = {
            v.name: np.full(
                v.shape, -1 if v.kind == "int" else np.nan, dtype=np.int32 if v.kind == "int" else np.float32
            )
            for v in variables
        }

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        raise AssertionError("answers need no site")

    def finish(self, batch: Batch) -> None:
        logits = batch.logits_at(self._probe.positions[LAST])
        size = _AT_ONCE if logits.device.type == "cpu" else len(logits)  # a processor reads again what it just wrote
        for start in range(0, len(logits), size):
            self._finish(batch.rows[start : start + size], logits[start : start + size])

    def _finish(self, rows: np.ndarray, logits: torch.Tensor) -> None:
        """One walk over the words: exp(below) is their probability but for ``total``."""
        import torch

        largest, first = logits.max(-1)  # NaN counts as the largest
        finite = torch.isfinite(largest)
        below = logits - largest[:, None]
        parts = below.exp()
        total = parts.sum(-1)
        every = torch.arange(len(rows), device=logits.device)

        def of(ids: np.ndarray | None) -> torch.Tensor:
            assert ids is not None
            return torch.from_numpy(ids[rows]).to(logits.device)

        answer = of(self._probe.answer_ids)
        found = {
            "answer_logprob": below[every, answer] - total.log(),
            "answer_rank": torch.where(finite, (logits >= logits[every, answer, None]).sum(-1) - 1, -1),
            "predicted": torch.where(finite, first, -1),
        }
        if "foil_logprob" in self._values:
            found["foil_logprob"] = below[every, of(self._probe.foil_ids)] - total.log()
        if "candidate_logprob" in self._values:
            found["candidate_logprob"] = below[:, list(self._probe.candidates)] - total.log()[:, None]
        mean = parts.mul_(below.clamp_(min=_NOTHING)).sum(-1) / total  # 0 x -inf is 0 here
        found["entropy"] = (total.log() - mean).where(finite, torch.full_like(mean, torch.nan))
        for name, value in found.items():
            self._values[name][rows] = value.cpu().numpy()

    def result(self) -> dict[str, np.ndarray]:
        return self._values
