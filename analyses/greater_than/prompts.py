"""Prompts of greater-than: ``The war lasted from the year 1732 to the year 17`` (a number above 32).

The sentence is that of Hanna, Liu and Variengien 2023, "How does GPT-2 compute greater-than?", where the last two digits of a
year are one token behind its century. Where they are only without it, because numbers are cut into groups of three digits, years
are written without it: ``from the year '32 to the year '``. Where every digit is a token, as in the organism's language,
the tens digit of the later year is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import years as world
from dynamics.probes import Probe
from dynamics.probes.drawing import Prompt, draw_probe, fill
from dynamics.probes.encoding import single_tokens
from dynamics.probes.sources import choose_source

__all__ = ["GREATER_THAN", "greater_than_probe"]

GREATER_THAN = "greater_than"

_TEMPLATE = "The {event} lasted from the year {century}{start} to the year {century}"
_SHORT = "'"
"""In the place of a century."""
_EVENTS = """
war siege reign voyage strike famine trial drought campaign conflict crisis dispute expedition feud occupation
partnership plague project rebellion struggle tour truce tyranny uprising investigation journey marriage mission
negotiation operation pilgrimage quest raid revolt rule service study term therapy training
"""
_CENTURIES = tuple(range(11, 19))
_LEAST_YEARS = 40  # of any 28 numbers below 100 three are evenly spaced, so that there is something to draw


def greater_than_probe(tokenizer: Any, count: int, seed: int) -> Probe:
    """Spans of years up to the century of the later one.

    With YY the earlier year without its century, the answer is YY + k and the foil YY - k for a random k > 0, so that
    both are equally far away. (Where digits are tokens: with T the tens digit of the earlier year, T + k and T - k.) The
    corrupted twin begins in some year before the foil, so that both are right. What a model has for larger numbers
    whatever was asked is then there after the twins too, and is no sign of the rule; after the year 01, the twin of the
    paper, it would be hidden by what the model has for that one number. That the *whole* distribution obeys the rule is a sum over candidates: all numbers above the label ``start`` (its tens digit, ``decade``) against the others.

    Args:
        tokenizer: of the series.
        count: number of prompts.
        seed: chooses events, centuries, years and distances.

    Returns:
        The probe. Labels: ``start`` (YY), ``decade`` (its tens digit), ``century`` (0 where it is not
        written), ``event``, ``distance`` (k). Position: ``year``, the token of the earlier year that decides (YY, or its tens digit).

    Raises:
        UserError: when the tokenizer does not split years as needed, or the organism does not know the world ``years``.
    """
    ask = choose_source(tokenizer, "years", _organism_probe, _english_probe)
    return ask(tokenizer, count, np.random.default_rng(seed))


def _english_probe(tokenizer: Any, count: int, rng: np.random.Generator) -> Probe:
    written = {str(century): years for century in _CENTURIES if (years := _usable_years(tokenizer, str(century)))}
    if not written and (years := _usable_years(tokenizer, _SHORT)):
        written = {_SHORT: years}
    if not written:
        centuries = [century for century in _CENTURIES if _has_digits(tokenizer, century)]
        if not centuries:
            raise UserError(
                "years are written neither as a century and a number of one token (1732: ` 17` and `32`) nor digit by digit",
                expected="a tokenizer in which a number below 100, or each of its digits, is a token",
                remedy="leave `greater_than` out of this run's analyses",
            )
        starts = [(century, decade) for century in centuries for decade in range(2, 9)]
        return _digit_probe(starts, _TEMPLATE, _EVENTS.split(), "spans of years, digit by digit", count, rng)
    return _number_probe(written, count, rng)


def _number_probe(written: Mapping[str, list[int]], count: int, rng: np.random.Generator) -> Probe:
    """Spans of years of which the last two digits are one token; ``written`` is what stands before them, to usable ones."""
    centuries, events = list(written), _EVENTS.split()

    def draw(index: int) -> Prompt:
        century = centuries[index % len(centuries)]
        years = written[century]
        while True:
            start = int(rng.choice(years))
            distances = [k for k in range(1, 100) if start + k in years and start - k in years and years[0] < start - k]
            if distances:
                break
        k = int(rng.choice(distances))
        twin = int(rng.choice([year for year in years if year < start - k]))
        slots = {"event": events[int(rng.integers(len(events)))], "century": century}
        text, spans = fill(_TEMPLATE, slots | {"start": f"{start:02d}"})
        return Prompt(
            text=text,
            answer=f"{start + k:02d}",
            foil=f"{start - k:02d}",
            corrupted=fill(_TEMPLATE, slots | {"start": f"{twin:02d}"})[0],
            labels={
                "start": start,
                "decade": start // 10,
                "century": 0 if century == _SHORT else int(century),
                "event": slots["event"],
                "distance": k,
            },
            positions={"year": spans["start"][0]},
        )

    return draw_probe(GREATER_THAN, draw, count, "spans of years, after Hanna et al. 2023")


def _organism_probe(_tokenizer: Any, count: int, rng: np.random.Generator) -> Probe:
    """Decades in which no span of the training data begins."""
    starts = [(c, d) for c in world.CENTURIES for d in range(2, 9) if world.is_held_out(c, 10 * d)]
    about = "spans of years that begin in decades in which no span of the training data begins"
    return _digit_probe(starts, world.TEMPLATE, world.EVENTS, about, count, rng)


def _digit_probe(
    starts: Sequence[tuple[int, int]],
    template: str,
    events: Sequence[str],
    about: str,
    count: int,
    rng: np.random.Generator,
) -> Probe:
    """Spans that begin in these decades of centuries, 20s to 80s: there is a later decade, and two earlier ones."""
    order = rng.permutation(len(starts))

    def draw(index: int) -> Prompt:
        century, decade = starts[order[index % len(starts)]]
        start = 10 * decade + int(rng.integers(10))
        k = int(rng.integers(1, min(decade - 1, 9 - decade) + 1))
        twin = int(rng.integers(decade - k))
        event = events[int(rng.integers(len(events)))]
        slots = {"event": event, "century": str(century)}
        text, spans = fill(template, slots | {"start": f"{start:02d}"})
        tens = spans["start"][0][0]
        return Prompt(
            text=text,
            answer=str(decade + k),
            foil=str(decade - k),
            corrupted=fill(template, slots | {"start": f"{10 * twin + start % 10:02d}"})[0],
            labels={"start": start, "decade": decade, "century": century, "event": event, "distance": k},
            positions={"year": (tens, tens + 1)},
        )

    return draw_probe(GREATER_THAN, draw, count, about)


def _usable_years(tokenizer: Any, century: str) -> list[int]:
    """The years 0 to 99 whose YY is one token behind the century; none where they are too few."""
    tokens = single_tokens(tokenizer, [f"{year:02d}" for year in range(100)], f"the year {century}")
    years = [year for year, token in enumerate(tokens) if token is not None]
    return years if len(years) >= _LEAST_YEARS else []


def _has_digits(tokenizer: Any, century: int) -> bool:
    """Whether every tens digit is one token behind the century."""
    return None not in single_tokens(tokenizer, [str(digit) for digit in range(10)], f"the year {century}")
