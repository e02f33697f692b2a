"""Random token sequences written twice, and a control whose second half is unrelated."""

from __future__ import annotations

from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import vocabulary
from dynamics.probes import Probe

__all__ = ["CONTROL", "REPEATS", "repeat_probes", "words_to_draw"]

REPEATS, CONTROL = "induction_repeats", "induction_control"


def repeat_probes(tokenizer: Any, organism: bool, prompts: int, period: int, seed: int) -> tuple[Probe, Probe]:
    """Sequences of ``period`` distinct random tokens, twice; and the same first halves before unrelated second halves.

    Tokens are words that keep their identity when written side by side, so that the text means the same tokens to
    anyone who reads the trace.
    """
    pool = words_to_draw(tokenizer, organism)
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
        repeated.append(_join(first + first, organism))
        unrelated.append(_join(first + other, organism))
    labels = {"period": (period,) * prompts}
    return (
        Probe(REPEATS, tuple(repeated), labels=labels, description="random tokens, written twice"),
        Probe(CONTROL, tuple(unrelated), labels=labels, description="random tokens without any repeat"),
    )


def words_to_draw(tokenizer: Any, organism: bool) -> list[str]:
    """Words that are one token each, also side by side; with their leading space where the tokenizer has one."""
    return vocabulary() if organism else _words(tokenizer)


def _join(words: list[str], organism: bool) -> str:
    return " ".join(words) if organism else "".join(words)


def _words(tokenizer: Any) -> list[str]:
    """Tokens that are a space and a plain word, which no tokenizer merges when they follow one another.

    Where no token carries its space, tokens are whole words, and any of letters and digits will do.
    """
    texts = [t for t in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) if isinstance(t, str)]
    marked = [t[1:] for t in texts if t[:1] in ("Ġ", "▁")]
    if marked:
        pool = [f" {word}" for word in marked if len(word) >= 3 and word.isascii() and word.isalpha()]
    else:
        pool = [f" {word}" for word in texts if word.isascii() and word.isalnum()]
    if not pool:
        return []
    ids = tokenizer(pool, add_special_tokens=False)["input_ids"]
    return [word for word, row in zip(pool, ids, strict=True) if len(row) == 1]
