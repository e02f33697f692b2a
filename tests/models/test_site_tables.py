"""Tables of sites: complete, with the shapes that are declared; observing changes nothing, and what is not there is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as hf

from checkpoints import UserError
from dynamics.measurements import Activations
from dynamics.measurements.forward import measure
from dynamics.models import sites
from dynamics.models.architecture import architecture, model_shape
from dynamics.models.sites import FAMILIES, SiteTable, Where, observe, site_table
from dynamics.names import SITES
from tests.models.families import (
    CONFIGS,
    GPT2,
    HEADS,
    LAYERS,
    MANY_EXPERTS,
    SIDE_BY_SIDE,
    VOCAB,
    every_family,
    measured,
    model_of,
    probe,
)


def hooks(model: Any) -> int:
    """How many hooks there are (transformers keeps some of its own)."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@every_family
def test_shapes_are_those_of_the_tensors(kind: str) -> None:
    shape, values = model_shape(model_of(kind).config), measured(kind)
    assert (shape.layers, shape.heads, shape.vocab) == (LAYERS, 0 if kind == "mamba" else HEADS, VOCAB)
    assert shape.context == (None if kind in ("bloom", "mamba") else 16)
    assert shape.causal == (kind != "bert")
    assert values["resid_pre"].shape[-1] == shape.d_model == 32
    if kind == "mamba":
        assert set(values) == {"embed", "resid_pre", "resid_post", "ln_final", "logits"}
        return
    assert values["z"].shape[-2:] == (shape.heads, shape.d_head)
    if kind not in MANY_EXPERTS:
        assert values["mlp_post"].shape[-1] == shape.d_mlp == (128 if kind in (*GPT2, "bloom") else 48)


def test_every_family_is_tested() -> None:
    tested = {kind.replace(" ", "_") for kind in CONFIGS}
    assert tested - {"gpt2_upcast"} == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_table_has_only_known_sites_and_all_but_one(family: str) -> None:
    missing = set(SITES) - set(FAMILIES[family].sites)
    expected = {kind.replace(" ", "_"): {"resid_mid"} for kind in SIDE_BY_SIDE}
    expected |= {kind: {"mlp_post"} for kind in MANY_EXPERTS}
    expected["mamba"] = set(SITES) - {"embed", "resid_pre", "resid_post", "ln_final", "logits"}
    assert missing == expected.get(family, set())
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
    assert site_table(hf.T5Config(), "dynamics.models.sites:MINE") is mine
    assert mine.sites == ["resid_post", "logits"]


@pytest.mark.parametrize(
    "dotted",
    ["no.such.module:TABLE", "dynamics.models.sites:NOPE", "dynamics.models.sites", ":X", "dynamics.models.sites:"],
)
def test_a_table_that_cannot_be_imported_is_a_clear_error(dotted: str) -> None:
    with pytest.raises(UserError, match="cannot be imported") as refused:
        site_table(hf.T5Config(), dotted)
    assert "package.module:NAME" in str(refused.value)


def test_a_name_that_is_no_table_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"`sites: dynamics\.models\.sites:FAMILIES` is a dict"):
        site_table(hf.T5Config(), "dynamics.models.sites:FAMILIES")


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
