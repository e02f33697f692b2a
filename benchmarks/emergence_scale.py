"""How fast are 100,000 curves of 154 checkpoints assessed with 200 bootstrap draws each, and in how much memory?

    python benchmarks/emergence_scale.py [--curves 100000] [--workers 2]

The curves (16-bit floats would do, 32-bit are used) are made in blocks by the workers from their number, so that no
array of all of them exists. Prints seconds, the workers' peak memory and curves per second.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from dynamics.emergence.many import assess_many
from dynamics.emergence.runs import CODES
from dynamics.emergence.synthetic import schedule

CHECKPOINTS, UNITS, BLOCK = 154, 120, 5000


def work(block: tuple[int, int]) -> tuple[Counter[str], float, float]:
    """States of the curves of one block (first, count), its peak memory in MiB, and its seconds."""
    first, count = block
    rng = np.random.default_rng(first)
    steps = schedule("uneven", CHECKPOINTS, np.random.default_rng(0))
    x = np.log10(steps + 1.0)
    place = rng.uniform(1.5, 4.5, size=(count, 1))
    rate = 0.1 + np.where(np.arange(count)[:, None] % 2 == 0, 0.4, 0.0) / (1 + np.exp(-(x - place) / 0.25))
    values = rng.binomial(UNITS, rate) / UNITS
    error = np.sqrt((values + 0.5 / UNITS) * (1 - values + 0.5 / UNITS) / UNITS)
    null = rng.binomial(UNITS, 0.1, size=(x.size, 1000)) / UNITS
    begin = time.perf_counter()
    found = assess_many(steps, values, null=null, errors=error, count=200)
    seconds = time.perf_counter() - begin
    states = Counter({name: int((found.state == code).sum()) for code, name in enumerate(CODES)})
    return states, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds


def main() -> None:
    """Print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    blocks = [(first, min(BLOCK, arguments.curves - first)) for first in range(0, arguments.curves, BLOCK)]
    begin = time.perf_counter()
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = list(pool.map(work, blocks))
    seconds = time.perf_counter() - begin
    states = sum((one for one, _, _ in results), Counter())
    print(f"{arguments.curves} curves x {CHECKPOINTS} checkpoints x 200 draws, {arguments.workers} workers")
    print(
        f"{seconds:.1f} s ({sum(one for _, _, one in results):.1f} s of work), {arguments.curves / seconds:.0f} curves/s"
    )
    print(f"peak memory of a worker: {max(one for _, one, _ in results):.0f} MiB")
    print(dict(states))


if __name__ == "__main__":
    main()
