"""A series of your own: any folder of checkpoints that ``save_pretrained`` or the Hugging Face Trainer wrote.

    python examples/own_series.py FOLDER

Trains a tiny GPT-2 for a few steps if FOLDER holds nothing yet, saving ``checkpoint-N/`` folders as a Trainer would,
then traces it: prompts of one's own, residual stream and answers at every checkpoint. The same without Python is a
``runs.yaml`` with ``series: {kind: folder, path: FOLDER}`` and ``dynamics collect``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dynamics
from checkpoints.local import FolderConfig
from checkpoints.organism import build_tokenizer
from dynamics.runs.config import ProbeEntry, Run

PROMPTS = Path(__file__).with_name("prompts.jsonl")


def train(folder: Path) -> None:
    """A few steps of a tiny GPT-2 on one sentence; stands for your own training."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=32, n_embd=32, n_layer=2, n_head=2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.tensor([tokenizer("36+59=095")["input_ids"]])
    for step in range(9):
        if step % 2 == 0:
            model.save_pretrained(folder / f"checkpoint-{step}")
            tokenizer.save_pretrained(folder / f"checkpoint-{step}")
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


def trace(folder: Path, traces: Path) -> Path:
    """Collect the user's prompts over the series; returns the trace."""
    run = Run(
        series=FolderConfig(path=folder),
        probes={"prompts": ProbeEntry(file=PROMPTS, sites=("resid_post",), positions=("last", "operand_b"))},
    )
    return dynamics.collect("mine", run=run, traces=traces).trace


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "my-training-run")
    if not where.exists():
        train(where)
    path = trace(where, Path("traces"))
    print(dynamics.open_trace(path)["prompts"].to_dataset())
    print(dynamics.open_trace(path)["prompts"].answer_logprob.mean("prompt").to_series())
