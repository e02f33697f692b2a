"""A series of tiny models as somebody would publish it on a hub, and a run that collects it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import save

from checkpoints.hub import HubConfig
from checkpoints.organism import build_tokenizer
from dynamics.runs.config import ProbeEntry, Run
from tests.loopback import Hub

REPO = "lab/tiny-pythia"
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 21000, 1000)]
"""31 of them, spaced as Pythia's."""


def config() -> hf.GPTNeoXConfig:
    size = len(build_tokenizer())
    return hf.GPTNeoXConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=0,
    )


def trained() -> dict[int, dict[str, torch.Tensor]]:
    """Weights that walk: every checkpoint is nearest to its neighbours; 0 and 1 are the same, as in Pythia."""
    torch.manual_seed(0)
    model = hf.GPTNeoXForCausalLM(config())
    now = {name: value.clone() for name, value in model.state_dict().items()}
    towards = {name: torch.randn_like(value) * 0.1 for name, value in now.items()}
    result = {}
    for step in STEPS:
        rate = 0.0 if step <= 1 else 0.05
        now = {n: v + rate * (towards[n] + torch.randn_like(v) * 0.02) for n, v in now.items()}
        result[step] = {n: v.clone() for n, v in now.items()}
    return result


def files(tensors: dict[str, torch.Tensor]) -> dict[str, bytes | str]:
    return {"config.json": config().to_json_string(), "model.safetensors": save(tensors), "README.md": "# tiny"}


def sharded(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, bytes | str]:
    """Two shards: the first half of the tensors of ``one``, the second of ``other``."""
    names = sorted(one)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    index = {"metadata": {}, "weight_map": {n: file for file, part in parts.items() for n in part}}
    result: dict[str, bytes | str] = {
        "config.json": config().to_json_string(),
        "model.safetensors.index.json": json.dumps(index),
    }
    for source, (file, part) in zip((one, other), parts.items(), strict=True):
        result[file] = save({n: source[n] for n in part})
    return result


def published(hub: Hub, tmp_path: Path) -> dict[int, dict[str, torch.Tensor]]:
    """A clean series: every step a branch, ``main`` the last one with a tokenizer."""
    weights = trained()
    repo = hub.repo(REPO)
    for step, tensors in weights.items():
        repo.branch(f"step{step}", files(tensors))
    folder = tmp_path / "tokenizer"
    build_tokenizer().save_pretrained(folder)
    tokenizer = {p.name: p.read_bytes() for p in folder.iterdir()}
    repo.branch("main", {**files(weights[STEPS[-1]]), **tokenizer})
    return weights


def run(tmp_path: Path, **series: object) -> Run:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"text": "36+59=", "answer": "0"}\n{"text": "12+34=", "answer": "0"}\n')
    return Run(
        series=HubConfig.model_validate({"repo": REPO, **series}),
        probes={"sums": ProbeEntry(file=prompts, sites=("resid_post",))},
    )


def weight_bytes(cache: Path) -> int:
    """Bytes of weights in the cache now."""
    return sum(
        p.stat().st_size for p in cache.rglob("*") if p.is_file() and p.stat().st_size > 4000 and "token" not in p.name
    )
