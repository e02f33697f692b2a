r"""Which choice moved which onset: the effects of factors, from runs that repeat each other with other seeds.

The onset of circuit c in run r is :math:`y_{cr} = \mu_{c,g(r)} + \sigma_c \epsilon_{cr}` in log2 of training, with g(r) the run's
combination of levels and :math:`\sigma_c` the spread between seeds. What is known of :math:`y_{cr}` is where it lies in every
bootstrap draw: between two checkpoints, or after the last one. Both go into one likelihood
(:mod:`dynamics.numerics.censored`), so that an interval of an effect holds the spread between seeds, the gaps between checkpoints
and the noise of prompts; an onset that never came counts as later than the last checkpoint.

Intervals are for the prompts that were asked. Draws are taken as independent between runs, and so is what other prompts would have
given: where all runs ask the same prompts, and a choice moves some prompts more than others, that part is shared by all runs
of a level, no further seed averages it out, and an interval for prompts at large would be wider.

Where all combinations of levels are there, the effect of a factor is the mean difference over the levels of the others, and for two
factors there is the interaction: by how much the effect of one differs between the levels of the other. Where some are
missing, factors are taken to add up, and effects that the runs leave open are said to be that.

Effects are called at a false discovery rate over all circuits and effects together, for any dependence between them
(Benjamini and Yekutieli 2001), because all circuits come from the same trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..analysis.findings import Finding
from ..emergence import discover
from ..numerics.arrays import BoolArray, FloatArray
from ..numerics.censored import Observed, fit_censored
from ..numerics.contrasts import ContrastEstimate, estimable, estimate_contrast
from .configs import Design, Factor
from .loading import DATED, ComparedRun, OnsetKnown, Unit
from .shifts import RATE, Verdict

__all__ = ["SEED_NOISE_UNKNOWN", "Contrast", "Effect", "Spread", "contrasts_of", "effects", "spreads"]

SEED_NOISE_UNKNOWN = (
    "no two runs differ in their seed alone, so that nothing is known of how far seeds lie apart; what is known is the noise of "
    "measuring, by which these trainings can be told apart, and not what made them differ"
)


@dataclass(frozen=True)
class Contrast:
    """An effect that is asked for.

    Attributes:
        name: for example ``"addition.share: 0.34 against 0.17"``.
        factors: labels of the factor, or of the two of an interaction.
        weights: (coefficient,) of the design's coefficients.
        sides: (run,) +1 and -1 for the runs of either side, 0 for others; of a single factor.
    """

    name: str
    factors: tuple[str, ...]
    weights: FloatArray
    sides: tuple[int, ...]


@dataclass(frozen=True)
class Effect:
    """One effect on one circuit, in log2 of the unit.

    Attributes:
        key: of the circuit.
        contrast: its name.
        factors: as of the contrast.
        estimate: NaN where nothing can be said, infinite where nothing bounds it.
        low, high: 95% interval; infinite where open, NaN where it cannot be told.
        p_value: NaN where it cannot be told.
        freedom: degrees of freedom of the spread between seeds.
        emerged: of the runs on the side whose effect it is, and on the other, how many have an onset, of how many.
        verdict: at a false discovery rate.
        reason: why it cannot be told, where that is not the width of the interval; else empty.
    """

    key: str
    contrast: str
    factors: tuple[str, ...]
    estimate: float
    low: float
    high: float
    p_value: float
    freedom: int
    emerged: tuple[tuple[int, int], tuple[int, int]]
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Spread:
    """How far the onsets of one group's seeds lie apart.

    Attributes:
        key: of the circuit.
        mean: (group,) mean onset of each group, in log2; NaN where it has none that is bounded.
        seeds: standard deviation between seeds of a group as observed, measuring included, pooled over groups; NaN where no
            group has two onsets that were seen.
        measuring: standard deviation that checkpoints and prompts leave open in a single run, root mean square over runs. Runs
            that ask the same prompts share a part of it.
        freedom: degrees of freedom of ``seeds``.
    """

    key: str
    mean: tuple[float, ...]
    seeds: float
    measuring: float
    freedom: int


def contrasts_of(design: Design) -> tuple[FloatArray, list[Contrast], bool]:
    """The design matrix (run, coefficient), the effects that are asked for, and whether factors are taken to add up.

    With all combinations of levels there is a coefficient for each; else one for the mean and one for each further level.
    """
    count = len(design.runs)
    factors = design.factors
    cells = [tuple(f.level[group[0]] for f in factors) for group in design.groups]
    crossed = len(cells) == int(np.prod([len(f.levels) for f in factors]))
    if crossed:
        matrix = np.zeros((count, len(cells)))
        for column, group in enumerate(design.groups):
            matrix[list(group), column] = 1.0
    else:
        columns = [np.ones(count)]
        columns += [(np.array(f.level) == n).astype(float) for f in factors for n in range(1, len(f.levels))]
        matrix = np.stack(columns, axis=1)
    found = []
    column = 1
    for index, factor in enumerate(factors):
        for level in range(1, len(factor.levels)):
            if crossed:
                weights = _side(cells, index, level) - _side(cells, index, 0)
            else:
                weights = np.zeros(matrix.shape[1])
                weights[column] = 1.0
                column += 1
            sides = tuple(1 if n == level else -1 if n == 0 else 0 for n in factor.level)
            found.append(Contrast(_named(factor, level), (factor.label,), weights, sides))
    if crossed:
        found += _interactions(factors, cells, count)
    return matrix, found, not crossed and len(factors) > 1


def _side(cells: Sequence[tuple[int, ...]], factor: int, level: int) -> FloatArray:
    mine = np.array([cell[factor] == level for cell in cells], dtype=float)
    return np.asarray(mine / mine.sum())


def _interactions(factors: Sequence[Factor], cells: Sequence[tuple[int, ...]], count: int) -> list[Contrast]:
    found = []
    for (i, one), (j, other) in combinations(enumerate(factors), 2):
        for a in range(1, len(one.levels)):
            for b in range(1, len(other.levels)):
                weights = np.zeros(len(cells))
                for x, y, sign in ((a, b, 1.0), (a, 0, -1.0), (0, b, -1.0), (0, 0, 1.0)):
                    mine = np.array([cell[i] == x and cell[j] == y for cell in cells], dtype=float)
                    weights += sign * mine / mine.sum()
                name = f"{_named(one, a)}, at {_named(other, b)}"
                found.append(Contrast(name, (one.label, other.label), weights, (0,) * count))
    return found


def _named(factor: Factor, level: int) -> str:
    return f"{factor.label}: {factor.levels[level]} against {factor.levels[0]}"


def effects(
    runs: Sequence[ComparedRun], design: Design, keys: Sequence[str], *, unit: Unit = "steps"
) -> tuple[list[Effect], bool]:
    """Every effect on every circuit, and whether factors are taken to add up.

    There are none where no group has two trainings: the spread between seeds is then not known (:data:`SEED_NOISE_UNKNOWN`).
    """
    if not design.factors or not design.repeated:
        return [], False
    matrix, contrasts, additive = contrasts_of(design)
    known = {key: design.once([run.known(key, unit) for run in runs]) for key in keys}
    known = {key: rows for key, rows in known.items() if any(rows)}
    made: list[tuple[str, Contrast, ContrastEstimate | None, int, str]] = []
    for rows, members in _same_runs(known).items():
        chosen = list(rows)
        observed = observed_of([[known[key][r] for r in chosen] for key in members])
        part, fit = reduced(matrix[chosen]), None
        for contrast in contrasts:
            missing = _missing(matrix[chosen], contrast)
            if missing:
                made += [(key, contrast, None, 0, missing) for key in members]
                continue
            fit = fit or fit_censored(observed, part[0])
            found = estimate_contrast(observed, part[0], part[1] @ contrast.weights, fit)
            made += [(key, contrast, found, index, "") for index, key in enumerate(members)]
    p = [np.nan if found is None else found.p_value[index] for _, _, found, index, _ in made]
    called = discover(p, rate=RATE, method="by")
    order = {key: n for n, key in enumerate(keys)}
    names = {contrast.name: n for n, contrast in enumerate(contrasts)}
    result = [
        _effect(key, contrast, found, index, reason, bool(sure), _once_measured(runs, design, key))
        for (key, contrast, found, index, reason), sure in zip(made, called, strict=True)
    ]
    return sorted(result, key=lambda e: (names[e.contrast], order[e.key])), additive


def reduced(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A design of full rank (run, r), and the map (r, coefficient) by which contrasts follow."""
    u, sizes, v = np.linalg.svd(matrix, full_matrices=False)
    kept = sizes > 1e-9
    return np.asarray(u[:, kept] * sizes[kept]), np.asarray(v[kept])


def _missing(matrix: FloatArray, contrast: Contrast) -> str:
    """Why a contrast cannot be told from these runs; empty where it can."""
    if estimable(matrix, contrast.weights):
        return ""
    return "these runs do not vary it apart from the other choices, or one of its sides was not measured"


def _effect(
    key: str,
    contrast: Contrast,
    found: ContrastEstimate | None,
    index: int,
    reason: str,
    sure: bool,
    findings: Sequence[Finding | None],
) -> Effect:
    estimate, low, high, p, freedom = (np.nan, np.nan, np.nan, np.nan, 0.0)
    if found is not None:
        estimate, low, high, p, freedom = (
            float(getattr(found, name)[index]) for name in ("estimate", "low", "high", "p_value", "freedom")
        )
        if np.isnan(p):
            reason = "too few of its onsets were seen to know how far seeds lie apart"
    verdict: Verdict = "cannot be told"
    if sure:
        verdict = "later" if estimate > 0 else "earlier"
    states = [None if f is None else f.emergence.state for f in findings]
    counts = [
        (
            sum(s in DATED for s, side in zip(states, contrast.sides, strict=True) if side == which),
            sum(s is not None for s, side in zip(states, contrast.sides, strict=True) if side == which),
        )
        for which in (1, -1)
    ]
    return Effect(
        key,
        contrast.name,
        contrast.factors,
        estimate,
        low,
        high,
        p,
        int(freedom),
        (counts[0], counts[1]),
        verdict,
        reason,
    )


def _once_measured(runs: Sequence[ComparedRun], design: Design, key: str) -> list[Finding | None]:
    """(run,) findings of a circuit, of every training one where it was measured."""
    found = [run.findings.get(key) for run in runs]
    return design.once([None if f is None or f.emergence.state == "not measurable" else f for f in found])


def spreads(runs: Sequence[ComparedRun], design: Design, keys: Sequence[str], *, unit: Unit = "steps") -> list[Spread]:
    """How far the onsets of one group's trainings lie apart, circuit by circuit."""
    matrix = np.zeros((len(runs), len(design.groups)))
    for column, group in enumerate(design.groups):
        matrix[list(group), column] = 1.0
    known = {key: design.once([run.known(key, unit) for run in runs]) for key in keys}
    found: dict[str, Spread] = {}
    for rows, members in _same_runs({key: r for key, r in known.items() if any(r)}).items():
        chosen = list(rows)
        observed = observed_of([[known[key][r] for r in chosen] for key in members])
        there = matrix[chosen].any(axis=0)
        design_part = matrix[chosen][:, there]
        fit = fit_censored(observed, design_part)
        noise, middles = _measuring(observed), observed.middles()
        for index, key in enumerate(members):
            closed = observed.closed[index]
            freedom = int(closed.sum() - np.linalg.matrix_rank(design_part[closed])) if closed.any() else 0
            seen = np.array([bool(closed[design_part[:, g] > 0].any()) for g in range(design_part.shape[1])])
            mean = np.full(len(design.groups), np.nan)
            mean[there] = np.where(seen, fit.coefficients[index], np.nan)
            found[key] = Spread(
                key, tuple(mean.tolist()), _pooled(middles[index], design_part, closed, freedom), noise[index], freedom
            )
    return [found[key] for key in keys if key in found]


def observed_of(known: Sequence[Sequence[OnsetKnown | None]]) -> Observed:
    """(circuit, run) onsets as the likelihood takes them."""
    parts = [[k.spread_out() for k in row if k is not None] for row in known]
    most = max(len(weights) for row in parts for _, weights in row)
    shape = (len(parts), len(parts[0]), most)
    low, high, weight = np.zeros(shape), np.ones(shape), np.zeros(shape)
    for i, row in enumerate(parts):
        for j, (ends, weights) in enumerate(row):
            low[i, j, : len(weights)], high[i, j, : len(weights)] = ends.T
            weight[i, j, : len(weights)] = weights
    return Observed(low, high, weight)


def _same_runs(known: dict[str, list[OnsetKnown | None]]) -> dict[tuple[int, ...], list[str]]:
    """Circuits by the runs that say something of them."""
    found: dict[tuple[int, ...], list[str]] = {}
    for key, rows in known.items():
        found.setdefault(tuple(i for i, k in enumerate(rows) if k is not None), []).append(key)
    return found


def _pooled(middles: FloatArray, groups: FloatArray, closed: BoolArray, freedom: int) -> float:
    """Standard deviation (run,) about the mean of each group, of the onsets that were seen."""
    if not freedom:
        return float("nan")
    y, x = middles[closed], groups[closed]
    return float(np.sqrt(((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum() / freedom))


def _measuring(observed: Observed) -> list[float]:
    """Root mean square over runs of the standard deviation of an onset in its intervals, each evenly filled."""
    ends = np.isfinite(observed.low) & np.isfinite(observed.high) & (observed.weight > 0)
    weight = np.where(ends, observed.weight, 0.0)
    total = weight.sum(axis=2)
    low, high = np.where(ends, observed.low, 0.0), np.where(ends, observed.high, 0.0)
    share = np.where(total > 0, total, 1.0)
    mean = (weight * (low + high) / 2).sum(axis=2) / share
    square = (weight * (low**2 + low * high + high**2) / 3).sum(axis=2) / share
    variance = np.where(total > 0, np.maximum(square - mean**2, 0.0), np.nan)
    seen = np.isfinite(variance)
    sums = np.where(seen, variance, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return [float(np.sqrt(v)) if s else float("nan") for v, s in zip(sums, np.asarray(seen.any(axis=1)), strict=True)]
