"""What does a crosscoder over all checkpoints of the organism cost, beside its bare matrix products?

    python benchmarks/crosscoder.py [--features 512] [--steps 600] [--quick]

The organism is trained first where it is not in the cache yet; that time is not counted. The bare products are the two
dense ones that every batch needs (tokens x weights for the encoder and for the gradient of the codes); all others are
sparse. Nothing but the trained weights is written to disk: the folder's size is printed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from checkpoints.configs import read_config
from checkpoints.organism import OrganismConfig, open_organism
from dynamics.learning.corpora import organism_rows
from dynamics.learning.training import Material, make
from dynamics.models.architecture import architecture
from dynamics.runs.dictionaries import DictionaryConfig


def peak() -> float:
    """Peak memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="30 batches of 64 features")
    arguments = parser.parse_args()
    features, steps = (64, 30) if arguments.quick else (arguments.features, arguments.steps)
    organism = OrganismConfig()
    series = open_organism("organism", organism)
    config = DictionaryConfig(features=features, k=min(16, features), steps=steps)
    rows = organism_rows(organism, config.rows)
    shape = architecture(read_config(series.config_folder))
    material = Material(series, series.checkpoints, shape, rows, 2, "cpu", "float32", None, 8192)
    width = len(series.checkpoints) * shape.shape.d_model
    print(f"{len(series.checkpoints)} checkpoints, {features} features, {steps} batches of {config.batch} tokens")
    x, weights, codes = (
        torch.randn(config.batch, width),
        torch.randn(features, width),
        torch.empty(config.batch, features),
    )
    begin = time.perf_counter()
    for _ in range(steps):
        torch.mm(x, weights.T, out=codes)
        torch.mm(x, weights.T, out=codes)
    bare = time.perf_counter() - begin
    print(f"bare products: {bare:.1f} s on {torch.get_num_threads()} threads")
    before, used, started = peak(), time.process_time(), time.perf_counter()
    begun: list[float] = []

    def told(done: int, _total: int, _note: str) -> None:
        if not begun:
            begun.append(time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "made", "benchmark", config, material, told)
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    print(f"activations of all checkpoints read, first batch done: {begun[0]:.1f} s")
    print(f"in all: {seconds:.1f} s ({cpu:.1f} s of processor time); {seconds / bare:.1f} x the bare products")
    print(f"peak memory: {peak():.0f} MiB ({before:.0f} before); on disk: {size / 2**20:.0f} MiB, the weights")


if __name__ == "__main__":
    main()
