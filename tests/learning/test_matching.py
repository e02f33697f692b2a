"""Which feature is which: against brute force, symmetric, unchanged by the order of features; ties, the dead, chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from dynamics.learning.matching import STATUS, Matches, match_activations, match_decoders
from dynamics.numerics.blocked import CosineScores, scan_scores

METHODS = ("mutual", "assignment")
CASES = st.tuples(
    st.integers(0, 10_000), st.integers(3, 40), st.integers(3, 40), st.integers(4, 24), st.sampled_from([3, 7, 64])
)


def dictionaries(seed: int, rows: int, columns: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two dictionaries that share some features, turned by different amounts."""
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((rows, d)), rng.standard_normal((columns, d))
    shared = min(rows, columns) * 2 // 3
    other[:shared] = one[:shared] + rng.uniform(0, 0.8, (shared, 1)) * rng.standard_normal((shared, d))
    return one, rng.permutation(other)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one / np.linalg.norm(one, axis=1)[:, None]) @ (other / np.linalg.norm(other, axis=1)[:, None]).T


@settings(max_examples=30, deadline=None)
@given(CASES, st.floats(-0.5, 0.9), st.integers(1, 50))
def test_a_scan_in_blocks_finds_what_the_whole_table_holds(case: tuple[int, ...], above: float, most: int) -> None:
    seed, rows, columns, d, block = case
    one, other = dictionaries(seed, rows, columns, d)
    table = cosines(one, other)
    by_row, by_column, pairs = scan_scores(CosineScores(one, other), above=above, most=most, block=block)
    assert by_row.index.tolist() == table.argmax(axis=1).tolist()
    assert by_column.index.tolist() == table.argmax(axis=0).tolist()
    np.testing.assert_allclose(by_row.score, table.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(by_row.second, np.sort(table, axis=1)[:, -2], atol=1e-5)
    np.testing.assert_allclose(by_column.second, np.sort(table, axis=0)[-2], atol=1e-5)
    rank_row = (table[:, None, :] > table[:, :, None]).sum(axis=2)
    rank_column = (table[None, :, :] > table[:, None, :]).sum(axis=1)
    expected = (table >= above) & ((rank_row < most) | (rank_column < most))
    found = np.zeros(table.shape, dtype=bool)
    found[pairs.rows, pairs.columns] = True
    differs = expected != found
    assert (np.abs(table[differs] - above) < 1e-5).all()
    np.testing.assert_allclose(pairs.scores, table[pairs.rows, pairs.columns], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(CASES)
def test_mutual_matches_are_those_of_brute_force(case: tuple[int, ...]) -> None:
    seed, rows, columns, d, block = case
    one, other = dictionaries(seed, rows, columns, d)
    table = cosines(one, other)
    found = match_decoders(one, other, draws=400, block=block)
    for row in range(rows):
        column = int(table[row].argmax())
        mutual = int(table[:, column].argmax()) == row
        p = max(found.one.p_value[row], found.other.p_value[column])
        expected = column if mutual and p <= found.cut else -1
        assert found.one.partner[row] == expected
        assert found.one.nearest[row] == column
        assert found.one.nearest_score[row] == pytest.approx(table[row, column], abs=1e-5)
        if found.one.partner[row] >= 0:
            assert found.score[row] == pytest.approx(table[row, column], abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_assignment_equals_linear_sum_assignment_above_the_threshold(seed: int) -> None:
    from dynamics.learning.matching import _assigned
    from dynamics.numerics.blocked import ScoredPairs

    one, other = dictionaries(seed, 30, 25, 6)
    table = cosines(one, other).astype(np.float32)
    least = 0.4
    rows, columns = np.nonzero(table >= least)
    left, right, score, _, _ = _assigned(ScoredPairs(rows, columns, table[rows, columns]), table.shape, least)
    gain = np.maximum(table.astype(float) - least, 0.0)
    expected = linear_sum_assignment(gain, maximize=True)
    pairs = {(i, j) for i, j in zip(*expected, strict=True) if gain[i, j] > 0}
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == pairs
    np.testing.assert_allclose(score, table[left, right])


@settings(max_examples=25, deadline=None)
@given(CASES, st.sampled_from(METHODS))
def test_matching_backwards_gives_the_same_pairs(case: tuple[int, ...], method: str) -> None:
    seed, rows, columns, d, block = case
    one, other = dictionaries(seed, rows, columns, d)
    forth = match_decoders(one, other, method=method, draws=400, block=block)  # type: ignore[arg-type]
    back = match_decoders(other, one, method=method, draws=400, block=block).reversed()  # type: ignore[arg-type]
    assert forth.one.partner.tolist() == back.one.partner.tolist()
    assert forth.other.status.tolist() == back.other.status.tolist()
    np.testing.assert_allclose(forth.score, back.score, atol=1e-6)
    consistent(forth)
    consistent(back)


def consistent(found: Matches) -> None:
    """Both sides tell the same."""
    matched = np.flatnonzero(found.one.partner >= 0)
    assert (found.other.partner[found.one.partner[matched]] == matched).all()
    assert (found.other.partner >= 0).sum() == matched.size
    assert np.isfinite(found.score[matched]).all() and np.isnan(np.delete(found.score, matched)).all()
    assert ((found.one.status == STATUS.index("matched")) == (found.one.partner >= 0)).all()


@settings(max_examples=25, deadline=None)
@given(CASES, st.sampled_from(METHODS))
def test_the_order_of_features_does_not_matter(case: tuple[int, ...], method: str) -> None:
    seed, rows, columns, d, block = case
    one, other = dictionaries(seed, rows, columns, d)
    rng = np.random.default_rng(seed + 1)
    left, right = rng.permutation(rows), rng.permutation(columns)
    # the same null on both sides: only draws that do not depend on the features' order
    before = match_decoders(one, other, method=method, null="rotation", draws=400, block=block)  # type: ignore[arg-type]
    after = match_decoders(one[left], other[right], method=method, null="rotation", draws=400, block=block)  # type: ignore[arg-type]
    place = np.argsort(right)
    expected = np.where(before.one.partner[left] >= 0, place[before.one.partner[left]], -1)
    assert after.one.partner.tolist() == expected.tolist()
    assert after.one.status.tolist() == before.one.status[left].tolist()
    np.testing.assert_allclose(after.one.p_value, before.one.p_value[left])


@pytest.mark.parametrize("method", METHODS)
def test_equal_features_are_a_tie_and_dead_ones_have_no_match(method: str) -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((20, 64))
    other = one[::-1].copy()
    other[3] = other[4] * 2.0  # the same direction twice: the partner of feature 15
    one[7] = 0.0
    found = match_decoders(one, other, method=method)  # type: ignore[arg-type]
    assert STATUS[found.one.status[15]] == "tie" and found.one.partner[15] == -1 and found.one.nearest[15] == -1
    assert [STATUS[s] for s in found.other.status[[3, 4]]] == ["tie", "tie"]
    assert found.other.partner[[3, 4]].tolist() == [-1, -1]
    assert STATUS[found.one.status[7]] == "dead" and found.one.nearest[7] == -1 and np.isnan(found.one.p_value[7])
    assert STATUS[found.one.status[16]] == "below null"  # its partner was overwritten
    others = [f for f in range(20) if f not in (7, 15, 16)]
    assert found.one.partner[others].tolist() == [19 - f for f in others]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("null", ["covariance", "rotation"])
def test_unrelated_dictionaries_match_nothing(method: str, null: str) -> None:
    """Family-wise: with nothing to find, any find is a false discovery; at rate 5% it happens in about 5% of cases."""
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        one, other = rng.standard_normal((2, 150, 24))
        found = match_decoders(one, other, method=method, null=null, seed=seed, draws=1000)  # type: ignore[arg-type]
        wrong += bool((found.one.partner >= 0).any())
    assert wrong <= 8  # P(more | 5%) < 1%


def test_features_in_few_large_directions_need_the_covariance_null() -> None:
    """Unrelated features that share a subspace of 4 dimensions look alike to a null that turns them in all 64."""
    rng = np.random.default_rng(0)
    shape = np.r_[np.full(4, 5.0), np.full(60, 0.3)]
    one, other = rng.standard_normal((2, 200, 64)) * shape
    naive = match_decoders(one, other, null="rotation")
    fair = match_decoders(one, other, null="covariance")
    assert (naive.one.partner >= 0).sum() > 50
    assert (fair.one.partner >= 0).sum() == 0


def sparse_activations(rng: np.random.Generator, tokens: int, features: int) -> np.ndarray:
    rates = rng.uniform(0.005, 0.1, features)
    return np.where(rng.random((tokens, features)) < rates, rng.uniform(0.5, 1.5, (tokens, features)), 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_activations_match_what_fires_together_and_agree_with_corrcoef(method: str) -> None:
    rng = np.random.default_rng(1)
    one = sparse_activations(rng, 3000, 60)
    order = rng.permutation(60)
    other = one[:, order] * rng.uniform(0.8, 1.2, (3000, 60))
    other[:, :10] = sparse_activations(rng, 3000, 10)
    one[:, order[20]] = 0.0
    found = match_activations(one, other, method=method, block=16)  # type: ignore[arg-type]
    expected = np.full(60, -1)
    expected[order] = np.arange(60)
    expected[order[:10]] = -1
    expected[order[20]] = -1
    assert found.one.partner.tolist() == expected.tolist()
    assert STATUS[found.one.status[order[20]]] == "dead"
    table = np.corrcoef(one[:, order[30]], other[:, 30])
    assert found.score[order[30]] == pytest.approx(table[0, 1], abs=1e-5)
    back = match_activations(other, one, method=method, block=16).reversed()  # type: ignore[arg-type]
    assert back.one.partner.tolist() == found.one.partner.tolist()


def test_unrelated_activations_match_nothing() -> None:
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        one, other = sparse_activations(rng, 800, 60), sparse_activations(rng, 800, 60)
        wrong += bool((match_activations(one, other, seed=seed).one.partner >= 0).any())
    assert wrong <= 6


def test_what_cannot_be_compared_is_refused() -> None:
    one = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(3, 5\)"):
        match_decoders(one, np.ones((3, 5)))
    with pytest.raises(ValueError, match="3 and 2 tokens"):
        match_activations(one, np.ones((2, 4)))
    with pytest.raises(ValueError, match="'mutual' or 'assignment'"):
        match_decoders(one, one, method="best")  # type: ignore[arg-type]
