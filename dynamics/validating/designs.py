"""Comparisons of runs whose truth is planted: does ``compare`` find exactly the effects that are there?

A design has two choices of two levels each and some seeds of every combination. Its circuits rise as logistic curves in log step,
at a location of their own; a choice moves some of them by a planted amount, a seed by chance. Every run asks the same prompts, of
which some are learned earlier than others, so that the noise of prompts is shared as it is in practice. The curves go through the
code that makes the findings of reports, and the findings through the code of ``dynamics compare``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from scipy.special import expit

from ..analysis.findings import Finding
from ..comparing.configs import Design, design_of
from ..comparing.effects import Effect, effects
from ..comparing.loading import ComparedRun
from ..comparing.shifts import Shift, shifts
from ..emergence import assess, onset_ends, unit_bootstrap
from ..numerics.arrays import FloatArray

__all__ = ["CIRCUITS", "NOTHING", "DesignScore", "PlantedDesign", "judge_pairs", "judged", "plant"]

CIRCUITS: dict[str, tuple[float, float]] = {
    "sum 1": (0.9, 0.0),
    "sum 2": (0.9, 0.0),
    "sum 3": (0.9, 0.0),
    "third language 1": (0.0, 1.2),
    "third language 2": (0.0, 1.2),
    "other 1": (0.0, 0.0),
    "other 2": (0.0, 0.0),
    "other 3": (0.0, 0.0),
}
"""By how much either choice moves each circuit's onset, in log2 of training: a share halved, and a language that enters late."""

NOTHING = dict.fromkeys(CIRCUITS, (0.0, 0.0))


@dataclass(frozen=True)
class PlantedDesign:
    """What is planted.

    Attributes:
        circuits: name to the effects of the two choices, in log2 of training.
        seeds: of each combination.
        spread: standard deviation between seeds, in log2 of training.
        checkpoints: of every run.
        steps: of training; what would come later is not seen.
        prompts: behind every curve.
        width: of the rise, in log2 of training.
        late: circuits lie so late that some onsets come after the last checkpoint where a choice moves them.
        levels: combinations that there are; all four unless some are left out.
    """

    circuits: Mapping[str, tuple[float, float]] = field(default_factory=lambda: CIRCUITS)
    seeds: int = 3
    spread: float = 0.15
    checkpoints: int = 40
    steps: int = 1400
    prompts: int = 100
    width: float = 0.3
    late: bool = False
    levels: tuple[tuple[int, int], ...] = tuple(product((0, 1), (0, 1)))


@dataclass
class DesignScore:
    """How many designs were judged, and how.

    Attributes:
        designs: how many.
        exact: those in which exactly the planted effects were found, each in its direction.
        missed, false: planted effects that were not found, and effects that were found and are not there.
        planted, absent: how many effects there are and are not.
        covered, judged: intervals with two ends that hold the truth, of how many.
        open_covered, open: the same of those that have no end on one side or both.
    """

    designs: int = 0
    exact: int = 0
    missed: int = 0
    false: int = 0
    planted: int = 0
    absent: int = 0
    covered: int = 0
    judged: int = 0
    open_covered: int = 0
    open: int = 0

    def judge(self, low: float, high: float, truth: float) -> None:
        """Count an interval."""
        held = bool(low <= truth <= high)
        if np.isfinite(low) and np.isfinite(high):
            self.judged += 1
            self.covered += held
        else:
            self.open += 1
            self.open_covered += held


def plant(planted: PlantedDesign, rng: np.random.Generator) -> list[ComparedRun]:
    """The runs of one design, the first combination first."""
    steps = np.unique(np.round(np.geomspace(1, planted.steps + 1, planted.checkpoints)).astype(np.int64) - 1)
    middle = {
        name: rng.uniform(*((0.85, 0.95) if planted.late else (0.55, 0.8))) * np.log2(planted.steps)
        for name in planted.circuits
    }
    easier = {name: rng.normal(0.0, planted.width, planted.prompts) for name in planted.circuits}
    made = []
    for a, b in planted.levels:
        for seed in range(planted.seeds):
            findings = {}
            for name, (one, other) in planted.circuits.items():
                at = middle[name] + a * one + b * other + planted.spread * rng.normal()
                findings[name] = _finding(name, steps, at + easier[name], planted.width, rng)
            shares = {"french": {"share": (0.34, 0.17)[a]}, "german": {"share": 0.2, "from_step": (0, 400)[b]}}
            made.append(
                ComparedRun(
                    name=f"design@seed={seed},french.share={(0.34, 0.17)[a]},german.from_step={(0, 400)[b]}",
                    config={"series": {"kind": "organism", "seed": seed, "steps": planted.steps, "curriculum": shares}},
                    model={},
                    steps=steps,
                    tokens=steps * 2304.0,
                    findings=findings,
                    titles={},
                    counts={"complete": len(steps)},
                    prompts={"planted": "the same"},
                )
            )
    return made


def _finding(name: str, steps: np.ndarray, at: FloatArray, width: float, rng: np.random.Generator) -> Finding:
    """A rate over prompts that are learned about ``at`` (prompt,), in log2(step + 1)."""
    floor, prompts = 0.1, len(at)
    chance = floor + 0.6 * expit((np.log2(steps + 1.0)[:, None] - at[None]) / (0.5 * width))
    right = (rng.random(chance.shape) < chance).astype(np.float64)
    values, draws = right.mean(axis=1), unit_bootstrap(right)
    null = rng.binomial(prompts, floor, size=(len(steps), 200)) / prompts
    found = assess(steps, values, draws=draws, null=null, null_name="chance", limits=(0.0, 1.0))
    blank = tuple(np.full(len(steps), np.nan).tolist())
    return Finding(
        key=name,
        title=name,
        metric="accuracy",
        unit="prompts",
        headline=True,
        steps=tuple(steps.tolist()),
        values=tuple(values.tolist()),
        low=blank,
        high=blank,
        null_mean=blank,
        emergence=found,
        onset_by=tuple(onset_ends(steps, values, draws, found).tolist()),
        sample="planted",
    )


def judged(planted: PlantedDesign, score: DesignScore, rng: np.random.Generator) -> list[Effect]:
    """Plant one design, compare its runs, and count what came of it."""
    runs = plant(planted, rng)
    design = design_of(runs)
    found, _ = effects(runs, design, list(planted.circuits))
    wrong = 0
    for effect in found:
        truth = _truth(effect, design, planted)
        right = "later" if truth > 0 else "earlier" if truth < 0 else "cannot be told"
        score.planted += truth != 0
        score.absent += truth == 0
        score.missed += truth != 0 and effect.verdict != right
        score.false += effect.verdict not in (right, "cannot be told")
        wrong += effect.verdict != right
        if not np.isnan(effect.low):
            score.judge(effect.low, effect.high, truth)
    score.designs += 1
    score.exact += wrong == 0
    return found


def _truth(effect: Effect, design: Design, planted: PlantedDesign) -> float:
    """The planted effect of a level against the first one; interactions are 0, as the planted effects add up."""
    if len(effect.factors) > 1:
        return 0.0
    which = 0 if "share" in effect.factors[0] else 1
    factor = next(f for f in design.factors if f.label == effect.factors[0])
    # levels are in the order of their numbers: of the share, the halved one comes first
    sign = -1.0 if which == 0 and factor.levels[0] == "0.17" else 1.0
    return sign * planted.circuits[effect.key][which]


def judge_pairs(planted: PlantedDesign, score: DesignScore, rng: np.random.Generator) -> Sequence[Shift]:
    """Two runs, a seed of the first and of the last combination: are shifts of these two trainings called where there are any?

    With a ``spread`` of 0 the truth is the planted shift, as two trainings that differ in nothing else.
    """
    runs = plant(planted, rng)
    found = shifts([runs[0], runs[-1]], list(planted.circuits))
    wrong = 0
    for shift in found:
        truth = float(np.dot(planted.levels[-1], planted.circuits[shift.key]))
        right = "later" if truth > 0 else "earlier" if truth < 0 else "cannot be told"
        score.planted += truth != 0
        score.absent += truth == 0
        score.missed += truth != 0 and shift.verdict != right
        score.false += shift.verdict not in (right, "cannot be told")
        wrong += shift.verdict != right
        score.judge(*shift.interval, truth)
    score.designs += 1
    score.exact += wrong == 0
    return found
