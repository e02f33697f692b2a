"""What must hold of the calibration, pooled over scenarios so that chance cannot decide: coverage, false emergence, FDR.

A check has three verdicts. ``holds`` and ``fails`` are judged up to a few standard errors of the simulation. ``wide`` says
that intervals hold the truth more often than they promise: they do not mislead, and a narrower interval might have done. The
onset of excess over null lies on checkpoints, so that no interval of it can cover 95% where checkpoints are far apart:
the gap that holds the onset does so nearly always, and there is no half gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dynamics.emergence.discovery import found_since
from dynamics.validating.calibration import Calibration
from dynamics.validating.known_series import KnownSeries
from dynamics.validating.synthetic import schedule

__all__ = [
    "COVERAGE",
    "DECADES",
    "FALSE",
    "KNOWN",
    "NOTHING",
    "Check",
    "Verdict",
    "checks",
    "discovery_checks",
    "known_checks",
]

Verdict = Literal["holds", "wide", "fails"]

COVERAGE = (0.93, 0.97)
"""Between what an interval of nominal 95% may cover."""

FALSE = 0.05
"""Largest share of curves without a rise in which one is found, and of false ones among those discovered."""

KNOWN = 0.95
"""What edges of known circuits must reach, and the share of series that must be judged rightly."""

DECADES = "(decades)"
"""How columns of known circuits end that are widths, and no shares."""

NOTHING = "not measurable"
"""The state of a finding that could not be had."""

SURE = 2.0
"""Standard errors of the simulation that coverage may miss its range by: intervals that cover 95% have room in it."""

FALSE_SURE = 3.0
"""Standard errors that a false rate may be above the largest allowed, which a good method can have as its true rate."""

SPACINGS = {"log": "evenly spaced", "uneven": "at random", "steps": "evenly in steps"}

FLAT = ("none", "late")
"""Kinds of which nothing is to be seen in the series."""


@dataclass(frozen=True)
class Check:
    """One number that must be in its range.

    Attributes:
        table: ``"coverage"``, ``"kinds"`` (coverage by shape), ``"false"`` (false emergence), ``"discovery"`` or
            ``"known"`` (known circuits).
        row, column: where it stands there; the row is a definition, or a kind of circuit.
        count: curves behind it.
        value: the share; of a column of ``"known"`` that ends in ``(decades)``, a median.
        error: its standard error, as a simulation of so many curves.
        verdict: see the module.
    """

    table: str
    row: str
    column: str
    count: int
    value: float
    error: float
    verdict: Verdict


def checks(rows: Sequence[Calibration]) -> tuple[Check, ...]:
    """Coverage by number of checkpoints, schedule, noise and kind, and false emergence, of every definition."""
    sizes = sorted({row.scenario.checkpoints for row in rows})
    groups: list[tuple[str, str, str, object]] = [("coverage", "all", "", None)]
    groups += [("coverage", f"{size} checkpoints", "checkpoints", size) for size in sizes]
    groups += [("coverage", text, "schedule", one) for one, text in SPACINGS.items()]
    groups += [("coverage", noise, "noise", noise) for noise in ("binomial", "gaussian")]
    groups += [("kinds", kind, "kind", kind) for kind in dict.fromkeys(row.scenario.kind for row in rows)]
    made = []
    for name in dict.fromkeys(row.definition for row in rows):
        mine = [row for row in rows if row.definition == name]
        for table, column, name_of, value in groups:
            chosen = [row for row in mine if row.judged and (not name_of or getattr(row.scenario, name_of) == value)]
            count = sum(row.judged for row in chosen)
            if count:
                covered = sum(row.covered * row.judged for row in chosen) / count
                made.append(_covered(table, name, column, count, covered))
        flat = [row for row in mine if row.scenario.kind in FLAT]
        lines = [("all", flat)]
        lines += [
            (f"{n} checkpoints", [r for r in flat if r.scenario.checkpoints == n and not r.scenario.persistence])
            for n in sizes
        ]
        lines += [("autocorrelated noise", [row for row in flat if row.scenario.persistence])]
        for column, chosen in lines:
            if count := sum(row.curves for row in chosen):
                found = sum(row.found * row.curves for row in chosen) / count
                made.append(_at_most(FALSE, "false", name, column, count, found, _error(FALSE, count)))
    return tuple(made)


def discovery_checks(
    *, curves: int = 10_000, checkpoints: int = 40, repetitions: int = 10, seed: int = 0
) -> tuple[Check, ...]:
    """False discovery rate and power of :func:`found_since` over thousands of curves, of which one in twenty rises.

    Rates over 50 to 400 prompts at a chance of 0.1, one number of prompts in each repetition; those that rise, by 0.1 to
    0.4, do so at random.

    Args:
        curves: in each repetition.
        checkpoints: of each curve.
        repetitions: over which the false discovery rate is the mean; its standard error is from their spread.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    false, power = [], []
    for _ in range(repetitions):
        steps = schedule("log", checkpoints, rng)
        x = np.log10(steps + 1.0)
        units = round(10.0 ** rng.uniform(np.log10(50), np.log10(400)))
        rises = rng.random(curves) < 0.05
        location, size = rng.uniform(2.0, 3.6, size=(curves, 1)), rng.uniform(0.1, 0.4, size=(curves, 1))
        rate = 0.1 + np.where(rises[:, None], size / (1.0 + np.exp(-(x - location) / 0.2)), 0.0)
        null = rng.binomial(units, 0.1, size=(steps.size, 2000)) / units
        found = found_since(steps, rng.binomial(units, rate) / units, null=null, rate=FALSE) < steps.size
        false.append(float((found & ~rises).sum() / max(found.sum(), 1)))
        power.append(float(found[rises].mean()))
    error = float(np.std(false, ddof=1) / np.sqrt(repetitions)) if repetitions > 1 else 1.0
    total = curves * repetitions
    return (
        _at_most(FALSE, "discovery", "excess over null", "false among found", total, float(np.mean(false)), error),
        Check("discovery", "excess over null", "found of those that rise", total, float(np.mean(power)), 0.0, "holds"),
    )


def known_checks(series: Sequence[KnownSeries]) -> tuple[Check, ...]:
    """Edges and onsets of known circuits, by kind and together; no circuit in series without one.

    What says how much stands behind a share, and need not reach anything itself, holds always: the median width of onsets'
    intervals, and how often *used* could not be measured.
    """
    made = []
    for kind in ("all", *dict.fromkeys(one.kind for one in series)):
        mine = [one for one in series if kind in ("all", one.kind)]
        planted, bare = ([one for one in mine if (one.planted is not None) == there] for there in (True, False))
        columns = {
            "AUROC": [one.auroc for one in planted],
            "F1 at the true size": [one.f1 for one in planted],
            "F1 of the smallest circuit": [one.found_f1 for one in planted],
            "done: onset": [float(one.dated[0]) for one in planted if one.dated],
            "used: onset": [float(one.dated[1]) for one in planted if one.dated],
            "none called": [float(not one.called) for one in bare if one.called or one.done[0] != NOTHING],
        }
        beside = {
            f"done: width {DECADES}": [one.widths[0] for one in planted if np.isfinite(one.widths[0])],
            f"used: width {DECADES}": [one.widths[1] for one in planted if np.isfinite(one.widths[1])],
            "used: not measurable, with": [float(one.used[0] == NOTHING) for one in planted],
            "used: not measurable, without": [float(one.used[0] == NOTHING) for one in bare],
        }
        for column, values in columns.items():
            if values:
                value, error = float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))
                made.append(
                    Check("known", kind, column, len(values), value, error, "holds" if value >= KNOWN else "fails")
                )
        for column, values in beside.items():
            if values:
                value = float(np.median(values) if column.endswith(DECADES) else np.mean(values))
                error = float(np.std(values) / np.sqrt(len(values)))
                made.append(Check("known", kind, column, len(values), value, error, "holds"))
    return tuple(made)


def _error(share: float, count: int) -> float:
    return float(np.sqrt(share * (1.0 - share) / count))


def _covered(table: str, row: str, column: str, count: int, value: float) -> Check:
    error = _error(0.95, count)
    low, high = COVERAGE[0] - SURE * error, COVERAGE[1] + SURE * error
    return Check(
        table, row, column, count, value, error, "fails" if value < low else "wide" if value > high else "holds"
    )


def _at_most(most: float, table: str, row: str, column: str, count: int, value: float, error: float) -> Check:
    return Check(table, row, column, count, value, error, "holds" if value <= most + FALSE_SURE * error else "fails")
