"""Checkpoints as other programs write them, and how the tests open them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import transformers as hf
import yaml
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.nn import functional as F

from checkpoints import FolderConfig, FolderSeries
from checkpoints.loading import Prepared, ResidentModel

IDS = torch.randint(40, (2, 12), generator=torch.Generator().manual_seed(0))


State = dict[str, torch.Tensor]


def opened(path: Path, **more: object) -> FolderSeries:
    return FolderSeries(FolderConfig.model_validate({"path": path, **more}))


def read(series: FolderSeries, index: int = 0) -> Prepared:
    return series.read(series.fetch(series.checkpoints[index]))


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out = model.eval()(IDS)
    return out if isinstance(out, torch.Tensor) else out.logits


def installed(prepared: Prepared) -> torch.Tensor:
    """What the model computes that is built from what was read, strictly."""
    return logits_of(ResidentModel().install(prepared))


def drawn(model: Any, seed: int = 0) -> Any:
    """Every parameter drawn at random: no zeros and ones that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


class Block(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias)
        self.attn = nn.ModuleDict(
            {"c_attn": nn.Linear(width, 3 * width, bias=bias), "c_proj": nn.Linear(width, width, bias=bias)}
        )
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width, bias=bias), "c_proj": nn.Linear(4 * width, width, bias=bias)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.attn["c_attn"](self.ln_1(x)).split(width, dim=2)
        q, k, v = (p.view(batch, length, self.heads, -1).transpose(1, 2) for p in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.attn["c_proj"](mixed)
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class NanoGPT(nn.Module):
    def __init__(self, bias: bool = False, tied: bool = True) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(40, 16),
                "wpe": nn.Embedding(32, 16),
                "h": nn.ModuleList(Block(16, 2, bias) for _ in range(2)),
                "ln_f": nn.LayerNorm(16, bias=bias),
            }
        )
        self.lm_head = nn.Linear(16, 40, bias=False)
        if tied:
            self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def save_nanogpt(
    file: Path, trained: NanoGPT, step: int, *, bias: bool | None = False, compiled: bool = False, **more: Any
) -> Path:
    """As nanoGPT's training script saves: the optimizer has taken a step, and the config is a dict of settings."""
    file.parent.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.0)
    trained(IDS).sum().backward()
    optimizer.step()
    prefix = "_orig_mod." if compiled else ""
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 32, "vocab_size": 40, "dropout": 0.0}
    torch.save(
        {
            "model": {f"{prefix}{name}": value for name, value in trained.state_dict().items()},
            "optimizer": optimizer.state_dict(),
            "model_args": sizes if bias is None else {**sizes, "bias": bias},
            "iter_num": step,
            "best_val_loss": torch.tensor(1.5),
            "config": {"dataset": "shakespeare_char", "learning_rate": 1e-3, "compile": compiled},
            **more,
        },
        file,
    )
    return file


def neox(**more: Any) -> Any:
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return drawn(hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**{**sizes, "intermediate_size": 24, **more})))


def llama(**more: Any) -> Any:
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {"num_key_value_heads": 2, "max_position_embeddings": 32, "intermediate_size": 24, "rms_norm_eps": 1e-5}
    return drawn(hf.LlamaForCausalLM(hf.LlamaConfig(**{**sizes, **settings, **more})))


LIT_SIZES = {
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "block_size": 32,
    "padded_vocab_size": 40,
    "intermediate_size": 24,
}


LIT_LLAMA = {
    **LIT_SIZES,
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
    "n_query_groups": 2,
    "norm_eps": 1e-5,
    "rope_condense_ratio": 1,
    "norm_1": True,
}


LIT_NAMES = {
    "gpt_neox": [
        ("gpt_neox.embed_in", "transformer.wte"),
        ("gpt_neox.final_layer_norm", "transformer.ln_f"),
        ("gpt_neox.layers", "transformer.h"),
        ("input_layernorm", "norm_1"),
        ("post_attention_layernorm", "norm_2"),
        ("attention.dense", "attn.proj"),
        ("dense_h_to_4h", "fc"),
        ("dense_4h_to_h", "proj"),
    ],
    "llama": [
        ("model.embed_tokens", "transformer.wte"),
        ("model.norm", "transformer.ln_f"),
        ("model.layers", "transformer.h"),
        ("input_layernorm", "norm_1"),
        ("post_attention_layernorm", "norm_2"),
        ("self_attn.o_proj", "attn.proj"),
        ("gate_proj", "fc_1"),
        ("up_proj", "fc_2"),
        ("down_proj", "proj"),
    ],
}


def heads_of(state: State, layer: int, kind: str, config: Any) -> dict[str, list[torch.Tensor]]:
    """The rows of each head: ``q``, ``k`` and ``v`` to a list over heads."""
    if config.model_type == "gpt_neox":
        rows = state[f"gpt_neox.layers.{layer}.attention.query_key_value.{kind}"].chunk(config.num_attention_heads)
        parts = [head.chunk(3) for head in rows]
        return {name: [p[i] for p in parts] for i, name in enumerate("qkv")}
    size = config.head_dim
    return {n: list(state[f"model.layers.{layer}.self_attn.{n}_proj.{kind}"].split(size)) for n in "qkv"}


def as_litgpt(model: Any, *, legacy: bool = False) -> State:
    config, state = model.config, model.state_dict()
    result: State = {}
    for name, tensor in state.items():
        if any(part in name for part in ("query_key_value", "q_proj", "k_proj", "v_proj")):
            continue
        for theirs, lits in LIT_NAMES[config.model_type]:
            name = name.replace(theirs, lits)
        result[name] = tensor
    biased = any(name.endswith(("query_key_value.bias", "q_proj.bias")) for name in state)
    for layer in range(config.num_hidden_layers):
        for kind in ("weight", "bias") if biased else ("weight",):
            heads = heads_of(state, layer, kind, config)
            share = len(heads["q"]) // len(heads["k"])
            ordered = [*heads["q"], *heads["k"], *heads["v"]]
            if legacy:
                ordered = [
                    rows
                    for i, (k, v) in enumerate(zip(heads["k"], heads["v"], strict=True))
                    for rows in (*heads["q"][i * share : (i + 1) * share], k, v)
                ]
            result[f"transformer.h.{layer}.attn.{'attn' if legacy else 'qkv'}.{kind}"] = torch.cat(ordered)
    return result


def save_litgpt(folder: Path, state: State, said: dict[str, Any] | None, *, wrapped: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if said is not None:
        (folder / "model_config.yaml").write_text(yaml.safe_dump(said))
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
    torch.save(
        {"model": compiled, "optimizer": {"a": torch.ones(3)}, "step_count": 3} if wrapped else state,
        folder / "lit_model.pth",
    )
    return folder / "lit_model.pth"


def described(config: Any) -> dict[str, Any]:
    accidental = ("_name_or_path", "transformers_version", "dtype")
    return {name: value for name, value in config.to_dict().items() if name not in accidental}


def as_torchtitan(model: Any, *, new: bool = False) -> State:
    """Names and rows as torchtitan has them: rows 2i and 2i + 1 of a head are those that transformers turns together."""
    config, result = model.config, {}
    fused = "attention.qkv_linear" if new else "attention"
    names = {
        "model.embed_tokens": "tok_embeddings",
        "model.norm": "norm",
        "lm_head": "lm_head" if new else "output",
        "self_attn.q_proj": f"{fused}.wq",
        "self_attn.k_proj": f"{fused}.wk",
        "self_attn.v_proj": f"{fused}.wv",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "model.layers": "layers",
    }
    for name, tensor in model.state_dict().items():
        if "q_proj" in name or "k_proj" in name:
            half = config.head_dim // 2
            order = [i // 2 + half * (i % 2) for i in range(config.head_dim)]
            heads = tensor.shape[0] // config.head_dim
            tensor = tensor[[h * config.head_dim + i for h in range(heads) for i in order]]
        for theirs, titans in names.items():
            name = name.replace(theirs, titans)
        result[name] = tensor
    return result


def save_dcp(folder: Path, state: dict[str, Any]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    return folder / ".metadata"


def save_torchtitan(folder: Path, model: Any, *, prefix: str = "", new: bool = False) -> Path:
    state = {f"{prefix}{name}": tensor for name, tensor in as_torchtitan(model, new=new).items()}
    rest = {
        "optimizer": {f"state.{name}.exp_avg": torch.ones_like(tensor) for name, tensor in state.items()},
        "lr_scheduler": {"last_epoch": 3},
        "train_state": {"step": torch.tensor(3), "log": [1, 2]},
        "dataloader": {"rank_0": b"anything"},
        "freqs_cis": torch.ones(4, dtype=torch.complex64),
    }
    return save_dcp(folder, {**state, **rest})


def rewritten(file: Path, change: Callable[[Any], Any]) -> None:
    metadata = FileSystemReader(file.parent).read_metadata()
    change(metadata)
    file.write_bytes(pickle.dumps(metadata))


def toy(seed: int = 0) -> State:
    return {"embed.weight": torch.full((3, 2), float(seed)), "out.bias": torch.arange(3.0) + seed}


def save(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file


LISTS: dict[str, Any] = {
    "state_dicts and epochs": {"state_dicts": [toy(0), toy(1), toy(2)], "epochs": [0, 50, 400], "losses": [0.5] * 9},
    "checkpoints and checkpoint_epochs": {
        "checkpoints": [toy(0), toy(1), toy(2)],
        "checkpoint_epochs": [0, 50, 400],
        "model": toy(2),
        "epochs": 500,
        "config": {"d_model": 2},
    },
    "checkpoints that say it": [{"model": toy(i), "step": step} for i, step in enumerate((0, 50, 400))],
    "by step": {0: toy(0), 50: toy(1), 400: toy(2)},
    "checkpoints by step": {"checkpoints": {0: toy(0), 50: toy(1), 400: toy(2)}},
}
