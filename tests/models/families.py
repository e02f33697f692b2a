"""One tiny random model of every family, and what the tracer measures at its sites."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from dynamics.measurements import Activations
from dynamics.measurements.forward import measure
from dynamics.models.architecture import architecture, model_shape
from dynamics.models.sites import site_table
from dynamics.probes import LAST, Probe, TokenizedProbe

VOCAB, LAYERS, HEADS = 50, 3, 4
LENGTHS = (7, 5, 7, 3)
TOY = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": 16,
    "attn_implementation": "eager",
}
GROUPED = {**TOY, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
EXPERTS = {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FALCON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "ffn_hidden_size": 48,
    "max_position_embeddings": 16,
}

CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt_neox": lambda: hf.GPTNeoXConfig(**TOY),
    "gpt_neox sequential": lambda: hf.GPTNeoXConfig(**TOY, use_parallel_residual=False),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=16,
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    ),
    "llama": lambda: hf.LlamaConfig(**GROUPED),
    "mistral": lambda: hf.MistralConfig(**GROUPED, sliding_window=4),
    "qwen2": lambda: hf.Qwen2Config(**GROUPED),
    "qwen3": lambda: hf.Qwen3Config(**GROUPED, head_dim=12),  # heads that are not d_model / heads wide
    "olmo": lambda: hf.OlmoConfig(**GROUPED, clip_qkv=1.0),
    "olmo2": lambda: hf.Olmo2Config(**GROUPED),
    "olmo3": lambda: hf.Olmo3Config(**GROUPED, sliding_window=4),
    "smollm3": lambda: hf.SmolLM3Config(**GROUPED),
    "olmoe": lambda: hf.OlmoeConfig(**GROUPED, num_experts=4, num_experts_per_tok=2),
    "apertus": lambda: hf.ApertusConfig(**GROUPED),
    "bloom": lambda: hf.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=LAYERS, n_head=HEADS),
    "bert": lambda: hf.BertConfig(**TOY),
    "gptj": lambda: hf.GPTJConfig(
        vocab_size=VOCAB, n_embd=32, n_layer=LAYERS, n_head=HEADS, n_positions=16, n_inner=48, rotary_dim=4, **ENDS
    ),
    "opt": lambda: hf.OPTConfig(**TOY, ffn_dim=48, word_embed_proj_dim=32),
    "phi": lambda: hf.PhiConfig(**GROUPED),
    "phi3": lambda: hf.Phi3Config(**GROUPED),
    "gemma": lambda: hf.GemmaConfig(**GROUPED, head_dim=12),
    "gemma2": lambda: hf.Gemma2Config(**GROUPED, head_dim=12, sliding_window=4),
    "gemma3_text": lambda: hf.Gemma3TextConfig(**GROUPED, head_dim=12, sliding_window=4),
    "stablelm": lambda: hf.StableLmConfig(**GROUPED, use_qkv_bias=True),
    "stablelm parallel": lambda: hf.StableLmConfig(**GROUPED, use_parallel_residual=True, qk_layernorm=True),
    "qwen2_moe": lambda: hf.Qwen2MoeConfig(**EXPERTS, shared_expert_intermediate_size=24),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(**EXPERTS, head_dim=12),
    "falcon": lambda: hf.FalconConfig(**FALCON, multi_query=True, parallel_attn=True, new_decoder_architecture=False),
    "falcon grouped": lambda: hf.FalconConfig(**FALCON, num_kv_heads=2, new_decoder_architecture=True),
    "falcon grouped one norm": lambda: hf.FalconConfig(
        **FALCON, num_kv_heads=2, new_decoder_architecture=True, num_ln_in_parallel_attn=1
    ),
    "falcon sequential": lambda: hf.FalconConfig(
        **FALCON, multi_query=False, parallel_attn=False, new_decoder_architecture=False, alibi=True, bias=True
    ),
    "mamba": lambda: hf.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=LAYERS, state_size=4),
    # as the published GPT-2 replications of Stanford CRFM were trained
    "gpt2 upcast": lambda: hf.GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=16,
        reorder_and_upcast_attn=True,
        scale_attn_by_inverse_layer_idx=True,
        bos_token_id=0,
        eos_token_id=0,
    ),
}
"""One tiny model of every family; grouped-query attention wherever the architecture has it."""
GPT2 = ("gpt2", "gpt2 upcast")
OTHERS = ("bert", "mamba")
"""Those that have no wiring: no stream that is a sum, no attention."""
SIDE_BY_SIDE = (
    "gpt_neox", "gptj", "phi", "stablelm parallel", "falcon", "falcon grouped", "falcon grouped one norm",
)  # fmt: skip
"""Those whose attention and MLP read the same stream."""
MORE = (
    *("gptj", "opt", "phi", "phi3", "gemma", "gemma2", "gemma3_text", "stablelm", "stablelm parallel", "mamba"),
    *("qwen2_moe", "qwen3_moe", "falcon", "falcon grouped", "falcon grouped one norm", "falcon sequential"),
)
"""Those whose layers are of kinds that others have: what is slow and does not depend on tables is tested without them."""
MANY_EXPERTS = ("olmoe", "qwen2_moe", "qwen3_moe")
NORMED = ("olmo2", "olmo3", "gemma2", "gemma3_text")
"""Those that have a norm behind attention and behind the MLP."""


@cache
def model_of(kind: str) -> Any:
    """A model whose every parameter is random, norms and biases too."""
    torch.manual_seed(0)
    auto = hf.AutoModelForMaskedLM if kind == "bert" else hf.AutoModelForCausalLM
    model = auto.from_config(CONFIGS[kind](), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + any(word in name.lower() for word in ("norm", "ln_")))
    return model


@cache
def probe() -> TokenizedProbe:
    """Random prompts of several lengths, with a position in the middle."""
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(2, VOCAB, length) for length in LENGTHS)
    text = tuple(f"prompt {i}" for i in range(len(ids)))
    positions = {LAST: np.array(LENGTHS) - 1, "middle": np.array([3, 1, 0, 2])}
    return TokenizedProbe(Probe("p", text), ids, None, None, None, positions, {})


@cache
def measured(kind: str) -> dict[str, np.ndarray]:
    """Every site of the model as the tracer measures it, at two positions."""
    model = model_of(kind)
    table, shape = site_table(model.config), model_shape(model.config)
    wanted = [Activations(site, (LAST, "middle")) for site in table.sites]
    result = measure(model, probe(), wanted, architecture=architecture(model.config))
    for measurement in wanted:
        (declared,) = measurement.declare(probe(), shape)
        assert result[measurement.site].shape == declared.shape
    return result


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


every_family = pytest.mark.parametrize("kind", CONFIGS)
with_attention = pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "mamba"])
