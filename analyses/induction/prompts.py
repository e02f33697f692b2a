"""Random token sequences written twice, and a control whose second half is unrelated."""

from __future__ import annotations

from typing import Any

import numpy as np

from checkpoints.errors import UserError
from dynamics.probes import Probe
from dynamics.probes.plain import joined, plain_words

__all__ = ["CONTROL", "REPEATS", "repeat_probes"]

REPEATS, CONTROL = "induction_repeats", "induction_control"


def repeat_probes(tokenizer: Any, organism: bool, prompts: int, period: int, seed: int) -> tuple[Probe, Probe]:
    """Sequences of ``period`` distinct random tokens, twice; and the same first halves before unrelated second halves.

    Tokens are words that keep their identity when written side by side, so that the text means the same tokens to
    anyone who reads the trace.
    """
    pool = plain_words(tokenizer, organism)
    if len(pool) < 3 * period:
        raise UserError(
            f"the tokenizer has {len(pool)} words to make random sequences of",
            expected=f"at least {3 * period}",
            remedy="lower the option `period` of analysis `induction`",
        )
    rng = np.random.default_rng(seed)
    repeated, unrelated = [], []
    for _ in range(prompts):
        drawn = [pool[i] for i in rng.permutation(len(pool))[: 2 * period]]
        first, other = drawn[:period], drawn[period:]
        repeated.append(joined(first + first, organism))
        unrelated.append(joined(first + other, organism))
    labels = {"period": (period,) * prompts}
    return (
        Probe(REPEATS, tuple(repeated), labels=labels, description="random tokens, written twice"),
        Probe(CONTROL, tuple(unrelated), labels=labels, description="random tokens without any repeat"),
    )
