"""Prompts of addition: sums in three contexts, and single numbers, for the organism's language and for English.

In the organism's language every digit is a token, and a sum is asked digit by digit with the earlier digits given. In English it
depends on the tokenizer, which is asked and not known by name: where a number below 100 is one token behind the question (GPT-2,
Pythia, BERT; Llama 3, which never puts a space into a number), a sum is asked as a whole; where numbers are split (Llama 2,
Gemma, Qwen, SmolLM), digit by digit. Of several ways to put a question (:data:`_WAYS`) the first is taken in which what is
asked for is one token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import addition as world
from dynamics.probes import Label, Probe
from dynamics.probes.drawing import Prompt, to_probe
from dynamics.probes.encoding import encode, single_tokens
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

_CITATION = "The journal was founded in {start}{a} and volume 1 appeared a year later. Volume {b} appeared in"

_Way = tuple[str, str, str]

_WAYS: dict[str, tuple[_Way, ...]] = {
    "plain": (("{a}+{b}=", "", ""), ("{a} + {b} =", "", " "), ("{a} + {b} =", " ", "")),
    "words": (("The sum of {a} and {b} is", "", " "), ("The sum of {a} and {b} is", " ", "")),
    "citation": (
        (_CITATION.replace("{start}", "19"), "", " 19"),
        (_CITATION.replace("{start}", "19"), " 19", ""),
        # in groups of three digits a year is two tokens of which neither is the sum
        (_CITATION.replace("{start}", "'"), " '", ""),
    ),
}
"""Context to ways of asking: the question, what of the answer is given, what the answer begins with. The number follows."""


def _asked(way: _Way, a: int, b: int, digit: str) -> tuple[str, str]:
    """A sum below 100 in one of the ways up to a digit, or as a whole, and the right answer."""
    question, given, start = way
    text, total = question.format(a=a, b=b) + given, str(a + b)
    if digit == "sum":
        return text, start + total
    return (text + start + total[0], total[1]) if digit == "ones" else (text, start + total[0])


@dataclass(frozen=True)
class SumPrompts:
    """How sums are asked in a language.

    Attributes:
        ask: operands, context and digit to the sum up to that digit, and the right answer.
        digits: what is asked for, one after the other; the last decides (``ones``, or the whole ``sum``).
        modulus: the last answer is the sum modulo this.
        most: the largest sum that can be asked.
        operands: those that are asked about, in both orders.
    """

    about: str
    ask: Callable[[int, int, str, str], tuple[str, str]]
    digits: tuple[str, ...]
    modulus: int
    most: int
    operands: tuple[tuple[int, int], ...]

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
)


def _english(ways: Mapping[str, _Way], digits: tuple[str, ...], totals: Collection[int]) -> SumPrompts:
    return SumPrompts(
        "sums of two-digit numbers in three contexts",
        lambda a, b, context, digit: _asked(ways[context], a, b, digit),
        digits,
        modulus=100 if digits == ("sum",) else 10,
        most=99,
        operands=tuple((a, b) for a in range(10, 90) for b in range(10, 100 - a) if a + b in totals),
    )


_TOTALS = range(20, 100)
"""Below 100: a citation's year stays in the twentieth century."""

_LEAST = 0.9

ENGLISH = _english({context: ways[0] for context, ways in _WAYS.items()}, ("sum",), _TOTALS)


def sums_for(tokenizer: Any) -> SumPrompts:
    """How a model with this tokenizer is asked for sums.

    Raises:
        UserError: when the tokenizer writes sums neither as one token each nor digit by digit.
    """
    return choose_source(tokenizer, "addition", lambda _: ORGANISM, _natural)(tokenizer)


def _natural(tokenizer: Any) -> SumPrompts:
    for digits in (("sum",), ("tens", "ones")):
        ways = {context: _best(tokenizer, ways, digits) for context, ways in _WAYS.items()}
        if all(len(totals) >= _LEAST * len(_TOTALS) for _, totals in ways.values()):
            totals = set.intersection(*(totals for _, totals in ways.values()))
            return _english({context: way for context, (way, _) in ways.items()}, digits, totals)
    raise UserError(
        "this tokenizer writes sums below 100 neither as one token each nor digit by digit",
        expected="a tokenizer in which a number, or each of its digits, is a token",
        remedy="leave `addition` out of this run's analyses",
    )


def _best(tokenizer: Any, ways: Sequence[_Way], digits: Sequence[str]) -> tuple[_Way, set[int]]:
    """The first way that fits most sums, if there is one with questions of one length, and the sums that it fits.

    A sum fits if every part that is asked for is one token in place. Where questions differ in length, sums have no twins.
    """
    second = [10 + 37 * total % (total - 19) for total in _TOTALS]  # all numbers that it can be
    fits = []
    for way in ways:
        texts, answers = zip(
            *(_asked(way, t - b, b, digit) for t, b in zip(_TOTALS, second, strict=True) for digit in digits),
            strict=True,
        )
        tokens = np.array([token is not None for token in single_tokens(tokenizer, answers, texts)])
        rows = tokens.reshape(len(_TOTALS), len(digits)).min(axis=1)
        even = len({len(ids) for ids, _ in encode(tokenizer, texts[:: len(digits)])}) == 1
        fits.append(((rows.mean() >= _LEAST, even), way, {t for t, fit in zip(_TOTALS, rows, strict=True) if fit}))
    _, way, totals = max(fits, key=lambda fit: fit[0])
    return way, totals


def sum_probe(sums: SumPrompts, per_context: int, seed: int) -> Probe:
    """Sums in three contexts, on different operand pairs in each context.

    Different pairs make the contexts independent samples: whatever two contexts share is then due to the model and
    not to the same numbers.

    Labels: ``context``, ``digit`` (carry, tens, ones; ``sum`` where the sum is one token), ``operand_a``,
    ``operand_b``, ``total``, ``ones`` (last digit of the sum), ``pair`` (an id of operands and context).
    """
    rng = np.random.default_rng(seed)
    contexts = list(world.CONTEXTS)
    pairs = _pairs(sums, per_context * len(contexts), rng)
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
        raise UserError(
            f"{count} different sums were asked for, there are {len(pool)}",
            remedy="lower `per_context`",
            expected="no more than there are sums",
        )
    chosen = [pool[i] for i in rng.permutation(len(pool))[:count]]
    return [(b, a) if rng.random() < 0.5 else (a, b) for a, b in chosen]
