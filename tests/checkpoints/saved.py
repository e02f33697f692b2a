"""Checkpoints with random weights, as transformers saves them and as it loads them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import load_file, save_file

TOY = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
LLAMA = {**TOY, "num_key_value_heads": 2, "max_position_embeddings": 32}

MODELS: dict[str, Callable[[], Any]] = {
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**TOY)),
    "gpt_neox tied": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**TOY, tie_word_embeddings=True)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=0)
    ),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)),
    "llama tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "olmo": lambda: hf.OlmoForCausalLM(hf.OlmoConfig(**LLAMA, eos_token_id=0, pad_token_id=1)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**LLAMA, eos_token_id=0, pad_token_id=1)),
}


def saved(folder: Path, kind: str = "gpt_neox", seed: int = 0, *, stored: str = "safetensors") -> Path:
    """A checkpoint with random weights, every tensor of it drawn (no zeros and ones)."""
    torch.manual_seed(seed)
    model = MODELS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    if stored == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """Change the stored tensors of a checkpoint."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def oracle(folder: Path) -> dict[str, torch.Tensor]:
    """What plain transformers loads, in float32."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return dict(model.state_dict())


def assert_same(model: Any, folder: Path) -> None:
    expected = oracle(folder)
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], value), name
