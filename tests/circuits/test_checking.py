"""A wiring is right for every family, and a wrong one is found, with what is likely to be wrong about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from checkpoints.errors import UserError
from dynamics.circuits.checking import check_wiring
from dynamics.models.architecture import Architecture
from tests.circuits.test_circuits_wired import WIRED, wired


@pytest.mark.parametrize("family", WIRED)
def test_every_wiring_is_its_models(family: str) -> None:
    check_wiring(wired(family).model, wired(family).architecture, random=True)


def changed(family: str, **wiring: Any) -> Architecture:
    as_it_is = wired(family).architecture
    assert as_it_is.table.wiring is not None
    new = replace(as_it_is.table.wiring, **wiring)
    shape = replace(as_it_is.shape, parallel=new.parallel)
    return replace(as_it_is, table=replace(as_it_is.table, wiring=new), shape=shape)


QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@pytest.mark.parametrize(
    ("family", "wrong", "observed", "suspect"),
    [
        ("llama", {"mlp": "mlp"}, "what L0M reads is not the sum", "`mlp`"),
        ("llama", {"parallel": True}, "what L0M reads is not the sum", "`parallel`"),
        ("gpt_neox", {"parallel": False}, "what L0M reads is not the sum", "`parallel`"),
        ("phi", {"shared": False}, "what L0M reads is not the sum", "`shared`"),
        ("gemma2", {"after": None}, "reads is not the sum", "`after`"),
        ("llama", {"out": "mlp.down_proj"}, "reads is not the sum", "`out`"),
        ("llama", {"norm": None}, "a pass of zero cuts gives other logits", "`norm`"),
        ("gpt_neox", {"layout": "by kind"}, "what L0H0.v reads acts through other heads too", "`layout`"),
        ("gpt2", {"layout": "by head"}, "what L0H0.k reads", "`layout`"),
        ("falcon grouped", {"layout": "by kind"}, "what L0KV0.k reads", "`layout`"),
        (
            "qwen3",
            {"projections": (QKV[0], QKV[2], QKV[1])},
            "what L0KV0.k reads acts at its own token",
            "`projections`",
        ),
        ("opt", {"projections": (QKV[1], QKV[0], QKV[2])}, "a pass with cut edges fails", "`projections`"),
    ],
)
def test_a_wrong_one_is_found(family: str, wrong: dict[str, Any], observed: str, suspect: str) -> None:
    with pytest.raises(UserError) as refused:
        check_wiring(wired(family).model, changed(family, **wrong), random=True)
    assert observed in refused.value.observed and suspect in refused.value.remedy


def test_a_model_that_has_learned_nothing_is_no_wrong_wiring() -> None:
    fresh = type(wired("llama").model)(wired("llama").model.config).eval()  # heads as initialised hardly do anything
    check_wiring(fresh, wired("llama").architecture)


def test_the_model_is_left_as_it_was() -> None:
    model = wired("gpt2").model
    ids = torch.tensor([[3, 9, 4]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        check_wiring(model, wired("gpt2").architecture)
        assert torch.equal(model(input_ids=ids).logits, before)
