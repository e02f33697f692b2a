"""What a feature is for, on planted features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dynamics.analysis.enrichment import enrich, explained, explained_draws, magnitude, operand_shares, operand_table
from dynamics.emergence import unit_bootstrap

ROW, COLUMN = np.indices((10, 10))


def sums(seed: int = 0, each: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(prompt,) operands with every pair of ones digits."""
    rng = np.random.default_rng(seed)
    a, b = (np.repeat(x.ravel(), each) + 10 * rng.integers(1, 9, 100 * each) for x in (ROW, COLUMN))
    return a, b


def sparse(shape: tuple[int, int], seed: int, rate: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < rate, rng.exponential(size=shape), 0.0)


def test_a_feature_made_for_a_digit_is_found_with_its_digit_and_others_are_not() -> None:
    a, b = sums()
    rng = np.random.default_rng(1)
    x = sparse((300, 60), seed=2)
    x[:, 0] = ((a + b) % 10 == 5) * (1 + 0.3 * rng.random(300))
    x[:, 1] = ((a + b) % 10 == 7) * (rng.random(300) < 0.5) + 0.2 * rng.random(300)
    found = enrich(x, (a + b) % 10)
    assert found.found[:2].all() and found.values[found.best[:2]].tolist() == [5, 7]
    assert found.explained[0] > 0.9 and found.share[0] == pytest.approx(found.explained[0], abs=0.02)
    assert found.found[2:].sum() <= 3
    assert (found.p_value[:2] <= 1 / 1000).all()


def test_shuffled_features_are_found_at_the_stated_rate_only() -> None:
    a, b = sums()
    p = np.concatenate([enrich(sparse((300, 100), seed=s), (a + b) % 10, draws=199, seed=s).p_value for s in range(5)])
    assert 0.03 <= (p <= 0.05).mean() <= 0.075  # a permutation p value is uniform
    runs = [enrich(sparse((300, 100), seed=9 + s), (a + b) % 10, draws=999, seed=s).found.any() for s in range(10)]
    assert np.mean(runs) <= 0.3


def test_labels_are_dealt_within_groups() -> None:
    """A feature of the group is not one of a label that depends on the group."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 100)
    label = np.where(rng.random(200) < 0.8, group, 1 - group)
    x = (group[:, None] == 1) * (1 + 0.1 * rng.random((200, 1)))
    assert enrich(x, label).p_value[0] < 0.01
    assert enrich(x, label, groups=group).p_value[0] > 0.05


def test_features_that_hardly_answer_or_never_change_are_not_tested() -> None:
    x = np.zeros((40, 3))
    x[:3, 0], x[:, 1] = 1.0, 2.0
    found = enrich(x, np.arange(40) % 4)
    assert np.isnan(found.p_value).all() and not found.found.any()
    assert np.isnan(found.explained[1:]).all() and np.isnan(found.share[1:]).all()
    assert np.isnan(
        enrich(np.ones((4, 1)) * np.arange(4)[:, None], np.zeros(4)).p_value
    ).all()  # one value explains nothing


def test_magnitude_is_found_and_shuffled_numbers_are_not() -> None:
    a, b = sums()
    rng = np.random.default_rng(3)
    x = np.hstack([(a + b)[:, None] * 0.01 + 0.1 * rng.random((300, 1)), sparse((300, 50), seed=4)])
    found = magnitude(x, a + b)
    assert found.found[0] and found.r2[0] > 0.9 and found.spearman[0] > 0.9
    assert found.found[1:].sum() <= 3
    assert found.r2[1:].max() < 0.1
    assert found.r2[5] == pytest.approx(np.corrcoef(x[:, 5], a + b)[0, 1] ** 2)


def test_explained_agrees_with_one_way_analysis_of_variance() -> None:
    from scipy.stats import f_oneway

    x, label = sparse((90, 4), seed=5, rate=0.6), np.arange(90) % 3
    f = f_oneway(*(x[label == v] for v in range(3)), axis=0).statistic
    np.testing.assert_allclose(explained(x, label), 2 * f / (2 * f + 87))


def test_draws_resample_clusters_as_the_bootstrap_of_means_does() -> None:
    rng = np.random.default_rng(6)
    x, label, cluster = rng.random(60), np.arange(60) % 2, np.arange(60) // 4
    draws = explained_draws(x, label, clusters=cluster, draws=50)
    times = np.random.default_rng(0).multinomial(15, np.full(15, 1 / 15), size=50)
    again = [explained(np.repeat(x, t[cluster])[:, None], np.repeat(label, t[cluster]))[0] for t in times]
    np.testing.assert_allclose(draws, again)
    means = unit_bootstrap(x[None], draws=50, clusters=cluster)[0]
    np.testing.assert_allclose(means, [np.repeat(x, t[cluster]).mean() for t in times])


@pytest.mark.parametrize(
    ("table", "part", "what"),
    [
        (ROW == 6, "first", None),
        (COLUMN == 2, "second", None),
        ((ROW + COLUMN) % 10 == 5, "ends", 5),
        ((ROW == 6) & (COLUMN == 9), "cell", [6, 9]),
        (((ROW == 6) & (COLUMN == 9)) | ((ROW == 9) & (COLUMN == 6)), "cell", [6, 9]),
    ],
)
def test_planted_operand_features_are_told_apart(table: np.ndarray, part: str, what: object) -> None:
    found = operand_shares(table[..., None] * 1.5 + 0.2)
    shares = {name: float(getattr(found, name)[0]) for name in ("first", "second", "ends", "cell", "rest")}
    assert max(shares, key=lambda name: shares[name]) == part
    assert shares["rest"] == pytest.approx(0.0, abs=1e-9)
    if part == "ends":
        assert found.digit[0] == what
    elif part == "cell":
        assert found.pair[0].tolist() == what
        assert shares["cell"] > 0.6
    else:
        assert shares[part] == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float64, (10, 10, 2), elements=st.floats(-5, 5, width=32)))
def test_shares_sum_to_the_total_variance_and_are_none_negative(table: np.ndarray) -> None:
    found = operand_shares(table)
    total = table.reshape(100, -1).var(axis=0)
    for feature in range(2):
        if np.isfinite(found.ends[feature]):
            shares = [getattr(found, name)[feature] for name in ("first", "second", "ends", "cell", "rest")]
            assert min(shares) > -1e-6
            assert found.total[feature] * sum(shares) == pytest.approx(total[feature])


def test_the_table_is_of_means_and_says_where_there_is_no_prompt() -> None:
    a, b = sums(each=2)
    x = np.random.default_rng(0).random((200, 3))
    table = operand_table(x, a, b)
    np.testing.assert_allclose(table[3, 4], x[(a % 10 == 3) & (b % 10 == 4)].mean(axis=0))
    lacking = operand_table(x[2:], a[2:], b[2:])
    assert np.isnan(lacking[0, 0]).all()
    assert np.isnan(operand_shares(lacking).ends).all()
    assert np.isnan(operand_shares(np.ones((10, 10, 1))).ends).all()


def test_wrong_shapes_are_told() -> None:
    with pytest.raises(ValueError, match="expected \\(prompt, feature\\)"):
        explained(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        enrich(np.full((3, 1), np.nan), np.arange(3))
    with pytest.raises(ValueError, match="expected \\(10, 10, feature\\)"):
        operand_shares(np.ones((9, 10, 1)))
