"""Does `dynamics compare` find exactly the effects that are there, and do its intervals hold them?

    python benchmarks/compare.py [--designs 20] [--seed 0] [--only NAME ...]

Plants designs of two choices of two levels each and some seeds of every combination (dynamics.validating.designs): eight circuits, of
which one choice moves three (a share halved: 0.9 log2 steps later) and the other two (a language that enters late: 1.2 later), or
nothing is moved. Curves are rates over prompts at checkpoints; they go through the code that makes the findings of reports, and these
through the code of `dynamics compare`. It prints, for every kind of design, in how many exactly the planted effects were found (of all
effects on all circuits, interactions included), how many were missed or are false, and how many 95% intervals hold the truth.

Exits with code 1 where exactly the planted effects are found in fewer than 19 of 20 designs of these kinds: planted with 3 seeds; nothing
with 3 seeds, with 2 that lie farther apart, and in two runs; or where fewer than 95% of the intervals of any kind that have both ends
hold the truth; both up to two standard errors of so many designs. Intervals with an open end are counted apart: they hold more.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace

import numpy as np

from dynamics.validating.designs import NOTHING, DesignScore, PlantedDesign, judge_pairs, judged

PLANTED = PlantedDesign()
KINDS = {
    "planted, 3 seeds": PLANTED,
    "planted, 5 seeds that lie farther apart": replace(PLANTED, seeds=5, spread=0.3),
    "planted, 3 seeds, few checkpoints": replace(PLANTED, checkpoints=16),
    "planted, 3 seeds, ends before some onsets": replace(PLANTED, late=True),
    "nothing, 3 seeds": replace(PLANTED, circuits=NOTHING),
    "nothing, 2 seeds that lie farther apart": replace(PLANTED, circuits=NOTHING, seeds=2, spread=0.4),
    "planted, one combination missing": replace(PLANTED, seeds=4, levels=((0, 0), (0, 1), (1, 0))),
}
PAIRS = {
    "two runs, planted": replace(PLANTED, seeds=1, spread=0.0),
    "two runs, nothing": replace(PLANTED, circuits=NOTHING, seeds=1, spread=0.0),
}
EXACT = ("planted, 3 seeds", "nothing, 3 seeds", "nothing, 2 seeds that lie farther apart", "two runs, nothing")


def _positive(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{count} is no number of designs: at least 1")
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=_positive, default=20, help="of each kind, at least 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[*KINDS, *PAIRS], metavar="NAME", help="these kinds alone"
    )
    asked = parser.parse_args()
    wrong = []
    print(
        "| designs | exactly the planted effects | missed | false | intervals that hold the truth | with an open end | CPU s a design |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, planted in (KINDS | PAIRS).items():
        if asked.only and name not in asked.only:
            continue
        rng, score = np.random.default_rng(asked.seed), DesignScore()
        begun = time.process_time()
        for _ in range(asked.designs):
            (judge_pairs if name in PAIRS else judged)(planted, score, rng)
        each = (time.process_time() - begun) / asked.designs
        shown = f"{score.missed} of {score.planted} | {score.false} of {score.absent}"
        held = f"{score.covered} of {score.judged} ({score.covered / max(score.judged, 1):.1%})"
        opened = f"{score.open_covered} of {score.open}"
        print(f"| {name} | {score.exact} of {score.designs} | {shown} | {held} | {opened} | {each:.1f} |", flush=True)
        if name in EXACT and score.exact / score.designs < 0.95 - 2 * math.sqrt(0.95 * 0.05 / score.designs):
            wrong.append(f"{name}: exact in {score.exact} of {score.designs}")
        if score.covered / max(score.judged, 1) < 0.95 - 2 * math.sqrt(0.95 * 0.05 / max(score.judged, 1)):
            wrong.append(f"{name}: {score.covered} of {score.judged} intervals hold the truth")
    for line in wrong:
        print(f"fails: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
