"""Do the intervals hold what they promise? Coverage, bias, false emergence and power on planted curves.

For every definition and scenario, over repetitions:

- *coverage*: share of the curves found to rise whose 95% interval holds the true onset. It is counted for the
  continuous parameter where the definition interpolates (change point, half rise, sigmoid). For excess over null it is
  counted on the checkpoints: the truth is the first checkpoint whose expected value is above the bound.
- *bias*: median of estimate minus truth, in decades (for excess over null: of the end of the onset's interval).
- *found*: share of the curves in which the definition found a rise: power where one is planted, the rate of false
  emergence where none is.
- *state*: share of the curves whose state is the planted one.
- *unfit*: share of the curves of which the definition says that it does not fit them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dynamics.emergence.bound import simultaneous_bound
from dynamics.emergence.definitions import NAMES, definitions
from dynamics.validating.synthetic import Case, Scenario, make

__all__ = ["Calibration", "coverage", "table"]

STATES = {"transient": "transient", "early": "present from start", "late": "not emerged", "none": "not emerged"}
"""State by kind; ``emerged`` for the others."""


@dataclass(frozen=True)
class Calibration:
    """Calibration of one definition in one scenario.

    Attributes:
        scenario: what was planted.
        definition: which definition.
        curves: how many were drawn.
        found: share in which a rise was found (emerged, transient or present from start).
        state: share with the state that was planted.
        judged: curves behind coverage and bias: those with a true onset and an interval.
        covered: share of them whose interval holds the true onset; NaN without any.
        early, late: shares of them whose interval lies wholly after (before) the true onset.
        bias: median error in decades; NaN without any.
        width: median width of the interval in decades, where it is closed.
        unfit: share of the curves that the definition says it does not fit.
    """

    scenario: Scenario
    definition: str
    curves: int
    found: float
    state: float
    judged: int
    covered: float
    early: float
    late: float
    bias: float
    width: float
    unfit: float = 0.0


def coverage(scenario: Scenario, *, curves: int = 200, seed: int = 0) -> tuple[Calibration, ...]:
    """Calibration of the four definitions in one scenario.

    Args:
        scenario: what is planted.
        curves: repetitions.
        seed: of all of it.
    """
    rng = np.random.default_rng(seed)
    names = NAMES[:4]
    found, right, unfit = (dict.fromkeys(names, 0) for _ in range(3))
    planted = STATES.get(scenario.kind, "emerged")
    errors: dict[str, list[float]] = {name: [] for name in names}
    widths: dict[str, list[float]] = {name: [] for name in names}
    missed: dict[str, list[int]] = {name: [] for name in names}
    for _ in range(curves):
        case = make(scenario, rng)
        truth = case.truth | _excess_truth(case)
        onsets = definitions(case.steps, case.values, draws=case.draws, null=case.null, null_name="chance")
        for name, onset in onsets.items():
            rises = onset.state not in ("not emerged", "not measurable")
            found[name] += rises
            right[name] += onset.state == planted
            unfit[name] += onset.reason.startswith("does not fit")
            if not rises or name not in truth or onset.range is None:
                continue
            span, true = onset.range, truth[name]
            # Whole steps, rounded outward, on both sides: an end that is the truth holds it.
            after = -np.inf if span.after is None else span.after
            by = np.inf if span.by is None else span.by
            closed = true >= after if name != "excess over null" else true > after
            missed[name].append(0 if closed and true <= by else (-1 if true > by else 1))
            estimate = onset.step if onset.step is not None else onset.between.by if onset.between else None
            if estimate is not None:
                errors[name].append(float(np.log10(estimate + 1.0) - np.log10(true + 1.0)))
            if np.isfinite(by - after):
                widths[name].append(float(np.log10((by + 1.0) / (after + 1.0))))
    return tuple(
        Calibration(
            scenario=scenario,
            definition=name,
            curves=curves,
            found=found[name] / curves,
            state=right[name] / curves,
            judged=len(missed[name]),
            covered=_share(missed[name], 0),
            early=_share(missed[name], 1),
            late=_share(missed[name], -1),
            bias=float(np.median(errors[name])) if errors[name] else float("nan"),
            width=float(np.median(widths[name])) if widths[name] else float("nan"),
            unfit=unfit[name] / curves,
        )
        for name in names
    )


def _excess_truth(case: Case) -> dict[str, float]:
    """The first checkpoint that is above the bound in expectation, where there is one and it is not the first."""
    above = np.flatnonzero(case.expected > simultaneous_bound(case.null).upper)
    return {"excess over null": float(case.steps[above[0]])} if above.size and above[0] > 0 else {}


def _share(results: list[int], value: int) -> float:
    return float(np.mean(np.array(results) == value)) if results else float("nan")


def table(rows: Iterable[Calibration]) -> str:
    """The rows as a table in Markdown: one line for each scenario and definition."""
    lines = [
        "| kind | checkpoints | schedule | noise | definition | found | right state | does not fit | judged | covered | too late | "
        "too early | bias | width |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        one = row.scenario
        noise = f"{one.noise}, rho {one.persistence:g}" if one.persistence else one.noise
        shown = [_percent(value) for value in (row.covered, row.early, row.late)]
        sizes = ["" if np.isnan(value) else f"{value:.3f}" for value in (row.bias, row.width)]
        cells = [one.kind, str(one.checkpoints), one.schedule, noise, row.definition]
        cells += [_percent(row.found), _percent(row.state), _percent(row.unfit)]
        lines.append("| " + " | ".join([*cells, str(row.judged), *shown, *sizes]) + " |")
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.1f}%"
