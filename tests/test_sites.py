"""Every site of every family is the tensor that transformers itself, or a plain hook, gives there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from checkpoints import UserError
from dynamics import sites
from dynamics.architecture import architecture, model_shape
from dynamics.forward import measure
from dynamics.measurements import Activations
from dynamics.names import SITES
from dynamics.probes import LAST, Probe, TokenizedProbe
from dynamics.sites import FAMILIES, SiteTable, Where, observe, site_table

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
GPT2 = ("gpt2", "gpt2 upcast")
"""One tiny model of every family; grouped-query attention wherever the architecture has it."""


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


@cache
def by_transformers(kind: str, prompt: int) -> Any:
    """What transformers returns for one prompt alone."""
    with torch.no_grad():
        return model_of(kind)(
            input_ids=torch.from_numpy(probe().ids[prompt])[None], output_hidden_states=True, output_attentions=True
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
    return kept["input"][0], kept["output"][0]


def at(value: torch.Tensor, prompt: int) -> np.ndarray:
    """The named positions of a (token, feature) tensor."""
    return value.detach().numpy()[[probe().positions[LAST][prompt], probe().positions["middle"][prompt]]]


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


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
    return SimpleNamespace(
        blocks="model.layers",
        embed="model.embed_tokens",
        norm="model.norm",
        out="self_attn.o_proj",
        down="mlp.down_proj",
    )


def weight(kind: str, module: str) -> tuple[np.ndarray, np.ndarray]:
    """(in, out) matrix and bias of a projection."""
    linear = model_of(kind).get_submodule(module)
    matrix = linear.weight.detach().numpy()
    bias = np.zeros(1, dtype=np.float32) if linear.bias is None else linear.bias.detach().numpy()
    return (matrix if kind in GPT2 else matrix.T), bias


def hooks(model: Any) -> int:
    """How many hooks there are (transformers keeps some of its own)."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


PROMPTS = range(len(LENGTHS))
every_family = pytest.mark.parametrize("kind", CONFIGS)


# --- against transformers


@every_family
def test_residual_streams_are_the_hidden_states_of_transformers(kind: str) -> None:
    values = measured(kind)
    for prompt in PROMPTS:
        states = by_transformers(kind, prompt).hidden_states
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


@every_family
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
    for prompt in PROMPTS:
        tokens = probe().ids[prompt][[probe().positions[name][prompt] for name in (LAST, "middle")]]
        close(measured(kind)["embed"][prompt], table[tokens])


@every_family
def test_ln_final_is_what_the_head_reads(kind: str) -> None:
    head = model_of(kind).get_output_embeddings()
    bias = 0.0 if head.bias is None else head.bias.detach().numpy()
    close(measured(kind)["ln_final"] @ head.weight.detach().numpy().T + bias, measured(kind)["logits"])


@every_family
def test_z_and_mlp_post_are_what_the_output_projections_read(kind: str) -> None:
    values, where = measured(kind), parts(kind)
    for prompt in PROMPTS:
        for layer in range(LAYERS):
            z, _ = hooked(kind, prompt, f"{where.blocks}.{layer}.{where.out}")
            close(values["z"][prompt, :, layer].reshape(2, -1), at(z, prompt))
            if kind == "olmoe":  # each token has the neurons of other experts
                assert "mlp_post" not in values
                continue
            hidden, _ = hooked(kind, prompt, f"{where.blocks}.{layer}.{where.down}")
            close(values["mlp_post"][prompt, :, layer], at(hidden, prompt))


# --- identities


@every_family
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


@every_family
def test_the_middle_of_a_block_is_behind_attention_where_there_is_a_middle(kind: str) -> None:
    values = measured(kind)
    if kind == "gpt_neox":  # attention and MLP side by side
        assert "resid_mid" not in values
    elif kind != "bert":  # see above
        close(values["resid_mid"], values["resid_pre"] + values["attn_out"])


@every_family
def test_attention_writes_z_through_the_output_matrix(kind: str) -> None:
    values, where = measured(kind), parts(kind)
    normed = kind in ("olmo2", "olmo3")
    for layer in range(LAYERS):
        matrix, bias = weight(kind, f"{where.blocks}.{layer}.{where.out}")
        heads = values["z"][:, :, layer]  # (prompt, position, head, d_head)
        by_head = np.einsum("nphd,hdm->npm", heads, matrix.reshape(HEADS, -1, matrix.shape[-1])) + bias
        if normed:
            norm = model_of(kind).get_submodule(f"{where.blocks}.{layer}.post_attention_layernorm")
            with torch.no_grad():
                by_head = norm(torch.from_numpy(by_head)).numpy()
        close(values["attn_out"][:, :, layer], by_head)


@every_family
def test_the_mlp_writes_its_neurons_through_the_down_matrix(kind: str) -> None:
    values, where = measured(kind), parts(kind)
    if kind == "olmoe":
        pytest.skip("a mixture of experts has no one matrix")
    for layer in range(LAYERS):
        matrix, bias = weight(kind, f"{where.blocks}.{layer}.{where.down}")
        written = values["mlp_post"][:, :, layer] @ matrix + bias
        if kind in ("olmo2", "olmo3"):
            norm = model_of(kind).get_submodule(f"{where.blocks}.{layer}.post_feedforward_layernorm")
            with torch.no_grad():
                written = norm(torch.from_numpy(written)).numpy()
        close(values["mlp_out"][:, :, layer], written)


@every_family
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
    elif kind in GPT2:  # all queries, all keys, all values
        _, qkv = hooked(kind, 0, f"{block}.attn.c_attn")
        v = qkv.reshape(LENGTHS[0], 3, HEADS, d_head)[:, 2]
    else:  # two key-value heads, each shared by two query heads
        _, v = hooked(kind, 0, f"{block}.self_attn.v_proj")
        v = (v.clamp(-1.0, 1.0) if kind == "olmo" else v).reshape(LENGTHS[0], 2, d_head)
        v = v.repeat_interleave(HEADS // 2, dim=1)
    return v.detach().numpy()


# --- shapes, tables and errors


@every_family
def test_shapes_are_those_of_the_tensors(kind: str) -> None:
    shape, values = model_shape(model_of(kind).config), measured(kind)
    assert (shape.layers, shape.heads, shape.vocab) == (LAYERS, HEADS, VOCAB)
    assert shape.context == (None if kind == "bloom" else 16)
    assert shape.causal == (kind != "bert")
    assert values["z"].shape[-2:] == (shape.heads, shape.d_head)
    if kind != "olmoe":
        assert values["mlp_post"].shape[-1] == shape.d_mlp == (128 if kind in (*GPT2, "bloom") else 48)
    assert values["resid_pre"].shape[-1] == shape.d_model == 32


def test_every_family_is_tested() -> None:
    tested = {kind.replace(" ", "_") for kind in CONFIGS}
    assert tested - {"gpt2_upcast"} == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_table_has_only_known_sites_and_all_but_one(family: str) -> None:
    missing = set(SITES) - set(FAMILIES[family].sites)
    assert missing == {"gpt_neox": {"resid_mid"}, "olmoe": {"mlp_post"}}.get(family, set())
    assert set(FAMILIES[family].sites) <= set(SITES)


def test_observing_changes_nothing_and_leaves_no_hook() -> None:
    model = model_of("llama")
    ids = torch.from_numpy(probe().ids[0])[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        seen: list[tuple[str, int]] = []
        with observe(
            model,
            FAMILIES["llama"],
            frozenset({"resid_pre", "pattern", "embed"}),
            LAYERS,
            lambda s, n, _: seen.append((s, n)),
        ):
            assert torch.equal(model(input_ids=ids).logits, before)
        count = len(seen)
        model(input_ids=ids)
    assert len(seen) == count == 1 + 2 * LAYERS
    for site in ("resid_pre", "pattern"):
        assert [layer for s, layer in seen if s == site] == list(range(LAYERS))
    assert ("embed", -1) in seen


def test_hooks_are_removed_when_the_forward_pass_fails() -> None:
    model = model_of("llama")
    before = hooks(model)

    def fails(*_: Any) -> None:
        raise ValueError("no")

    with (
        pytest.raises(ValueError, match="no"),
        observe(model, FAMILIES["llama"], frozenset({"mlp_out"}), LAYERS, fails),
    ):
        model(input_ids=torch.tensor([[2, 3]]))
    assert hooks(model) == before


def test_a_site_that_the_family_lacks_is_refused_with_the_nearest_one() -> None:
    model = model_of("gpt_neox")
    before = hooks(model)
    with pytest.raises(UserError, match="this architecture has no site 'resid_mid'") as refused:
        measure(
            model,
            probe(),
            [Activations("resid_mid")],
            architecture=architecture(model.config),
        )
    assert "did you mean" in str(refused.value)
    assert hooks(model) == before


def test_an_unknown_site_and_an_unknown_position_are_refused() -> None:
    shape = model_shape(CONFIGS["llama"]())
    with pytest.raises(UserError, match="there is no site 'resid_pst'") as refused:
        Activations("resid_pst").declare(probe(), shape)
    assert "did you mean 'resid_post'" in str(refused.value)
    with pytest.raises(UserError, match="'p' has no position 'midle'") as refused:
        Activations("embed", ("midle",)).declare(probe(), shape)
    assert "did you mean 'middle'" in str(refused.value)


def test_an_unknown_family_lists_those_that_are_known() -> None:
    with pytest.raises(UserError, match="the sites of 't5' models are not known") as refused:
        site_table(hf.T5Config())
    assert "gpt_neox" in str(refused.value)
    assert "SiteTable" in str(refused.value)


def test_gpt_neox_is_told_apart_by_its_residual() -> None:
    for name, parallel in (("gpt_neox", True), ("gpt_neox sequential", False)):
        table = site_table(CONFIGS[name]())
        assert replace(table, wiring=None) == FAMILIES[name.replace(" ", "_")]
        assert table.wiring is not None and table.wiring.parallel is parallel


def test_a_table_of_the_users_own_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = SiteTable("layers.{}", {"resid_post": Where("")}, {})
    monkeypatch.setattr(sites, "MINE", mine, raising=False)
    assert site_table(hf.T5Config(), "dynamics.sites:MINE") is mine
    assert mine.sites == ["resid_post", "logits"]


@pytest.mark.parametrize(
    "dotted", ["no.such.module:TABLE", "dynamics.sites:NOPE", "dynamics.sites", ":X", "dynamics.sites:"]
)
def test_a_table_that_cannot_be_imported_is_a_clear_error(dotted: str) -> None:
    with pytest.raises(UserError, match="cannot be imported") as refused:
        site_table(hf.T5Config(), dotted)
    assert "package.module:NAME" in str(refused.value)


def test_a_name_that_is_no_table_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"`sites: dynamics\.sites:FAMILIES` is a dict"):
        site_table(hf.T5Config(), "dynamics.sites:FAMILIES")


def test_attention_that_returns_no_pattern_is_a_clear_error() -> None:
    model = hf.AutoModelForCausalLM.from_config(CONFIGS["llama"](), attn_implementation="sdpa").eval()
    with pytest.raises(UserError, match="returned no 'pattern'") as refused:
        measure(
            model,
            probe(),
            [Activations("pattern")],
            architecture=architecture(model.config),
        )
    assert "eager" in str(refused.value)
