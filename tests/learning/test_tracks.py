"""Tracks on made decoders and made matches with known events."""

from __future__ import annotations

import numpy as np
import pytest

from dynamics.emergence.runs import CODES
from dynamics.learning.chains import chain
from dynamics.learning.matching import match_decoders
from dynamics.learning.tracks import Tracks, changes, follow, partings, turning_points

STEPS = np.arange(8) * 10


def made(strength: np.ndarray, seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """(feature, checkpoint, 16) decoders of a strength (feature, checkpoint) with noise of this length."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal((len(strength), 1, 16))
    direction /= np.linalg.norm(direction, axis=2, keepdims=True)
    return strength[..., None] * direction + noise / 4.0 * rng.standard_normal((*strength.shape, 16))


def followed(decoder: np.ndarray, noise: float) -> Tracks:
    features, checkpoints, width = decoder.shape
    return follow(
        STEPS, decoder, variance=np.full(features, noise**2), error=np.ones(checkpoints), dimensions=np.full(checkpoints, width)
    )  # fmt: skip


def test_births_deaths_and_weak_or_dead_features() -> None:
    strength = np.ones((5, 8))
    strength[1, :3] = 0.0
    strength[2, 6:] = 0.0
    strength[3, :5] = 0.2  # below a quarter: not there yet
    strength[4] = 0.0
    tracks = followed(made(strength, noise=0.05), 0.05)
    assert [CODES[s] for s in tracks.state[:4]] == ["present from start", "emerged", "transient", "emerged"]
    assert tracks.born.tolist()[:4] == [[-1, -1], [2, 3], [-1, -1], [4, 5]]
    assert tracks.died.tolist()[:4] == [[-1, -1], [-1, -1], [5, 6], [-1, -1]]
    assert tracks.births.tolist() == [1, 3] and tracks.deaths.tolist() == [2]
    assert tracks.present[1].tolist() == [False] * 3 + [True] * 5
    assert tracks.present[2].tolist() == [True] * 6 + [False] * 2
    assert np.isnan(tracks.drift[1, :3]).all() and (tracks.drift[1, 3:] > 0.9).all()


def test_a_feature_that_was_not_fitted_is_not_measurable_and_has_no_birth() -> None:
    decoder = made(np.ones((2, 8)))
    tracks = follow(STEPS, decoder, variance=[np.nan, 1e-4], error=np.ones(8), dimensions=np.full(8, 16.0))
    assert CODES[tracks.state[0]] == "not measurable" and not tracks.found[0] and np.isnan(tracks.p_value[0])
    assert tracks.found[1]


def test_steady_features_measured_with_much_noise_are_rarely_born() -> None:
    decoder = made(np.full((400, 8), 0.5), noise=0.3)
    tracks = followed(decoder, 0.3)
    assert (len(tracks.births) + len(tracks.deaths)) / 400 <= 0.05
    nothing = followed(made(np.zeros((400, 8)), noise=0.3), 0.3)
    assert len(nothing.births) / 400 <= 0.05


def test_split_and_merge() -> None:
    rng = np.random.default_rng(0)
    base, far = rng.standard_normal((2, 32))
    decoder = np.empty((3, 8, 32))
    decoder[0] = base
    decoder[1] = np.where(np.arange(8)[:, None] < 5, base, far)
    decoder[2] = np.where(np.arange(8)[:, None] < 3, rng.standard_normal(32), base)
    found = partings(decoder, np.ones((3, 8), dtype=bool))
    assert found.features.tolist() == [[0, 1], [0, 2]]
    assert found.split.tolist() == [True, False]
    assert found.between.tolist() == [[4, 5], [2, 3]]
    assert partings(decoder[:1], np.ones((1, 8), dtype=bool)).features.shape == (0, 2)


def test_a_chain_hands_names_on_and_tells_births_deaths_splits_and_merges() -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal((30, 64))
    middle = start + 0.1 * rng.standard_normal(start.shape)
    middle[29] = rng.standard_normal(64)  # 29 dies and another is born
    order = rng.permutation(30)
    end = middle[order]
    end = np.concatenate([end, middle[:1] + 0.8 * rng.standard_normal((1, 64))])  # near 0, which goes on
    one, two = match_decoders(start, middle), match_decoders(middle, end)
    found = chain([one, two])
    assert found.track[0].tolist() == list(range(30))
    assert found.track[1].tolist() == [*range(29), 30]
    assert found.track[2][:30].tolist() == found.track[1][order].tolist()
    assert found.first[[0, 29, 30, 31]].tolist() == [0, 0, 1, 2]
    assert found.last[[0, 29, 30, 31]].tolist() == [2, 0, 2, 2]
    assert found.splits.tolist() == [[1, 0, 30]] and found.merges.tolist() == []
    back = chain([two.reversed(), one.reversed()])
    assert back.merges.tolist() == [[0, 30, 0]] and back.splits.tolist() == []
    with pytest.raises(ValueError, match="transition 1 starts from 31 features; expected 30"):
        chain([one, two.reversed()])


def test_changes_and_what_cannot_be_told() -> None:
    decoder = np.zeros((2, 3, 4))
    decoder[0, 1:, 0] = 2.0
    np.testing.assert_allclose(changes(decoder)[0], [1.0, 0.0])
    assert np.isnan(changes(decoder)[1]).all()
    with pytest.raises(ValueError, match="finite values"):
        turning_points(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match=r"expected \(2,\), \(3,\) and \(3,\)"):
        follow([0, 1, 2], decoder, variance=[1.0], error=np.ones(3), dimensions=np.ones(3))
