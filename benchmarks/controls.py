"""What is reported of organisms that never see a sum, and do organisms of several seeds agree?

    python benchmarks/controls.py [--seeds 5] [--kind control|organism] [--small] [--traces FOLDER]

*control*: no sums in the data (the run ``organism-control``). Every headline of addition must be not emerged, whatever the seed.
*organism*: the built-in organism. Headlines that the report does not call fragile should have one state in 95% of pairs of seeds.

Organisms are trained once and kept in the cache; traces are kept too, so that the same command goes on where it was. With
``--small`` they are trained on a quarter of the batch for 800 steps and have 14 checkpoints, and circuits are attributed and
not searched for: what is compared between contexts is measured, exchanges of parts and smallest circuits are not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import dynamics
from checkpoints.organism import OrganismConfig
from dynamics.analyser import analyse
from dynamics.analysis import AnalysisOptions, Context, Finding, Request, Section, Trace
from dynamics.emergence import FRAGILE
from dynamics.measurements import Circuit, EdgeGroups
from dynamics.runs.config import AnalysisEntry, Run
from dynamics.runs.plan import find_analysis

__all__ = ["QUESTION", "TITLE", "plan", "summarise"]

ANALYSES = ("addition", "shared_concepts", "induction")
CONTROL = {
    "english": {"share": 0.08},
    "french": {"share": 0.19},
    "german": {"share": 0.20},
    "induction": {"share": 0.19},
}
SMALL = {"steps": 800, "batch": 24, "checkpoints": 14}

TITLE = "Controls"
QUESTION = "What is said of an organism that never sees a sum?"


def plan(context: Context, options: AnalysisOptions) -> Sequence[Request]:
    """The analyses' probes as for a model whose wiring is not known, and edges of their circuits attributed by groups."""
    requests: list[Request] = []
    for name in ANALYSES:
        analysis, defaults = find_analysis(name)
        requests += analysis.plan(replace(context, wired=False), defaults)
        for request in analysis.plan(context, defaults):
            if any(isinstance(m, Circuit) for m in request.measurements):
                requests.append(Request(request.probe, (EdgeGroups(),)))
    return requests


def summarise(trace: Trace, options: AnalysisOptions) -> Section:
    """Their findings, and what contexts share."""
    from analyses.addition.causal import same_parts

    section = Section()
    for name in ANALYSES:
        analysis, defaults = find_analysis(name)
        section.findings += analysis.summary(trace, defaults).findings
    section.findings += same_parts(trace).summary(trace, analysis="addition", title="", question="").findings
    return section


def headlines(kind: str, seed: int, small: bool, traces: Path) -> dict[str, Finding]:
    """Key to headline of one organism, trained, collected and analysed."""
    given: dict[str, Any] = {"seed": seed, **(SMALL if small else {})}
    if kind == "control":
        given["curriculum"] = CONTROL
    names = ("benchmarks.controls",) if small else ANALYSES
    run = Run(series=OrganismConfig(**given), analyses=tuple(AnalysisEntry(name=name) for name in names))
    name = f"{kind}-{'small-' if small else ''}{seed}"
    dynamics.collect(name, run=run, traces=traces)
    found = analyse(name, run=run, traces=traces).headlines
    return {f.key.removeprefix("benchmarks.controls.").removeprefix("controls."): f for f in found}


def main() -> None:
    """Print every headline's state by seed, what is false, and how often seeds agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kind", choices=("control", "organism"), default="control")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--traces", type=Path, default=Path("traces"))
    arguments = parser.parse_args()
    found = [headlines(arguments.kind, seed, arguments.small, arguments.traces) for seed in range(arguments.seeds)]
    keys = list(dict.fromkeys(key for one in found for key in one))

    def said(finding: Finding | None) -> str:
        if finding is None:
            return "–"
        fragile = finding.holds is not None and finding.holds < FRAGILE
        return finding.emergence.state + (f" ({finding.holds:.0%} hold)" if fragile else "")

    print("| headline | " + " | ".join(f"seed {seed}" for seed in range(len(found))) + " |")
    print("|---|" + "---|" * len(found))
    for key in keys:
        print(f"| {key} | " + " | ".join(said(one.get(key)) for one in found) + " |")
    if arguments.kind == "control":
        of_sums = [(key, one[key]) for key in keys if key.startswith("addition.") for one in found if key in one]
        false = [key for key, f in of_sums if f.emergence.state in ("emerged", "transient", "present from start")]
        print(f"\n{len(false)} of {len(of_sums)} headlines of addition are called: {', '.join(false) or 'none'}")
    pairs = agree = doubtful = differ = 0
    for key in keys:
        for one, other in combinations([one[key] for one in found if key in one], 2):
            same = one.emergence.state == other.emergence.state
            if any(f.holds is not None and f.holds < FRAGILE for f in (one, other)):
                doubtful, differ = doubtful + 1, differ + (not same)
            else:
                pairs, agree = pairs + 1, agree + same
    if pairs:
        print(f"not fragile: one state in {agree} of {pairs} pairs of seeds ({agree / pairs:.1%})")
    if doubtful:
        print(f"fragile in one or both: another state in {differ} of {doubtful} ({differ / doubtful:.1%})")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # for benchmarks.controls as an analysis
    main()
