"""Prompts of addition: sums in three contexts, and single numbers, for the organism's language and for English.

In the organism's language every digit is a token, and a sum is asked digit by digit with the earlier digits given;
in natural language a two-digit number is one token in Pythia's tokenizer, and a sum is asked as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import addition as world
from dynamics.probes import Label, Mark, Probe, single_token

__all__ = ["GRID", "NUMBERS", "ONES", "SUMS", "asked", "grid_probe", "number_probe", "ones_probe", "sum_probe"]

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


def asked(a: int, b: int, context: str, organism: bool) -> tuple[str, str]:
    """A sum up to its ones digit, or to the whole sum where that is one token, and the right answer.

    >>> asked(36, 59, "plain", organism=True), asked(36, 59, "plain", organism=False)
    (('36+59=09', '5'), ('36+59=', '95'))
    """
    return world.prompt(a, b, context, "ones") if organism else _NATURAL[context](a, b)


def sum_probe(tokenizer: Any, organism: bool, per_context: int, seed: int) -> Probe:
    """Sums in three contexts, on different operand pairs in each context.

    Different pairs make the contexts independent samples: whatever two contexts share is then due to the model and
    not to the same numbers.

    Labels: ``context``, ``digit`` (carry, tens, ones; ``sum`` where the sum is one token), ``operand_a``,
    ``operand_b``, ``total``, ``ones`` (last digit of the sum), ``pair`` (an id of operands and context).
    """
    rng = np.random.default_rng(seed)
    contexts = list(world.CONTEXTS)
    pairs = _pairs(organism, per_context * len(contexts), rng)
    text: list[str] = []
    answer: list[str] = []
    labels: dict[str, list[Label]] = {
        k: [] for k in ("context", "digit", "operand_a", "operand_b", "total", "ones", "pair")
    }
    for number, (a, b) in enumerate(pairs):
        context = contexts[number % len(contexts)]
        asked = (
            [(d, *world.prompt(a, b, context, d)) for d in world.DIGITS]
            if organism
            else [("sum", *_NATURAL[context](a, b))]
        )
        for digit, prompt, right in asked:
            text.append(prompt)
            answer.append(right)
            row: tuple[Label, ...] = (context, digit, a, b, a + b, (a + b) % 10, number)
            for key, value in zip(labels, row, strict=True):
                labels[key].append(value)
    if not organism and single_token(tokenizer, "95") is None:
        raise UserError(
            "the built-in sums need a tokenizer in which a two-digit number is one token",
            expected="a tokenizer like Pythia's, or the organism's",
            remedy="leave `addition` out of this run's analyses",
        )
    return Probe(
        name=SUMS,
        text=tuple(text),
        answer=tuple(answer),
        labels={k: tuple(v) for k, v in labels.items()},
        description="sums of two-digit numbers that never occur in training, in three contexts"
        if organism
        else "sums of two-digit numbers in three contexts",
    )


def ones_probe(organism: bool, each: int = 3, seed: int = 0) -> Probe:
    """Every pair of ones digits in every context, each with ``each`` pairs of tens digits of its own.

    Labels: ``context``, ``operand_a``, ``operand_b``, ``total``, ``ones`` (last digit of the sum). Sums that training held
    out and others are mixed: this asks what answers to operands, not whether sums are known.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, int, int]] = []
    for context in world.CONTEXTS:
        for i, j in np.ndindex(10, 10):
            tens = [(s, t) for s in range(1, 9) for t in range(1, 9) if organism or 10 * (s + t) + i + j < 100]
            chosen = rng.permutation(len(tens))[:each]
            rows += [(context, 10 * tens[c][0] + i, 10 * tens[c][1] + j) for c in chosen]
    return _operands(ONES, rows, organism, "every pair of ones digits in three contexts")


def grid_probe(organism: bool) -> Probe:
    """Every pair of two-digit operands in the plain context; labels as of :func:`ones_probe`."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100) if organism or a + b < 100]
    return _operands(GRID, [("plain", a, b) for a, b in pairs], organism, "every pair of operands, plain sums")


def _operands(name: str, rows: list[tuple[str, int, int]], organism: bool, description: str) -> Probe:
    return Probe(
        name,
        tuple(asked(a, b, context, organism)[0] for context, a, b in rows),
        labels={
            "context": tuple(context for context, _, _ in rows),
            "operand_a": tuple(a for _, a, _ in rows),
            "operand_b": tuple(b for _, _, b in rows),
            "total": tuple(a + b for _, a, b in rows),
            "ones": tuple((a + b) % 10 for _, a, b in rows),
        },
        description=description,
    )


def number_probe() -> Probe:
    """Every number from 10 to 99 as a first operand; position ``number`` is its last token."""
    numbers = tuple(range(10, 100))
    marks: tuple[Mark, ...] = tuple((0, 2) for _ in numbers)
    return Probe(
        name=NUMBERS,
        text=tuple(f"{n}+" for n in numbers),
        labels={"number": numbers},
        positions={"number": marks},
        description="the numbers 10 to 99 as first operands",
    )


def _pairs(organism: bool, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Operand pairs, no two of which are each other's exchange."""
    if organism:
        pool = [(a, b) for a, b in world.held_out_pairs() if a <= b]
    else:  # sums below 100: a citation's year stays in the twentieth century, whose years are single tokens
        pool = [(a, b) for a in range(10, 90) for b in range(a, 100 - a)]
    if count > len(pool):
        raise UserError(f"{count} different sums were asked for, there are {len(pool)}", remedy="lower `per_context`")
    chosen = [pool[i] for i in rng.permutation(len(pool))[:count]]
    return [(b, a) if rng.random() < 0.5 else (a, b) for a, b in chosen]
