"""What does it cost to put the next checkpoint's weights into the model?

    python benchmarks/swap.py

A model with the sizes of Pythia 70m and random weights, three checkpoints on disk in float16 (as Pythia 70m is
published) and in float32, computed in float32. Each is exchanged in turn by ``from_pretrained`` (what a loop over
checkpoints does) and by copying it into the resident model, with and without the sha256 that identifies the weights
(files from a hub have been hashed when they came; local ones are hashed by the thread that reads ahead). Every exchange ends with one forward
pass of sixteen tokens, because ``from_pretrained`` may only map the file and read it when it is used; the time of the
same pass with weights that have been used is taken off. Medians; ratios count, seconds depend on the machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from checkpoints.loading import ResidentModel, prepare

ROUNDS = 4


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
        model(input_ids=torch.arange(16)[None], use_cache=False)
        model.get_input_embeddings().weight.sum()


def compare(dtype: torch.dtype, where: Path) -> None:
    """Print one table."""
    folders = save(where, dtype)
    resident = ResidentModel()
    resident.install(prepare(folders[-1]))
    times: dict[str, list[float]] = {"from_pretrained": [], "swap": [], "swap and hash": []}
    use(resident.model)
    for _ in range(ROUNDS):
        for folder in folders:
            began = time.perf_counter()
            use(resident.model)
            used = time.perf_counter() - began
            began = time.perf_counter()
            model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
            use(model)
            times["from_pretrained"].append(time.perf_counter() - began - used)
            del model
            for name, digest in (("swap", "known"), ("swap and hash", "")):
                began = time.perf_counter()
                use(resident.install(prepare(folder, digest=digest)))
                times[name].append(time.perf_counter() - began - used)
    assert resident.rebuilt == 1, "the weights were not copied in place"
    floor = statistics.median(times["from_pretrained"])
    print(f"stored in {str(dtype).removeprefix('torch.')}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"  {name:<20}{middle:7.3f} s  {middle / floor:5.2f} x from_pretrained")


def main() -> None:
    """Both dtypes."""
    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    for dtype in (torch.float16, torch.float32):
        with tempfile.TemporaryDirectory() as where:
            compare(dtype, Path(where))


if __name__ == "__main__":
    main()
