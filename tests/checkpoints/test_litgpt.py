"""litgpt's folders are read as transformers would: the same logits, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from checkpoints import CheckpointError
from checkpoints.configs import read_config
from tests.checkpoints.foreign import (
    LIT_LLAMA,
    LIT_SIZES,
    as_litgpt,
    described,
    installed,
    llama,
    logits_of,
    neox,
    opened,
    read,
    save_litgpt,
)

LIT_NEOX = {**LIT_SIZES, "norm_class_name": "LayerNorm", "mlp_class_name": "GptNeoxMLP", "rotary_percentage": 0.25}


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
    assert described(prepared.config) == described(read_config(series.config_folder))


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
