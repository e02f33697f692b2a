"""Every site of every family is the tensor that transformers itself, or a plain hook, gives there."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dynamics.models.architecture import model_shape
from dynamics.probes import LAST
from tests.models.families import (
    GPT2,
    HEADS,
    LAYERS,
    LENGTHS,
    MANY_EXPERTS,
    NORMED,
    SIDE_BY_SIDE,
    close,
    every_family,
    measured,
    model_of,
    probe,
    with_attention,
)


@cache
def by_transformers(kind: str, prompt: int) -> Any:
    """What transformers returns for one prompt alone."""
    with torch.no_grad():
        return model_of(kind)(
            input_ids=torch.from_numpy(probe().ids[prompt])[None],
            output_hidden_states=True,
            **({} if kind == "mamba" else {"output_attentions": True}),
        )


def hooked(kind: str, prompt: int, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(input, output) of a module for one prompt, by a plain hook."""
    kept: dict[str, Any] = {}

    def keep(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
        kept["input"] = args[0] if args else kwargs["hidden_states"]
        kept["output"] = output[0] if isinstance(output, tuple) else output

    handle = model_of(kind).get_submodule(module).register_forward_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            model_of(kind)(input_ids=torch.from_numpy(probe().ids[prompt])[None])
    finally:
        handle.remove()
    if kept["output"].ndim == 2:  # rows and tokens are one dimension
        return kept["input"], kept["output"]
    return kept["input"][0], kept["output"][0]


def at(value: torch.Tensor, prompt: int) -> np.ndarray:
    """The named positions of a (token, feature) tensor."""
    return value.detach().numpy()[[probe().positions[LAST][prompt], probe().positions["middle"][prompt]]]


def parts(kind: str) -> SimpleNamespace:
    """Where the modules are, written down apart from the table that is tested."""
    if kind.startswith("gpt_neox"):
        names = "gpt_neox.layers", "gpt_neox.embed_in", "gpt_neox.final_layer_norm", "attention.dense"
        return SimpleNamespace(
            **dict(zip(("blocks", "embed", "norm", "out"), names, strict=True)), down="mlp.dense_4h_to_h"
        )
    if kind in GPT2:
        return SimpleNamespace(
            blocks="transformer.h",
            embed="transformer.wte",
            norm="transformer.ln_f",
            out="attn.c_proj",
            down="mlp.c_proj",
        )
    if kind == "bloom":
        return SimpleNamespace(
            blocks="transformer.h",
            embed="transformer.word_embeddings",
            norm="transformer.ln_f",
            out="self_attention.dense",
            down="mlp.dense_4h_to_h",
        )
    if kind == "bert":
        return SimpleNamespace(
            blocks="bert.encoder.layer",
            embed="bert.embeddings.word_embeddings",
            norm="cls.predictions.transform.LayerNorm",
            out="attention.output.dense",
            down="output.dense",
        )
    other = {
        "gptj": ("transformer.h", "transformer.wte", "transformer.ln_f", "attn.out_proj", "mlp.fc_out"),
        "opt": ("model.decoder.layers", "model.decoder.embed_tokens", "", "self_attn.out_proj", "fc2"),
        "phi": ("model.layers", "model.embed_tokens", "", "self_attn.dense", "mlp.fc2"),
        "mamba": ("backbone.layers", "backbone.embeddings", "", "", ""),
        "falcon": ("transformer.h", "transformer.word_embeddings", "", "self_attention.dense", "mlp.dense_4h_to_h"),
    }.get(kind.split()[0], ("model.layers", "model.embed_tokens", "model.norm", "self_attn.o_proj", "mlp.down_proj"))
    return SimpleNamespace(**dict(zip(("blocks", "embed", "norm", "out", "down"), other, strict=True)))


def weight(kind: str, module: str) -> tuple[np.ndarray, np.ndarray]:
    """(in, out) matrix and bias of a projection."""
    linear = model_of(kind).get_submodule(module)
    matrix = linear.weight.detach().numpy()
    bias = np.zeros(1, dtype=np.float32) if linear.bias is None else linear.bias.detach().numpy()
    return (matrix if kind in GPT2 else matrix.T), bias


PROMPTS = range(len(LENGTHS))


# --- against transformers


@every_family
def test_residual_streams_are_the_hidden_states_of_transformers(kind: str) -> None:
    values = measured(kind)
    for prompt in PROMPTS:
        states = by_transformers(kind, prompt).hidden_states
        if kind == "mamba":  # which leaves out what enters the first block
            states = (torch.from_numpy(hooked(kind, prompt, "backbone.layers.0")[0].numpy())[None], *states)
            states = (*states[:-2], states[-1])
        assert len(states) == LAYERS + 1
        for layer in range(LAYERS):
            close(values["resid_pre"][prompt, :, layer], at(states[layer][0], prompt))
            if layer + 1 < LAYERS:  # the last of transformers' states is behind the final norm
                close(values["resid_post"][prompt, :, layer], at(states[layer + 1][0], prompt))
        if kind != "bert":  # whose final norm belongs to the head
            close(values["ln_final"][prompt], at(states[-1][0], prompt))
        _, last = hooked(kind, prompt, f"{parts(kind).blocks}.{LAYERS - 1}")
        close(values["resid_post"][prompt, :, -1], at(last, prompt))


@every_family
def test_logits_are_those_of_transformers(kind: str) -> None:
    for prompt in PROMPTS:
        close(measured(kind)["logits"][prompt], at(by_transformers(kind, prompt).logits[0], prompt))


@with_attention
def test_patterns_are_the_attentions_of_transformers(kind: str) -> None:
    found = measured(kind)["pattern"]
    assert found.shape == (len(LENGTHS), 2, LAYERS, HEADS, max(LENGTHS))
    for prompt, length in enumerate(LENGTHS):
        for layer, attention in enumerate(by_transformers(kind, prompt).attentions):
            expected = np.stack([at(head, prompt) for head in attention[0]], axis=1)  # (position, head, key)
            close(found[prompt, :, layer, :, :length], expected)
        assert np.isnan(found[prompt, ..., length:]).all()
    sums = np.nansum(found, axis=-1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)


@every_family
def test_embed_is_the_row_of_the_token(kind: str) -> None:
    table = model_of(kind).get_submodule(parts(kind).embed).weight.detach().numpy()
    table = table * (np.float32(32**0.5) if kind.startswith("gemma") else 1)  # its module scales them
    for prompt in PROMPTS:
        tokens = probe().ids[prompt][[probe().positions[name][prompt] for name in (LAST, "middle")]]
        close(measured(kind)["embed"][prompt], table[tokens])


@every_family
def test_ln_final_is_what_the_head_reads(kind: str) -> None:
    head = model_of(kind).get_output_embeddings()
    bias = 0.0 if head.bias is None else head.bias.detach().numpy()
    logits = measured(kind)["ln_final"] @ head.weight.detach().numpy().T + bias
    cap = getattr(model_of(kind).config, "final_logit_softcapping", None)
    close(cap * np.tanh(logits / cap) if cap else logits, measured(kind)["logits"])


@with_attention
def test_z_and_mlp_post_are_what_the_output_projections_read(kind: str) -> None:
    values, where = measured(kind), parts(kind)
    for prompt in PROMPTS:
        for layer in range(LAYERS):
            z, _ = hooked(kind, prompt, f"{where.blocks}.{layer}.{where.out}")
            close(values["z"][prompt, :, layer].reshape(2, -1), at(z, prompt))
            if kind in MANY_EXPERTS:  # each token has the neurons of other experts
                assert "mlp_post" not in values
                continue
            hidden, _ = hooked(kind, prompt, f"{where.blocks}.{layer}.{where.down}")
            close(values["mlp_post"][prompt, :, layer], at(hidden, prompt))


# --- identities


@with_attention
def test_a_block_adds_what_attention_and_mlp_write(kind: str) -> None:
    values = measured(kind)
    if kind == "bert":  # norms follow the additions
        for layer in range(LAYERS):
            block = f"bert.encoder.layer.{layer}"
            for before, added, after, norm in (
                ("resid_pre", "attn_out", "resid_mid", "attention.output.LayerNorm"),
                ("resid_mid", "mlp_out", "resid_post", "output.LayerNorm"),
            ):
                summed = torch.from_numpy(values[before][:, :, layer] + values[added][:, :, layer])
                with torch.no_grad():
                    close(values[after][:, :, layer], model_of(kind).get_submodule(f"{block}.{norm}")(summed).numpy())
    else:
        close(values["resid_post"], values["resid_pre"] + values["attn_out"] + values["mlp_out"])
    close(values["resid_pre"][:, :, 1:], values["resid_post"][:, :, :-1])


@with_attention
def test_the_middle_of_a_block_is_behind_attention_where_there_is_a_middle(kind: str) -> None:
    values = measured(kind)
    if kind in SIDE_BY_SIDE:
        assert "resid_mid" not in values
    elif kind != "bert":  # see above
        close(values["resid_mid"], values["resid_pre"] + values["attn_out"])


@with_attention
def test_attention_writes_z_through_the_output_matrix(kind: str) -> None:
    values, where = measured(kind), parts(kind)
    normed = kind in NORMED
    for layer in range(LAYERS):
        matrix, bias = weight(kind, f"{where.blocks}.{layer}.{where.out}")
        heads = values["z"][:, :, layer]  # (prompt, position, head, d_head)
        by_head = np.einsum("nphd,hdm->npm", heads, matrix.reshape(HEADS, -1, matrix.shape[-1])) + bias
        if normed:
            norm = model_of(kind).get_submodule(f"{where.blocks}.{layer}.post_attention_layernorm")
            with torch.no_grad():
                by_head = norm(torch.from_numpy(by_head)).numpy()
        close(values["attn_out"][:, :, layer], by_head)


@with_attention
def test_the_mlp_writes_its_neurons_through_the_down_matrix(kind: str) -> None:
    values, where, normed = measured(kind), parts(kind), kind in NORMED
    if kind in MANY_EXPERTS:
        pytest.skip("a mixture of experts has no one matrix")
    for layer in range(LAYERS):
        matrix, bias = weight(kind, f"{where.blocks}.{layer}.{where.down}")
        written = values["mlp_post"][:, :, layer] @ matrix + bias
        if normed:
            norm = model_of(kind).get_submodule(f"{where.blocks}.{layer}.post_feedforward_layernorm")
            with torch.no_grad():
                written = norm(torch.from_numpy(written)).numpy()
        close(values["mlp_out"][:, :, layer], written)


@with_attention
def test_a_head_reads_values_by_its_own_pattern(kind: str) -> None:
    """z of query head h is its pattern times the values of its group: heads are in the order of the pattern."""
    shape = model_shape(model_of(kind).config)
    for layer in range(LAYERS):
        close(
            measured(kind)["z"][0, :, layer],
            np.einsum("phk,khd->phd", measured(kind)["pattern"][0, :, layer], values_of(kind, layer, shape.d_head)),
        )


def values_of(kind: str, layer: int, d_head: int) -> np.ndarray:
    """(token, head, d_head) values of the first prompt, from the projection that makes them."""
    block = f"{parts(kind).blocks}.{layer}"
    if kind.startswith("gpt_neox"):  # per head: query, key, value
        _, qkv = hooked(kind, 0, f"{block}.attention.query_key_value")
        v = qkv.reshape(LENGTHS[0], HEADS, 3, d_head)[:, :, 2]
    elif kind == "bloom":  # per head: query, key, value
        _, qkv = hooked(kind, 0, f"{block}.self_attention.query_key_value")
        v = qkv.reshape(LENGTHS[0], HEADS, 3, d_head)[:, :, 2]
    elif kind == "bert":
        _, v = hooked(kind, 0, f"{block}.attention.self.value")
        v = v.reshape(LENGTHS[0], HEADS, d_head)
    elif kind == "falcon":  # all queries, one key, one value
        _, qkv = hooked(kind, 0, f"{block}.self_attention.query_key_value")
        v = qkv.reshape(LENGTHS[0], HEADS + 2, d_head)[:, -1:].repeat_interleave(HEADS, dim=1)
    elif kind == "falcon sequential":
        _, qkv = hooked(kind, 0, f"{block}.self_attention.query_key_value")
        v = qkv.reshape(LENGTHS[0], HEADS, 3, d_head)[:, :, 2]
    elif kind.startswith("falcon"):  # per group: its queries, its key, its value
        _, qkv = hooked(kind, 0, f"{block}.self_attention.query_key_value")
        v = qkv.reshape(LENGTHS[0], 2, HEADS // 2 + 2, d_head)[:, :, -1].repeat_interleave(HEADS // 2, dim=1)
    elif kind == "phi3":  # all queries, all keys, all values, two of which are shared
        _, qkv = hooked(kind, 0, f"{block}.self_attn.qkv_proj")
        v = qkv[:, -2 * d_head :].reshape(LENGTHS[0], 2, d_head).repeat_interleave(HEADS // 2, dim=1)
    elif kind in ("gptj", "opt"):
        _, v = hooked(kind, 0, f"{block}.{'attn' if kind == 'gptj' else 'self_attn'}.v_proj")
        v = v.reshape(LENGTHS[0], HEADS, d_head)
    elif kind in GPT2:  # all queries, all keys, all values
        _, qkv = hooked(kind, 0, f"{block}.attn.c_attn")
        v = qkv.reshape(LENGTHS[0], 3, HEADS, d_head)[:, 2]
    else:  # two key-value heads, each shared by two query heads
        _, v = hooked(kind, 0, f"{block}.self_attn.v_proj")
        v = (v.clamp(-1.0, 1.0) if kind == "olmo" else v).reshape(LENGTHS[0], 2, d_head)
        v = v.repeat_interleave(HEADS // 2, dim=1)
    return v.detach().numpy()
