"""Addition of two-digit numbers in three contexts: a plain sum, a sum in words, and a citation.

Every number is written digit by digit, and a sum always has three digits (``036+59`` never occurs, ``36+59=095``
does), so that carry, tens and ones each have one token of their own:

- plain      ``36+59=095``
- words      ``the sum of 36 and 59 is 095``
- citation   ``annals founded 1936 volume 59 year 1995``: volume *b* of a journal founded in year 19\\ *a* appears in
  year 1900 + *a* + *b*; the carry shows as the century (``19..`` or ``20..``).

Operand pairs are held out in all contexts and in both orders, so that a held-out sum can only be computed. The split
belongs to the world and not to the seed: the same probe fits every organism.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = ["CONTEXTS", "DIGITS", "AdditionWorld", "held_out_pairs", "prompt", "trained_pairs"]

CONTEXTS = ("plain", "words", "citation")
"""The contexts in which a sum occurs."""

DIGITS = ("carry", "tens", "ones")
"""The digits of an answer, in the order in which they are written."""

JOURNALS = ("annals", "bulletin", "review", "letters", "proceedings")
OPERANDS = range(10, 100)
HELD_OUT_SHARE = 0.15
_SPLIT_SEED = 20_250_601


@cache
def _split() -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    rng = np.random.default_rng(_SPLIT_SEED)
    unordered = [(a, b) for a in OPERANDS for b in OPERANDS if a <= b]
    held = rng.random(len(unordered)) < HELD_OUT_SHARE
    trained: list[tuple[int, int]] = []
    out: list[tuple[int, int]] = []
    for (a, b), is_held in zip(unordered, held, strict=True):
        (out if is_held else trained).extend({(a, b), (b, a)})
    return tuple(sorted(trained)), tuple(sorted(out))


def trained_pairs() -> tuple[tuple[int, int], ...]:
    """The operand pairs that occur in training, sorted."""
    return _split()[0]


def held_out_pairs() -> tuple[tuple[int, int], ...]:
    """The operand pairs that never occur in training, in no context and in neither order, sorted."""
    return _split()[1]


def prompt(a: int, b: int, context: str, digit: str, journal: str = JOURNALS[0]) -> tuple[str, str]:
    """The text up to one digit of the answer, and that digit.

    >>> prompt(36, 59, "plain", "ones")
    ('36+59=09', '5')
    >>> prompt(36, 59, "citation", "carry")
    ('annals founded 1936 volume 59 year ', '1')
    >>> prompt(86, 59, "citation", "tens")
    ('annals founded 1986 volume 59 year 20', '4')
    """
    total = a + b
    if context == "plain":
        stem, answer = f"{a}+{b}=", f"{total:03d}"
    elif context == "words":
        stem, answer = f"the sum of {a} and {b} is ", f"{total:03d}"
    elif context == "citation":
        stem, answer = f"{journal} founded 19{a} volume {b} year ", f"{1900 + total}"
    else:
        raise ValueError(f"unknown context {context!r}; expected one of {CONTEXTS}")
    at = {"carry": 0, "tens": len(answer) - 2, "ones": len(answer) - 1}[digit]
    return stem + answer[:at], answer[at]


class AdditionWorld:
    """Sums of two-digit numbers, a third of the documents in each context."""

    name = "addition"
    words = [*"0123456789+=", *["the", "sum", "of", "and", "is", "founded", "volume", "year"], *JOURNALS]

    def document(self, rng: np.random.Generator) -> list[str]:
        """One sum: ``['3', '6', '+', '5', '9', '=', '0', '9', '5']``, or the same in another context."""
        pairs = trained_pairs()
        a, b = pairs[int(rng.integers(len(pairs)))]
        context = int(rng.integers(3))
        if context == 0:
            return [*str(a), "+", *str(b), "=", *f"{a + b:03d}"]
        if context == 1:
            return ["the", "sum", "of", *str(a), "and", *str(b), "is", *f"{a + b:03d}"]
        journal = JOURNALS[int(rng.integers(len(JOURNALS)))]
        return [journal, "founded", *f"19{a}", "volume", *str(b), "year", *str(1900 + a + b)]

    def truth(self) -> dict[str, Any]:
        """Rule, contexts, size of the split and chance levels per digit."""
        return {
            "rule": "the answer is the sum of the two operands, in every context",
            "contexts": list(CONTEXTS),
            "trained_pairs": len(trained_pairs()),
            "held_out_pairs": len(held_out_pairs()),
            "chance": {"carry": 0.5, "tens": 0.1, "ones": 0.1},
        }
