"""A small model, a loop that trains it, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from checkpoints.organism import build_tokenizer
from dynamics.runs.config import ProbeEntry

STEPS = [0, 1, 3, 6]


def fresh() -> hf.GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = hf.GPTNeoXConfig(
        vocab_size=len(build_tokenizer()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        hidden_dropout=0.1,
        bos_token_id=0,
        eos_token_id=0,
    )
    return hf.GPTNeoXForCausalLM(config)


def train(model: Any, at: Callable[[int], None], steps: int = 6) -> Any:
    """A plain loop with dropout, which draws random numbers."""
    ids = torch.tensor([build_tokenizer()("36+59=095")["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    torch.manual_seed(1)
    for step in range(steps + 1):
        at(step)
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return model


def probes(folder: Path) -> dict[str, ProbeEntry]:
    file = folder / "prompts.jsonl"
    file.write_text('{"text": "36+59=", "answer": "0"}\n{"text": "12+34=", "answer": "0"}\n')
    return {"sums": ProbeEntry(file=file, sites=("resid_post", "pattern"))}
