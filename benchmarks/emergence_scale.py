"""How fast are 100,000 curves of 154 checkpoints assessed, and in how much memory?

    python benchmarks/emergence_scale.py [--curves 100000] [--streamed 400000] [--workers 2]

The curves (16-bit floats would do, 32-bit are used) are made in blocks from their number, so that no array of all of
them exists. First by processes that take a block each; then from a dask array of four times as many curves, of which
the blocks are made, assessed and dropped by dask's threads. Prints seconds, peak memory and curves per second, and
whether a block of the dask array has the same results alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np

from dynamics.emergence.many import Many, assess_many
from dynamics.emergence.runs import CODES

UNITS, BLOCK = 120, 5000
STEPS = np.array([0, *(2**k for k in range(10)), *range(1000, 144_000, 1000)])
"""Those of Pythia: 154 checkpoints."""

CHECKPOINTS = STEPS.size
NULL = np.random.default_rng(1).binomial(UNITS, 0.1, size=(STEPS.size, 1000)) / UNITS


def made(first: int, count: int) -> np.ndarray:
    """(curve, checkpoint) accuracies over 120 questions; every other curve rises."""
    rng = np.random.default_rng(first)
    x = np.log10(STEPS + 1.0)
    place = rng.uniform(1.5, 4.5, size=(count, 1))
    rate = 0.1 + np.where(np.arange(count)[:, None] % 2 == 0, 0.4, 0.0) / (1 + np.exp(-(x - place) / 0.25))
    return (rng.binomial(UNITS, rate) / UNITS).astype(np.float32)


def error(values: Any) -> Any:
    """Standard errors of accuracies, away from 0 and 1."""
    return np.sqrt((values + 0.5 / UNITS) * (1 - values + 0.5 / UNITS) / UNITS)


def states(found: Many) -> Counter[str]:
    """How many curves are in each state."""
    return Counter({name: int((found.state == code).sum()) for code, name in enumerate(CODES)})


def peak() -> float:
    """Peak memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(block: tuple[int, int]) -> tuple[Counter[str], float, float]:
    """States of the curves of one block (first, count), the process's peak memory in MiB, and seconds."""
    values = made(*block)
    begin = time.perf_counter()
    found = assess_many(STEPS, values, null=NULL, errors=error(values))
    return states(found), peak(), time.perf_counter() - begin


def streamed(curves: int, workers: int) -> tuple[Counter[str], float, float, bool]:
    """The same from a dask array: states, peak memory in MiB, seconds, and whether the last block is the same alone."""
    import dask
    import dask.array as da

    sizes = tuple(min(BLOCK, curves - first) for first in range(0, curves, BLOCK))

    def block(block_info: Any) -> np.ndarray:
        first, last = block_info[None]["array-location"][0]
        return made(first, last - first)

    values = da.map_blocks(
        block, chunks=(sizes, (CHECKPOINTS,)), dtype=np.float32, meta=np.empty((0, 0), dtype=np.float32)
    )
    begin = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=workers):
        found = assess_many(STEPS, values, null=NULL, errors=error(values))
    seconds = time.perf_counter() - begin
    memory = peak()
    last = made(curves - sizes[-1], sizes[-1])
    alone = assess_many(STEPS, last, null=NULL, errors=error(last))
    equal = all(
        np.array_equal(getattr(alone, f.name), getattr(found, f.name)[-sizes[-1] :], equal_nan=True)
        for f in fields(Many)
    )
    return states(found), memory, seconds, equal


def main() -> None:
    """Print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=100_000)
    parser.add_argument("--streamed", type=int, default=400_000, help="curves of the dask array; 0 for none")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    size = f"checkpoints, {arguments.workers} workers"
    # Fresh processes: a fork would inherit this one's memory, and its peak.
    fresh = multiprocessing.get_context("spawn")
    blocks = [(first, min(BLOCK, arguments.curves - first)) for first in range(0, arguments.curves, BLOCK)]
    begin = time.perf_counter()
    with ProcessPoolExecutor(arguments.workers, mp_context=fresh) as pool:
        results = list(pool.map(work, blocks))
    seconds = time.perf_counter() - begin
    print(f"{arguments.curves} curves x {CHECKPOINTS} {size}, as processes")
    print(
        f"{seconds:.1f} s ({sum(one for _, _, one in results):.1f} s of work), {arguments.curves / seconds:.0f} curves/s"
    )
    print(f"peak memory of a worker: {max(one for _, one, _ in results):.0f} MiB")
    print(dict(sum((one for one, _, _ in results), Counter())))
    if arguments.streamed:
        with ProcessPoolExecutor(1, mp_context=fresh) as pool:
            found, memory, seconds, equal = pool.submit(streamed, arguments.streamed, arguments.workers).result()
        whole = arguments.streamed * CHECKPOINTS * 4 / 2**20
        print(f"{arguments.streamed} curves x {CHECKPOINTS} {size}, streamed from a dask array")
        print(f"{seconds:.1f} s, {arguments.streamed / seconds:.0f} curves/s, making the curves included")
        print(f"peak memory: {memory:.0f} MiB (values alone, as a whole: {whole:.0f} MiB)")
        print(f"the last block alone has {'the same' if equal else 'OTHER'} results")
        print(dict(found))


if __name__ == "__main__":
    main()
