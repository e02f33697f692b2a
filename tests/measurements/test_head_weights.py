"""What the weights of heads say, against models whose weights were set by hand and the definitions written out."""

from __future__ import annotations

from itertools import product
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers as hf

from dynamics.circuits.heads import compositions, head_matrices, positivity, written_by
from dynamics.circuits.norms import gain_of
from dynamics.circuits.wired import Wired
from dynamics.measurements import HeadAttention, HeadCopying, HeadSuccession, HeadWeights, heads
from dynamics.models.architecture import architecture
from dynamics.models.sites import observe
from tests.measurements.handmade_heads import VOCAB, WORDS, found, gpt2, set_output, tokens
from tests.models.families import CONFIGS, OTHERS, model_of

CAUSAL = [kind for kind in CONFIGS if kind not in OTHERS]


def llama(d_model: int = 16, layers: int = 2) -> Any:
    """A Llama of two layers with two heads of four dimensions, whose attention is zero."""
    config = hf.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=d_model,
        num_hidden_layers=layers,
        num_attention_heads=2,
        head_dim=4,
        intermediate_size=8,
        attn_implementation="eager",
    )
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for layer in model.model.layers:
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                getattr(layer.self_attn, name).weight.zero_()
    return model


def naive_matrices(wired: Wired, layer: int) -> dict[str, list[torch.Tensor]]:
    """(d_model, d_model) W_Q^T W_K and W_O W_V of every query head, norms folded in, in full size."""
    graph, model = wired.graph, wired.model
    d = wired.architecture.shape.d_model
    final = model.get_submodule(wired.architecture.table.outside["ln_final"].module)
    centring = torch.eye(d) - torch.ones(d, d) / d

    def map_of(norm: Any) -> torch.Tensor:
        gain = gain_of(norm)
        scaled = torch.eye(d) if gain is None else torch.diag(gain.detach())
        return scaled @ centring if "LayerNorm" in type(norm).__name__ else scaled

    read = torch.eye(d) if wired.norm(layer) is None else map_of(wired.norm(layer))
    weight = wired.reading_matrices(layer)[0].detach()
    output = wired.output_matrices(layer).detach()
    behind = wired.wiring.after
    post = torch.eye(d)
    if behind is not None:
        block = model.get_submodule(wired.architecture.table.block.format(layer))
        post = torch.diag(cast(torch.Tensor, gain_of(block.get_submodule(behind))).detach())
    last = centring if "LayerNorm" in type(final).__name__ else torch.eye(d)
    share = graph.heads // graph.kv_heads
    qk, ov = [], []
    for head in range(graph.heads):
        q = weight[head] @ read
        k = weight[graph.heads + head // share] @ read
        v = weight[graph.heads + graph.kv_heads + head // share] @ read
        qk.append(q.T @ k)
        ov.append(last @ post @ output[head].T @ v)
    return {"qk": qk, "ov": ov}


def ratio(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one @ other).norm() / (one.norm() * other.norm()))


@pytest.mark.parametrize("kind", CAUSAL)
def test_composition_is_that_of_the_full_matrices(kind: str) -> None:
    model = model_of(kind)
    wired = Wired(model, architecture(model.config))
    graph = wired.graph
    composed = compositions(wired)
    naive = [naive_matrices(wired, layer) for layer in range(graph.layers)]
    share = graph.heads // graph.kv_heads
    per_layer = graph.heads + 2 * graph.kv_heads
    assert composed.scores.shape == (graph.layers * graph.heads, graph.layers * per_layer)
    for layer, source_layer in product(range(graph.layers), repeat=2):
        block = composed.scores[source_layer * graph.heads :][: graph.heads, layer * per_layer :][:, :per_layer]
        if source_layer >= layer:
            assert torch.isnan(block).all()
            continue
        for source in range(graph.heads):
            moved, here = naive[source_layer]["ov"][source], naive[layer]
            expected = [ratio(matrix.T, moved) for matrix in here["qk"]]
            for name in ("qk", "ov"):  # heads that share keys and values are one reader
                expected += [
                    ratio(torch.cat(here[name][kv * share : (kv + 1) * share]), moved) for kv in range(graph.kv_heads)
                ]
            np.testing.assert_allclose(block[source].detach(), expected, rtol=2e-4)
    singular = torch.linalg.svdvals(naive[1]["ov"][2]).double()
    rank = (singular**2).sum() ** 2 / (singular**4).sum()
    np.testing.assert_allclose(composed.source_rank[graph.heads + 2].detach(), rank.detach(), rtol=1e-3)
    singular = torch.linalg.svdvals(naive[1]["qk"][1]).double()
    rank = (singular**2).sum() ** 2 / (singular**4).sum()
    np.testing.assert_allclose(composed.reader_rank[per_layer + 1].detach(), rank.detach(), rtol=1e-3)


@pytest.mark.parametrize("kind", CAUSAL)
def test_positivity_is_that_of_the_matrix_in_token_space(kind: str) -> None:
    model = model_of(kind)
    wired = Wired(model, architecture(model.config))
    embedding = model.get_input_embeddings().weight.detach()
    final = model.get_submodule(wired.architecture.table.outside["ln_final"].module)
    gain = gain_of(final)
    out = wired.unembedding().detach() * (1 if gain is None else gain.detach())
    if "LayerNorm" in type(final).__name__:
        out = out - out.mean(-1, keepdim=True)
    expected = []
    for layer in range(wired.graph.layers):
        for moved in naive_matrices(wired, layer)["ov"]:
            values = torch.linalg.eigvals((out @ moved @ embedding.T).double())
            expected.append(values.real.sum() / values.abs().sum())
    np.testing.assert_allclose(positivity(wired).reshape(-1), torch.stack(expected), atol=2e-3)


@pytest.mark.parametrize("kind", CAUSAL)
def test_what_a_head_writes_is_what_the_model_writes(kind: str) -> None:
    """On prompts of one token every head attends to that token alone."""
    config = CONFIGS[kind]()
    config.clip_qkv = None  # what clips values is no linear map
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.zero_()
            elif parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
            else:
                parameter.uniform_(0.5, 1.5)
    wired = Wired(model, architecture(model.config))
    ids = torch.arange(3, 8)[:, None]
    streams: list[torch.Tensor] = []
    with (
        torch.no_grad(),
        observe(
            model, wired.architecture.table, frozenset({"resid_pre"}), 2, lambda _s, _l, v: streams.append(v[:, 0])
        ),
    ):
        model(input_ids=ids)
    written = wired.written(ids)[:, :, 0].transpose(0, 1)  # (row, source, d_model)
    centred = "LayerNorm" in type(model.get_submodule(wired.architecture.table.outside["ln_final"].module)).__name__
    for layer in range(2):
        exact = written[:, wired.graph.attention_sources(layer)].detach()
        exact = exact - exact.mean(-1, keepdim=True) if centred else exact
        own = written_by(wired, layer, streams[layer]).detach()
        if wired.wiring.after is not None:  # the scale of the norm behind the heads is left out
            own = own * (exact.norm(dim=(1, 2)) / own.norm(dim=(1, 2)))[:, None, None]
        np.testing.assert_allclose(own, exact, rtol=2e-3, atol=2e-3)


def test_a_pair_that_composes_through_keys_and_no_other_does() -> None:
    """L0H0 writes to dimensions 0 to 3, from which the keys of L1H0 read; everything else reads elsewhere."""
    model = llama()
    rows = torch.eye(16)
    first, second = (layer.self_attn for layer in model.model.layers)
    with torch.no_grad():
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            first.v_proj.weight[part] = rows[8:12]
            first.o_proj.weight[:, part] = rows[:, 0:4] if head == 0 else rows[:, 4:8]
            second.q_proj.weight[part] = rows[8:12]
            second.k_proj.weight[part] = rows[0:4] if head == 0 else rows[12:16]
            second.v_proj.weight[part] = rows[12:16]
            second.o_proj.weight[:, part] = rows[:, 12:16]
            first.q_proj.weight[part], first.k_proj.weight[part] = rows[8:12], rows[12:16]
    values = found(model, WORDS, HeadWeights())
    declared = HeadWeights().declare(WORDS, architecture(model.config).shape)[1].coords
    sources, readers = list(declared["source"]), list(declared["reader"])
    assert sources == ["L0H0", "L0H1", "L1H0", "L1H1"] and readers[6:8] == ["L1H0.q", "L1H1.q"]
    composed = values["composition"] + 16**-0.5
    pair = sources.index("L0H0"), readers.index("L1H0.k")
    assert composed[pair] == pytest.approx(0.5)  # 1 / sqrt(d_head): all that is written is read
    composed[pair] = 0
    assert np.nanmax(composed) == pytest.approx(0, abs=1e-6)
    assert np.isnan(values["composition"][2:]).all() and np.isnan(values["composition"][:2, :6]).all()
    assert values["source_rank"][0] == pytest.approx(4) and values["stream_dimensions"] == 16


def test_unrelated_heads_lie_at_the_baseline_with_the_stated_spread() -> None:
    """Random weights of uneven singular values: d times the square is chi-squared over its degrees of freedom."""
    config = hf.GPTNeoXConfig(
        vocab_size=20, hidden_size=128, num_hidden_layers=4, num_attention_heads=8, intermediate_size=32
    )
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for layer in model.gpt_neox.layers:
            scales = 0.6 ** torch.arange(16.0).repeat(24)[:, None]
            layer.attention.query_key_value.weight.normal_().mul_(scales)
            layer.attention.dense.weight.normal_()
    wired = Wired(model, architecture(model.config))
    with torch.no_grad():
        composed = compositions(wired)
    assert composed.dimensions == 127
    squares = composed.scores.numpy() ** 2 * composed.dimensions
    freedom = np.outer(composed.source_rank.numpy(), composed.reader_rank.numpy())
    z = ((squares - 1) / np.sqrt(2 / freedom))[np.isfinite(squares)]
    assert len(z) == 6 * 8 * 24
    assert abs(z.mean()) < 0.15
    assert 0.85 < z.std() < 1.15
    assert np.nanmean(squares) == pytest.approx(1, rel=0.05)


def test_models_that_are_broken_give_nan_and_no_error() -> None:
    model = gpt2(layers=2)
    set_output(model, 0, 0, torch.eye(VOCAB))
    with torch.no_grad():
        model.transformer.h[1].attn.c_attn.weight[0, 0] = torch.nan
        model.transformer.h[1].attn.c_proj.weight.fill_(torch.nan)
    lists = tokens(*[[t] for t in range(4)], series=("a",) * 4, place=tuple(range(4)))
    values = found(model, WORDS, HeadCopying(top=1), HeadWeights()) | found(model, lists, HeadSuccession())
    assert np.isnan(values["copying"][:, 1]).all() and (values["raised"][:, 1] == -1).all()
    assert np.isnan(values["copying_positivity"][1]).all()
    assert (values["copying"][:, 0, 0] == 1).all()


@pytest.mark.parametrize("kind", CAUSAL)
def test_every_family_is_measured(kind: str) -> None:
    model = model_of(kind)
    probe = tokens(*[[2, 3, token] for token in range(4, 16)], series=("a",) * 12, place=tuple(range(12)))
    values = found(model, probe, HeadAttention((3,)), HeadCopying(), HeadSuccession(), HeadWeights())
    dense = [name for name in heads.ATTENTION_SCORES if "occurrence" not in name]
    for name in (*dense, "copying", "copying_control", "copying_positivity", "source_rank", "reader_rank"):
        assert np.isfinite(values[name]).all(), name
    assert (values["raised"] >= 0).all()
    shape = architecture(model.config).shape
    assert head_matrices(Wired(model, architecture(model.config)), 1).share == shape.heads // (
        shape.kv_heads or shape.heads
    )
