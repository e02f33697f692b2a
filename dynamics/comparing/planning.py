"""What to try next: the effect about which the runs leave most open, and how many seeds would close it.

The spread between runs is taken as estimated, and once more at the upper end of its 80% confidence interval (chi-squared), because
few seeds know their own spread badly. The plan is for a comparison that asks this one effect alone, at 5%.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..numerics.arrays import FloatArray
from ..numerics.contrasts import precision, seeds_needed
from .configs import Design
from .effects import Effect, Spread, contrasts_of

__all__ = ["CLOSE", "Plan", "plan"]

CLOSE = 0.5
"""Half width of an interval, in log2 of training, that is called narrow: a factor of 1.4 either way."""

_MOST = 200


@dataclass(frozen=True)
class Plan:
    """What would narrow the most uncertain effect.

    Attributes:
        key, contrast: which effect; empty where there is none to narrow.
        text: in sentences.
        seeds_now: the fewest that a combination of levels has.
        seeds_narrow: of each combination, for an interval of :data:`CLOSE` either way, or half as wide as now where it is that narrow
            already; None where no number of seeds does.
        seeds_power: of each combination, to find an effect as large as estimated, or as that interval, with a probability of 80%.
        seeds_power_cautious: the same with the spread at the upper end of its 80% confidence interval.
    """

    key: str
    contrast: str
    text: tuple[str, ...]
    seeds_now: int
    seeds_narrow: int | None = None
    seeds_power: int | None = None
    seeds_power_cautious: int | None = None


def plan(design: Design, effects: Sequence[Effect], spreads: Sequence[Spread], titles: Mapping[str, str]) -> Plan:
    """What to try next."""
    now = min(design.trainings)
    if not design.factors:
        more = "" if design.repeated else " and give each a further seed or two"
        return Plan("", "", (f"The runs differ in no choice about training: compare with runs that do{more}.",), now)
    if not design.repeated:
        groups = len(design.groups)
        repeat = (
            f"Collect each of the {groups} configurations with two further seeds ({2 * groups} runs): without repeats no choice "
            "can be said to have moved an onset."
        )
        return Plan("", "", (repeat,), now, 3)
    open_ones = [e for e in effects if len(e.factors) == 1 and e.verdict == "cannot be told" and not math.isnan(e.low)]
    bounded = [e for e in open_ones if math.isfinite(e.low) and math.isfinite(e.high)]
    if not bounded:
        return Plan("", "", (_rest(open_ones, titles),), now)
    known = {s.key: s for s in spreads if math.isfinite(s.seeds)}
    bounded = [e for e in bounded if e.key in known]
    if not bounded:
        seen = (
            "How far seeds lie apart is not known of any circuit whose effects are open: no configuration has two trainings in which "
            "its onset was seen. Collect each with a further seed or two."
        )
        return Plan("", "", (seen,), now)
    widest = max(bounded, key=lambda e: e.high - e.low)
    spread = known[widest.key]
    matrix, contrasts, _ = contrasts_of(design)
    rows = matrix[[group[0] for group in design.groups]]
    weights = next(c.weights for c in contrasts if c.name == widest.contrast)
    half = (widest.high - widest.low) / 2.0
    aim = CLOSE if half > CLOSE else round(half / 2.0, 2)
    size = max(abs(widest.estimate), aim)
    total = max(spread.seeds, spread.measuring)
    upper = max(spread.seeds * math.sqrt(spread.freedom / stats.chi2.ppf(0.2, spread.freedom)), spread.measuring)
    narrow, power, cautious = (
        _narrow(total, rows, weights, aim),
        seeds_needed(size, total, rows, weights),
        seeds_needed(size, upper, rows, weights),
    )
    text = [
        f"Most uncertain is {widest.contrast}, on {titles[widest.key]}: {widest.estimate:+.2f} [{widest.low:+.2f}, {widest.high:+.2f}] log2 "
        f"steps. Onsets of one configuration's seeds lie {spread.seeds:.2f} apart (standard deviation); measuring alone leaves "
        f"{spread.measuring:.2f} open in a single run."
    ]
    if half <= CLOSE:
        text.insert(0, f"No effect is left open by more than {half:.2f} log2 steps either way.")
    if spread.measuring > spread.seeds:
        text.append("More checkpoints around these onsets (schedule: adaptive) would narrow it before more seeds do.")
    text.append(
        f"With {_seeds(narrow)} of each configuration (now {now}) its interval would be {aim:g} either way; with {_seeds(power)} an "
        f"effect of {size:.2f} would be found in 80 of 100 such comparisons, with {_seeds(cautious)} also if seeds lie as far apart "
        "as these few allow."
    )
    return Plan(widest.key, widest.contrast, tuple(text), now, narrow, power, cautious)


def _narrow(spread: float, rows: FloatArray, weights: FloatArray, aim: float) -> int | None:
    variance, rank = precision(rows, weights)
    for seeds in range(2, _MOST + 1):
        half = stats.t.ppf(0.975, len(rows) * seeds - rank) * spread * np.sqrt(variance / seeds)
        if half <= aim:
            return seeds
    return None


def _seeds(count: int | None) -> str:
    return f"more than {_MOST} seeds" if count is None else f"{count} seeds"


def _rest(open_ones: Sequence[Effect], titles: Mapping[str, str]) -> str:
    """Where no effect has an interval with both ends that is left to narrow."""
    if not open_ones:
        return "Every effect that these runs can tell of is called: further seeds would narrow their intervals only."
    one = open_ones[0]
    return (
        f"What is left open ({one.contrast}, on {titles[one.key]}, for one) is bounded on one side only, because onsets lie after the "
        "last checkpoint or before the first: train longer, or save earlier checkpoints; further seeds would not close it."
    )
