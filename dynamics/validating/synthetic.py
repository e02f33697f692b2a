"""Curves whose truth is planted: what an emergence engine has to recover.

A :class:`Scenario` is a shape, a schedule of checkpoints and a kind of noise. :func:`make` draws one curve of it with
all that :func:`dynamics.emergence.definitions` asks for, and says the true onset for every definition that has one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from scipy.special import expit

from ..numerics.arrays import FloatArray, IntArray
from ..numerics.draws import DRAWS

__all__ = ["Case", "CurveKind", "NoiseKind", "Scenario", "ScheduleKind", "make", "schedule", "suite"]


CurveKind = Literal[
    "step", "sigmoid", "ramp", "jump", "overshoot", "two steps", "power", "linear", "transient", "early", "late", "none"
]
NoiseKind = Literal["binomial", "gaussian"]
ScheduleKind = Literal["log", "uneven", "steps"]

LAST = 143_000
"""Last step of every schedule, as in the Pythia suite."""


@dataclass(frozen=True)
class Scenario:
    """What is planted.

    Attributes:
        kind: the expected curve in x = log10(step + 1): ``step`` (at once), ``sigmoid`` (logistic), ``ramp`` (constant,
            linear, constant), ``jump`` (at once, and slow growth from there to the end, in log step), ``overshoot`` (at once, by a
            fifth to a half too much, which is lost within some tenths of a decade), ``two steps`` (two steep rises of random sizes, half to 1.2 decades apart), ``power`` (a power law of the step), ``linear`` (straight line from the first to the last
            checkpoint), ``transient`` (a sigmoid that is lost again), ``early`` (above from the start: left-censored),
            ``late`` (rises after the last checkpoint: right-censored), ``none``.
        checkpoints: how many.
        schedule: evenly in x, at random in x, or evenly in steps, without the untrained model.
        noise: ``binomial`` (a rate over ``units`` prompts) or ``gaussian`` (a mean over units with a standard error
            as large as a rate of 1/2 would have).
        units: prompts behind every checkpoint.
        floor: chance rate.
        rise: from floor to plateau.
        width: scale of the logistic in decades; the ramp is four times as long.
        persistence: correlation of the noise of neighbouring checkpoints (shared prompts); Gaussian noise only.
        varied: draw units (50 to 400), floor (0.02 to 0.3), rise (0.3 to 0.65) and width (0.1 to 0.3) anew for every
            curve, instead of those above, so that nothing can be fitted to one set of them.
    """

    kind: CurveKind
    checkpoints: int = 40
    schedule: ScheduleKind = "log"
    noise: NoiseKind = "binomial"
    units: int = 100
    floor: float = 0.1
    rise: float = 0.5
    width: float = 0.25
    persistence: float = 0.0
    varied: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("kind", self.kind, get_args(CurveKind)),
            ("noise", self.noise, get_args(NoiseKind)),
            ("schedule", self.schedule, get_args(ScheduleKind)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; expected one of: {', '.join(allowed)}")
        if self.persistence and self.noise == "binomial":
            raise ValueError("binomial noise with persistence is not made; use Gaussian noise")
        if self.checkpoints < 5:
            raise ValueError(f"{self.checkpoints} checkpoints; expected at least 5")


@dataclass(frozen=True)
class Case:
    """One drawn curve.

    Attributes:
        steps: (checkpoint,) optimizer steps.
        values: (checkpoint,) the curve.
        draws: (checkpoint, draw) bootstrap draws of it, with its noise about *its values*.
        null: (checkpoint, null_draw) curves at the floor with the same noise.
        expected: (checkpoint,) the curve without noise.
        truth: true onset in steps by definition, where the definition has one for this kind. Excess over null has its
            truth relative to a bound, see :func:`dynamics.validating.calibration.coverage`.
    """

    steps: IntArray
    values: FloatArray
    draws: FloatArray
    null: FloatArray
    expected: FloatArray
    truth: dict[str, float]


def schedule(kind: ScheduleKind, checkpoints: int, rng: np.random.Generator) -> IntArray:
    """Steps to :data:`LAST`, from 0 evenly or at random in log10(step + 1), or evenly in steps from the first of them.

    There are fewer where two would be the same step.
    """
    if kind == "steps":
        return np.round(np.linspace(LAST / checkpoints, LAST, checkpoints)).astype(np.int64)
    top = np.log10(LAST + 1.0)
    inner = np.sort(rng.uniform(0.0, top, checkpoints - 2))
    x = np.linspace(0.0, top, checkpoints) if kind == "log" else np.concatenate([[0.0], inner, [top]])
    return np.unique(np.round(10.0**x - 1.0).astype(np.int64))


def make(scenario: Scenario, rng: np.random.Generator, *, draws: int = DRAWS) -> Case:
    """Draw one curve; the onset is uniform in the middle of training (between 100 and 4000 steps, in x; where checkpoints are even
    in steps, between a sixth and half of them).

    ``transient`` rises between 30 and 1300 steps, the first of ``two steps`` between 40 and 1600.

    Args:
        scenario: what is planted.
        rng: the source of chance.
        draws: bootstrap and null draws.
    """
    if scenario.varied:
        scenario = replace(
            scenario,
            units=round(10.0 ** rng.uniform(np.log10(50), np.log10(400))),
            floor=float(rng.uniform(0.02, 0.3)),
            rise=float(rng.uniform(0.3, 0.65)),
            width=float(rng.uniform(0.1, 0.3)),
        )
    steps = schedule(scenario.schedule, scenario.checkpoints, rng)
    x = np.log10(steps + 1.0)
    location = float(rng.uniform(2.0, 3.6))
    if scenario.schedule == "steps":
        location = float(np.interp(rng.uniform(x.size / 6, x.size / 2), np.arange(x.size), x))
    if scenario.kind == "two steps":
        unit, truth = _two_steps(scenario, x, location, rng)
    elif scenario.kind in ("jump", "overshoot"):
        unit, truth = _jump(scenario, x, location, rng)
    else:
        unit, truth = _shape(scenario, x, location)
    expected = scenario.floor + scenario.rise * unit
    flat = np.full(x.size, scenario.floor)
    if scenario.noise == "binomial":
        n = scenario.units
        values = rng.binomial(n, expected) / n
        resampled = rng.binomial(n, values[:, None], size=(x.size, draws)) / n
        null = rng.binomial(n, scenario.floor, size=(x.size, draws)) / n
    else:
        size = 0.5 / np.sqrt(scenario.units)
        values = expected + size * _normal(rng, x.size, 1, scenario.persistence)[:, 0]
        resampled = values[:, None] + size * _normal(rng, x.size, draws, scenario.persistence)
        null = flat[:, None] + size * _normal(rng, x.size, draws, scenario.persistence)
    return Case(steps, values, resampled, null, expected, {name: 10.0**at - 1.0 for name, at in truth.items()})


def _shape(scenario: Scenario, x: FloatArray, location: float) -> tuple[FloatArray, dict[str, float]]:
    """The curve between 0 and 1, and true locations in x by definition."""
    width = scenario.width
    length = 4.0 * width
    top = float(x[-1])
    if scenario.kind == "step":
        return (x >= location).astype(np.float64), {
            "half rise": location,
            "change point": location,
            "sigmoid": location,
        }
    if scenario.kind == "sigmoid":
        return expit((x - location) / width), {"half rise": location, "sigmoid": location}
    if scenario.kind == "ramp":
        return np.clip((x - location) / length, 0, 1), {"change point": location, "half rise": location + 0.5 * length}
    if scenario.kind == "power":
        return 10.0 ** (0.5 * (x - top)), {}
    if scenario.kind == "linear":
        return x / top, {}
    if scenario.kind == "transient":
        # Half a decade earlier than the others and steeper, so that it is complete before the loss 1.5 decades later.
        location -= 0.5
        both = expit((x - location) / (0.6 * width)) * expit((location + 1.5 - x) / (0.4 * width))
        return both, {"half rise": location, "sigmoid": location}
    if scenario.kind == "early":
        return np.ones(x.size), {}
    return np.zeros(x.size), {}


def _jump(
    scenario: Scenario, x: FloatArray, location: float, rng: np.random.Generator
) -> tuple[FloatArray, dict[str, float]]:
    """As :func:`_shape`; 30 to 60% of the rise are the jump of a ``jump``."""
    after = np.maximum(x - location, 0.0)
    there = (x >= location).astype(np.float64)
    truth = {"change point": location, "sigmoid": location}
    if scenario.kind == "jump":
        share = float(rng.uniform(0.3, 0.6))
        return share * there + (1.0 - share) * after / (x[-1] - location), truth
    more = rng.uniform(0.2, 0.5) * np.exp(-after / rng.uniform(0.15, 0.4))
    return there * (1.0 + more) / 1.5, truth  # a rate is at most 1


def _two_steps(
    scenario: Scenario, x: FloatArray, location: float, rng: np.random.Generator
) -> tuple[FloatArray, dict[str, float]]:
    """As :func:`_shape`; half of the rise is in the larger step, unless both are about as large."""
    location -= 0.4
    share, apart = float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.5, 1.2))
    scale = 0.2 * scenario.width

    def rise(x: FloatArray) -> FloatArray:
        first, second = expit((x - location) / scale), expit((x - location - apart) / scale)
        return np.asarray(share * first + (1.0 - share) * second)

    fine = np.linspace(0.0, float(x[-1]), 20_001)
    return rise(x), {"half rise": float(np.interp(0.5, rise(fine), fine))}


def _normal(rng: np.random.Generator, checkpoints: int, draws: int, persistence: float) -> FloatArray:
    """(checkpoint, draw) standard normal, autoregressive along checkpoints."""
    noise = rng.normal(size=(checkpoints, draws))
    for c in range(1, checkpoints):
        noise[c] = persistence * noise[c - 1] + np.sqrt(1.0 - persistence**2) * noise[c]
    return noise


def suite(
    checkpoints: tuple[int, ...] = (12, 40, 154), *, kinds: tuple[CurveKind, ...] = get_args(CurveKind)
) -> tuple[Scenario, ...]:
    """Every kind with every noise, on schedules from 0 where it has an onset to date; jumps also evenly in steps; ``none`` also
    autocorrelated.

    Floor, rise, width and units vary from curve to curve.
    """
    made = [
        Scenario(kind, count, spacing, noise, varied=True)
        for kind in kinds
        for count in checkpoints
        for spacing in get_args(ScheduleKind)
        for noise in get_args(NoiseKind)
        if (spacing == "log" or kind not in ("power", "linear", "early", "late"))
        and (spacing != "steps" or kind in ("step", "jump", "overshoot"))
    ]
    if "none" in kinds:
        made += [Scenario("none", count, "log", "gaussian", persistence=0.8, varied=True) for count in checkpoints]
    return tuple(made)
