"""What a prompt is compared with: the prompt that differs in one token and has another answer most surely.

Random tokens destroy everything at once, and what restores the answer is then most of the model. One token changed keeps
all that both prompts share out of the flowchart (the minimal pairs of the literature, found instead of written).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax

from checkpoints.errors import UserError

from ..circuits.wired import Wired
from .checkpoint import guess
from .prompts import Question, ordinary_tokens

__all__ = ["CANDIDATES", "closest_twin"]

CANDIDATES = 24
"""Tokens that are tried at each position."""

_BATCH = 256


def closest_twin(
    wired: Wired, tokenizer: Any, question: Question, answer: int | None, foil: int | None, seed: int
) -> tuple[Question, int, int]:
    """The question with its twin, and answer and foil where they were not given.

    The answer is the model's first choice for the prompt. Of all twins the one is taken after which the model is surest of
    the foil, or of any token but the answer where no foil was given; that token is then the foil. Being sure of something
    else, it has read the twin as a prompt of the same kind.

    Args:
        seed: of the tokens that are tried.

    Raises:
        UserError: when the model's logits are not finite, or there is nothing to change.
    """
    ids = question.ids
    pool = ordinary_tokens(tokenizer, wired.architecture.shape)
    positions = np.flatnonzero(np.isin(ids, pool))
    rng = np.random.default_rng(seed)
    rows = []
    for position in positions:
        others = pool[pool != ids[position]]
        for token in rng.choice(others, size=min(CANDIDATES, len(others)), replace=False):
            row = ids.copy()
            row[position] = token
            rows.append(row)
    if not rows:
        raise UserError(
            "no token of the prompt can be exchanged",
            remedy="give --corrupted",
            expected="a token whose exchange keeps the length of the prompt",
        )
    if answer is None:
        answer = guess(wired, question, None, foil)[0]
    twins = np.stack(rows)
    best: tuple[float, int, int] | None = None
    for start in range(0, len(twins), _BATCH):
        logits = log_softmax(_logits(wired, twins[start : start + _BATCH]), axis=1)
        logits[:, answer] = -np.inf
        rival = logits.argmax(1) if foil is None else np.full(len(logits), foil)
        unsure = -logits[np.arange(len(logits)), rival]
        unsure[~np.isfinite(unsure)] = np.inf
        at = int(unsure.argmin())
        if np.isfinite(unsure[at]) and (best is None or unsure[at] < best[0]):
            best = (float(unsure[at]), start + at, int(rival[at]))
    if best is None and foil is not None:  # a broken model cannot say which: random tokens then
        return replace(question, how="random tokens"), answer, foil
    if best is None:
        raise UserError(
            "the logits of no twin are finite",
            remedy="give --corrupted, or --random-tokens",
            expected="a model whose logits are numbers",
        )
    chosen = twins[best[1]]
    text = str(tokenizer.decode(chosen.tolist()))
    return replace(question, twins=chosen[None], texts=(text,), tried=len(twins)), answer, best[2]


def _logits(wired: Wired, rows: np.ndarray) -> np.ndarray:
    """(row, vocab) logits at the last token."""
    ids = torch.from_numpy(rows).to(wired.device)
    last = torch.full((len(rows),), rows.shape[1] - 1, device=wired.device)
    return np.asarray(wired.logits(ids, last).float().cpu().numpy()).copy()
