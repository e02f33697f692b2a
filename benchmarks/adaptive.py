"""Adaptive collection against collecting everything: are the onsets the same, and how many checkpoints did it take?

    python benchmarks/adaptive.py [--late] [--seed 0] [--traces FOLDER] [--analyses addition] [--coarse 8 10 12] [--share 0.25]
    python benchmarks/adaptive.py --trace ZARR [...]

Trains the organism with 154 checkpoints, collects all of them (without circuits, which would take much longer; or takes a
trace that is there), and then replays the rounds of ``schedule: adaptive`` on that trace: the analyses see only what has
been visited so far. What a checkpoint gives does not depend on which others were visited, so that the replay finds what a
collection of its own would find. After every round it prints the share of checkpoints visited and how many headline onsets
are exactly those of the dense trace, how many are within one checkpoint of it, and in how many the dense onset lies within
the 95% interval of the adaptive one; with the findings that differ at the end of the budget. It does so from several coarse
grids, because one of them may be lucky, and prints the mean.

What could be had at most is printed before: in how many curves *all* checkpoints give the same onset again when the
draws of their nulls are drawn anew (an onset that those draws decide is not to be found by any choice of checkpoints), and
how many checkpoints the ends of the dense onsets are, all of which a collection must visit to have them. Some onsets all
checkpoints together do not date well: the same is printed of those whose 95% interval, with all checkpoints, is at most
three checkpoints long.

In the default series rises take longer than checkpoints are apart, so that every other one of them hovers at its bound.
With ``--late`` the organism is trained for longer and its worlds enter one after the other, where checkpoints are farther
apart than most rises are long.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import dynamics
import dynamics.analysis.curves
from checkpoints.organism import OrganismConfig, WorldEntry
from dynamics.analysis.findings import Finding
from dynamics.collecting.adaptive import next_checkpoints
from dynamics.progress import Reporter
from dynamics.runs.config import AnalysisEntry, Run
from dynamics.runs.plan import find_analysis
from dynamics.runs.schedule import scheduled
from dynamics.store import Trace
from dynamics.store.paths import trace_path

NAME = "benchmark-dense"
REPEATS = 3
ANALYSES = ("addition", "shared_concepts", "induction")

DATED = 3
"""Checkpoints that a 95% interval may be long if its onset is to be called dated."""

CURRICULA: dict[str, dict[str, Any]] = {
    "default": {"checkpoints": 154},
    "late": {
        "steps": 8000,
        "checkpoints": 154,
        "curriculum": {
            "agreement": WorldEntry(share=0.15, from_step=0),
            "english": WorldEntry(share=0.1, from_step=900),
            "french": WorldEntry(share=0.19, from_step=1600),
            "addition": WorldEntry(share=0.34, from_step=2600),
            "german": WorldEntry(share=0.2, from_step=4000),
            "induction": WorldEntry(share=0.19, from_step=5200),
        },
    },
}


@dataclass(frozen=True)
class Score:
    """How many onsets of one replay are those of all checkpoints."""

    same: int
    near: int
    inside: int
    dated: int


def headlines(trace: Trace, analyses: Sequence[str]) -> list[Finding]:
    """Headline findings of these analyses, from what the trace calls complete."""
    found: list[Finding] = []
    with threadpool_limits(1, user_api="blas"):
        for name in analyses:
            analysis, options = find_analysis(name)
            found += [f for f in analysis.summary(trace, options).findings if f.headline]
    return found


def place(finding: Finding) -> int | None:
    """Index of the checkpoint by which it had happened."""
    onset = finding.emergence.onset
    return None if onset is None or onset.by is None else finding.steps.index(onset.by)


def is_dated(finding: Finding) -> bool:
    """Whether its 95% interval is at most :data:`DATED` checkpoints long; where nothing emerged, there is nothing to date."""
    span = finding.emergence.onset_range
    if span is None:
        return finding.emergence.state == "not emerged"
    first = -1 if span.after is None else finding.steps.index(span.after)
    return span.by is not None and finding.steps.index(span.by) - first <= DATED


def holds(mine: Finding, every: Finding) -> bool:
    """Whether the interval of one onset holds the other onset."""
    span, onset = mine.emergence.onset_range or mine.emergence.onset, every.emergence.onset
    if span is None or onset is None:
        return span is onset
    low = span.after is None or (onset.after is not None and onset.after >= span.after)
    return low and (span.by is None or (onset.by is not None and onset.by <= span.by))


@contextmanager
def other_draws(seed: int) -> Iterator[None]:
    """Every null is judged by a sample, with replacement, of its draws."""
    rng, curves = np.random.default_rng(seed), vars(dynamics.analysis.curves)
    assess = curves["assess"]

    def resampled(steps: Any, values: Any, *, null: Any, **rest: Any) -> Any:
        if null is not None:
            null = np.asarray(null)[:, rng.integers(np.shape(null)[1], size=np.shape(null)[1])]
        return assess(steps, values, null=null, **rest)

    curves["assess"] = resampled
    try:
        yield
    finally:
        curves["assess"] = assess


def collected(options: argparse.Namespace) -> Path:
    """The trace of all checkpoints."""
    if options.trace is not None:
        return Path(options.trace)
    kind = "late" if options.late else "default"
    name = f"{NAME}-{kind}-{options.seed}"
    without_circuits = AnalysisEntry(name="dynamics.validating.planted", options={"of": ANALYSES})
    run = Run(series=OrganismConfig(seed=options.seed, **CURRICULA[kind]), analyses=(without_circuits,))
    dynamics.collect(name, run=run, traces=options.traces, reporter=Reporter())
    return trace_path(options.traces, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--late", action="store_true", help="the series with late worlds (see above)")
    parser.add_argument("--seed", type=int, help="of the organism: another seed is another series (default 0)")
    parser.add_argument("--analyses", nargs="+", choices=ANALYSES, default=ANALYSES, help="whose headline curves")
    parser.add_argument("--coarse", type=int, nargs="+", default=[8, 9, 10, 11, 12], help="checkpoints of coarse grids")
    parser.add_argument("--share", type=float, default=0.25, help="the budget, as a share of the checkpoints")
    parser.add_argument("--traces", type=Path, default=Path("traces"))
    parser.add_argument("--trace", type=Path, help="a trace of all checkpoints that is there already")
    options = parser.parse_args()
    if options.trace is not None and (options.late or options.seed is not None):
        parser.error("--trace is a series already: --late and --seed would say nothing")
    options.seed = options.seed or 0
    path = collected(options)
    whole = Trace(path)
    n = len(whole.steps)
    dense = {f.key: f for f in headlines(whole, options.analyses)}
    budget = int(options.share * n)
    onsets = [f.emergence.onset for f in dense.values()]
    ends = {end for onset in onsets if onset is not None for end in (onset.after, onset.by) if end is not None}
    dated = sum(map(is_dated, dense.values()))
    print(
        f"{n} checkpoints, {len(dense)} headline curves, a budget of {budget}; their onsets end at {len(ends)} checkpoints, "
        f"{dated} are dated to {DATED} checkpoints"
    )
    again = []
    for seed in range(REPEATS):
        with other_draws(seed):
            found = headlines(whole, options.analyses)
            again.append([str(f.emergence.onset) == str(dense[f.key].emergence.onset) for f in found])
    print(
        f"all checkpoints again, other draws of the nulls: {np.mean(np.sum(again, 1)):.1f} of {len(dense)} onsets the same"
    )
    scores = [replay(path, options.analyses, dense, coarse, budget) for coarse in options.coarse]
    same, near, inside, known = np.mean([astuple(score) for score in scores], axis=0)
    print(
        f"mean of {len(scores)} coarse grids, at most {options.share:.0%} of the checkpoints: of {len(dense)} onsets "
        f"{same:.1f} the same, {near:.1f} within one checkpoint, {inside:.1f} within the 95% interval; "
        f"of the {dated} that are dated, {known:.1f} the same"
    )


def replay(path: Path, analyses: Sequence[str], dense: dict[str, Finding], coarse: int, budget: int) -> Score:
    """The onsets when the budget is spent, against those of all checkpoints."""
    whole = Trace(path)
    n = len(whole.steps)
    visited = set(scheduled(whole.steps.tolist(), "adaptive", coarse))
    print(f"from a coarse grid of {len(visited)}")
    print(f"{'round':>5} {'visited':>8} {'share':>6} {'same onset':>11} {'within one':>11} {'within 95%':>11}")
    number = 0
    while True:
        part = Trace(path)
        part.complete = np.array([i in visited for i in range(n)]) & whole.complete
        found = headlines(part, analyses)
        same = [str(f.emergence.onset) == str(dense[f.key].emergence.onset) for f in found]
        inside = [holds(f, dense[f.key]) for f in found]
        near = []
        for f in found:
            here, there = place(f), place(dense[f.key])
            near.append(here == there if here is None or there is None else abs(here - there) <= 1)
        print(
            f"{number:>5} {len(visited):>8} {len(visited) / n:>6.0%} {sum(same):>5} of {len(same):<3}"
            f"{sum(near):>5} of {len(near):<3}{sum(inside):>5} of {len(inside):<3}"
        )
        wanted = next_checkpoints(found, visited, range(n))[: max(0, budget - len(visited))]
        if not wanted:
            break
        visited |= {w.index for w in wanted}
        number += 1
    for finding, equal in zip(found, same, strict=True):
        if not equal:
            every, mine = dense[finding.key].emergence, finding.emergence
            print(
                f"  {finding.title}: {mine.state} {mine.onset}; all: {every.state} {every.onset}"
                + ("" if is_dated(dense[finding.key]) else f", by 95% {every.onset_range}")
            )
    known = sum(equal and is_dated(dense[f.key]) for f, equal in zip(found, same, strict=True))
    return Score(same=sum(same), near=sum(near), inside=sum(inside), dated=known)


if __name__ == "__main__":
    main()
