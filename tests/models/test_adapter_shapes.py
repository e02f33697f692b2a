"""What an adapter of one's own gets wrong in shapes is said in three parts, and networks like the published ones can be adapted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from checkpoints.errors import UserError
from checkpoints.tokenizing import word_tokenizer
from dynamics.measurements import Activations, Answers
from dynamics.measurements.forward import measure
from dynamics.models.architecture import ModelShape, adapted, tokenizer_of
from dynamics.models.sites import SiteTable, Where
from dynamics.probes import LAST, Probe, TokenizedProbe

P, WIDTH = 7, 6


class Bare(nn.Module):
    """Bare parameters and functions of them: no module to hook but those that name a place; p answers to p + 1 tokens."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.W_E = nn.Parameter(torch.randn(P + 1, WIDTH, generator=generator))
        self.W_U = nn.Parameter(torch.randn(WIDTH, P, generator=generator))
        self.hook_resid = nn.Identity()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.hook_resid(self.W_E[ids].cumsum(1)) @ self.W_U


class Adapter:
    """Its logits are padded for the token that is no answer."""

    def __init__(
        self, logits: Callable[[nn.Module, torch.Tensor], Any] | None = None, where: str | Where = "hook_resid"
    ) -> None:
        self.sites = SiteTable("{}", {}, {"embed": Where(where) if isinstance(where, str) else where})
        self.logits = logits or (lambda model, ids: nn.functional.pad(model(ids), (0, 1), value=-1e4))

    def shape(self, tensors: Mapping[str, torch.Tensor]) -> ModelShape:
        return ModelShape(1, 1, WIDTH, WIDTH, WIDTH, P + 1, 3)

    def build(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        return Bare()

    def tokenizer(self) -> None:
        return None


def probe() -> TokenizedProbe:
    ids = np.stack([[a, b, P] for a in range(P) for b in range(P)])
    answers = (ids[:, 0] + ids[:, 1]) % P
    text = tuple(f"{a} {b} =" for a, b, _ in ids)
    return TokenizedProbe(Probe("sums", text), tuple(ids), answers, None, None, {LAST: np.full(len(ids), 2)}, {})


def values(adapter: Adapter, model: nn.Module | None = None) -> dict[str, np.ndarray]:
    wanted = (Answers(), Activations("embed"))
    return measure(model or Bare(), probe(), wanted, architecture=adapted(adapter, {}))


def test_bare_parameters_and_fewer_answers_than_tokens_are_measured() -> None:
    found, model = values(Adapter()), Bare()
    logits = model(torch.from_numpy(np.stack(probe().ids)))[:, -1].detach()
    np.testing.assert_array_equal(found["predicted"], logits.argmax(-1).numpy())
    expected = logits.log_softmax(-1)[torch.arange(P * P), torch.from_numpy(probe().answer_ids)]
    np.testing.assert_allclose(found["answer_logprob"], expected.numpy(), atol=1e-5)


WRONG: dict[str, tuple[Callable[[nn.Module, torch.Tensor], Any], str, str]] = {
    "p answers": (lambda m, i: m(i), r"logits of shape \(49, 3, 7\)", r"pad\(logits, \(0, 1\), value=-1e4\)"),
    "more answers than tokens": (lambda m, i: nn.functional.pad(m(i), (0, 3)), r"\(49, 3, 10\)", "vocab=10"),
    "the last token alone": (lambda m, i: m(i)[:, -1], r"\(49, 7\)", "last token alone"),
    "tokens first": (lambda m, i: m(i).transpose(0, 1), r"\(3, 49, 7\)", "rows first"),
    "a tuple": (lambda m, i: (m(i), None), "returned tuple", "take the logits out"),
}


@pytest.mark.parametrize("what", WRONG)
def test_logits_of_another_shape_are_refused_with_a_remedy(what: str) -> None:
    logits, observed, remedy = WRONG[what]
    with pytest.raises(UserError, match=observed) as caught:
        values(Adapter(logits))
    assert "(49, 3, 8)" in caught.value.expected
    assert re.search(remedy, caught.value.remedy)


class Sideways(nn.Module):
    """Gives tokens first, or no token axis."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        self.turned = turned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1) if self.turned else x.sum(1)


@pytest.mark.parametrize(("turned", "shape"), [(True, r"\(3, 49, 6\)"), (False, r"\(49, 6\)")])
def test_a_site_without_its_token_axis_is_refused(turned: bool, shape: str) -> None:
    model = Bare()
    model.hook_turned = Sideways(turned)
    resid = model.hook_resid
    resid.register_forward_hook(lambda module, args, output: [model.hook_turned(output), None][1])
    with pytest.raises(UserError, match=f"the table's place of 'embed' gave values of shape {shape}") as caught:
        values(Adapter(where="hook_turned"), model)
    assert "(row, token, feature) for 49 rows of 3 tokens" in caught.value.expected
    assert "correct the table" in caught.value.remedy


def test_a_site_can_be_what_a_function_computes() -> None:
    """Also one that runs the model again, or modules that are read as well."""
    whole: list[int] = []

    def again(model: Any, args: tuple[Any, ...], output: Any) -> torch.Tensor:
        whole.append(1)
        model(args[0])
        return model.hook_resid(model.W_E[args[0]].cumsum(1))

    expected = values(Adapter())["embed"]
    np.testing.assert_array_equal(values(Adapter(where=Where("", function=again)))["embed"], expected)
    assert len(whole) == 1
    twice = Where("hook_resid", function=lambda module, args, output: 2 * args[0])
    np.testing.assert_array_equal(values(Adapter(where=twice))["embed"], 2 * expected)


FUNCTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (lambda model, args, output: model.W_X[args[0]], "of site 'embed' raised AttributeError"),
    "gives nothing": (lambda model, args, output: None, "returned no 'embed'"),
    "has no token axis": (lambda model, args, output: model.W_E, r"place of 'embed' gave values of shape \(8, 6\)"),
    "gives numpy": (lambda model, args, output: args[0].numpy(), r"place of 'embed' gave values of shape \(49, 3\)"),
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_function_that_gives_no_site_is_refused(what: str) -> None:
    function, observed = FUNCTIONS[what]
    with pytest.raises(UserError, match=observed) as caught:
        values(Adapter(where=Where("", function=function)))
    assert caught.value.expected and caught.value.remedy


def test_what_a_function_computes_cannot_be_changed() -> None:
    table = Adapter(where=Where("", function=lambda model, args, output: output)).sites
    for site, why in (("embed", "a function computes it"), ("ln_final", "the table has no such site")):
        with pytest.raises(UserError, match=f"{site!r} cannot be changed: {why}"):
            table.place(site)


@pytest.mark.parametrize("part", ["sites", "shape"])
def test_an_adapter_that_describes_nothing_is_refused(part: str) -> None:
    adapter = Adapter()
    setattr(adapter, part, {} if part == "sites" else lambda tensors: (1, 1))
    with pytest.raises(UserError, match=rf"`{part}` of the adapter (is \{{\}}|returned \(1, 1\))") as caught:
        adapted(adapter, {})
    assert "SiteTable(block, in_block, outside" in caught.value.remedy or "ModelShape(layers," in caught.value.remedy


class Told(Adapter):
    """Its tokens are those of the weights."""

    def tokenizer(self, tensors: Mapping[str, torch.Tensor] | None = None) -> Any:
        return word_tokenizer([*map(str, range(tensors["W_U"].shape[1])), "="]) if tensors else None


def test_a_tokenizer_may_depend_on_the_weights() -> None:
    tensors = {"W_U": torch.zeros(WIDTH, 5)}
    assert tokenizer_of(Told(), tensors)("4 4 =")["input_ids"] == [4, 4, 5]
    with pytest.raises(UserError, match="`tokenizer` of the adapter returned a NoneType") as caught:
        tokenizer_of(Adapter(), tensors)
    assert "word_tokenizer" in caught.value.remedy
