"""Other people's layouts are read as what they are: the same logits as the model that was saved, or a refusal."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers as hf
import yaml
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.nn import functional as F

from checkpoints import CheckpointError, FolderConfig, FolderSeries, UserError
from checkpoints.layouts import LAYOUTS
from checkpoints.layouts.pickles import Inert
from checkpoints.layouts.torchfile import contents
from checkpoints.loading import Prepared, ResidentModel, read_config
from checkpoints.weights import TensorInfo

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


# --- nanoGPT, written once more in plain torch


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


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize(("bias", "said"), [(True, True), (False, False), (True, None), (False, None)])
def test_nanogpt_read_as_gpt2_computes_what_nanogpt_computes(
    tmp_path: Path, bias: bool, said: bool | None, compiled: bool
) -> None:
    model = drawn(NanoGPT(bias))
    series = opened(save_nanogpt(tmp_path / "out" / "ckpt.pt", model, 7, bias=said, compiled=compiled))
    prepared = read(series)
    assert (series.layout, [c.step for c in series.checkpoints]) == ("nanogpt", [7])
    assert (prepared.native, prepared.stored_dtype) == (False, "float32")
    assert prepared.config is not None and (prepared.config.n_positions, prepared.config.vocab_size) == (32, 40)
    gpt2 = hf.GPT2LMHeadModel(prepared.config)
    gpt2.load_state_dict(prepared.tensors, strict=True)
    torch.testing.assert_close(logits_of(gpt2), logits_of(model), atol=1e-5, rtol=0)
    torch.testing.assert_close(installed(prepared), logits_of(model), atol=1e-5, rtol=0)


def test_nanogpts_optimizer_is_not_read(tmp_path: Path) -> None:
    series = opened(save_nanogpt(tmp_path / "ckpt.pt", drawn(NanoGPT()), 7))
    tensors = read(series).tensors
    assert not any("optim" in name for name in {*tensors, *series.header(series.checkpoints[0])})
    for tensor in tensors.values():  # and what was read does not keep the rest of the file
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.parametrize("tied", [True, False])
def test_nanogpts_output_is_tied_where_the_weights_are(tmp_path: Path, tied: bool) -> None:
    model = drawn(NanoGPT(tied=tied))
    series = opened(save_nanogpt(tmp_path / "ckpt.pt", model, 7))
    assert read_config(series.config_folder).tie_word_embeddings is tied
    torch.testing.assert_close(installed(read(series)), logits_of(model), atol=1e-5, rtol=0)


def test_masks_that_old_versions_of_nanogpt_stored_are_left_out(tmp_path: Path) -> None:
    model = drawn(NanoGPT())
    for i, block in enumerate(model.transformer["h"]):
        block.attn.register_buffer("bias", torch.ones(1, 1, 32, 32).tril(), persistent=True)
        assert f"transformer.h.{i}.attn.bias" in model.state_dict()
    series = opened(save_nanogpt(tmp_path / "ckpt.pt", model, 7))
    assert not any(name.endswith("attn.bias") for name in series.header(series.checkpoints[0]))
    torch.testing.assert_close(installed(read(series)), logits_of(model), atol=1e-5, rtol=0)


def test_another_config_wins_over_what_nanogpt_says(tmp_path: Path) -> None:
    file = save_nanogpt(tmp_path / "ckpt.pt", drawn(NanoGPT()), 7)
    assert read_config(opened(file).config_folder).activation_function == "gelu"
    config = read_config(opened(file).config_folder)
    config.activation_function = "gelu_new"
    config.save_pretrained(tmp_path / "old")
    series = opened(file, config=tmp_path / "old")
    assert read(series).config.activation_function == "gelu_new"  # type: ignore[union-attr]
    assert series.config_folder == tmp_path / "old"
    assert not torch.equal(installed(read(series)), installed(read(opened(file))))


@pytest.mark.parametrize(
    "names", [["a/ckpt.pt", "b/ckpt.pt"], ["ckpt_1000.pt", "ckpt-000500.pt"], ["ckpt.pt", "old/ckpt_1.pt"]]
)
def test_nanogpts_steps_are_the_iterations_inside(tmp_path: Path, names: list[str]) -> None:
    for step, name in zip((2000, 30), names, strict=True):
        save_nanogpt(tmp_path / name, NanoGPT(), step)
    series = opened(tmp_path)
    assert [(c.step, c.revision, c.tokens) for c in series.checkpoints] == [
        (30, names[1], None),
        (2000, names[0], None),
    ]
    assert series.fetch(series.checkpoints[0]) == tmp_path / names[1]
    assert [c.tokens for c in opened(tmp_path, tokens_per_step=10).checkpoints] == [300, 20000]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"model_args": {"n_layer": 2}}, "model_args that cannot be used: n_head is None"),
        ({"model_args": {"n_layer": 2, "n_head": 3, "n_embd": 16, "block_size": 32, "vocab_size": 40}}, "n_head"),
        ({"model_args": {"n_layer": "two", "n_head": 2, "n_embd": 16, "block_size": 32, "vocab_size": 40}}, "'two'"),
        ({"model": {"transformer.moe.weight": torch.ones(2)}}, "1 tensor\\(s\\) that nanoGPT does not have"),
        ({"model": {"a": torch.ones(2), "_orig_mod.a": torch.ones(2)}}, "holds some tensors twice"),
    ],
)
def test_a_nanogpt_file_that_is_something_else_is_a_clear_error(tmp_path: Path, damage: Any, message: str) -> None:
    series = opened(save_nanogpt(tmp_path / "ckpt.pt", NanoGPT(), 7, **damage))
    with pytest.raises(CheckpointError, match=message):
        read(series)


@pytest.mark.parametrize("step", [None, -1, "7", 1.5, True])
def test_a_nanogpt_file_must_say_its_step(tmp_path: Path, step: Any) -> None:
    file = save_nanogpt(tmp_path / "ckpt.pt", NanoGPT(), step)
    with pytest.raises(CheckpointError, match="does not say its step: iter_num is"):
        opened(file, layout="nanogpt")


# --- litgpt, named by this file's own code


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
LIT_NEOX = {**LIT_SIZES, "norm_class_name": "LayerNorm", "mlp_class_name": "GptNeoxMLP", "rotary_percentage": 0.25}
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


LIT_CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "gpt_neox": (neox, LIT_NEOX),
    "gpt_neox, serial": (
        lambda: neox(use_parallel_residual=False, rotary_pct=1.0, rotary_emb_base=500),
        {**LIT_NEOX, "parallel_residual": False, "rotary_percentage": 1.0, "rope_base": 500},
    ),
    "gpt_neox, tanh": (lambda: neox(hidden_act="gelu_pytorch_tanh"), {**LIT_NEOX, "gelu_approximate": "tanh"}),
    "llama": (llama, LIT_LLAMA),
    "llama, one group": (
        lambda: llama(num_key_value_heads=1, head_dim=16),
        {**LIT_LLAMA, "n_query_groups": 1, "head_size": 16},
    ),
    "llama, no groups": (lambda: llama(num_key_value_heads=4), {**LIT_LLAMA, "n_query_groups": None}),
    "llama, biases": (lambda: llama(attention_bias=True, mlp_bias=True), {**LIT_LLAMA, "bias": True}),
    "llama, stretched": (
        lambda: llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
        {**LIT_LLAMA, "rope_condense_ratio": 4},
    ),
    "llama 3": (
        lambda: llama(
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        ),
        {
            **LIT_LLAMA,
            "rope_base": 500000,
            "rope_adjustments": {
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_seq_len": 16,
            },
        },
    ),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["qkv", "legacy qkv"])
@pytest.mark.parametrize("case", LIT_CASES)
def test_litgpt_read_as_transformers_computes_the_same(tmp_path: Path, case: str, legacy: bool) -> None:
    make, said = LIT_CASES[case]
    model = make()
    save_litgpt(tmp_path / "step-00000003", as_litgpt(model, legacy=legacy), said)
    series = opened(tmp_path)
    assert (series.layout, [c.step for c in series.checkpoints]) == ("litgpt", [3])
    prepared = read(series)
    assert prepared.tensors.keys() == model.state_dict().keys()
    torch.testing.assert_close(installed(prepared), logits_of(model), atol=1e-5, rtol=0)
    assert _described(prepared.config) == _described(read_config(series.config_folder))


def _described(config: Any) -> dict[str, Any]:
    accidental = ("_name_or_path", "transformers_version", "dtype")
    return {name: value for name, value in config.to_dict().items() if name not in accidental}


def test_litgpts_missing_biases_are_zeros(tmp_path: Path) -> None:
    model = neox()
    state = as_litgpt(model)
    for name, tensor in model.state_dict().items():
        if name.endswith(("dense.bias", "h.bias", "query_key_value.bias")):
            tensor.zero_()
            assert tensor.ndim == 1
    linear = ("qkv.bias", "proj.bias", "fc.bias")
    save_litgpt(
        tmp_path / "step-3", {n: t for n, t in state.items() if not n.endswith(linear)}, {**LIT_NEOX, "bias": False}
    )
    without = opened(tmp_path)
    assert read(without).config.attention_bias is False  # type: ignore[union-attr]
    torch.testing.assert_close(installed(read(without)), logits_of(model), atol=1e-5, rtol=0)


def test_litgpts_biases_of_queries_alone_are_read_as_llama_with_zeros(tmp_path: Path) -> None:
    model = llama(attention_bias=True)
    for name, tensor in model.state_dict().items():
        if name.endswith("o_proj.bias"):
            tensor.zero_()
    state = {n: t for n, t in as_litgpt(model).items() if not n.endswith("proj.bias")}
    save_litgpt(tmp_path / "step-3", state, {**LIT_LLAMA, "attn_bias": True})
    torch.testing.assert_close(installed(read(opened(tmp_path))), logits_of(model), atol=1e-5, rtol=0)


def test_litgpt_needs_no_yaml_where_a_config_is_given_and_the_file_may_be_a_plain_state_dict(tmp_path: Path) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    save_litgpt(tmp_path / "series" / "step-3", as_litgpt(model), None, wrapped=False)
    with pytest.raises(CheckpointError, match=r"model_config.yaml cannot be read") as refused:
        read(opened(tmp_path / "series"))
    assert "series.config" in str(refused.value)
    series = opened(tmp_path / "series", config=tmp_path / "config")
    torch.testing.assert_close(installed(read(series)), logits_of(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_qk": True}, "norm_qk: True"),
        ({"sliding_window_size": 4}, "sliding_window_size: 4"),
        ({"rope_adjustments": {"factor": 2.0, "beta_fast": 1, "beta_slow": 2}}, "rope_adjustments"),
        ({"rope_adjustments": {"factor": 2.0}, "rope_condense_ratio": 2}, "rope_adjustments"),
        ({"attention_scores_scalar": 3}, "attention_scores_scalar: 3"),
        ({"norm_1": False}, "norm_1: False"),
        ({"rotary_percentage": 0.5}, "rotary_percentage: 0.5"),
        ({"mlp_class_name": "GemmaMLP"}, "GemmaMLP"),
        ({**LIT_NEOX, "n_query_groups": 2}, "n_query_groups: 2"),
        ({**LIT_NEOX, "rotary_percentage": 0.4}, "rotary_percentage: 0.4"),
        ({**LIT_NEOX, "name": "OLMo-1B-hf"}, "not known here"),
        ({"some_new_thing": 3}, "some_new_thing: 3"),
        ({"n_embd": "wide"}, "cannot be used: n_embd is 'wide'"),
        ({"n_layer": 0}, "cannot be used: n_layer is 0"),
        ({"rope_base": "far"}, "cannot be used: rope_base is 'far'"),
        ({"n_head": 5, "head_size": None}, "cannot be used: "),
    ],
)
def test_what_litgpt_says_and_transformers_does_not_have_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    save_litgpt(tmp_path / "step-3", as_litgpt(llama()), {**LIT_LLAMA, **change})
    with pytest.raises(CheckpointError, match=message):
        read(opened(tmp_path))


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "3", "\0"])
def test_a_litgpt_config_that_is_none_is_a_clear_error(tmp_path: Path, content: str) -> None:
    file = save_litgpt(tmp_path / "step-3", as_litgpt(llama()), None)
    (file.parent / "model_config.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=r"model_config.yaml (cannot be read|holds a|cannot be used)"):
        read(opened(tmp_path))


def test_litgpts_tensors_of_another_size_or_model_are_named(tmp_path: Path) -> None:
    save_litgpt(tmp_path / "a" / "step-3", as_litgpt(llama()), {**LIT_LLAMA, "n_query_groups": 4})
    with pytest.raises(CheckpointError, match=r"attn.qkv.weight has 64 rows") as refused:
        read(opened(tmp_path / "a"))
    assert "4 queries and 4 keys" in str(refused.value)
    save_litgpt(
        tmp_path / "b" / "step-3", {**as_litgpt(llama()), "transformer.h.0.attn.lora_A": torch.ones(2)}, LIT_LLAMA
    )
    with pytest.raises(CheckpointError, match=r"litgpt's llama does not have: transformer.h.0.attn.lora_A"):
        read(opened(tmp_path / "b"))
    hf.GPT2Config().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(CheckpointError, match="cannot be read as 'gpt2'"):
        read(opened(tmp_path / "a", config=tmp_path / "gpt2"))


# --- torchtitan


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


@pytest.mark.parametrize("new", [False, True], ids=["names of 2024", "names of 2026"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_torchtitan_read_as_llama_computes_the_same(tmp_path: Path, prefix: str, new: bool) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    folder = tmp_path / "checkpoint" / "step-3"
    if prefix:
        save_dcp(folder, {"model": as_torchtitan(model, new=new), "optimizer": {"a": torch.ones(2)}})
    else:
        save_torchtitan(folder, model, new=new)
    series = opened(tmp_path / "checkpoint", config=tmp_path / "config")
    assert (series.layout, [c.step for c in series.checkpoints]) == ("torchtitan", [3])
    prepared = read(series)
    assert prepared.tensors.keys() == model.state_dict().keys()
    torch.testing.assert_close(installed(prepared), logits_of(model), atol=1e-5, rtol=0)
    assert not any("optim" in name for name in series.header(series.checkpoints[0]))


def test_the_rows_of_queries_and_keys_are_moved_as_the_rotation_wants(tmp_path: Path) -> None:
    """Attention as torchtitan computes it, by complex numbers over neighbouring rows, against transformers' attention."""
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    save_torchtitan(tmp_path / "series" / "step-3", model)
    state = as_torchtitan(model)
    x = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(1))

    def turned(rows: torch.Tensor) -> torch.Tensor:
        length, size = rows.shape[1], rows.shape[-1]
        angles = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(0, size, 2) / size))
        turns = torch.polar(torch.ones_like(angles), angles)[None, :, None]
        pairs = torch.view_as_complex(rows.reshape(*rows.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).flatten(-2)

    q, k, v = (x @ state[f"layers.0.attention.w{n}.weight"].T for n in "qkv")
    q, k = turned(q.view(1, 12, 4, 8)), turned(k.view(1, 12, 2, 8)).repeat_interleave(2, dim=2)
    v = v.view(1, 12, 2, 8).repeat_interleave(2, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(8)
    scores = scores.masked_fill(torch.ones(12, 12).triu(1).bool(), -torch.inf)
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(1, 12, 32)
    expected = mixed @ state["layers.0.attention.wo.weight"].T

    fresh = ResidentModel().install(read(opened(tmp_path / "series", config=tmp_path / "config")))
    position = torch.arange(12)[None]
    mask = torch.full((1, 1, 12, 12), -torch.inf).triu(1)
    with torch.no_grad():
        inner: Any = fresh.model
        turns = inner.rotary_emb(x, position)
        attention = inner.layers[0].self_attn
        got = attention(x, position_embeddings=turns, attention_mask=mask)[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_torchtitan_needs_a_config_of_llama(tmp_path: Path) -> None:
    save_torchtitan(tmp_path / "series" / "step-3", llama())
    with pytest.raises(UserError, match="do not say the architecture") as refused:
        opened(tmp_path / "series")
    assert "series.config" in str(refused.value)
    neox().config.save_pretrained(tmp_path / "config")
    with pytest.raises(CheckpointError, match="cannot be read as 'gpt_neox'"):
        read(opened(tmp_path / "series", config=tmp_path / "config"))
    llama(num_key_value_heads=4).config.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"attention.wk.weight has 16 rows"):
        read(opened(tmp_path / "series", config=tmp_path / "other"))


def test_torchtitans_tensors_of_another_model_are_named(tmp_path: Path) -> None:
    llama().config.save_pretrained(tmp_path / "config")
    save_dcp(tmp_path / "series" / "step-3", {**as_torchtitan(llama()), "layers.0.moe.router.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"torchtitan's Llama does not have: layers.0.moe.router.weight"):
        read(opened(tmp_path / "series", config=tmp_path / "config"))


def rewritten(file: Path, change: Callable[[Any], Any]) -> None:
    metadata = FileSystemReader(file.parent).read_metadata()
    change(metadata)
    file.write_bytes(pickle.dumps(metadata))


def test_a_tensor_in_several_parts_is_put_together(tmp_path: Path) -> None:
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

    from checkpoints.layouts.dcp import read_metadata, read_tensors

    whole = torch.randn(5, 3)
    file = save_dcp(tmp_path / "step-1", {"w": whole[:2].clone(), "rest": whole[2:].clone()})

    def join(metadata: Any) -> None:
        size = torch.Size
        metadata.state_dict_metadata["w"].size = size([5, 3])
        metadata.state_dict_metadata["w"].chunks += [
            ChunkStorageMetadata(size([2, 0]), size([3, 3])),
            ChunkStorageMetadata(size([5, 0]), size([0, 3])),  # of a process that had no rows
        ]
        del metadata.state_dict_metadata["rest"]
        rest = next(index for index in metadata.storage_data if index.fqn == "rest")
        metadata.storage_data[MetadataIndex("w", [2, 0])] = metadata.storage_data.pop(rest)

    rewritten(file, join)
    stored = read_metadata(file.parent)
    assert stored["w"].info == TensorInfo((5, 3), "float32")
    assert torch.equal(read_tensors(file.parent, stored, ["w"])["w"], whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.state_dict_metadata["norm.weight"].chunks.clear(), "do not make up the whole"),
        (lambda m: m.state_dict_metadata["norm.weight"].chunks.append(m.state_dict_metadata["norm.weight"].chunks[0]), "do not make up"),
        (lambda m: setattr(m.state_dict_metadata["norm.weight"].chunks[0], "offsets", torch.Size([1])), "cannot be read"),
        (lambda m: setattr(m.state_dict_metadata["norm.weight"].properties, "dtype", torch.float16), "is not what .metadata says"),
        (lambda m: [setattr(i, "relative_path", "../../secret") for i in m.storage_data.values()], "which is not there"),
        (lambda m: [setattr(i, "length", 10**9) for i in m.storage_data.values()], "is too short"),
        (lambda m: [setattr(i, "offset", i.offset + 1) for i in m.storage_data.values()], "cannot be read as weights"),
        (lambda m: [setattr(i, "transform_descriptors", ["zstd"]) for i in m.storage_data.values()], "compressed form"),
        (lambda m: m.storage_data.clear(), "cannot be read as weights"),
        (lambda m: setattr(m, "state_dict_metadata", None), "cannot be read as weights"),
    ],
)  # fmt: skip
def test_metadata_that_contradicts_the_files_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    file = save_torchtitan(tmp_path / "series" / "step-3", model)
    rewritten(file, change)
    with pytest.raises(CheckpointError, match=message):
        read(opened(tmp_path / "series", config=tmp_path / "config"))


def test_a_distributed_checkpoint_without_metadata_was_not_written_to_its_end(tmp_path: Path) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    for step in (1, 2):
        save_torchtitan(tmp_path / "series" / f"step-{step}", model)
    (tmp_path / "series" / "step-2" / ".metadata").unlink()
    series = opened(tmp_path / "series", config=tmp_path / "config")
    assert [bool(series.weight_files(c)) for c in series.checkpoints] == [True, False]
    for attempt in (lambda: series.header(series.checkpoints[1]), lambda: read(series, 1)):
        with pytest.raises(CheckpointError, match=r"no complete distributed checkpoint"):
            attempt()


# --- plain state dicts


def toy(seed: int = 0) -> State:
    return {"embed.weight": torch.full((3, 2), float(seed)), "out.bias": torch.arange(3.0) + seed}


def save(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step100.pth", 100),
        ("epoch_100.pt", 100),
        ("model_0100.pth", 100),
        ("100.pt", 100),
        ("ckpt-000500.pt", 500),
        ("model_epoch_12.pt", 12),
        ("checkpoint_7.bin", 7),
        ("state_dict_0.pt", 0),
    ],
)
def test_the_step_of_a_state_dict_is_the_number_in_its_name(tmp_path: Path, name: str, step: int) -> None:
    save(tmp_path / name, toy())
    series = opened(tmp_path)
    assert (series.layout, [(c.step, c.revision) for c in series.checkpoints]) == ("state-dicts", [(step, name)])
    prepared = read(series)
    assert (prepared.config, prepared.native) == (None, False)
    assert prepared.tensors.keys() == toy().keys()
    assert prepared.digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "step"),
    [
        ({"model": toy(), "step": 3200, "epoch": 2}, 3200),
        ({"state_dict": toy(), "epoch": 2}, 100),
        ({"model_state_dict": toy(), "iter": 5, "optimizer_state_dict": {"state": {0: {"x": torch.ones(2)}}}}, 5),
        ({"model": toy(), "args": argparse.Namespace(lr=0.1), "loss": np.float64(0.5), "path": Path("x")}, 100),
    ],
)
def test_what_a_file_says_inside_wins_over_its_name_but_for_an_epoch(tmp_path: Path, content: Any, step: int) -> None:
    save(tmp_path / "model_100.pt", content)
    series = opened(tmp_path)
    assert [c.step for c in series.checkpoints] == [step]
    assert {n: i.shape for n, i in series.header(series.checkpoints[0]).items()} == {
        "embed.weight": (3, 2),
        "out.bias": (3,),
    }
    assert torch.equal(read(series).tensors["embed.weight"], toy()["embed.weight"])


@pytest.mark.parametrize("other", ["optimizer_100.pt", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "x.pkl", "3.pkl", "training_args.bin", "model-00001-of-00002.bin"])  # fmt: skip
def test_files_that_are_no_state_dicts_by_their_names_are_never_opened(tmp_path: Path, other: str) -> None:
    save(tmp_path / "step1.pt", toy())
    (tmp_path / other).symlink_to("/dev/full/nowhere")  # opening it would fail
    assert [c.step for c in opened(tmp_path).checkpoints] == [1]


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, prefix: str) -> None:
    save(tmp_path / "step1.pt", {f"{prefix}{name}": tensor for name, tensor in toy().items()})
    series = opened(tmp_path)
    assert series.header(series.checkpoints[0]).keys() == read(series).tensors.keys() == toy().keys()


def test_state_dicts_in_transformers_names_are_read_with_a_config(tmp_path: Path) -> None:
    model = llama()
    model.config.to_json_file(tmp_path / "tiny.json")
    save(tmp_path / "series" / "step5.pt", model.state_dict())
    series = opened(tmp_path / "series", config=tmp_path / "tiny.json")
    torch.testing.assert_close(installed(read(series)), logits_of(model), atol=1e-5, rtol=0)
    assert _described(read_config(series.config_folder)) == _described(model.config)
    with pytest.raises(UserError, match="says the architecture") as refused:
        _ = opened(tmp_path / "series").config_folder
    assert "adapter" in str(refused.value)


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


@pytest.mark.parametrize("kind", LISTS)
def test_a_file_that_holds_a_list_of_state_dicts_is_a_series(tmp_path: Path, kind: str) -> None:
    series = opened(save(tmp_path / "run.pth", LISTS[kind]))
    assert [(c.step, c.revision) for c in series.checkpoints] == [
        (0, "run.pth#0"),
        (50, "run.pth#1"),
        (400, "run.pth#2"),
    ]
    digests = set()
    for i in range(3):
        prepared = read(series, i)
        digests.add(prepared.digest)
        assert all(torch.equal(prepared.tensors[name], tensor) for name, tensor in toy(i).items())
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in prepared.tensors.values())
    assert len(digests) == 3
    assert series.weight_files(series.checkpoints[1])[0].name == "run.pth"


def test_equal_elements_of_a_list_have_equal_digests(tmp_path: Path) -> None:
    series = opened(save(tmp_path / "run.pth", [toy(0), toy(1), toy(0), {"empty": torch.ones(0)}]), every=10)
    digests = [read(series, i).digest for i in range(4)]
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_a_list_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    series = opened(save(tmp_path / "run.pth", LISTS["by step"]))
    before = read(series, 1)
    save(tmp_path / "run.pth", {0: toy(5), 50: toy(6), 400: toy(7), 500: toy(8)})
    assert torch.equal(read(series, 1).tensors["embed.weight"], toy(6)["embed.weight"])
    assert torch.equal(before.tensors["embed.weight"], toy(1)["embed.weight"])


def test_a_list_in_the_format_before_torch_1_6_is_read(tmp_path: Path) -> None:
    torch.save([toy(0), toy(1)], tmp_path / "run.pth", _use_new_zipfile_serialization=False)
    series = opened(tmp_path / "run.pth", every=5)
    assert torch.equal(read(series, 1).tensors["embed.weight"], toy(1)["embed.weight"])
    assert read(series, 1).tensors["embed.weight"].untyped_storage().nbytes() == 24


def test_what_torch_does_not_read_safely_is_a_clear_error(tmp_path: Path) -> None:
    torch.save(toy(), tmp_path / "step1.pt", pickle_protocol=4)
    series = opened(tmp_path)
    assert series.header(series.checkpoints[0]).keys() == toy().keys()
    with pytest.raises(CheckpointError, match=r"cannot be read as weights: .*Unsupported operand"):
        read(series)


def test_the_steps_of_a_list_that_does_not_say_them_come_from_the_runs_file(tmp_path: Path) -> None:
    file = save(tmp_path / "run.pth", [toy(0), toy(1), toy(2)])
    assert [c.step for c in opened(file, steps=[0, 7, 9]).checkpoints] == [0, 7, 9]
    assert [c.step for c in opened(file, every=100).checkpoints] == [0, 100, 200]
    with pytest.raises(UserError, match=r"holds 3 state dict\(s\) and does not say their steps") as refused:
        opened(file)
    assert "series.every" in str(refused.value)
    with pytest.raises(UserError, match=r"`steps` names 2 step"):
        opened(file, steps=[0, 7])
    with pytest.raises(UserError, match="two checkpoints of step 7"):
        opened(file, steps=[0, 7, 7])


def test_steps_are_said_once(tmp_path: Path) -> None:
    file = save(tmp_path / "run.pth", LISTS["by step"])
    assert [c.step for c in opened(file, steps=[0, 50, 400]).checkpoints] == [0, 50, 400]
    with pytest.raises(UserError, match="the runs file says others"):
        opened(file, every=10)
    save_nanogpt(tmp_path / "nano" / "ckpt.pt", NanoGPT(), 7)
    with pytest.raises(UserError, match="'nanogpt', which says its steps itself"):
        opened(tmp_path / "nano", every=10)
    with pytest.raises(ValueError, match="give one of the two"):
        opened(file, every=10, steps=[1])
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        opened(file, steps=[-1])


def test_one_state_dict_alone_is_a_series_of_one(tmp_path: Path) -> None:
    assert [c.step for c in opened(save(tmp_path / "step9.pt", toy())).checkpoints] == [9]
    assert [c.step for c in opened(save(tmp_path / "x.pt", {"model": toy(), "epoch": 4})).checkpoints] == [4]
    file = save(tmp_path / "final.pt", toy())
    assert [c.step for c in opened(file, steps=[1000]).checkpoints] == [1000]
    with pytest.raises(UserError, match="does not say their steps"):
        opened(file)


@pytest.mark.parametrize("content", [[], {}, "text", 3, [toy(), "text"], {"model": {}}, {3: torch.ones(2)}, [[1, 2]]])
def test_a_file_without_state_dicts_is_a_clear_error(tmp_path: Path, content: Any) -> None:
    file = save(tmp_path / "run.pth", content)
    with pytest.raises(CheckpointError, match="holds no state dict") as refused:
        opened(file)
    assert str(file) in str(refused.value)
    assert "tensors by name" in str(refused.value)


# --- every layout


def save_transformers(folder: Path, seed: int) -> Path:
    drawn(llama(), seed).save_pretrained(folder)
    state = drawn(llama(), seed).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def saved(root: Path, layout: str, steps: tuple[int, ...] = (1, 2)) -> list[Path]:
    """A series; and the file of each checkpoint that is a pickle."""
    make: dict[str, Callable[[int], Path]] = {
        "transformers": lambda i: save_transformers(root / f"step{i}", i),
        "nanogpt": lambda i: save_nanogpt(root / f"ckpt_{i}.pt", drawn(NanoGPT(), i), i),
        "litgpt": lambda i: save_litgpt(root / f"step-{i:08d}", as_litgpt(drawn(llama(), i)), LIT_LLAMA),
        "torchtitan": lambda i: save_torchtitan(root / f"step-{i}", drawn(llama(), i)),
        "state-dicts": lambda i: save(root / f"step{i}.pt", toy(i)),
    }
    return [make[layout](step) for step in steps]


def series_of(root: Path, layout: str) -> FolderSeries:
    config = root.parent / "config"
    llama().config.save_pretrained(config)
    return opened(root, **({"config": config} if layout == "torchtitan" else {}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_series_is_found_listed_and_read_in_every_layout(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "series"
    root.mkdir()
    files = saved(root, layout)
    series = series_of(root, layout)
    assert series.layout == layout
    assert [c.step for c in series.checkpoints] == [1, 2]
    assert (series.name, series.origin) == ("series", str(root))
    for checkpoint, file in zip(series.checkpoints, files, strict=True):
        assert file.name in {f.name for f in series.weight_files(checkpoint)}
        for listed in series.weight_files(checkpoint):
            assert listed.size == (file.parent / listed.name).stat().st_size
            assert listed.sha256 is None
        prepared = series.read(series.fetch(checkpoint))
        sizes = sum(math.prod(info.shape) for info in series.header(checkpoint).values())
        stored = {id(t): t.numel() for t in prepared.tensors.values()}
        assert sum(stored.values()) <= sizes + 2 * 16 * 13 + 16  # biases of zeros
        assert {info.dtype for info in series.header(checkpoint).values()} == {"float32"}
        series.release(checkpoint)
        assert file.is_file()
    assert read(series, 0).digest != read(series, 1).digest
    if layout != "torchtitan":
        assert read(series, 0).digest == hashlib.sha256(files[0].read_bytes()).hexdigest()
    if layout != "state-dicts":
        resident = ResidentModel()
        for i in (0, 1, 0):
            resident.install(read(series, i))
        assert (resident.rebuilt, resident.in_place) == (1, 2)
        assert read_config(series.config_folder).hidden_size in (16, 32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_can_be_named(tmp_path: Path, layout: str) -> None:
    saved(tmp_path / "series", layout)
    llama().config.save_pretrained(tmp_path / "config")
    more = {"config": tmp_path / "config"} if layout == "torchtitan" else {}
    assert opened(tmp_path / "series", layout=layout, **more).layout == layout
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"is not a series in the layout '{layout}'") as refused:
        opened(tmp_path / "empty", layout=layout)
    assert LAYOUTS[layout].EXPECTED in str(refused.value)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_checkpoint_is_named_and_the_others_are_fine(tmp_path: Path, layout: str, kept: int) -> None:
    root = tmp_path / "series"
    root.mkdir()
    files = saved(root, layout)
    files[1].write_bytes(files[1].read_bytes()[:kept])
    series = series_of(root, layout)
    assert [c.step for c in series.checkpoints] == [1, 2]
    for attempt in (lambda: series.header(series.checkpoints[1]), lambda: read(series, 1)):
        with pytest.raises(CheckpointError, match="cannot be read as weights") as refused:
            attempt()
        assert str(files[1]) in str(refused.value)
    assert series.header(series.checkpoints[0])
    assert read(series, 0).tensors


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pickle_that_would_run_a_command_is_refused_named_and_not_run(
    tmp_path: Path, layout: str, zipped: bool
) -> None:
    root, mark = tmp_path / "series", tmp_path / "executed"
    root.mkdir()
    files = saved(root, layout)
    if layout == "torchtitan":
        metadata = FileSystemReader(files[1].parent).read_metadata()
        metadata.planner_data = Malicious(mark)
        files[1].write_bytes(pickle.dumps(metadata, protocol=4 if zipped else 2))
    else:
        content = torch.load(files[1], weights_only=True)
        torch.save({**content, "extra": Malicious(mark)}, files[1], _use_new_zipfile_serialization=zipped)
    series = series_of(root, layout)
    for attempt in (lambda: series.header(series.checkpoints[1]), lambda: read(series, 1)):
        with pytest.raises(
            CheckpointError, match="was refused: it is a pickle that holds more than tensors"
        ) as refused:
            attempt()
        assert str(files[1]) in str(refused.value)
        assert "posix.system" in str(refused.value)
    assert not mark.exists()
    assert read(series, 0).tensors


@pytest.mark.parametrize("layout", ["nanogpt", "litgpt", "state-dicts"])
def test_a_series_that_is_nothing_but_such_pickles_is_refused_by_name(tmp_path: Path, layout: str) -> None:
    root, mark = tmp_path / "series", tmp_path / "executed"
    root.mkdir()
    for file in saved(root, layout):
        torch.save({"model": toy(), "extra": Malicious(mark)}, file)
    with pytest.raises(CheckpointError, match=r"was refused: .*posix.system"):
        # where folders say the steps, the series is listed
        (lambda series: series.header(series.checkpoints[0]))(opened(root))
    assert not mark.exists()


def test_a_command_in_the_place_of_a_tensor_of_a_distributed_checkpoint_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    file = saved(tmp_path / "series", "torchtitan", (1,))[0]
    save(tmp_path / "bad", Malicious(mark))
    data = file.with_name("__0_0.distcp")
    data.write_bytes((tmp_path / "bad").read_bytes())

    def point(metadata: Any) -> None:
        for info in metadata.storage_data.values():
            info.offset, info.length = 0, data.stat().st_size

    rewritten(file, point)
    with pytest.raises(CheckpointError, match=r"distcp was refused: .*posix.system"):
        read(series_of(tmp_path / "series", "torchtitan"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"nonsense", b"PK\x03\x04nonsense", pickle.dumps({"a": 1}), pickle.dumps(0x1950A86A20F9469CFC6C)]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nonsense_is_a_clear_error(tmp_path: Path, layout: str, damage: bytes) -> None:
    root = tmp_path / "series"
    root.mkdir()
    files = saved(root, layout)
    files[0].write_bytes(damage)
    series = series_of(root, layout)
    for attempt in (lambda: series.header(series.checkpoints[0]), lambda: read(series)):
        with pytest.raises(CheckpointError, match=r"cannot be read as weights|was refused") as refused:
            attempt()
        assert str(files[0]) in str(refused.value)


def test_any_damage_to_a_pickle_is_a_clear_error_or_none(tmp_path: Path) -> None:
    """Bytes changed at random: whatever the damaged program does, it raises nothing else."""
    random = np.random.default_rng(0)
    file = saved(tmp_path / "series", "torchtitan", (1,))[0]
    series = series_of(tmp_path / "series", "torchtitan")
    torch.save({"model": toy()}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    sources = {
        file: lambda: series.header(series.checkpoints[0]),
        tmp_path / "legacy.pt": lambda: contents(tmp_path / "legacy.pt"),
    }
    for damaged, attempt in sources.items():
        whole = damaged.read_bytes()
        for _ in range(80):
            data = bytearray(whole)
            for place in random.integers(len(data), size=3):
                data[place] = random.integers(256)
            damaged.write_bytes(data)
            with contextlib.suppress(CheckpointError):
                attempt()


def test_a_pickle_cannot_change_what_its_names_stand_for(tmp_path: Path) -> None:
    """The instruction BUILD sets attributes of whatever is there, also of functions and classes."""
    for name in ("torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict", "argparse\nNamespace"):
        program = b"\x80\x02c" + name.encode() + b"\nN}X\x07\x00\x00\x00made_ofK\x01s\x86b."
        header = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
        (tmp_path / "x.pt").write_bytes(header + program)
        with contextlib.suppress(CheckpointError):
            contents(tmp_path / "x.pt")
    assert Inert().made_of == ()
    save(tmp_path / "y.pt", toy())
    assert contents(tmp_path / "y.pt")["out.bias"] == TensorInfo((3,), "float32")


def test_every_dtype_is_listed_as_torch_calls_it(tmp_path: Path) -> None:
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
    kinds += [torch.uint16, torch.float8_e4m3fn]
    state = {str(kind): torch.zeros(2, 3, dtype=kind) for kind in kinds} | {"p": nn.Parameter(torch.ones(1))}
    series = opened(save(tmp_path / "step1.pt", state))
    stored = series.header(series.checkpoints[0])
    assert {n: i for n, i in stored.items() if n != "p"} == {
        str(k): TensorInfo((2, 3), str(k).removeprefix("torch.")) for k in kinds
    }
    assert stored["p"] == TensorInfo((1,), "float32")
    assert all(
        torch.equal(value.float(), state[name].float())
        for name, value in read(series).tensors.items()
        if "complex" not in name
    )


def test_listing_a_series_imports_no_torch(tmp_path: Path) -> None:
    llama().config.save_pretrained(tmp_path / "config")
    for layout in LAYOUTS:
        saved(tmp_path / layout, layout)
    save(tmp_path / "run.pth", LISTS["by step"])
    script = f"""
import sys
from pathlib import Path
from checkpoints.local import FolderConfig, FolderSeries
root = Path({str(tmp_path)!r})
for name in {[*LAYOUTS, "run.pth"]}:
    config = root / "config" if name == "torchtitan" else None
    series = FolderSeries(FolderConfig(path=root / name, config=config))
    for checkpoint in series.checkpoints:
        assert series.weight_files(checkpoint)
        assert name == "transformers" or series.header(checkpoint)
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], timeout=60)


# --- which layout


def test_a_folder_in_two_layouts_must_say_which(tmp_path: Path) -> None:
    saved(tmp_path / "series", "transformers")
    saved(tmp_path / "series", "litgpt", (3, 4))
    with pytest.raises(
        UserError, match=r"in several layouts \(transformers: step1; litgpt: step-00000003\)"
    ) as refused:
        opened(tmp_path / "series")
    assert "transformers or litgpt" in str(refused.value)
    assert opened(tmp_path / "series", layout="litgpt").layout == "litgpt"


def test_nanogpts_files_can_be_read_as_plain_state_dicts(tmp_path: Path) -> None:
    saved(tmp_path, "nanogpt")
    series = opened(tmp_path, layout="state-dicts")
    assert [c.step for c in series.checkpoints] == [1, 2]
    assert (read(series).config, "transformer.wte.weight" in read(series).tensors) == (None, True)


def test_a_damaged_file_that_does_not_say_its_step_stops_the_series(tmp_path: Path) -> None:
    save_nanogpt(tmp_path / "a" / "ckpt.pt", NanoGPT(), 1)
    save_nanogpt(tmp_path / "step-5" / "ckpt.pt", NanoGPT(), 5).write_bytes(b"")
    assert [c.step for c in opened(tmp_path).checkpoints] == [1, 5]
    save(tmp_path / "b" / "ckpt.pt", {"model": toy()})
    with pytest.raises(CheckpointError, match="is not a checkpoint of nanoGPT") as refused:
        opened(tmp_path)
    assert "move it away" in str(refused.value)


def test_nothing_lists_the_layouts_and_what_was_seen(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    save(tmp_path / "grokking.pth", [toy()])
    with pytest.raises(UserError, match=r"no sub-folder at all; files: grokking.pth, notes.txt") as refused:
        opened(tmp_path)
    for layout in LAYOUTS.values():
        assert layout.EXPECTED in str(refused.value)
    assert "the one file that holds them all" in str(refused.value)


def test_a_folder_of_weights_without_a_config_is_read_with_the_given_one(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path / "series" / "step-3")
    shutil.move(tmp_path / "series" / "step-3" / "config.json", tmp_path / "config.json")
    with pytest.raises(UserError, match="is not a series"):
        opened(tmp_path / "series")
    series = opened(tmp_path / "series", config=tmp_path)
    prepared = read(series)
    assert (series.layout, prepared.native, series.config_folder) == ("transformers", False, tmp_path)
    torch.testing.assert_close(installed(prepared), logits_of(model), atol=1e-5, rtol=0)


def test_a_missing_config_is_a_clear_error(tmp_path: Path) -> None:
    saved(tmp_path, "transformers")
    with pytest.raises(UserError, match="there is no config") as refused:
        opened(tmp_path, config=tmp_path / "nowhere")
    assert "series.config" in str(refused.value)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be used"):
        read(opened(tmp_path, config=tmp_path / "bad.json"))
