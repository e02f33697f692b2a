"""What `dynamics sites` says: known tables hold, and proposals from a module tree are those that were written by hand."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from checkpoints.errors import UserError
from dynamics.describing import describe_sites
from dynamics.describing.proposing import propose
from dynamics.describing.small import LAYERS, small_model
from dynamics.models.sites import FAMILIES, SiteTable, family_of
from dynamics.models.wiring import WIRINGS
from tests.models.families import CONFIGS, OTHERS

SLOW_TO_BUILD = ("gpt2 upcast", "mistral", "qwen2", "olmo3", "smollm3", "falcon grouped one norm", "qwen2_moe", "gemma")
"""Those that are built of what others are."""
PROPOSED = [
    pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW_TO_BUILD else [])
    for kind in CONFIGS
    if kind not in OTHERS
]


@pytest.mark.parametrize("kind", PROPOSED)
def test_the_proposal_is_the_table_that_was_written_by_hand(kind: str) -> None:
    """Known names are not looked at: only what goes through modules."""
    config = CONFIGS[kind]()
    model = small_model(config)
    found = propose(model, model.config)
    family = family_of(config)
    assert found.table == replace(FAMILIES[family], wiring=WIRINGS[family])
    assert set(found.table.sites) ^ set(FAMILIES[family].sites) == set()


def test_what_an_architecture_does_not_have_is_said_with_the_reason() -> None:
    mamba = describe_sites("mamba")
    assert mamba.known and mamba.table.wiring is None
    assert (
        "it has no attention heads" in mamba.text() and "resid_pre and resid_post are the hidden states" in mamba.text()
    )
    bert = describe_sites("bert")
    assert "normalised after every addition" in bert.text()
    neox = describe_sites("gpt_neox")
    assert neox.missing == ("resid_mid: an architecture of this type has none",)
    assert "a pass of zero cuts gives the model's logits" in neox.text()


@pytest.mark.parametrize(
    ("kind", "family", "layout", "shared"),
    [("cohere", "cohere", "separate", True), ("gpt_bigcode", "gpt_bigcode", "by kind", False)],
)
def test_an_unknown_architecture_gets_a_table_that_can_be_saved_and_read(
    kind: str, family: str, layout: str, shared: bool, tmp_path: Path
) -> None:
    assert family not in FAMILIES
    found = describe_sites(kind)
    assert not found.known and found.table.wiring is not None
    assert (found.table.wiring.layout, found.table.wiring.shared) == (layout, shared)
    file = tmp_path / "my_sites.py"
    file.write_text(found.python(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("my_sites", file)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert isinstance(module.TABLE, SiteTable) and found.table == module.TABLE


def test_a_layout_of_heads_that_there_is_no_word_for_is_not_proposed() -> None:
    """CodeGen's one matrix lies as it was trained on several devices."""
    found = describe_sites("codegen")
    assert found.table.wiring is None and {"z", "pattern", "attn_out", "mlp_post"} <= set(found.table.sites)
    assert any(line.startswith("wiring: the wiring is not the model's") for line in found.missing)


def test_a_site_that_only_some_blocks_have_is_left_out() -> None:
    """Jamba has attention in every eighth block."""
    found = describe_sites("jamba")
    assert {"resid_pre", "resid_post"} <= set(found.table.sites) and "attn_out" not in found.table.sites
    assert any(line.startswith("attn_out: its module is not there in") for line in found.missing)


def test_the_norms_behind_additions_of_one_opt_are_no_known_table_and_no_circuit(tmp_path: Path) -> None:
    config = hf.OPTConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, ffn_dim=48, num_attention_heads=4, word_embed_proj_dim=32,
        do_layer_norm_before=False,
    )  # fmt: skip
    assert family_of(config) not in FAMILIES
    config.save_pretrained(tmp_path)
    found = describe_sites(tmp_path)
    assert not found.known and found.table.wiring is None and "mlp_out" not in found.table.sites
    assert any("is not the sum" in line for line in found.missing)


def test_a_series_a_folder_a_file_and_a_type_mean_the_same(tmp_path: Path) -> None:
    CONFIGS["llama"]().save_pretrained(one := tmp_path / "step0")
    texts = {describe_sites(model).text() for model in (tmp_path, one, one / "config.json", "llama")}
    assert len(texts) == 1 and texts.pop().startswith("llama: known")


def test_a_large_model_is_described_by_a_small_one(tmp_path: Path) -> None:
    config = hf.LlamaConfig(hidden_size=16384, num_hidden_layers=126, num_attention_heads=128, num_key_value_heads=8)
    small = small_model(config)
    assert sum(p.numel() for p in small.parameters()) < 10**5
    assert small.config.num_hidden_layers == LAYERS and small.config.num_key_value_heads == 2
    assert config.hidden_size == 16384  # as it was


@pytest.mark.parametrize(
    ("model", "observed", "remedy"),
    [
        ("gpt_noex", "there is no folder or file gpt_noex", "did you mean 'gpt_neox'?"),
        ("vit", "no model of type 'vit' can be built", "adapter"),
    ],
)
def test_what_is_no_language_model_is_refused(model: str, observed: str, remedy: str) -> None:
    with pytest.raises(UserError) as refused:
        describe_sites(model)
    assert observed in refused.value.observed and remedy in refused.value.remedy


def test_a_config_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": "wide"}))
    with pytest.raises(UserError, match="cannot be used"):
        describe_sites(tmp_path)


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    small_model(CONFIGS["gpt2"]())
    assert torch.equal(torch.random.get_rng_state(), before)
