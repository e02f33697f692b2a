"""A plan on paper: what a long series of a large model would cost, from what was measured on small ones.

    python -m benchmarks.plan                              # Pythia-12b x 154 and OLMo-2-32B x 100
    python -m benchmarks.plan --rate 300e12 --network 1e9

Arithmetic, and nothing else: `dynamics collect RUN --dry-run` says the same of a run that is declared, and times the model where it can.
A pass costs twice the parameters per token; an analysis costs the passes that docs/costs.md has of SmolLM2-135M (which do not grow
with the number of heads); a rate of computing and one of the network are assumed, and printed. No large model was run for it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal

from benchmarks.layouts import declared

__all__ = ["Model", "plan"]


@dataclass(frozen=True)
class Model:
    """A published series.

    Attributes:
        name: of it.
        parameters: how many.
        layers, width, heads: of the model.
        stored: bytes of a parameter in its files.
        checkpoints: how many are visited.
    """

    name: str
    parameters: float
    layers: int
    width: int
    heads: int
    stored: int
    checkpoints: int


SERIES = (
    Model("Pythia-12b", 11.8e9, 36, 5120, 40, 2, 154),
    Model("OLMo-2-32B", 32.2e9, 64, 5120, 40, 2, 100),
)

ANALYSES = {
    "induction": (128, 50, 1.0),
    "own probes, residual stream at two positions": (200, 20, 1.0),
    "a circuit (ioi, greater-than, agreement or gender)": (120, 20, 80.5),
}
"""Prompts, tokens of each, and passes: a watched one is one; 80.5 is `ioi` of 120 prompts on SmolLM2-135M (docs/costs.md)."""

CIRCUITS = 4


def plan(model: Model, *, rate: float, network: float) -> list[tuple[str, str]]:
    """What a collection of all would take.

    Args:
        model: the series.
        rate: floating point operations per second that one GPU does in passes.
        network: bytes per second that one process downloads.
    """
    rows = []
    total = 0.0
    for what, (prompts, tokens, passes) in ANALYSES.items():
        hours = 2 * model.parameters * prompts * tokens * passes / rate * model.checkpoints / 3600
        count = CIRCUITS if "circuit" in what else 1
        total += hours * count
        rows.append((f"GPU hours, {what}" + (f", each of {count}" if count > 1 else ""), f"{hours:.2f}"))
    weights = model.parameters * model.stored
    rows.append(("GPU hours, all", f"{total:.1f}"))
    rows.append(("bytes moved", f"{weights * model.checkpoints / 1e12:.2f} TB ({weights / 1e9:.0f} GB a checkpoint)"))
    rows.append(("hours of download, one process", f"{weights * model.checkpoints / network / 3600:.1f}"))
    layouts: tuple[Literal["local", "sharded"], ...] = ("local", "sharded")
    for layout in layouts:
        trace = declared(layout, model.checkpoints, model.layers, model.width, model.heads, 200)
        files = trace.objects_per_checkpoint() * model.checkpoints
        rows.append((f"files of the trace, layout {layout}", f"{files:,}"))
    rows.append(("bytes stored", f"{trace.bytes_per_checkpoint() * model.checkpoints / 1e9:.1f} GB"))
    rows.append(("GPU memory of a worker, weights", f"{2 * model.parameters / 1e9:.0f} GB (bfloat16)"))
    rows.append(("memory of a worker, two checkpoints read ahead", f"{2 * weights / 1e9:.0f} GB"))
    rows.append(("disk of a worker, two checkpoints fetched ahead", f"{2 * weights / 1e9:.0f} GB"))
    return rows


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200e12, help="operations per second of one GPU")
    parser.add_argument("--network", type=float, default=50e6, help="bytes per second of one process")
    options = parser.parse_args()
    print(f"assumed: {options.rate:.0e} operations/s of a GPU, {options.network / 1e6:.0f} MB/s of a process's network")
    for model in SERIES:
        print(f"\n{model.name} x {model.checkpoints}")
        for what, value in plan(model, rate=options.rate, network=options.network):
            print(f"  {what:<62} {value}")


if __name__ == "__main__":
    main()
