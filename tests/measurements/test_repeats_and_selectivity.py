"""Attention on repeats and selectivity against brute force, and against patterns and units that were made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import UserError
from dynamics.measurements import Activations, Batch, RepeatAttention, Selectivity, repeat_scores
from dynamics.models.architecture import model_shape
from dynamics.probes import TokenizedProbe
from tests.measurements.measured import HEADS, LAYERS, VOCAB, broken, model, output, probe_of, repeats, run

# --- attention on repeats


def one_hot_pattern(offset: int, length: int) -> torch.Tensor:
    """Attention of every query to the token ``offset`` before it, or to itself where there is none."""
    pattern = torch.zeros(length, length)
    for query in range(length):
        pattern[query, query - offset if query >= offset else query] = 1
    return pattern


@pytest.mark.parametrize("period", [3, 5, 8])
@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_perfect_head_has_score_one_and_only_in_its_own_score(period: int, before: int) -> None:
    length = 2 * period + before  # ``before``: a separator, say, in front of the first copy
    for offset, perfect in {period - 1: "prefix_matching", period: "duplicate_token", 1: "previous_token"}.items():
        scores = repeat_scores(one_hot_pattern(offset, length), period)
        assert {name: float(value) for name, value in scores.items()} == {
            name: float(name == perfect) for name in ("prefix_matching", "duplicate_token", "previous_token")
        }
    nothing = repeat_scores(one_hot_pattern(0, length), period)
    assert all(float(value) == 0 for value in nothing.values())


def test_scores_are_means_over_the_second_copy_alone() -> None:
    pattern = torch.zeros(2, 7, 7)  # a separator, then a b c a b c
    pattern[0, 4, 2] = 0.5  # second a -> first b
    pattern[0, 5, 3] = 0.25  # second b -> first c
    pattern[0, 3, 1] = 0.9  # not a query of the second copy
    pattern[1, 6, 3] = 0.6  # second c -> first c
    scores = repeat_scores(pattern, 3)
    np.testing.assert_allclose(scores["prefix_matching"], [0.25, 0.0], rtol=1e-6)
    np.testing.assert_allclose(scores["duplicate_token"], [0.0, 0.2], rtol=1e-6)
    np.testing.assert_allclose(scores["previous_token"], [0.0, 0.0], rtol=1e-6)


def test_uniform_attention_has_the_score_of_its_row_lengths() -> None:
    length, period = 12, 5
    pattern = torch.tril(torch.ones(length, length))
    pattern /= pattern.sum(-1, keepdim=True)
    expected = np.mean([1 / (t + 1) for t in range(length - period, length)])
    for score in repeat_scores(pattern, period).values():
        assert float(score) == pytest.approx(expected)


def test_head_scores_are_those_of_brute_force() -> None:
    probe, period = repeats(), 5
    found = run(probe, RepeatAttention())
    for i, row in enumerate(probe.ids):
        for layer, attention in enumerate(output(row).attentions):
            for head in range(HEADS):
                sums = {"prefix_matching": 0.0, "duplicate_token": 0.0, "previous_token": 0.0}
                for query in range(1 + period, 1 + 2 * period):
                    earlier = [k for k in range(query) if row[k] == row[query]]
                    assert len(earlier) == 1
                    sums["prefix_matching"] += float(attention[0, head, query, earlier[0] + 1])
                    sums["duplicate_token"] += float(attention[0, head, query, earlier[0]])
                    sums["previous_token"] += float(attention[0, head, query, query - 1])
                for name, value in sums.items():
                    assert found[name][i, layer, head] == pytest.approx(value / period, abs=1e-6)


def test_scores_of_a_broken_model_are_missing_behind_the_break() -> None:
    found = run(repeats(), RepeatAttention(), of=broken())
    assert np.isfinite(found["prefix_matching"][:, 0]).all()  # its first attention is still whole
    assert np.isnan(found["prefix_matching"][:, 1]).all()


@pytest.mark.parametrize(
    ("periods", "lengths", "message"),
    [
        ([3, 4], [9, 9], "is not made of repeats"),
        ([3, 3], [9, 8], "is not made of repeats"),
        (["3", "3"], [9, 9], "is not made of repeats"),
        ([5, 5], [9, 9], "two periods of 5 do not fit its 9 tokens"),
        ([0, 0], [9, 9], "period of 0"),
        ([-2, -2], [9, 9], "period of -2"),
    ],
)
def test_a_probe_that_is_not_made_of_repeats_is_refused(periods: list[Any], lengths: list[int], message: str) -> None:
    probe = probe_of([np.arange(n) for n in lengths], period=periods)
    with pytest.raises(UserError, match=message):
        RepeatAttention().declare(probe, model_shape(model().config))


def test_a_probe_without_the_label_is_refused() -> None:
    with pytest.raises(UserError, match="label 'period' has values"):
        RepeatAttention().declare(probe_of([np.arange(8)]), model_shape(model().config))


# --- selectivity


def labelled(n: int = 60, seed: int = 0) -> TokenizedProbe:
    """Prompts of several lengths in two contexts, with a label that the last token carries, and a second label."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(VOCAB, size=rng.choice([3, 5])) for _ in range(n)]
    return probe_of(
        ids,
        kind=[int(row[-1]) % 3 for row in ids],
        context=[str(c) for c in rng.choice(["one", "two"], n)],
        part=[str(c) for c in rng.choice(["asked", "other"], n)],
    )


def eta_squared(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """SS between / SS total of every column."""
    between = sum((labels == k).sum() * (x[labels == k].mean(0) - x.mean(0)) ** 2 for k in sorted(set(labels.tolist())))
    return np.asarray(between / ((x - x.mean(0)) ** 2).sum(0))


@pytest.mark.parametrize("site", ["mlp_post"])
@pytest.mark.parametrize("where", [None, ("part", "asked")])
def test_selectivity_is_the_share_of_variance_between_classes(site: str, where: tuple[str, str] | None) -> None:
    probe = labelled()
    found = run(
        probe, Selectivity("kind", by="context", where=where, site=site, permutations=3, top=0.25), Activations(site)
    )
    x = found[site][:, 0].astype(np.float64)  # (prompt, layer, unit)
    labels = {k: np.array(v) for k, v in probe.probe.labels.items()}
    contexts = list(dict.fromkeys(labels["context"].tolist()))
    for c, context in enumerate(contexts):
        used = labels["context"] == context
        if where is not None:
            used &= labels["part"] == "asked"
        expected = eta_squared(x[used].reshape(used.sum(), -1), labels["kind"][used])
        np.testing.assert_allclose(found["selectivity"][c].reshape(-1), expected, atol=1e-5)
        best = np.argsort(-expected)[: round(0.25 * expected.size)]
        assert found["selectivity_top"][c, 0].tolist() == best.tolist()
    assert found["selectivity_top"].shape == (2, 4, 6)
    assert found["selectivity_top"].min() >= 0
    assert found["selectivity_top"].max() < LAYERS * 12


def planted(labels: list[int], context: list[str], x: np.ndarray, **more: Any) -> dict[str, np.ndarray]:
    """Selectivity of activations (prompt, unit) made by hand, one layer."""
    probe = probe_of([np.zeros(1, dtype=int)] * len(x), kind=labels, context=context)
    shape = model_shape(
        hf.GPTNeoXConfig(
            num_hidden_layers=1, intermediate_size=x.shape[1], hidden_size=4, num_attention_heads=1, vocab_size=2
        )
    )
    accumulator = Selectivity("kind", by="context", **more).start(probe, shape)
    batch = Batch(np.arange(len(x)), torch.zeros(len(x), 1, dtype=torch.long))
    accumulator.observe("mlp_post", 0, torch.from_numpy(x)[:, None], batch)
    accumulator.finish(batch)
    return accumulator.result()


def test_a_unit_that_is_the_label_has_selectivity_one_and_a_dead_or_unrelated_one_none() -> None:
    labels = [0, 1, 2, 0, 1, 2] * 2
    context = ["a"] * 6 + ["b"] * 6
    value = np.array(labels, dtype=np.float64)
    unrelated = np.array([1.0, 1, 1, -1, -1, -1] * 2)
    in_a_only = np.where(np.array(context) == "a", value, unrelated)
    x = np.stack([value, np.full(12, 3.0), unrelated, in_a_only], axis=1)
    found = planted(labels, context, x, top=0.25)
    np.testing.assert_allclose(found["selectivity"][:, 0], [[1, 0, 0, 1], [1, 0, 0, 0]], atol=1e-12)
    assert found["selectivity_top"][:, 0].tolist() == [[0], [0]]


def test_shuffled_labels_are_shuffled_within_their_context_and_mostly_unselective() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    x = rng.normal(size=(400, 50))
    x[:, 7] += 3 * labels
    found = planted(labels.tolist(), ["a", "b"] * 200, x, top=0.02, permutations=40)
    assert (found["selectivity_top"][:, 0] == 7).all()
    assert (found["selectivity_top"][:, 1:] == 7).mean() < 0.2
    np.testing.assert_allclose(np.delete(found["selectivity"], 7, axis=-1).mean(), 3 / 199, atol=0.006)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_selectivity_does_not_depend_on_the_scale_or_offset_of_a_unit(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    labels, x = rng.integers(3, size=30).tolist(), rng.normal(size=(30, 5))
    one, other = (planted(labels, ["a"] * 30, v)["selectivity"] for v in (x, scale * x + shift))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert ((one >= -1e-9) & (one <= 1 + 1e-9)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_unit_that_is_not_finite_has_no_selectivity_and_ranks_nowhere(bad: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5))
    x[3, 2] = bad
    found = planted([0, 1, 2] * 10, ["a"] * 30, x)
    assert np.isnan(found["selectivity"][0, 0, 2])
    assert np.isfinite(np.delete(found["selectivity"], 2, axis=-1)).all()
    assert (found["selectivity_top"] == -1).all()


def test_selectivity_of_a_broken_model_is_missing() -> None:
    found = run(labelled(), Selectivity("kind", by="context"), of=broken())
    assert np.isnan(found["selectivity"][:, 1]).all()
    assert (found["selectivity_top"] == -1).all()


def test_a_context_in_which_nothing_was_asked_has_no_selectivity() -> None:
    probe = probe_of(
        [np.array([1, 2, i]) for i in range(8)],
        kind=[0, 1] * 4,
        context=["a"] * 4 + ["b"] * 4,
        part=["asked"] * 4 + ["other"] * 4,
    )
    found = run(probe, Selectivity("kind", by="context", where=("part", "asked")))
    assert np.isfinite(found["selectivity"][0]).all()
    assert np.isnan(found["selectivity"][1]).all()
    assert (found["selectivity_top"][0] >= 0).all()
    assert (found["selectivity_top"][1] == -1).all()


def test_a_label_that_does_not_exist_is_refused_with_the_nearest_one() -> None:
    for wrong in (Selectivity("kin", by="context"), Selectivity("kind", by="kontext")):
        with pytest.raises(UserError, match="has no label") as refused:
            wrong.declare(labelled(), model_shape(model().config))
        assert "did you mean" in str(refused.value)
