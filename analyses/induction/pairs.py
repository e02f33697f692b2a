"""Prompts that separate the induction circuit from its parts: the match, and not the copying, is corrupted.

``... A B ... A`` continues with B because an earlier head wrote "A came before" at B, and an induction head finds B by
it. In the corrupted twin the first A is another word, so that nothing points to B. The foil is another word of the
sequence, which is as frequent as B.
"""

from __future__ import annotations

import numpy as np

from dynamics.probes import Probe
from dynamics.probes.drawing import Prompt, to_probe
from dynamics.probes.sources import PlainWords

from .prompts import REMEDY

__all__ = ["PAIRS", "pair_probe"]

PAIRS = "induction_pairs"
_PREVIOUS = 5
"""Words that the sequence begins with, in any order; the last of them is A. Which words came before says nothing."""


def pair_probe(words: PlainWords, prompts: int, period: int, seed: int) -> Probe:
    """Random words, the first of them again up to one whose successor is to be predicted.

    Every sequence begins with the same five words in another order, A being the last of them, so that only a head that
    looks one word back can have put A where B stands: an average of what came before is the same for all.

    Labels: ``previous``, the word A, to be decoded at B. Positions: ``successor`` (B where it first occurs).
    """
    pool = words.require(2 * period + _PREVIOUS, REMEDY)
    rng = np.random.default_rng(seed + 1)
    shuffled = [pool[i] for i in rng.permutation(len(pool))]
    firsts, rest = shuffled[:_PREVIOUS], shuffled[_PREVIOUS:]
    rows = []
    firsts = firsts[: min(_PREVIOUS, period - 2)]  # short sequences need room for B and the foil
    at = len(firsts) - 1
    for _ in range(prompts):
        start = [firsts[i] for i in rng.permutation(len(firsts))]
        *others, other = [rest[i] for i in rng.permutation(len(rest))[: period - at]]
        drawn = [*start, *others]
        twin = [*drawn[:at], other, *drawn[at + 1 :]]
        again = drawn[: at + 1]
        wrong = others[int(rng.integers(1, len(others)))]
        rows.append(
            Prompt(
                words.joined([*drawn, *again]),
                words.space + drawn[at + 1],
                words.space + wrong,
                words.joined([*twin, *again]),
                {"previous": drawn[at].strip()},
                {"successor": (len(words.joined(again)), len(words.joined(drawn[: at + 2])))},
            )
        )
    description = "random words, the first of them again; in the twin the repeated word's first occurrence is another"
    return to_probe(PAIRS, rows, description)
