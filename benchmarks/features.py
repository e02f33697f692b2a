"""How long does matching 32,768 x 32,768 features take, beside the bare matrix products, and in how much memory?

    python benchmarks/features.py [--quick] [--features 32768] [--d-model 2048] [--method mutual|assignment]

Two dictionaries of random directions, half of which are the other's turned a little and in another order. The bare
product is the same blocks of the same two arrays, multiplied and overwritten. Peak memory is this process's; the two
arrays alone are given for comparison. The null is part of the matching.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from dynamics.learning.matching import match_decoders
from dynamics.numerics.blocked import BLOCK, pieces


def made(features: int, d_model: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two dictionaries (feature, d_model), and which feature of the second each of the first is (-1: none)."""
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal((features, d_model), dtype=np.float32) for _ in range(2))
    order = rng.permutation(features)
    half = features // 2
    truth = np.full(features, -1)
    truth[:half] = order[:half]
    other *= np.float32(0.7)
    for part in pieces(half, BLOCK):
        other[order[part]] += one[part]
    other[order[half:]] /= np.float32(0.7)
    return one, other, truth


def bare(one: np.ndarray, other: np.ndarray) -> float:
    """Seconds for all blocks of the product, without looking at them."""
    out = np.empty((BLOCK, BLOCK), dtype=np.float32)
    begin = time.perf_counter()
    for rows in pieces(len(one), BLOCK):
        for columns in pieces(len(other), BLOCK):
            left, right = one[rows], other[columns]
            np.matmul(left, right.T, out=out[: len(left), : len(right)])
    return time.perf_counter() - begin


def peak() -> float:
    """Peak memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=32_768)
    parser.add_argument("--d-model", type=int, default=2048)
    parser.add_argument("--method", choices=["mutual", "assignment"], default="mutual")
    parser.add_argument("--quick", action="store_true", help="4,096 features at d_model 512")
    arguments = parser.parse_args()
    features, d_model = (4096, 512) if arguments.quick else (arguments.features, arguments.d_model)
    one, other, truth = made(features, d_model)
    arrays = (one.nbytes + other.nbytes) / 2**20
    before, used = peak(), time.process_time()
    seconds = bare(one, other)
    bare_cpu = time.process_time() - used
    print(f"{features} x {features} features, d_model {d_model}: {2 * features**2 * d_model / 1e12:.2f} TFLOP")
    print(f"bare blocked product: {seconds:.1f} s ({bare_cpu:.1f} s of processor time)")
    begin, used = time.perf_counter(), time.process_time()
    found = match_decoders(one, other, method=arguments.method)
    matching, cpu = time.perf_counter() - begin, time.process_time() - used
    print(f"matching ({arguments.method}), null included: {matching:.1f} s ({cpu:.1f} s of processor time)")
    print(f"ratio: {matching / seconds:.2f} ({cpu / bare_cpu:.2f} of processor time)")
    print(f"peak memory: {peak():.0f} MiB ({before:.0f} before; the two arrays: {arrays:.0f}; the whole table: {features**2 / 2**18:.0f})")  # fmt: skip
    right = (found.one.partner == truth).mean()
    print(f"right: {right:.4f} of the features; wrong partners: {((found.one.partner >= 0) & (found.one.partner != truth)).sum()}")  # fmt: skip


if __name__ == "__main__":
    main()
