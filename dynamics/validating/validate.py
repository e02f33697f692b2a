"""The verb ``validate``: the tracer against truth that was planted.

Three parts. Synthetic curves with a known onset (or none) go through every definition: do the 95% intervals hold the
truth, is anything found where nothing is? Models with a circuit that was set by hand are faded in (:mod:`.known_series`): are its
edges found, and its onset? And small organisms with random curricula are trained and traced like any
series: nothing may emerge before its world entered the data, worlds that never entered must not be reported, and of two
worlds that both emerged the one that entered clearly earlier must come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from checkpoints.errors import UserError, short
from checkpoints.organism import OrganismConfig
from checkpoints.organism.curriculum import QUICK_WORLDS, WorldEntry
from checkpoints.organism.worlds import task_names
from checkpoints.paths import StrPath, as_flag, as_number, as_numbers, as_path

from ..analyser import analyse
from ..collecting.rounds import collect
from ..progress import Reporter
from ..runs.config import AnalysisEntry, Run
from ..runs.plan import built_in, find_analysis
from .calibration import Calibration, coverage
from .checks import Check, checks, discovery_checks, known_checks
from .known_series import known_series
from .synthetic import Scenario, suite

__all__ = ["Planted", "Validation", "WorldOrder", "curricula", "validate"]

ORGANISM = {"steps": 800, "checkpoints": 28}
"""Long enough for worlds that enter at a third of it; about two minutes each on two cores."""

CLEARLY = 200
"""Steps by which one world must enter before another for the order of their onsets to follow: some take longer to learn."""


@dataclass(frozen=True)
class Planted:
    """One world of one organism, and what was found of it.

    Attributes:
        organism: name of the run.
        world: of the curriculum.
        entered: step from which it was in the data; None if never.
        key: the finding that shows it.
        state: of that finding.
        onset: its onset, as text.
        by: the step by which it had emerged; None where it had not.
        verdict: ``right``, ``too early`` (it emerged before it entered), ``false`` (it never entered), ``missed`` (it
            entered and did not emerge, which a short training may explain).
    """

    organism: str
    world: str
    entered: int | None
    key: str
    state: str
    onset: str
    by: int | None
    verdict: str


@dataclass(frozen=True)
class WorldOrder:
    """Two worlds of an organism, and whether their onsets are in the order of their entry."""

    organism: str
    earlier: str
    later: str
    recovered: bool


@dataclass(frozen=True)
class Validation:
    """What was found.

    Attributes:
        rows: one per scenario and definition.
        planted: one per organism and world.
        order: of every two worlds of an organism that both emerged and of which one entered clearly earlier.
        checks: what the rows must show, pooled over scenarios, the false discovery rate, and what is found of known circuits.
    """

    rows: tuple[Calibration, ...]
    planted: tuple[Planted, ...]
    order: tuple[WorldOrder, ...]
    checks: tuple[Check, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """What does not hold, one line each."""
        lines = [
            f"{check.row}, {check.column}: {check.value:.1%} {text}"
            for check in self.checks
            if check.verdict == "fails"
            for text in [{"coverage": "covered", "kinds": "covered", "known": "reached"}.get(check.table, "false")]
        ]
        lines += [f"{p.organism}, {p.world}: {p.verdict}" for p in self.planted if p.verdict in ("too early", "false")]
        return (*lines, *(f"{o.organism}: {o.later} came before {o.earlier}" for o in self.order if not o.recovered))

    @property
    def sound(self) -> bool:
        """Whether every check holds, nothing was found before its time or without cause, and every order was recovered."""
        return not self.failed


def validate(
    *,
    curves: int = 60,
    checkpoints: tuple[int, ...] = (12, 40, 154),
    circuits: int = 40,
    organisms: int = 3,
    traces: StrPath = "traces",
    seed: int = 0,
    scenarios: tuple[Scenario, ...] | None = None,
    discovery: int = 10_000,
    quick: bool = False,
    reporter: Reporter | None = None,
) -> Validation:
    """The whole of the validation.

    Args:
        curves: synthetic curves per scenario; from 60 on, the error of the pooled coverages is at most 1%.
        checkpoints: sizes of the synthetic series.
        circuits: series with a known circuit, and as many without; 0 leaves them out.
        organisms: how many to train (each is kept in the cache, so that the next validation is quick).
        traces: folder of their traces.
        seed: of curves and curricula.
        scenarios: instead of the whole suite.
        discovery: curves among which few rise, for the false discovery rate; 0 leaves it out.
        quick: a few scenarios, curves and circuits and no organism instead of all that: a minute.
        reporter: progress and messages.
    """
    reporter = reporter or Reporter(quiet=True)
    traces = as_path(traces, "traces")
    as_number(curves, "curves", least=1)
    for value, what in ((circuits, "circuits"), (organisms, "organisms"), (seed, "seed"), (discovery, "discovery")):
        as_number(value, what, least=0)
    checkpoints = tuple(as_numbers(checkpoints, "checkpoints"))
    if scenarios is not None:
        if not isinstance(scenarios, Sequence) or not all(isinstance(one, Scenario) for one in scenarios):
            raise UserError(
                f"`scenarios` is {short(repr(scenarios))}, of type {type(scenarios).__name__}",
                expected="scenarios, as dynamics.validating.synthetic.suite makes them",
                remedy="leave it out for the whole suite",
            )
        scenarios = tuple(scenarios)
    if as_flag(quick, "quick"):
        curves, circuits, organisms, discovery = 40, 2, 0, 2000
        scenarios = suite((40,), kinds=("sigmoid",))[:2] + suite((40,), kinds=("none",))[:2]
    wanted = suite(checkpoints) if scenarios is None else scenarios
    rows: list[Calibration] = []
    # many small matrices: threads only wait for one another
    with threadpool_limits(1, user_api="blas"), reporter.bar("synthetic curves", len(wanted), unit="scenarios") as bar:
        for done, scenario in enumerate(wanted):
            rows += coverage(scenario, curves=curves, seed=seed * 100_000 + done)
            bar.update(done + 1, f"{scenario.kind}, {scenario.checkpoints} checkpoints")
        found = checks(rows)
        if discovery:
            found += discovery_checks(curves=discovery, seed=seed)
    if circuits:
        with reporter.bar("known circuits", 2 * circuits, unit="series") as bar:
            found += known_checks(known_series(circuits, seed=seed, progress=lambda done: bar.update(done, "")))
    planted: list[Planted] = []
    for number, config in enumerate(curricula(organisms, seed=seed)):
        planted += _traced(f"validate-{seed}-{number}", config, traces, reporter)
    return Validation(tuple(rows), tuple(planted), tuple(_orders(planted)), found)


def curricula(count: int, *, seed: int = 0) -> list[OrganismConfig]:
    """Organisms whose worlds enter at random: of three, one at the start, one later, one late or never.

    >>> [len(config.curriculum) for config in curricula(2)]
    [4, 3]
    """
    rng = np.random.default_rng(seed)
    steps = int(ORGANISM["steps"])
    result: list[OrganismConfig] = []
    while len(result) < count:
        first, second, third = rng.permutation(QUICK_WORLDS).tolist()
        later = rng.integers(steps // 4, steps // 3, size=2).tolist()
        entries = {
            "english": WorldEntry(share=0.1),
            first: WorldEntry(share=0.3),
            second: WorldEntry(share=0.3, from_step=later[0]),
        }
        if len(result) % 2 == 0:
            entries[third] = WorldEntry(share=0.3, from_step=later[1])
        try:
            result.append(OrganismConfig(seed=seed * 1000 + len(result), curriculum=entries, **ORGANISM))
        except ValidationError:  # a world whose texts hold another's words cannot enter before it: draw again
            continue
    return result


def _traced(name: str, config: OrganismConfig, traces: Path, reporter: Reporter) -> list[Planted]:
    """Train, collect and analyse one organism; every analysis says by which finding a world shows."""
    signs: dict[str, str] = {}
    for analysis in built_in():
        signs |= find_analysis(analysis)[0].planted
    # a world with words of its own cannot be asked about where they are not in the vocabulary
    signs = {world: key for world, key in signs.items() if world not in task_names() or world in config.curriculum}
    wanted = sorted({key.split(".")[0] for key in signs.values()})
    together = AnalysisEntry(name="dynamics.validating.planted", options={"of": wanted})
    run = Run(series=config, analyses=(together,))
    collect(name, run=run, traces=traces, reporter=reporter)
    results = analyse(name, run=run, traces=traces, reporter=reporter)
    findings = {f.key: f for f in results.findings}
    planted = []
    for world, key in sorted(signs.items()):
        emergence = findings[f"planted.{key}"].emergence
        entry = config.curriculum.get(world)
        entered = None if entry is None else entry.from_step
        found = emergence.state in ("emerged", "present from start", "transient")
        by = emergence.onset.by if found and emergence.onset is not None else None
        if not found:
            verdict = "right" if entered is None else "missed"
        elif entered is None:
            verdict = "false"
        else:
            verdict = "too early" if by is not None and by <= entered else "right"
        onset = str(emergence.onset) if found else "–"
        planted.append(Planted(name, world, entered, key, emergence.state, onset, by, verdict))
    return planted


def _orders(planted: list[Planted]) -> list[WorldOrder]:
    """Of worlds that both emerged, and of which one entered clearly earlier: did it come first?"""
    return [
        WorldOrder(one.organism, one.world, other.world, one.by < other.by)
        for one in planted
        for other in planted
        if one.organism == other.organism
        and one.by is not None
        and other.by is not None
        and one.entered is not None
        and other.entered is not None
        and other.entered - one.entered >= CLEARLY
    ]
