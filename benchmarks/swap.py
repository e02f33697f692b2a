"""What does it cost to put the next checkpoint's weights into the model?

    python benchmarks/swap.py

A model with the sizes of Pythia 70m and random weights, three checkpoints on disk in float16 (as Pythia 70m is
published) and in float32, computed in float32. Each is exchanged in turn by ``from_pretrained`` (what a loop over
checkpoints does) and by copying it into the resident model, with and without the sha256 that identifies the weights
(files from a hub have been hashed when they came; local ones are hashed by the thread that reads ahead).

Two times are taken of each. *Until the first forward pass is done*: the exchange and one pass of eight tokens that reads
every weight, the embedding too; this is what a loop waits for, because ``from_pretrained`` may only map a file and read it
when it is used. *The exchange*: the same without the time of a pass over weights that have been used before.

The ways take turns, in another order every round, with the files in the page cache. Medians; ratios count, seconds
depend on the machine and on who else computes on it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from checkpoints.loading import ResidentModel, prepare

TOKENS = 8


def save(folder: Path, dtype: torch.dtype) -> list[Path]:
    """Three checkpoints."""
    config = hf.GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        rotary_pct=0.25,
        bos_token_id=0,
        eos_token_id=0,
    )
    folders = []
    for step in range(3):
        torch.manual_seed(step)
        hf.GPTNeoXForCausalLM(config).to(dtype).save_pretrained(folder / f"step{step}")
        folders.append(folder / f"step{step}")
    return folders


def use(model: Any) -> None:
    """One pass that reads every weight, the embedding too."""
    with torch.inference_mode():
        model(input_ids=torch.arange(TOKENS)[None], use_cache=False)
        model.get_input_embeddings().weight.sum()


def compare(dtype: torch.dtype, where: Path, rounds: int) -> None:
    """Print one table."""
    folders = save(where, dtype)
    resident = ResidentModel()
    resident.install(prepare(folders[-1]))
    use(resident.model)

    def build(folder: Path) -> Any:
        return hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")

    ways: dict[str, Callable[[Path], Any]] = {
        "from_pretrained": build,
        "swap": lambda folder: resident.install(prepare(folder, digest="known", mapped=True)),
        "swap and hash": lambda folder: resident.install(prepare(folder)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    passes: list[float] = []
    for number in range(-1, rounds):
        folder = folders[number % len(folders)]
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            model = ways[name](folder)
            use(model)
            took = time.perf_counter() - began
            began = time.perf_counter()
            use(model)
            again = time.perf_counter() - began
            del model
            if number >= 0:  # the first round warms up
                times[name].append(took)
                passes.append(again)
    assert resident.rebuilt == 1, "the weights were not copied in place"
    used = statistics.median(passes)
    floor = statistics.median(times["from_pretrained"])
    print(f"stored in {str(dtype).removeprefix('torch.')}; a pass over weights in use takes {used:.3f} s")
    print(f"  {'':<16}until the first pass is done      the exchange alone")
    for name, values in times.items():
        middle = statistics.median(values)
        print(
            f"  {name:<16}{middle:7.3f} s  {middle / floor:5.2f} x          "
            f"{middle - used:7.3f} s  {(middle - used) / (floor - used):5.2f} x"
        )


def main() -> None:
    """Both dtypes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=18, help="exchanges of each kind")
    rounds = parser.parse_args().rounds
    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    print(f"{rounds} exchanges each, {torch.get_num_threads()} threads")
    for dtype in (torch.float16, torch.float32):
        with tempfile.TemporaryDirectory() as where:
            compare(dtype, Path(where), rounds)


if __name__ == "__main__":
    main()
