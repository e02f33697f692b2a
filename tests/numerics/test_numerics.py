"""Numerics against planted truth: a linear code, a circle of numbers, known angles; and noise, which holds nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from dynamics.numerics.decoding import RIDGE, ClassDecoder, decode_number, folds_of
from dynamics.numerics.fourier import PERIODS, fourier_basis, fourier_r2, relabelled_digits
from dynamics.numerics.similarity import centred_cosines, concept_margins, nearest_other

NUMBERS = np.arange(10, 100)


def linear_code(labels: np.ndarray, seed: int, *, features: int = 30, noise: float = 0.3) -> np.ndarray:
    """Activations that hold the label as a direction per class, plus noise."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(int(labels.max()) + 1, features))
    return directions[labels] + noise * rng.normal(size=(len(labels), features))


# --- folds


@given(units=st.lists(st.integers(0, 40), min_size=1, max_size=80), folds=st.integers(2, 6), seed=st.integers(0, 5))
def test_prompts_of_one_unit_share_a_fold_and_folds_are_even(units: list[int], folds: int, seed: int) -> None:
    found = folds_of(np.array(units), folds, seed)
    by_unit: dict[int, set[int]] = {}
    for unit, fold in zip(units, found.tolist(), strict=True):
        by_unit.setdefault(unit, set()).add(fold)
    assert all(len(seen) == 1 for seen in by_unit.values())
    sizes = np.bincount([next(iter(seen)) for seen in by_unit.values()], minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == folds


# --- decoding a class


def test_a_planted_linear_code_is_decoded_in_its_context_and_in_the_other() -> None:
    rng = np.random.default_rng(0)
    labels, group = rng.integers(5, size=300), np.repeat(["a", "b"], 150)
    hits, null = ClassDecoder(labels, folds_of(np.arange(300)), group, shuffles=10).hits(linear_code(labels, 0))
    assert hits.shape == (2, 300)
    assert null.shape == (2, 300, 10)
    for trained in range(2):
        for tested in ("a", "b"):
            assert hits[trained, group == tested].mean() > 0.97
    assert null.mean() == pytest.approx(0.2, abs=0.05)


def test_two_codes_for_one_class_are_decoded_each_in_its_own_context_only() -> None:
    rng = np.random.default_rng(1)
    labels, group = rng.integers(5, size=400), np.repeat(["a", "b"], 200)
    x = np.where((group == "a")[:, None], linear_code(labels, 1), linear_code(labels, 2))
    hits, _ = ClassDecoder(labels, folds_of(np.arange(400)), group, shuffles=0).hits(x)
    assert hits[0, group == "a"].mean() > 0.97
    assert hits[1, group == "b"].mean() > 0.97
    assert hits[0, group == "b"].mean() < 0.5
    assert hits[1, group == "a"].mean() < 0.5


def test_on_noise_decoding_is_at_chance_and_its_null_is_calibrated() -> None:
    """The rank of the real labels among shuffled ones is uniform: at most a tenth of noise is among the top tenth."""
    ranks = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        labels = rng.integers(4, size=80)
        x = rng.normal(size=(80, 10))
        hits, null = ClassDecoder(
            labels, folds_of(np.arange(80), seed=seed), np.zeros(80), shuffles=19, seed=seed
        ).hits(x)
        ranks.append((null[0].mean(0) > hits[0].mean()).sum() + 0.5 * (null[0].mean(0) == hits[0].mean()).sum())
    ranks_ = np.array(ranks) / 19
    assert ranks_.mean() == pytest.approx(0.5, abs=0.1)
    assert 0.02 <= (ranks_ < 0.1).mean() <= 0.22
    assert 0.02 <= (ranks_ > 0.9).mean() <= 0.22


def test_a_fold_never_trains_on_its_own_prompts() -> None:
    """With a feature that is the unit's own name, only leakage between folds could predict a random label."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(40), 5)
    labels = rng.integers(2, size=40)[units]
    x = np.eye(40)[units]
    leaked, _ = ClassDecoder(labels, folds_of(np.arange(200)), np.zeros(200), shuffles=0).hits(x)
    kept, _ = ClassDecoder(labels, folds_of(units), np.zeros(200), shuffles=0).hits(x)
    assert leaked.mean() > 0.95
    assert kept.mean() < 0.7


def test_decoding_equals_ridge_regression_written_out() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60)
    x = linear_code(labels, 0, features=7, noise=2.0)
    fold = folds_of(np.arange(60), 3)
    hits, _ = ClassDecoder(labels, fold, np.zeros(60), shuffles=0).hits(x)
    for f in range(3):
        train, test = fold != f, fold == f
        z = (x - x[train].mean(0)) / x[train].std(0)
        hot = np.eye(3)[labels]
        centred = hot[train] - hot[train].mean(0)
        w = np.linalg.solve(z[train].T @ z[train] + RIDGE * train.sum() * np.eye(7), z[train].T @ centred)
        right = (z[test] @ w + hot[train].mean(0)).argmax(1) == labels[test]
        np.testing.assert_array_equal(hits[0, test], right)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_not_decoded(bad: float) -> None:
    labels = np.arange(100) % 4
    x = linear_code(labels, 0)
    hits, null = ClassDecoder(labels, folds_of(np.arange(100)), np.zeros(100), shuffles=3).hits(np.full_like(x, bad))
    assert np.isnan(hits).all()
    assert np.isnan(null).all()
    x[7, 3] = bad  # one prompt spoils every classifier that is trained on it, and its own prediction
    fold = folds_of(np.arange(100))
    hits, _ = ClassDecoder(labels, fold, np.zeros(100), shuffles=0).hits(x)
    assert np.isnan(hits[0, fold != fold[7]]).all()
    assert np.isnan(hits[0, 7])
    assert np.isfinite(hits[0, (fold == fold[7]) & (np.arange(100) != 7)]).all()


def test_a_number_is_decoded_alike_from_few_and_from_many_features() -> None:
    """With more features than prompts the dual system is solved: zeros beside the features must not matter."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 10))
    values = x[:, 0] + 0.5 * rng.normal(size=50)
    fold = folds_of(np.arange(50))
    few, null = decode_number(x, values, fold, shuffles=3)
    many, null_of_many = decode_number(np.concatenate([x, np.zeros((50, 90))], axis=1), values, fold, shuffles=3)
    np.testing.assert_allclose(few, many)
    np.testing.assert_allclose(null, null_of_many)


def test_dead_and_constant_features_carry_nothing() -> None:
    labels = np.arange(90) % 3
    x = linear_code(labels, 0, features=6)
    dead = np.concatenate([x, np.zeros((90, 4)), np.full((90, 3), 7.0)], axis=1)
    fold = folds_of(np.arange(90))
    plain, _ = ClassDecoder(labels, fold, np.zeros(90), shuffles=0).hits(x)
    with_dead, _ = ClassDecoder(labels, fold, np.zeros(90), shuffles=0).hits(dead)
    np.testing.assert_array_equal(plain, with_dead)
    constant, _ = ClassDecoder(labels, fold, np.zeros(90), shuffles=0).hits(np.full((90, 5), 0.1))
    assert constant.mean() < 0.5


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_decoding_does_not_depend_on_units_of_a_feature(scale: float, shift: float) -> None:
    labels = np.arange(60) % 3
    x = linear_code(labels, 0, features=5, noise=1.5)
    fold = folds_of(np.arange(60))
    one, _ = ClassDecoder(labels, fold, np.zeros(60), shuffles=0).hits(x)
    other, _ = ClassDecoder(labels, fold, np.zeros(60), shuffles=0).hits(scale * x + shift)
    np.testing.assert_array_equal(one, other)


# --- decoding a number


def test_the_r2_of_a_number_is_that_of_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6))
    values = x @ rng.normal(size=6) + 0.7 * rng.normal(size=120)
    fold = folds_of(np.arange(120), 4)
    share, null = decode_number(x, values, fold, shuffles=5)
    predicted = np.empty(120)
    for f in range(4):
        train, test = fold != f, fold == f
        z = (x - x[train].mean(0)) / x[train].std(0)
        # ridge as ordinary least squares on data with one more row per feature
        rows = np.concatenate([z[train], np.sqrt(RIDGE * train.sum()) * np.eye(6)])
        target = np.concatenate([values[train] - values[train].mean(), np.zeros(6)])
        predicted[test] = z[test] @ np.linalg.lstsq(rows, target)[0] + values[train].mean()
    np.testing.assert_allclose(share, 1 - (predicted - values) ** 2 / values.var(), rtol=1e-9)
    r2 = 1 - ((predicted - values) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    assert share.mean() == pytest.approx(r2)
    assert r2 > 0.7
    assert null.shape == (5,)
    assert (null < 0.1).all()


def test_a_number_in_noise_has_no_r2_above_its_null() -> None:
    above = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        share, null = decode_number(
            rng.normal(size=(60, 8)), rng.normal(size=60), folds_of(np.arange(60)), shuffles=19, seed=seed
        )
        above.append((null < share.mean()).mean())
    assert np.mean(above) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(above) > 0.94) < 0.17


def test_a_number_is_not_decoded_from_activations_that_are_not_finite() -> None:
    x = np.full((20, 3), np.nan)
    share, null = decode_number(x, np.arange(20), folds_of(np.arange(20)), shuffles=2)
    assert np.isnan(share).all()
    assert np.isnan(null).all()


def test_a_number_that_never_varies_has_no_r2() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    share, _ = decode_number(x, np.full(20, 5.0), folds_of(np.arange(20)), shuffles=2)
    assert np.isnan(share).all()


# --- Fourier features


def planted(seed: int, features: int = 24) -> np.ndarray:
    """(number, feature) representations made of the Fourier features alone."""
    basis = fourier_basis(NUMBERS)
    return basis @ np.random.default_rng(seed).normal(size=(basis.shape[1], features))


def digit_embeddings(seed: int, features: int = 24) -> np.ndarray:
    """(number, feature): a random vector for each tens digit plus one for each ones digit, without any order."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(10, features))[NUMBERS // 10] + rng.normal(size=(10, features))[NUMBERS % 10]


def test_the_basis_is_the_sines_and_cosines_that_it_names() -> None:
    basis = fourier_basis(NUMBERS, (2, 10))
    expected = [np.ones(90), (NUMBERS - 54.5) / NUMBERS.std(), (-1.0) ** NUMBERS]
    expected += [np.cos(2 * np.pi * NUMBERS / 10), np.sin(2 * np.pi * NUMBERS / 10)]
    np.testing.assert_allclose(basis, np.stack(expected, axis=1), atol=1e-9)
    assert fourier_basis(NUMBERS).shape == (90, 2 + 2 * len(PERIODS) - 1)
    assert np.linalg.matrix_rank(fourier_basis(NUMBERS)) == 9


def test_planted_fourier_features_are_explained_completely() -> None:
    assert fourier_r2(planted(0), NUMBERS) == pytest.approx(1.0)
    assert fourier_r2(planted(0) + 7.0, NUMBERS) == pytest.approx(1.0)


def test_r2_is_the_one_of_least_squares() -> None:
    x = np.random.default_rng(0).normal(size=(3, 90, 5)) + planted(0, 5)
    for layer, found in zip(x, fourier_r2(x, NUMBERS), strict=True):
        fit = np.linalg.lstsq(fourier_basis(NUMBERS), layer)[0]
        residual = layer - fourier_basis(NUMBERS) @ fit
        assert found == pytest.approx(1 - (residual**2).sum() / ((layer - layer.mean(0)) ** 2).sum())


def test_noise_is_explained_as_much_as_its_degrees_of_freedom() -> None:
    x = np.random.default_rng(0).normal(size=(90, 400))
    assert fourier_r2(x, NUMBERS) == pytest.approx(8 / 89, abs=0.01)


def test_planted_fourier_features_exceed_every_relabelling_of_the_digits() -> None:
    null = fourier_r2(planted(1), relabelled_digits(NUMBERS, 100))
    assert null.shape == (100,)
    assert fourier_r2(planted(1), NUMBERS) > null.max() + 0.1


def test_random_embeddings_of_digits_do_not_exceed_their_relabellings() -> None:
    above = []
    for seed in range(60):
        x = digit_embeddings(seed)
        null = fourier_r2(x, relabelled_digits(NUMBERS, 39, seed=seed))
        above.append((null < fourier_r2(x, NUMBERS)).mean())
    assert np.mean(above) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(above) > 0.95) < 0.15


def test_but_they_do_exceed_shuffled_numbers() -> None:
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(NUMBERS) for _ in range(50)])
    x = digit_embeddings(3)
    assert fourier_r2(x, NUMBERS) > fourier_r2(x, shuffled).max()


def test_relabelling_renames_digits_and_nothing_else() -> None:
    for row in relabelled_digits(NUMBERS, 20):
        assert sorted(row) == NUMBERS.tolist()
        for digit in range(10):
            assert len(set(row[digit == NUMBERS % 10] % 10)) == 1
            assert len(set(row[digit == NUMBERS // 10] // 10)) == (digit > 0)


def test_bootstrap_counts_are_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 90, 6)) + planted(0, 6)
    counts = np.stack([np.bincount(rng.integers(90, size=90), minlength=90) for _ in range(4)])
    found = fourier_r2(x, NUMBERS, counts)
    assert found.shape == (2, 4)
    for d, count in enumerate(counts):
        rows = np.repeat(np.arange(90), count)
        numbers = NUMBERS[rows]
        for layer in range(2):
            sample = x[layer][rows]
            residual = sample - fourier_basis(numbers) @ np.linalg.lstsq(fourier_basis(numbers), sample)[0]
            expected = 1 - (residual**2).sum() / ((sample - sample.mean(0)) ** 2).sum()
            assert found[layer, d] == pytest.approx(expected)
    np.testing.assert_allclose(fourier_r2(x, NUMBERS, np.ones((1, 90)))[:, 0], fourier_r2(x, NUMBERS))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-2, 1e2))
def test_r2_does_not_depend_on_the_choice_of_axes(seed: int, scale: float) -> None:
    x = digit_embeddings(seed, 6)
    turned = scale * x @ ortho_group.rvs(6, random_state=seed) + 3.0
    assert fourier_r2(turned, NUMBERS) == pytest.approx(fourier_r2(x, NUMBERS), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 0.7, 123.456, 1e6, np.nan, np.inf])
def test_representations_that_do_not_vary_or_are_not_finite_have_no_r2(value: float) -> None:
    x = np.stack([np.full((90, 3), value) * [1.0, 0.3, 7.0], planted(0, 3)])
    found = fourier_r2(x, NUMBERS)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(1.0)


def test_numbers_that_cannot_tell_two_features_apart_do_not_explain_more() -> None:
    """Multiples of ten: the cosines of periods 2, 5 and 10 are all constant, and must not fit anything."""
    numbers = np.arange(10, 400, 10)
    x = np.random.default_rng(0).normal(size=(len(numbers), 300))
    basis = fourier_basis(numbers, (100,))
    expected = 1 - ((x - basis @ np.linalg.lstsq(basis, x)[0]) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert fourier_r2(x, numbers) == pytest.approx(expected)


# --- similarity


def test_cosines_are_those_of_centred_vectors() -> None:
    a = np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 2.0], [1.0, 0.0]]) + 10
    b = np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
    expected = np.array([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1]])
    np.testing.assert_allclose(centred_cosines(a, b), expected, atol=1e-12)
    np.testing.assert_array_equal(nearest_other(centred_cosines(a, b)), range(4))
    np.testing.assert_allclose(concept_margins(centred_cosines(a, b)), 1 + 1 / 3)


def test_the_same_concepts_in_a_shifted_language_are_retrieved_completely() -> None:
    rng = np.random.default_rng(0)
    concept = rng.normal(size=(50, 20))
    a, b = concept + 100 * rng.normal(size=20), 3 * concept + 100 * rng.normal(size=20)
    cosines = centred_cosines(a, b)
    np.testing.assert_array_equal(nearest_other(cosines), np.arange(50))
    np.testing.assert_allclose(np.diagonal(cosines), 1.0)
    order = rng.permutation(50)
    np.testing.assert_array_equal(nearest_other(centred_cosines(a[order], b)), order)


def test_unrelated_languages_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    right, margins = [], []
    for _ in range(100):
        cosines = centred_cosines(rng.normal(size=(20, 30)), rng.normal(size=(20, 30)))
        right.append((nearest_other(cosines) == np.arange(20)).mean())
        margins.append(concept_margins(cosines).mean())
    assert np.mean(right) == pytest.approx(1 / 20, abs=0.02)
    assert np.mean(margins) == pytest.approx(0.0, abs=0.01)


@given(seed=st.integers(0, 1000), n=st.integers(2, 12), scale=st.floats(1e-3, 1e3))
def test_cosines_do_not_depend_on_scale_or_on_what_a_language_shares(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 8)), rng.normal(size=(n, 8))
    np.testing.assert_allclose(
        centred_cosines(a, b), centred_cosines(scale * a + rng.normal(size=8), b + 5.0), atol=1e-8
    )
    np.testing.assert_allclose(centred_cosines(a, b), centred_cosines(b, a).T, atol=1e-12)
    assert (np.abs(centred_cosines(a, b)) <= 1 + 1e-9).all()


def test_margins_are_the_cosine_to_the_translation_minus_the_mean_of_the_others() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, size=(6, 6))
    expected = [cosines[i, i] - np.delete(cosines[i], i).mean() for i in range(6)]
    np.testing.assert_allclose(concept_margins(cosines), expected)


def test_a_word_without_a_representation_has_no_nearest_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    for broken in (np.nan, np.inf):
        assert (nearest_other(centred_cosines(np.full((5, 4), broken), b)) == -1).all()
    for alike in (np.full(4, 0.1), rng.normal(size=4)):  # all words alike: nothing to tell
        for n in (3, 5, 7):
            assert (nearest_other(centred_cosines(np.tile(alike, (n, 1)), b[:3].repeat(3, 0)[:n])) == -1).all()
    assert (nearest_other(centred_cosines(a, b)) >= 0).all()
    assert np.isnan(concept_margins(centred_cosines(np.full((5, 4), np.nan), b))).all()


def test_the_arguments_are_not_changed() -> None:
    a, b = np.ones((3, 2)) + np.eye(3, 2), np.eye(3, 2)
    before = a.copy(), b.copy()
    centred_cosines(a, b)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])
