"""Head measurements against models whose weights were set by hand, and against the definitions written out."""

from __future__ import annotations

from itertools import product
from math import log
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from checkpoints import UserError
from dynamics.architecture import architecture
from dynamics.circuits.heads import compositions, head_matrices, positivity, written_by
from dynamics.circuits.wired import Wired
from dynamics.forward import measure
from dynamics.measurements import (
    HeadAttention,
    HeadCopying,
    HeadSuccession,
    HeadWeights,
    attention_scores,
    heads,
)
from dynamics.probes import LAST, Probe, TokenizedProbe
from dynamics.sites import observe
from tests.families import CONFIGS, model_of

CAUSAL = [kind for kind in CONFIGS if kind != "bert"]
VOCAB = 12


def tokens(*rows: list[int], **labels: tuple[Any, ...]) -> TokenizedProbe:
    """A probe of token ids."""
    ids = tuple(np.array(row) for row in rows)
    texts = tuple(f"prompt {i}" for i in range(len(rows)))
    last = np.array([len(row) - 1 for row in rows])
    return TokenizedProbe(Probe("p", texts, labels=labels), ids, None, None, None, {LAST: last}, {})


def gpt2(*, layers: int = 1, positions: int = 8, d_model: int = 32, heads: int = 2) -> Any:
    """A GPT-2 that does nothing: every matrix is zero, the embeddings of the words are unit vectors."""
    config = hf.GPT2Config(
        vocab_size=VOCAB,
        n_embd=d_model,
        n_layer=layers,
        n_head=heads,
        n_positions=positions,
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and "weight" in name else 0.0)
        model.transformer.wte.weight[:, :VOCAB] = torch.eye(VOCAB)
    return model


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


def found(model: Any, probe: TokenizedProbe, *wanted: Any) -> dict[str, np.ndarray]:
    """What is measured, checked against what was declared."""
    built = architecture(model.config)
    result = measure(model, probe, wanted, architecture=built)
    declared = [v for m in wanted for v in m.declare(probe, built.shape)]
    assert {v.name: v.shape for v in declared} == {name: value.shape for name, value in result.items()}
    return result


# attention


def naive_scores(pattern: np.ndarray, ids: list[int], delimiters: set[int]) -> dict[str, float]:
    """The definitions for one head and prompt, token by token."""
    parts: dict[str, list[float]] = {name: [] for name in heads.ATTENTION_SCORES}
    for t in range(2, len(ids)):
        row = pattern[t]
        parts["attention_entropy"].append(-sum(p * log(p) for p in row[: t + 1] if p > 0) / log(t + 1))
        parts["attention_first"].append(row[0])
        parts["attention_previous"].append(row[t - 1])
        parts["attention_current"].append(row[t])
        before = [k for k in range(t) if ids[k] == ids[t]]
        if before:
            parts["attention_occurrence"].append(row[before[-1]])
            if before[-1] + 1 < t:
                parts["attention_after_occurrence"].append(row[before[-1] + 1])
        marks = [k for k in range(1, t) if ids[k] in delimiters]
        if marks:
            parts["attention_delimiter"].append(sum(row[k] for k in marks))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in parts.items()}


def test_scores_are_what_the_definitions_say_token_by_token() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4, (5, 9))
    ids[4] = np.arange(9) + 10  # nothing repeats, and no delimiter
    pattern = np.tril(rng.random((5, 3, 9, 9)))
    pattern /= pattern.sum(-1, keepdims=True)
    scores = attention_scores(torch.from_numpy(pattern), torch.from_numpy(ids), torch.tensor([1, 3]))
    for row, head in product(range(5), range(3)):
        for name, value in naive_scores(pattern[row, head], ids[row].tolist(), {1, 3}).items():
            np.testing.assert_allclose(scores[name][row, head], value, rtol=1e-6, err_msg=name)
    for name in ("attention_occurrence", "attention_after_occurrence", "attention_delimiter"):
        assert torch.isnan(scores[name][4]).all()


def test_attention_that_knows_one_place_and_attention_that_knows_none() -> None:
    length = 6
    ids = torch.tensor([[7, 8, 9, 7, 8, 9]])
    previous = torch.zeros(length, length)
    previous[0, 0] = 1
    previous[torch.arange(1, length), torch.arange(length - 1)] = 1
    induction = torch.eye(length)
    induction[3:] = torch.eye(length)[1:4]  # the token after the previous occurrence
    uniform = torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]
    scores = attention_scores(torch.stack([previous, induction, uniform])[None], ids, torch.tensor([8]))
    assert scores["attention_previous"][0, 0] == 1 and scores["attention_entropy"][0, 0] == 0
    assert scores["attention_after_occurrence"][0].tolist()[:2] == [0, 1]
    assert scores["attention_occurrence"][0, 1] == 0
    torch.testing.assert_close(scores["attention_entropy"][0, 2], torch.tensor(1.0))
    torch.testing.assert_close(scores["attention_first"][0, 2], torch.tensor([1 / 3, 1 / 4, 1 / 5, 1 / 6]).mean())
    # token 8 at 1 and 4; the query at 4 does not count itself
    torch.testing.assert_close(scores["attention_delimiter"][0, 2], torch.tensor([1 / 3, 1 / 4, 1 / 5, 2 / 6]).mean())


def test_prompts_of_unequal_length_and_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    rows = [[5, 6, 5, 7, 6, 5, 7], [8, 9, 10], [5, 5, 5, 6, 7, 6, 5], [11, 12, 13, 11, 12]]
    together = found(model, tokens(*rows), HeadAttention((6, 12)))
    monkeypatch.setattr(heads, "_CHUNK", 1)
    chunked = found(model, tokens(*rows), HeadAttention((6, 12)))
    for i, row in enumerate(rows):
        alone = found(model, tokens(row), HeadAttention((6, 12)))
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][i], value[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(chunked[name][i], value[0], rtol=1e-5, atol=1e-6)


def test_a_head_made_to_look_at_the_token_before_does_so() -> None:
    """Queries of position t are the keys of position t - 1: a previous-token head out of position embeddings."""
    model, positions = gpt2(d_model=32), 8
    with torch.no_grad():
        model.transformer.wpe.weight[:, VOCAB : VOCAB + positions] = torch.eye(positions)
        matrix = model.transformer.h[0].attn.c_attn.weight  # (d_model, 3 * d_model), heads of 16
        for t in range(1, positions):
            matrix[VOCAB + t, t - 1] = 40.0
        for t in range(positions):
            matrix[VOCAB + t, 32 + t] = 1.0
    values = found(model, tokens([3, 4, 5, 6, 7, 8, 9, 10], [3, 3, 3, 4, 4]), HeadAttention())
    assert (values["attention_previous"][:, 0, 0] > 0.99).all()
    assert (values["attention_entropy"][:, 0, 0] < 0.05).all()
    np.testing.assert_allclose(values["attention_entropy"][:, 0, 1], 1.0, rtol=1e-5)  # the other head does nothing


def test_attention_needs_three_tokens_and_a_causal_model() -> None:
    shape = architecture(CONFIGS["gpt2"]()).shape
    with pytest.raises(UserError, match="a prompt of 2 tokens"):
        HeadAttention().declare(tokens([1, 2, 3], [1, 2]), shape)
    bert = architecture(CONFIGS["bert"]()).shape
    for measurement in (HeadAttention(), HeadCopying(), HeadSuccession(), HeadWeights()):
        with pytest.raises(UserError, match="fills in masks"):
            measurement.declare(tokens([1, 2, 3], [1, 2, 4], series=("a", "a"), place=(0, 1)), bert)


# copying, succession


def set_output(model: Any, layer: int, head: int, moved: torch.Tensor) -> None:
    """Give one head of :func:`gpt2` a map (VOCAB, VOCAB) from the word that it attends to, to logits of words."""
    attention = model.transformer.h[layer].attn
    start = 16 * head
    with torch.no_grad():
        attention.c_attn.weight[:VOCAB, 64 + start : 64 + start + VOCAB] = torch.eye(VOCAB)
        attention.c_proj.weight[start : start + VOCAB, :VOCAB] = moved


WORDS = tokens(*[[token] for token in range(VOCAB)])


@pytest.mark.parametrize("layer", [0, 1])
def test_heads_that_copy_and_that_copy_negatively(layer: int) -> None:
    model = gpt2(layers=2)
    set_output(model, layer, 0, torch.eye(VOCAB))
    set_output(model, layer, 1, -torch.eye(VOCAB))
    values = found(model, WORDS, HeadCopying(top=1), HeadWeights())
    np.testing.assert_array_equal(values["copying"][:, layer], [[1, 0]] * VOCAB)
    np.testing.assert_array_equal(values["negative_copying"][:, layer], [[0, 1]] * VOCAB)
    assert (values["copying_control"][:, layer, 0] == 0).all()
    np.testing.assert_allclose(values["copying_positivity"][layer], [1, -1], atol=1e-4)
    other = 1 - layer  # heads that write nothing copy nothing, though all logits are equal
    for name in ("copying", "negative_copying", "copying_control", "negative_control"):
        assert (values[name][:, other] == 0).all()
    assert np.isnan(values["copying_positivity"][other]).all()


def test_the_control_counts_other_tokens() -> None:
    """A head that always raises the words 0, 1 and 2 copies these, and raises them for the others as much."""
    model = gpt2()
    moved = torch.zeros(VOCAB, VOCAB)
    moved[:, :3] = torch.tensor([3.0, 2.0, 1.0])
    set_output(model, 0, 0, moved)
    with torch.no_grad():  # what is attended to shows in every word alike
        model.transformer.h[0].attn.c_attn.weight[:VOCAB, 64 : 64 + VOCAB] = 0
        model.transformer.h[0].attn.c_attn.weight[20, 64] = 1.0
        model.transformer.h[0].attn.c_proj.weight[0, :3] = torch.tensor([3.0, 2.0, 1.0])
        model.transformer.h[0].attn.c_proj.weight[1:] = 0
        model.transformer.wte.weight[:, 20] = 1.0
    values = found(model, WORDS, HeadCopying(top=3))
    assert values["copying"][:, 0, 0].tolist() == [1, 1, 1] + [0] * 9
    np.testing.assert_allclose(values["copying_control"][:, 0, 0], [2 / 11] * 3 + [3 / 11] * 9, rtol=1e-6)


def test_a_head_that_counts_on_raises_the_successor() -> None:
    model = gpt2(layers=2)
    set_output(model, 1, 1, torch.eye(VOCAB).roll(1, dims=1))  # word t raises word t + 1
    # two lists, their prompts out of order: words 3, 4, 5, 6 and words 8, 9
    probe = tokens([5], [8], [3], [6], [4], [9], series=tuple("abaaab"), place=(2, 0, 0, 3, 1, 1))
    values = found(model, probe, HeadSuccession())["raised"]
    # the last member's successor is in no list: all members are raised alike, by nothing
    assert values[:, 1, 1].tolist() == [3, 1, 1, -1, 2, -1]
    assert (values[:, 0] == -1).all()


def test_probes_that_do_not_fit_are_refused() -> None:
    shape = architecture(CONFIGS["gpt2"]()).shape
    with pytest.raises(UserError, match="ends in 1 different tokens in 2 prompts"):
        HeadCopying().declare(tokens([1, 2], [3, 2]), shape)
    with pytest.raises(UserError, match="have gaps"):
        HeadSuccession().declare(tokens([1], [2], series=("a", "a"), place=(0, 2)), shape)
    with pytest.raises(UserError, match="have gaps"):
        HeadSuccession().declare(tokens([1], [2]), shape)


# weights


def naive_matrices(wired: Wired, layer: int) -> dict[str, list[torch.Tensor]]:
    """(d_model, d_model) W_Q^T W_K and W_O W_V of every query head, norms folded in, in full size."""
    graph, model = wired.graph, wired.model
    d = wired.architecture.shape.d_model
    final = model.get_submodule(wired.architecture.table.outside["ln_final"].module)
    centring = torch.eye(d) - torch.ones(d, d) / d

    def map_of(norm: Any) -> torch.Tensor:
        gain = getattr(norm, "weight", None)
        scaled = torch.eye(d) if gain is None else torch.diag(gain.detach())
        return scaled @ centring if "LayerNorm" in type(norm).__name__ else scaled

    read = torch.eye(d) if wired.norm(layer) is None else map_of(wired.norm(layer))
    weight = wired.reading_matrices(layer)[0].detach()
    output = wired.output_matrices(layer).detach()
    behind = wired.wiring.after
    post = torch.eye(d)
    if behind is not None:
        block = model.get_submodule(wired.architecture.table.block.format(layer))
        post = torch.diag(block.get_submodule(behind).weight.detach())
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
    gain = getattr(final, "weight", None)
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
    assert head_matrices(Wired(model, architecture(model.config)), 1).share == (
        2 if "num_key_value_heads" in vars(model.config) and model.config.num_key_value_heads == 2 else 1
    )
