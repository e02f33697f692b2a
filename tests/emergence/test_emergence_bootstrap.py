"""Resampling against brute force and against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.emergence import shuffled_match_null, unit_bootstrap


def brute_force(units: np.ndarray, draws: int, seed: int, labels: np.ndarray) -> np.ndarray:
    """Resample clusters one by one and average what they hold, with loops."""
    names = np.unique(labels)
    times = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=draws)
    out = np.full((len(units), draws), np.nan)
    for d in range(draws):
        columns = [
            u for k, name in enumerate(names) for _ in range(times[d, k]) for u in np.flatnonzero(labels == name)
        ]
        for c, row in enumerate(units):
            sample = row[columns][np.isfinite(row[columns])]
            if len(sample):
                out[c, d] = sample.mean()
    return out


@pytest.mark.parametrize("clustered", [False, True])
def test_the_matrix_product_agrees_with_a_loop(clustered: bool) -> None:
    rng = np.random.default_rng(3)
    units = rng.normal(size=(5, 12))
    units[1, 3] = units[1, 7] = np.nan
    units[2, :10] = np.nan  # some draws find nothing here
    units[4] = np.nan
    labels = rng.integers(0, 5, 12) * 10 if clustered else np.arange(12)
    found = unit_bootstrap(units, draws=50, seed=8, clusters=labels if clustered else None)
    np.testing.assert_allclose(found, brute_force(units, 50, 8, labels), rtol=1e-12)
    assert np.isnan(found[4]).all()
    assert np.isnan(found[2]).any()


def test_every_checkpoint_is_resampled_alike() -> None:
    row = np.random.default_rng(0).normal(size=30)
    found = unit_bootstrap([row, row, -row], draws=40)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], -found[2])


def test_the_bootstrap_has_the_standard_error_of_the_mean() -> None:
    units = np.random.default_rng(1).normal(size=(1, 400))
    assert unit_bootstrap(units, draws=4000).std() == pytest.approx(units.std() / 20, rel=0.05)


def test_clusters_of_copies_have_the_standard_error_of_their_number() -> None:
    one_each = np.random.default_rng(1).normal(size=(1, 50))
    copied, labels = np.repeat(one_each, 8, axis=1), np.repeat(np.arange(50), 8)
    clustered = unit_bootstrap(copied, draws=2000, clusters=labels)
    np.testing.assert_allclose(clustered, unit_bootstrap(one_each, draws=2000))
    assert clustered.std() > 2 * unit_bootstrap(copied, draws=2000).std()


@given(st.permutations(range(9)))
@settings(database=None, deadline=None, max_examples=25)
def test_labelled_units_may_come_in_any_order(order: list[int]) -> None:
    units = np.random.default_rng(2).integers(0, 2, size=(4, 9))
    names = np.array(list("abcdefghi"))
    shuffled = unit_bootstrap(units[:, order], draws=20, clusters=names[order])
    np.testing.assert_array_equal(shuffled, unit_bootstrap(units, draws=20, clusters=names))


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    units = np.random.default_rng(2).normal(size=(4, 9))
    assert (unit_bootstrap(units, seed=1) == unit_bootstrap(units, seed=1)).all()
    assert (unit_bootstrap(units, seed=1) != unit_bootstrap(units, seed=2)).any()
    guess, answers = np.arange(8)[None] % 3, np.arange(8) % 3
    assert (shuffled_match_null(guess, answers) == shuffled_match_null(guess, answers)).all()


def test_shuffled_accuracy_is_hypergeometric() -> None:
    answers = np.repeat([0, 1], 50)
    guess = np.repeat([0, 1], 50)[None]  # right everywhere: the null does not care
    null = shuffled_match_null(guess, answers, draws=4000)
    assert null.mean() == pytest.approx(0.5, abs=0.005)
    # Twice the number of zeros among the first fifty, of variance 50 * 1/2 * 1/2 * 50/99.
    assert null.std() == pytest.approx(2 * np.sqrt(50 / 4 * 50 / 99) / 100, rel=0.05)


def test_a_model_that_always_says_the_most_frequent_answer_scores_exactly_its_null() -> None:
    answers = np.array([4] * 30 + [1] * 10)
    np.testing.assert_array_equal(shuffled_match_null(np.full((3, 40), 4), answers), 0.75)


def test_what_the_group_gives_away_stays_in_the_null() -> None:
    groups = np.repeat(["x", "y"], 20)
    answers = np.repeat([1, 2], 20)
    knows_the_group = answers[None]
    np.testing.assert_array_equal(shuffled_match_null(knows_the_group, answers, groups=groups), 1.0)
    assert shuffled_match_null(knows_the_group, answers).mean() == pytest.approx(0.5, abs=0.05)


def test_groups_may_be_interleaved() -> None:
    groups, answers = np.tile([0, 1, 2], 10), np.tile([5, 6, 7], 10)
    np.testing.assert_array_equal(shuffled_match_null(answers[None], answers, groups=groups), 1.0)


def test_missing_predictions_are_left_out() -> None:
    guess = np.array([[1.0, 1.0, np.nan, np.nan], [np.nan] * 4])
    null = shuffled_match_null(guess, [1, 1, 1, 1], draws=5)
    np.testing.assert_array_equal(null[0], 1.0)
    assert np.isnan(null[1]).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"units have shape \(3,\); expected \(checkpoint, unit\)"):
        unit_bootstrap([1, 2, 3])
    with pytest.raises(ValueError, match="at least one unit"):
        unit_bootstrap(np.zeros((3, 0)))
    with pytest.raises(ValueError, match=r"clusters have shape \(2,\); expected \(3,\)"):
        unit_bootstrap(np.zeros((1, 3)), clusters=[1, 2])
    with pytest.raises(ValueError, match="draws is 0"):
        unit_bootstrap(np.zeros((1, 3)), draws=0)
    with pytest.raises(ValueError, match=r"predicted has shape \(3,\)"):
        shuffled_match_null([1, 2, 3], [1, 2, 3])
    with pytest.raises(ValueError, match=r"answers have shape \(2,\); expected \(3,\)"):
        shuffled_match_null([[1, 2, 3]], [1, 2])
    with pytest.raises(ValueError, match=r"groups have shape \(1,\)"):
        shuffled_match_null([[1, 2, 3]], [1, 2, 3], groups=[1])
    with pytest.raises(ValueError, match="draws is -1"):
        shuffled_match_null([[1]], [1], draws=-1)
