"""Attribution by token: known in a linear model, complete in every family; exchanged tokens against patched edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from checkpoints.errors import UserError
from dynamics.circuits.attribution import logit_difference
from dynamics.circuits.wired import Wired
from dynamics.measurements import TokenAttribution
from dynamics.models.architecture import architecture
from dynamics.probes import LAST, Probe, TokenizedProbe
from tests.models.families import CONFIGS, VOCAB

from .handmade import NOW, SAY, WORDS, Toy, described, head, lookup_toy

N, LENGTH = 12, 5
GROUPS = (("hint", ("hint",)), ("operands", ("a", "b")))


def probe_of(words: int = WORDS, *, seed: int = 0, **labels: list[Any]) -> TokenizedProbe:
    """Random prompts of one length with a hint and two operands, twins that differ in the hint, and counterparts."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, words, (N, LENGTH))
    twins = ids.copy()
    twins[:, 3] = 2 + (ids[:, 3] - 1) % (words - 2)
    answers, foils = rng.integers(2, words - 1, N), np.full(N, words - 1)
    named = {"other_donor": [*range(1, N), -1], **labels}
    probe = Probe("toy", tuple(map(str, ids.tolist())), labels={k: tuple(v) for k, v in named.items()})
    places = {LAST: LENGTH - 1, "hint": 3, "a": 0, "b": 2}
    positions = {name: np.full(N, at) for name, at in places.items()}
    return TokenizedProbe(probe, tuple(ids), answers, foils, tuple(twins), positions, {})


def averaging_toy() -> tuple[Toy, np.ndarray]:
    """A head that looks everywhere alike and says C times the mean word: linear in every token. Also C (said, read)."""
    toy = Toy(1)
    c = torch.randn((WORDS, WORDS), generator=torch.Generator().manual_seed(0))
    _, _, v, o = head(toy, 0, 0)
    v[:WORDS, NOW] = torch.eye(WORDS)
    o[SAY, :WORDS] = c
    return toy, c.numpy().astype(np.float64)


def test_in_a_linear_model_attributions_are_the_coefficients() -> None:
    toy, c = averaging_toy()
    probe = probe_of()
    assert probe.answer_ids is not None and probe.foil_ids is not None
    found = TokenAttribution(GROUPS, points=1).run(toy, described(toy), probe, 8192)  # one point is exact here
    ids = np.stack(probe.ids)
    said = (c[probe.answer_ids] - c[probe.foil_ids])[np.arange(N)[:, None], ids] / LENGTH  # (prompt, token)
    hot = np.eye(WORDS)[ids].mean(0)  # what an average prompt holds at each place: (token, word)
    average = np.einsum("nw,tw->nt", c[probe.answer_ids] - c[probe.foil_ids], hot) / LENGTH
    expected = said - average
    grouped = np.stack([expected[:, 3], expected[:, [0, 2]].sum(1), expected[:, [1, 4]].sum(1)], axis=1)
    np.testing.assert_allclose(found["token_attribution"], grouped, atol=1e-5)
    np.testing.assert_allclose(found["attribution_whole"], expected.sum(1), atol=1e-5)


def test_with_twins_only_what_differs_is_attributed() -> None:
    toy, c = averaging_toy()
    probe = probe_of()
    assert probe.answer_ids is not None and probe.foil_ids is not None and probe.corrupted_ids is not None
    found = TokenAttribution(GROUPS, baseline="twin", points=1).run(toy, described(toy), probe, 8192)
    difference = c[probe.answer_ids] - c[probe.foil_ids]
    at, other = np.stack(probe.ids)[:, 3], np.stack(probe.corrupted_ids)[:, 3]
    expected = (difference[np.arange(N), at] - difference[np.arange(N), other]) / LENGTH
    np.testing.assert_allclose(found["token_attribution"][:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(found["token_attribution"][:, 1:], 0, atol=1e-6)


def test_exchanged_tokens_bring_what_the_counterpart_would_say() -> None:
    """The last token decides alone: exchanging it (the group "rest") brings the counterpart's answer, others nothing."""
    toy, probe = lookup_toy(), probe_of()
    found = TokenAttribution(GROUPS, ("other",)).run(toy, described(toy), probe, 8192)
    said, effect = found["exchange_said"][0], found["exchange_effect"][0]  # (group, prompt)
    last = np.array([row[-1] for row in probe.ids])
    np.testing.assert_array_equal(said[2, :-1], (last[1:] + 1) % WORDS)
    np.testing.assert_array_equal(said[:2, :-1], np.broadcast_to((last[:-1] + 1) % WORDS, (2, N - 1)))
    np.testing.assert_allclose(effect[:2, :-1], 0, atol=1e-6)
    assert np.isnan(effect[:, -1]).all() and (said[:, -1] == -1).all()  # no counterpart


def random_model(family: str) -> Any:
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "llama", "bloom", "olmo2"])
@pytest.mark.parametrize("baseline", ["mean", "twin"])
def test_attributions_are_complete_and_do_not_depend_on_batches(family: str, baseline: Any) -> None:
    model, probe = random_model(family), probe_of(VOCAB)
    asked = TokenAttribution(GROUPS, ("other",), baseline=baseline, points=64)
    known = architecture(model.config)
    found = asked.run(model, known, probe, 8192)
    whole = found["attribution_whole"]
    assert np.abs(whole).max() > 0.5
    np.testing.assert_allclose(found["token_attribution"].sum(1), whole, atol=0.02 * np.abs(whole).max())
    few = replace(asked, points=4)
    whole_batch = few.run(model, known, probe, 8192)
    for name, values in few.run(model, known, probe, 10).items():
        np.testing.assert_allclose(values, whole_batch[name], atol=1e-4)
    assert all(p.requires_grad for p in model.parameters())  # the model is left as it was
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "llama"])
def test_the_same_from_the_wired_models_gradients_and_patches(family: str) -> None:
    """Held against edges: the stream's gradient is the sum of its readers', and exchanged tokens are cut embeddings."""
    model, probe = random_model(family), probe_of(VOCAB)
    assert probe.answer_ids is not None and probe.foil_ids is not None and probe.corrupted_ids is not None
    known = architecture(model.config)
    found = TokenAttribution(GROUPS, ("other",), baseline="twin", points=2).run(model, known, probe, 8192)
    wired = Wired(model, known)
    ids, twins = torch.from_numpy(np.stack(probe.ids)), torch.from_numpy(np.stack(probe.corrupted_ids))
    last = torch.full((N,), LENGTH - 1)
    metric = logit_difference(torch.from_numpy(probe.answer_ids), torch.from_numpy(probe.foil_ids))
    clean, other = wired.written(ids), wired.written(twins)
    expected = torch.zeros(N, LENGTH)
    for node in (0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3)):  # Gauss-Legendre with two points
        start = other[0] + node * (clean[0] - other[0])
        gradient = wired.gradients(ids, last, metric, start).readers.sum(0)
        expected += 0.5 * (gradient * (clean[0] - other[0])).sum(-1)
    np.testing.assert_allclose(found["token_attribution"][:, 0], expected[:, 3].numpy(), atol=1e-4)

    given = clean[:, [*range(1, N), 0]]  # the counterpart's run, at the same places
    cut = torch.zeros(len(wired.graph.sources), len(wired.graph.readers))
    cut[0] = 1  # the embedding, from every reader
    base = metric(wired.logits(ids, last))
    for group, places in enumerate(([3], [0, 2], [1, 4])):
        where = torch.zeros(1, LENGTH)
        where[0, places] = 1
        changed = metric(wired.patched(ids, last, given, where[:, :, None, None] * cut)) - base
        got = found["exchange_effect"][0, group, :-1]
        np.testing.assert_allclose(got, changed.numpy()[:-1], atol=2e-4)
    assert np.abs(found["exchange_effect"][0, :, :-1]).max() > 0.1
    np.testing.assert_allclose(found["exchange_base"], base.numpy(), atol=1e-4)


def test_only_the_chosen_prompts_are_measured() -> None:
    toy = lookup_toy()
    probe = probe_of(kind=["yes", "no"] * (N // 2))
    whole = TokenAttribution(GROUPS, ("other",)).run(toy, described(toy), probe, 8192)
    some = TokenAttribution(GROUPS, ("other",), only=("kind", "yes")).run(toy, described(toy), probe, 8192)
    for name, axis in (("token_attribution", 0), ("exchange_effect", 2), ("exchange_base", 0)):
        kept, left = (np.take(some[name], range(i, N, 2), axis) for i in (0, 1))
        np.testing.assert_array_equal(kept, np.take(whole[name], range(0, N, 2), axis))
        assert np.isnan(left).all()
    assert (some["exchange_said"][..., 1::2] == -1).all()


def test_a_length_that_few_prompts_have_is_not_attributed() -> None:
    """There is no mean of three prompts: NaN, not a difference to themselves."""
    toy, probe = lookup_toy(), probe_of()
    short = tuple(row[1:] if i < 3 else row for i, row in enumerate(probe.ids))
    places = {k: np.maximum(v - (np.arange(N) < 3), 0) for k, v in probe.positions.items()}
    probe = replace(probe, ids=short, positions=places)
    found = TokenAttribution(GROUPS, ("other",)).run(toy, described(toy), probe, 8192)
    assert np.isnan(found["token_attribution"][:3]).all() and np.isnan(found["attribution_whole"][:3]).all()
    assert np.isfinite(found["token_attribution"][3:]).all()
    assert np.isfinite(found["exchange_effect"][0, 0, :-1]).all()  # named places are exchanged between lengths
    assert np.isnan(found["exchange_effect"][0, 2, 2])  # from a prompt of five tokens to one of four


def test_a_broken_model_says_nothing() -> None:
    toy, probe = lookup_toy(), probe_of()
    toy.unembed.weight.data[:] = float("nan")
    found = TokenAttribution(GROUPS, ("other",)).run(toy, described(toy), probe, 8192)
    assert np.isnan(found["token_attribution"]).all() and np.isnan(found["exchange_effect"]).all()
    assert (found["exchange_said"] == -1).all()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (TokenAttribution((("hint", ("hints",)),)), "has no position 'hints'"),
        (TokenAttribution(GROUPS, ("nobody",)), "does not say which prompt is the counterpart 'nobody'"),
        (TokenAttribution(GROUPS, only=("kind", "yes")), "has no label 'kind'"),
    ],
)
def test_what_the_probe_does_not_say_is_refused(asked: TokenAttribution, says: str) -> None:
    with pytest.raises(UserError, match=says):
        asked.declare(probe_of(), described(lookup_toy()).shape)


def test_a_probe_without_foils_or_twins_is_refused() -> None:
    shape = described(lookup_toy()).shape
    with pytest.raises(UserError, match="cannot be attributed"):
        TokenAttribution(GROUPS).declare(replace(probe_of(), foil_ids=None), shape)
    with pytest.raises(UserError, match="no corrupted twins"):
        TokenAttribution(GROUPS, baseline="twin").declare(replace(probe_of(), corrupted_ids=None), shape)
    with pytest.raises(UserError, match="causal"):
        TokenAttribution(GROUPS).declare(probe_of(), replace(shape, causal=False))


def test_an_architecture_that_does_not_say_what_blocks_read_is_refused() -> None:
    toy = lookup_toy()
    known = described(toy)
    places = {k: v for k, v in known.table.in_block.items() if k != "resid_pre"}
    with pytest.raises(UserError, match="does not say what its blocks read"):
        TokenAttribution(GROUPS).run(toy, replace(known, table=replace(known.table, in_block=places)), probe_of(), 64)


def test_what_is_declared_is_what_is_measured() -> None:
    toy, probe = lookup_toy(), probe_of()
    asked = TokenAttribution(GROUPS, ("other",))
    declared = asked.declare(probe, described(toy).shape)
    found = asked.run(toy, described(toy), probe, 8192)
    assert {v.name: v.shape for v in declared} == {k: v.shape for k, v in found.items()}
