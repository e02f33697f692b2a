"""A direction in the stream: planted ones are found, their effect is known exactly; families against plain hooks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from checkpoints.errors import UserError
from dynamics.emergence import unit_bootstrap
from dynamics.measurements import Direction
from dynamics.models.architecture import architecture
from dynamics.numerics.ranking import resampled_counts, shuffled_labels, weighted_auroc
from dynamics.probes import LAST, Probe, TokenizedProbe
from tests.circuits.handmade import LENGTH, NOW, WORDS, Toy, described, induction_toy
from tests.models.families import CONFIGS, VOCAB

ANSWER, FOIL = 6, 7
PLANTED = Direction("kind", layers=(0, 1), strengths=(-2, -1, 0, 1, 2), shuffled=3, random=4, units="item")


def probe_of(ids: list[list[int]], kind: list[Any], held_out: list[int], places: list[int], answers: int = ANSWER, foils: int = FOIL) -> TokenizedProbe:  # fmt: skip
    n = len(ids)
    labels = {"kind": tuple(kind), "held_out": tuple(held_out), "item": tuple(i // 2 for i in range(n))}
    probe = Probe("toy", tuple(" ".join(map(str, row)) for row in ids), labels=labels)
    positions = {LAST: np.array([len(row) - 1 for row in ids]), "there": np.array(places)}
    rows = tuple(np.array(row) for row in ids)
    return TokenizedProbe(probe, rows, np.full(n, answers), np.full(n, foils), None, positions, {})


def planted_toy() -> Toy:
    """Words 0 and 1 say the answer and words 2 and 3 the foil, by 3 logits, read off the last token's stream."""
    toy = Toy(2)
    toy.unembed.weight.data[ANSWER, NOW] = 3 * torch.tensor([1, 1, -1, -1, 0, 0, 0, 0]).float()
    return toy


def planted_probe() -> TokenizedProbe:
    """Pairs that differ in their last word; other words before it where they are asked."""
    ids, kind, held = [], [], []
    for item in range(16):
        before = [4 + item % 2] * (1 + item % 3)
        for k in (1, 0):
            ids.append([*before, (0 if k else 2) + item // 2 % 2])
            kind.append(k)
            held.append(int(item >= 8))
    return probe_of(ids, kind, held, [len(row) - 1 for row in ids])


def test_a_planted_direction_separates_steers_and_is_needed_by_exactly_as_much_as_was_planted() -> None:
    toy, probe = planted_toy(), planted_probe()
    found = PLANTED.run(toy, described(toy), probe, 8192)
    kind, held = (np.array(probe.probe.labels[name]) == 1 for name in ("kind", "held_out"))
    along = found["direction_projection"][:, 0]
    np.testing.assert_array_equal(auroc(along[:, held], kind[held]), 1)
    np.testing.assert_allclose(found["direction_norm"][:, 0], 1)  # half of 1, four times
    np.testing.assert_allclose(along[:, kind] * 2, 1, atol=1e-6)  # each class lies half a distance from the middle
    np.testing.assert_allclose(found["direction_base"][held], np.where(kind[held], 3, -3), atol=1e-5)
    doses = np.array(PLANTED.strengths)
    np.testing.assert_allclose(
        found["steering"][:, :, 0][..., held], np.broadcast_to(6 * doses[:, None], (2, 5, 16)), atol=1e-5
    )
    said = found["steering_said"][:, :, 0]
    assert (said[:, 4][:, held] == ANSWER).all() and (said[:, 0][:, held] != ANSWER).all()
    np.testing.assert_allclose(found["steering_slope"][:, 0][:, held], 6, atol=1e-5)
    for removed in (*found["ablation"][:, 0], found["ablation_everywhere"][0]):
        np.testing.assert_allclose(removed[held], np.where(kind[held], -3, 3), atol=1e-5)
    assert np.isnan(found["steering"][..., ~held]).all() and (found["steering_said"][..., ~held] == -1).all()


def test_other_directions_do_what_their_share_of_the_planted_one_does() -> None:
    toy, probe = planted_toy(), planted_probe()
    found = PLANTED.run(toy, described(toy), probe, 8192)
    held = np.array(probe.probe.labels["held_out"]) == 1
    names = PLANTED.steered_directions()
    change = found["steering"][..., held].mean(-1)  # (layer, strength, direction)
    np.testing.assert_allclose(change[:, 4], 2 * change[:, 3], atol=1e-4)
    np.testing.assert_allclose(change[:, 0], -change[:, 4], atol=1e-4)
    every = PLANTED.directions()
    length = found["direction_norm"]
    for i, name in enumerate(names):
        if name.startswith("random"):
            np.testing.assert_allclose(length[:, every.index(name)], length[:, 0])
            slope = found["steering_slope"][:, every.index(name)][:, held]  # this model is linear
            np.testing.assert_allclose(found["steering"][:, 3, i][:, held], slope, atol=1e-4)
            assert (np.abs(change[:, 3, i]) < 4).all()
            removed = found["ablation"][:, i][:, held]
            assert (np.abs(removed).mean(1) < 1.5).all()
        if name.startswith("shuffled"):
            assert (length[:, every.index(name)] < 0.8 * length[:, 0]).all()
            assert np.isnan(found["ablation"][:, i]).all()


def test_a_direction_that_nothing_reads_changes_nothing() -> None:
    toy, probe = planted_toy(), planted_probe()
    toy.unembed.weight.data[ANSWER] = 0
    toy.unembed.weight.data[FOIL] = 0
    found = PLANTED.run(toy, described(toy), probe, 8192)
    held = np.array(probe.probe.labels["held_out"]) == 1
    assert found["direction_norm"][0, 0] == pytest.approx(1)
    np.testing.assert_allclose(found["steering"][..., held], 0, atol=1e-6)
    np.testing.assert_allclose(found["ablation_everywhere"][0, held], 0, atol=1e-6)


def test_what_comes_before_the_position_is_not_touched() -> None:
    """The induction head reads what L0H1 wrote at the successor; steered after it, the answer stays."""
    toy = induction_toy()
    ids = [[a, b, c, 4, 5, 6, last] for a, b, c, last in ((0, 1, 2, 5), (0, 2, 1, 5), (1, 0, 2, 5), (1, 2, 0, 5)) * 2]
    kind = [int(row[0] == 0) for row in ids]
    early = probe_of(ids, kind, [0] * 4 + [1] * 4, [0] * 8)
    late = probe_of(ids, kind, [0] * 4 + [1] * 4, [6] * 8)
    asked = Direction("kind", position="there", layers=(0,), shuffled=0, random=2)
    first, last = (asked.run(toy, described(toy), probe, 8192) for probe in (early, late))
    moved = np.abs(first["steering"][0, :, 0, 4:]).max()
    assert moved > 0 and np.abs(last["direction_norm"][0, 0]) < 1e-6  # the last word and the one before it are the same
    assert np.abs(last["steering"][0, :, 0, 4:]).max() == 0


FAMILIES = ["gpt_neox", "gpt_neox sequential", "gpt2", "llama", "olmo2"]


def random_model(family: str) -> Any:
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def random_probe() -> TokenizedProbe:
    rng = np.random.default_rng(0)
    ids = [rng.integers(2, VOCAB, 5 + i // 2 % 2).tolist() for i in range(16)]
    return probe_of(ids, [1, 0] * 8, [int(i >= 8) for i in range(16)], rng.integers(1, 4, 16).tolist(), 3, 9)


@pytest.mark.parametrize("family", FAMILIES)
def test_steering_and_ablation_are_what_a_plain_hook_does(family: str) -> None:
    model, probe = random_model(family), random_probe()
    known = architecture(model.config)
    asked = Direction(
        "kind",
        position="there",
        layers=(0, 1, 2),
        strengths=(-1.5, 0, 1),
        shuffled=2,
        random=2,
        steered_shuffled=1,
        steered_random=1,
    )
    found = asked.run(model, known, probe, 40)
    assert {v.name: v.shape for v in asked.declare(probe, known.shape)} == {k: v.shape for k, v in found.items()}
    layers = [model.get_submodule(known.table.block.format(layer)) for layer in range(known.shape.layers)]

    def streams(row: np.ndarray) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        hooks = [
            b.register_forward_hook(lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out))
            for b in layers
        ]
        with torch.no_grad():
            model(torch.from_numpy(row)[None])
        for hook in hooks:
            hook.remove()
        return [x[0].double() for x in seen]

    def edited(row: int, edits: dict[int, Any]) -> float:
        place = int(probe.positions["there"][row])
        hooks = []
        for layer, change in edits.items():

            def hook(_m: Any, _a: Any, out: Any, change: Any = change) -> Any:
                x = (out[0] if isinstance(out, tuple) else out).clone()
                x[0, place:] = change(x[0, place:].double()).float()
                return (x, *out[1:]) if isinstance(out, tuple) else x

            hooks.append(layers[layer].register_forward_hook(hook))
        with torch.no_grad():
            logits = model(torch.from_numpy(probe.ids[row])[None]).logits[0, -1]
        for one in hooks:
            one.remove()
        return float(logits[3] - logits[9])

    every = [streams(row) for row in probe.ids]
    where = probe.positions["there"]
    at = [torch.stack([x[layer][p] for x, p in zip(every, where, strict=True)]) for layer in range(len(layers))]
    d = [x[0:8:2].mean(0) - x[1:8:2].mean(0) for x in at]
    tails = [[x[layer][p:] for x, p in zip(every[:8], where[:8], strict=True)] for layer in range(len(layers))]
    longest = max(len(t) for t in tails[0])
    usual = [
        torch.stack([torch.stack([t[k] for t in tail if len(t) > k]).mean(0) for k in range(longest)]) for tail in tails
    ]

    def without(layer: int) -> Any:
        u = d[layer] / d[layer].norm()
        mean = torch.cat([usual[layer], usual[layer][-1:].expand(6, -1)])
        return lambda x: x - ((x - mean[: len(x)]) @ u)[:, None] * u

    for row in (8, 11, 14):
        base = edited(row, {})
        assert found["direction_base"][row] == pytest.approx(base, abs=1e-4)
        for layer in range(len(layers)):
            u = d[layer] / d[layer].norm()
            middle = (at[layer][0:8:2].mean(0) + at[layer][1:8:2].mean(0)) / 2
            assert found["direction_projection"][layer, 0, row] == pytest.approx(
                float((at[layer][row] - middle) @ u), abs=1e-4
            )
            for dose, strength in enumerate(asked.strengths):
                change = edited(row, {layer: lambda x, s=strength, v=d[layer]: x + s * v}) - base
                assert found["steering"][layer, dose, 0, row] == pytest.approx(change, abs=5e-4)
            near = [edited(row, {layer: lambda x, s=s, v=d[layer]: x + s * v}) for s in (-0.02, 0.02)]
            assert found["steering_slope"][layer, 0, row] == pytest.approx(
                (near[1] - near[0]) / 0.04, abs=5e-3, rel=0.02
            )
            assert found["ablation"][layer, 0, row] == pytest.approx(
                edited(row, {layer: without(layer)}) - base, abs=5e-4
            )
        removed = edited(row, {layer: without(layer) for layer in range(len(layers))}) - base
        assert found["ablation_everywhere"][0, row] == pytest.approx(removed, abs=5e-4)
    np.testing.assert_allclose(found["steering"][:, 1][..., 8:], 0, atol=1e-5)  # strength 0 is the model itself
    assert np.nanmax(np.abs(found["steering"])) > 0.05


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "llama"])
def test_the_model_is_left_as_it_was_and_batches_do_not_matter(family: str) -> None:
    model, probe = random_model(family), random_probe()
    known = architecture(model.config)
    asked = Direction("kind", position="there", shuffled=2, random=2)
    ids = torch.arange(2, 8)[None]
    with torch.no_grad():
        before = model(ids).logits
        one, other = (asked.run(model, known, probe, tokens) for tokens in (8192, 12))
        assert torch.equal(before, model(ids).logits)
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], atol=2e-4)
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and "forward" not in vars(module)


def test_a_model_that_breaks_while_steered_is_left_as_it_was() -> None:
    toy, probe = planted_toy(), planted_probe()
    calls = 0
    plain = toy.forward

    def failing(ids: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise RuntimeError("out of memory")
        return plain(ids)

    toy.forward = failing  # type: ignore[method-assign]
    with pytest.raises(UserError, match="raised RuntimeError: out of memory"):
        PLANTED.run(toy, described(toy), probe, 16)
    assert not any(m._forward_hooks or "forward" in vars(m) for m in toy.modules() if m is not toy)


def test_a_broken_model_says_nothing() -> None:
    toy, probe = planted_toy(), planted_probe()
    toy.blocks[0].get_submodule("mlp.down").get_parameter("weight").data[:] = float("nan")
    found = PLANTED.run(toy, described(toy), probe, 8192)
    for name, values in found.items():
        if name.endswith("said"):
            assert (values == -1).all(), name
        else:
            assert np.isnan(values).all(), name


def test_without_any_difference_there_is_no_direction_and_nothing_is_separated() -> None:
    ids = [[4, 5, 0]] * 16
    probe = probe_of(ids, [1, 0] * 8, [int(i >= 8) for i in range(16)], [1] * 16)
    direction = Direction("kind", position="there", shuffled=1, random=1)
    found = direction.run(planted_toy(), described(planted_toy()), probe, 8192)
    assert (found["direction_norm"] == 0).all() and (found["direction_projection"][:, 0] == 0).all()
    steered = list(direction.steered_layers(len(found["steering"])))
    assert (found["steering"][steered][..., 8:] == 0).all()


@pytest.mark.parametrize(
    ("changed", "asked", "says"),
    [
        ({}, Direction("mood"), "has no label 'mood'"),
        ({}, Direction("kind", held_out="later"), "has no label 'later'"),
        ({}, Direction("kind", units="pair"), "has no label 'pair'"),
        ({}, Direction("kind", position="nowhere"), "has no position 'nowhere'"),
        ({}, Direction("kind", strengths=(0.0,)), "steering strengths are 0"),
        ({}, Direction("kind", strengths=(1.0, 1.0)), "steering strengths are 1, 1"),
        ({}, Direction("kind", layers=(0, 2)), "no layer 2 to steer"),
        ({"kind": tuple([1] * 32)}, Direction("kind"), "of the prompts with held_out = 0, 'kind' is 1 for all"),
        (
            {"held_out": tuple([0] * 32)},
            Direction("kind"),
            "of the prompts with held_out = 1, 'kind' is neither 0 nor 1",
        ),
        ({"kind": tuple(["yes", "no"] * 16)}, Direction("kind"), "'kind' is neither 0 nor 1"),
    ],
)
def test_what_the_probe_does_not_say_is_refused(changed: dict[str, Any], asked: Direction, says: str) -> None:
    probe = planted_probe()
    probe = replace(probe, probe=replace(probe.probe, labels={**probe.probe.labels, **changed}))
    with pytest.raises(UserError, match=says):
        asked.declare(probe, described(planted_toy()).shape)


def test_answers_foils_and_a_causal_model_are_needed() -> None:
    shape = described(planted_toy()).shape
    with pytest.raises(UserError, match="no answers and foils"):
        PLANTED.declare(replace(planted_probe(), foil_ids=None), shape)
    with pytest.raises(UserError, match="cannot be measured on a model that fills in masks"):
        PLANTED.declare(planted_probe(), replace(shape, causal=False))


# --- numerics


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), levels=st.integers(1, 30))
def test_auroc_is_that_of_mann_whitney_with_ties(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (3, 25)).astype(float)
    one = np.arange(25) < rng.integers(1, 25)
    expected = [mannwhitneyu(s[one], s[~one]).statistic / (one.sum() * (~one).sum()) for s in scores]
    np.testing.assert_allclose(auroc(scores, one), expected, atol=1e-12)
    np.testing.assert_allclose(auroc(scores, ~one), 1 - np.array(expected), atol=1e-12)


def auroc(scores: Any, positive: Any) -> np.ndarray:
    """(...,) of prompts that count once each."""
    one = np.atleast_2d(np.asarray(positive, dtype=bool))
    return weighted_auroc(scores, one, ~one)[..., 0]


def test_auroc_of_one_class_or_of_broken_scores_is_missing() -> None:
    assert np.isnan(auroc([1.0, 2.0], [True, True]))
    assert np.isnan(auroc([np.nan, 2.0], [True, False]))
    assert np.isnan(weighted_auroc([np.nan, 2.0], [[1, 0]] * 3, [[0, 1]] * 3)).all()


def test_draws_of_auroc_are_those_of_resampled_prompts_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    scores, one, clusters = rng.normal(size=24), np.tile([True, False], 12), np.repeat(np.arange(12), 2)
    drawn = resampled_counts(24, clusters=clusters, draws=20, seed=3)
    found = weighted_auroc(scores, drawn * one, drawn * ~one)
    counts = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=20)
    for draw, times in enumerate(counts):
        rows = np.repeat(np.arange(24), times[clusters])
        expected = mannwhitneyu(scores[rows][one[rows]], scores[rows][~one[rows]]).statistic / one[rows].sum() ** 2
        assert found[draw] == pytest.approx(expected)
    # paired with the bootstrap of means: a draw of both holds the same clusters
    means = unit_bootstrap(scores[None], draws=20, seed=3, clusters=clusters)[0]
    np.testing.assert_allclose(means, counts @ scores.reshape(12, 2).mean(1) / 12)


def test_shuffled_labels_respect_pairs_and_whole_units() -> None:
    pairs = np.repeat(np.arange(30), 2)
    one = np.tile([True, False], 30)
    dealt = shuffled_labels(one, units=pairs, shuffles=200)
    assert (dealt.reshape(200, 30, 2).sum(2) == 1).all()
    assert dealt[:, ::2].mean() == pytest.approx(0.5, abs=0.03)
    whole = shuffled_labels(pairs < 10, units=pairs, shuffles=200)
    assert (whole.reshape(200, 30, 2).sum(2) % 2 == 0).all() and (whole.sum(1) == 20).all()
    loose = shuffled_labels(one, shuffles=50)
    assert (loose.sum(1) == 30).all() and (loose[:, ::2] == loose[:, 1::2]).any()


def test_the_probes_words_and_places_fit_the_toy() -> None:
    assert all(len(row) <= LENGTH and row.max() < WORDS for row in planted_probe().ids)
