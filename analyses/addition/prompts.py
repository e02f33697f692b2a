"""Prompts of addition: sums in three contexts, and single numbers, for the organism's language and for English.

In the organism's language every digit is a token, and a sum is asked digit by digit with the earlier digits given;
in natural language a two-digit number is one token in Pythia's tokenizer, and a sum is asked as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import addition as world
from dynamics.probes import Label, Probe, single_token
from dynamics.probes.drawing import Prompt, to_probe
from dynamics.probes.sources import choose_source

__all__ = [
    "ENGLISH",
    "GRID",
    "NUMBERS",
    "ONES",
    "ORGANISM",
    "SUMS",
    "SumPrompts",
    "grid_probe",
    "number_probe",
    "ones_probe",
    "sum_probe",
    "sums_for",
]

SUMS, NUMBERS = "addition_sums", "addition_numbers"
ONES, GRID = "addition_ones", "addition_grid"

_NATURAL: dict[str, Callable[[int, int], tuple[str, str]]] = {
    "plain": lambda a, b: (f"{a}+{b}=", f"{a + b}"),
    "words": lambda a, b: (f"The sum of {a} and {b} is", f" {a + b}"),
    "citation": lambda a, b: (
        f"The journal was founded in 19{a} and volume 1 appeared a year later. Volume {b} appeared in",
        f" {1900 + a + b}",
    ),
}


@dataclass(frozen=True)
class SumPrompts:
    """How sums are asked in a language.

    Attributes:
        ask: operands, context and digit to the sum up to that digit, and the right answer.
        digits: what is asked for, one after the other; the last decides (``ones``, or the whole ``sum``).
        modulus: the last answer is the sum modulo this.
        most: the largest sum that can be asked.
        operands: those that are asked about, in both orders.
        example: an answer, which has to be one token.
    """

    about: str
    ask: Callable[[int, int, str, str], tuple[str, str]]
    digits: tuple[str, ...]
    modulus: int
    most: int
    operands: tuple[tuple[int, int], ...]
    example: str

    def last(self, a: int, b: int, context: str) -> tuple[str, str]:
        """A sum up to its last digit, or to the whole sum where that is one token, and the right answer.

        >>> ORGANISM.last(36, 59, "plain"), ENGLISH.last(36, 59, "plain")
        (('36+59=09', '5'), ('36+59=', '95'))
        """
        return self.ask(a, b, context, self.digits[-1])


ORGANISM = SumPrompts(
    "sums of two-digit numbers that never occur in training, in three contexts",
    world.prompt,
    tuple(world.DIGITS),
    modulus=10,
    most=198,
    operands=tuple(world.held_out_pairs()),
    example="5",
)
# below 100: a citation's year stays in the twentieth century, whose years are single tokens
ENGLISH = SumPrompts(
    "sums of two-digit numbers in three contexts",
    lambda a, b, context, _digit: _NATURAL[context](a, b),
    ("sum",),
    modulus=100,
    most=99,
    operands=tuple((a, b) for a in range(10, 90) for b in range(10, 100 - a)),
    example="95",
)


def sums_for(tokenizer: Any) -> SumPrompts:
    """How a model with this tokenizer is asked for sums."""
    return choose_source(tokenizer, "addition", ORGANISM, ENGLISH)


def sum_probe(tokenizer: Any, sums: SumPrompts, per_context: int, seed: int) -> Probe:
    """Sums in three contexts, on different operand pairs in each context.

    Different pairs make the contexts independent samples: whatever two contexts share is then due to the model and
    not to the same numbers.

    Labels: ``context``, ``digit`` (carry, tens, ones; ``sum`` where the sum is one token), ``operand_a``,
    ``operand_b``, ``total``, ``ones`` (last digit of the sum), ``pair`` (an id of operands and context).
    """
    rng = np.random.default_rng(seed)
    contexts = list(world.CONTEXTS)
    pairs = _pairs(sums, per_context * len(contexts), rng)
    if single_token(tokenizer, sums.example) is None:
        raise UserError(
            "the built-in sums need a tokenizer in which a two-digit number is one token",
            expected="a tokenizer like Pythia's, or the organism's",
            remedy="leave `addition` out of this run's analyses",
        )
    rows = [
        Prompt(
            *sums.ask(a, b, context, digit), labels={"context": context, "digit": digit, **_sum(a, b), "pair": number}
        )
        for number, (a, b) in enumerate(pairs)
        for context in [contexts[number % len(contexts)]]
        for digit in sums.digits
    ]
    return to_probe(SUMS, rows, sums.about)


def ones_probe(sums: SumPrompts, seed: int = 0) -> Probe:
    """Every pair of ones digits in every context, each with three pairs of tens digits of its own.

    Labels: ``context``, ``operand_a``, ``operand_b``, ``total``, ``ones`` (last digit of the sum). Sums that training held
    out and others are mixed: this asks what answers to operands, not whether sums are known.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, int, int]] = []
    for context in world.CONTEXTS:
        for i, j in np.ndindex(10, 10):
            tens = [(s, t) for s in range(1, 9) for t in range(1, 9) if 10 * (s + t) + i + j <= sums.most]
            chosen = rng.permutation(len(tens))[:3]
            rows += [(context, 10 * tens[c][0] + i, 10 * tens[c][1] + j) for c in chosen]
    return _operands(ONES, rows, sums, "every pair of ones digits in three contexts")


def grid_probe(sums: SumPrompts) -> Probe:
    """Every pair of two-digit operands in the plain context; labels as of :func:`ones_probe`."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100) if a + b <= sums.most]
    return _operands(GRID, [("plain", a, b) for a, b in pairs], sums, "every pair of operands, plain sums")


def _operands(name: str, rows: list[tuple[str, int, int]], sums: SumPrompts, description: str) -> Probe:
    prompts = [Prompt(sums.last(a, b, context)[0], labels={"context": context, **_sum(a, b)}) for context, a, b in rows]
    return to_probe(name, prompts, description)


def _sum(a: int, b: int) -> dict[str, Label]:
    return {"operand_a": a, "operand_b": b, "total": a + b, "ones": (a + b) % 10}


def number_probe() -> Probe:
    """Every number from 10 to 99 as a first operand; position ``number`` is its last token."""
    rows = [Prompt(f"{n}+", labels={"number": n}, positions={"number": (0, 2)}) for n in range(10, 100)]
    return to_probe(NUMBERS, rows, "the numbers 10 to 99 as first operands")


def _pairs(sums: SumPrompts, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Operand pairs, no two of which are each other's exchange."""
    pool = [(a, b) for a, b in sums.operands if a <= b]
    if count > len(pool):
        raise UserError(f"{count} different sums were asked for, there are {len(pool)}", remedy="lower `per_context`")
    chosen = [pool[i] for i in rng.permutation(len(pool))[:count]]
    return [(b, a) if rng.random() < 0.5 else (a, b) for a, b in chosen]
