"""Do the 95% intervals of the onset cover 95%? A table over planted curves, for every definition of emergence.

    python benchmarks/emergence_calibration.py [--curves 200] [--kinds step,sigmoid,ramp,none] [--checkpoints 12,40,154]

Prints one row for each scenario and definition (see ``dynamics.validating.calibration``) and the rows outside 93-97% by
more than three standard errors of the simulation.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import get_args

import numpy as np

from dynamics.validating.calibration import coverage, table
from dynamics.validating.synthetic import CurveKind, suite

TARGET = (0.93, 0.97)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=200)
    parser.add_argument("--checkpoints", default="12,40,154")
    parser.add_argument("--kinds", default=",".join(get_args(CurveKind)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    counts = tuple(int(count) for count in arguments.checkpoints.split(","))
    scenarios = suite(counts, kinds=tuple(arguments.kinds.split(",")))
    work = partial(coverage, curves=arguments.curves, seed=arguments.seed)
    with ProcessPoolExecutor(arguments.workers) as pool:
        rows = [row for part in pool.map(work, scenarios) for row in part]
    print(table(rows))
    judged = [row for row in rows if row.judged >= 30]
    outside = []
    for row in judged:
        margin = 3 * np.sqrt(0.95 * 0.05 / row.judged)
        if not TARGET[0] - margin <= row.covered <= TARGET[1] + margin:
            outside.append(row)
    print(
        f"\n{len(judged) - len(outside)} of {len(judged)} within {TARGET[0]:.0%} to {TARGET[1]:.0%} up to chance; outside:"
    )
    print(table(outside))
    for name in dict.fromkeys(row.definition for row in judged):
        mine = [row for row in judged if row.definition == name]
        total = sum(row.judged for row in mine)
        print(f"{name}: {sum(row.covered * row.judged for row in mine) / total:.3f} over {total} curves")


if __name__ == "__main__":
    main()
