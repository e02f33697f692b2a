"""Norms in closed form, and one that has none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm

from dynamics.circuits.norms import norm_of
from dynamics.circuits.wired import Wired
from dynamics.models.architecture import architecture

D = 12


class ShiftedRMSNorm(torch.nn.Module):
    """A gain of 2 + weight: not what its parameters' names say."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(weight), 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (2 + self.weight) * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def norms() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    made: list[torch.nn.Module] = [
        torch.nn.LayerNorm(D),
        torch.nn.LayerNorm(D, bias=False),
        torch.nn.RMSNorm(D, eps=1e-6),
        LlamaRMSNorm(D),
        OlmoLayerNorm(D),
        Gemma2RMSNorm(D),
    ]
    for module in made:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize("module", norms(), ids=lambda m: type(m).__name__)
def test_the_gradient_of_a_norm_has_a_closed_form(module: torch.nn.Module) -> None:
    norm, x = norm_of(module), (3 * torch.randn(4, 5, D) + 1).requires_grad_()
    assert norm is not None and norm.computes(module, x.detach())
    g = torch.randn(4, 5, D)
    (expected,) = torch.autograd.grad((module(x) * g).sum(), x)
    unit, inverse = norm.unit(x.detach())
    found = (norm.folded(g) - unit * (norm.folded(g) * unit).mean(-1, keepdim=True)) * inverse
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_computes_something_else_is_seen() -> None:
    weight = torch.randn(D)
    x, shifted = torch.randn(4, 5, D), ShiftedRMSNorm(weight)
    norm = norm_of(shifted)
    assert norm is not None
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        half = ShiftedRMSNorm(weight).to(dtype)
        assert not norm.computes(half, x.to(dtype)), dtype
    assert norm_of(torch.nn.Identity()) is None


def test_gradients_go_through_a_norm_that_has_no_closed_form() -> None:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
    )
    plain: Any = hf.AutoModelForCausalLM.from_config(config).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    shifted = copy.deepcopy(plain)
    for block in shifted.model.layers:
        block.input_layernorm = ShiftedRMSNorm(block.input_layernorm.weight.detach() - 2)
    ids, last = torch.randint(0, 30, (3, 5)), torch.full((3,), 4)
    found = []
    for model in (plain, shifted):
        w = Wired(model, architecture(config))
        start = w.written(ids)
        given = w.gradients(ids, last, lambda logits: logits[:, 1] - logits[:, 2], start[0], reach=start)
        found.append((given.readers, *given.reached))
    assert float(found[0][0].abs().max()) > 0.1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
