"""Tracks of a chain with planted births, deaths, turns and noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_array

from dynamics.emergence.lives import Lives, live
from dynamics.emergence.runs import CODES
from dynamics.learning.chains import Chain, along, chain, continued, follow_chain, moves
from dynamics.learning.matching import match_activations, match_decoders

CHECKPOINTS, STABLE, ROWS, TOKENS, WIDTH = 8, 60, 60, 20, 48
STEPS = np.arange(CHECKPOINTS) * 10
BORN, DEAD, TURNED = STABLE, STABLE + 1, STABLE + 2


def planted(noise: float = 0.0, seed: int = 0) -> tuple[Chain, np.ndarray, np.ndarray, np.ndarray]:
    """Chain, strength and error (track, checkpoint), and what is continued, of a chain with known events.

    Features are in another order at every checkpoint. One is born at checkpoint 3 (it is a dead feature before), one dies
    at 5, one has another direction from 4 on and the same tokens.
    """
    rng = np.random.default_rng(seed)
    features = STABLE + 3
    direction = rng.standard_normal((CHECKPOINTS, features, WIDTH)) * 0.15 + rng.standard_normal((features, WIDTH))
    direction[4:, TURNED] = rng.standard_normal(WIDTH)
    direction[:3, BORN] = 0.0
    direction[5:, DEAD] = 0.0
    rows = rng.gamma(4.0, 0.25, size=(ROWS, 1, features))  # tokens of a row are alike
    codes = np.where(
        rng.random((ROWS, TOKENS, features)) < 0.15, rows * rng.uniform(0.5, 1.5, (ROWS, TOKENS, features)), 0.0
    )
    orders = [rng.permutation(features) for _ in range(CHECKPOINTS)]
    vectors, answers, mean, error = [], [], [], []
    for c, order in enumerate(orders):
        here = codes * (1 + noise * rng.standard_normal((ROWS, 1, features))).clip(0)
        here = here * (np.linalg.norm(direction[c], axis=1) > 0)
        here = here[:, :, order]
        vectors.append(direction[c, order])
        answers.append(csr_array(here.reshape(ROWS * TOKENS, -1)))
        each = here.mean(axis=1)
        mean.append(each.mean(axis=0))
        error.append(each.std(axis=0, ddof=1) / np.sqrt(ROWS))
    chained = chain([match_decoders(a, b) for a, b in pairwise(vectors)])
    unknown = continued(chained, [match_activations(a, b) for a, b in pairwise(answers)])
    strength, spread = (along(chained, np.stack(x), unknown) for x in (mean, error))
    numbers = np.full((CHECKPOINTS, features), -1)
    for c, order in enumerate(orders):
        numbers[c, order] = chained.track[c]
    return chained, strength, spread, numbers


def followed(strength: np.ndarray, error: np.ndarray) -> Lives:
    return follow_chain(STEPS, strength, error)


def test_planted_births_and_deaths_are_found_and_what_only_turns_is_not_born() -> None:
    _, strength, error, numbers = planted()
    lives = followed(strength, error)
    assert lives.births.tolist() == [numbers[-1, BORN]]
    assert lives.born[numbers[-1, BORN]].tolist() == [2, 3]
    assert lives.deaths.tolist() == [numbers[0, DEAD]]
    assert lives.died[numbers[0, DEAD]].tolist() == [4, 5]
    before, after = numbers[0, TURNED], numbers[-1, TURNED]
    assert before != after
    assert np.isnan(strength[before, 4:]).all() and np.isnan(strength[after, :4]).all()
    assert lives.found[[before, after]].all() and lives.present[numbers[-1, BORN]].tolist() == [False] * 3 + [True] * 5
    stable = numbers[0, :STABLE]
    assert (numbers[:, :STABLE] == stable).all()
    assert {CODES[s] for s in lives.state[stable]} == {"present from start"}


def test_a_track_moves_by_its_turn_and_by_all_of_itself_when_it_begins_or_ends() -> None:
    def at(*degrees: float) -> np.ndarray:
        angle = np.deg2rad(degrees)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    # three tracks: one turns by 60 degrees and stays, one begins at checkpoint 1, one is there at checkpoint 0 only
    names = [np.array([0, 2]), np.array([1, 0]), np.array([0, 1])]
    chained = Chain(names, np.array([0, 1, 0]), np.array([2, 2, 0]), np.empty((0, 3)), np.empty((0, 3)))
    found = moves(chained, [at(0, 90), at(180, 60), at(60, 180)])
    np.testing.assert_allclose(found, [[1.0, 0.0], [1.0, 0.0], [1.0, np.nan]], atol=1e-12)
    turned = moves(chained, [at(0, 90), at(180, 90), at(90, 180)])
    np.testing.assert_allclose(turned[0], [np.sqrt(2), 0.0], atol=1e-12)


def test_stationary_tracks_that_are_measured_with_noise_are_rarely_born() -> None:
    _, strength, error, _ = planted(noise=0.8)
    rng = np.random.default_rng(1)
    steady = 0.1 + 0.05 * rng.standard_normal((1000, CHECKPOINTS))
    lives = followed(np.maximum(steady, 0.0), np.full(steady.shape, 0.05))
    assert (len(lives.births) + len(lives.deaths)) / 1000 <= 0.05
    noisy = followed(strength, error)
    assert len(noisy.births) <= 3 and len(noisy.deaths) <= 3


def test_a_value_is_zero_where_a_track_has_no_feature() -> None:
    chained, strength, _, numbers = planted()
    assert (strength[numbers[-1, BORN], :3] == 0).all() and (strength[numbers[-1, BORN], 3:] > 0).all()
    assert (along(chained, np.ones((CHECKPOINTS, STABLE + 3))).sum(axis=1) == chained.last - chained.first + 1).all()


def test_without_an_error_nothing_is_said_and_growth_is_no_birth() -> None:
    growing = np.linspace(0.5, 1.0, CHECKPOINTS)[None].repeat(2, axis=0)
    error = np.full((2, CHECKPOINTS), 0.02)
    error[0] = np.nan
    lives = followed(growing, error)
    assert [CODES[s] for s in lives.state] == ["not measurable", "present from start"]
    assert np.isnan(lives.p_value[0]) and not lives.births.size and not lives.present[0].any()


@pytest.mark.parametrize("independent", [True, False])
def test_errors_that_checkpoints_share_do_not_average_out(independent: bool) -> None:
    """Absence is a quarter of the peak, measured four times, each 1.25 standard errors below a half."""
    strength = np.array([[0.25] * 4 + [1.0] * 4])
    error = np.array([[0.2] * 4 + [0.01] * 4])
    noise = np.random.default_rng(0).standard_normal((CHECKPOINTS, 400))
    lives = live(STEPS, strength, error, null=lambda some: 0.25 + error[some, :, None] * noise, independent=independent)
    assert lives.births.tolist() == ([0] if independent else [])


def test_a_chain_without_live_tracks_has_no_lives() -> None:
    lives = followed(np.zeros((3, CHECKPOINTS)), np.zeros((3, CHECKPOINTS)))
    assert {CODES[s] for s in lives.state} == {"not measurable"} and not lives.births.size
    with pytest.raises(ValueError, match="expected one per transition"):
        chain([])
