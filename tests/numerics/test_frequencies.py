"""Which frequencies are used, on representations whose frequencies were planted."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from checkpoints.errors import UserError
from dynamics.numerics.frequencies import FrequencyFits, key_frequencies, residue_periods


def planted(
    numbers: np.ndarray, periods: tuple[Fraction, ...], rng: np.random.Generator, *, noise: float = 0.3, width: int = 40
) -> np.ndarray:
    """cos and sin of every period in directions of their own, and noise in every direction."""
    x = noise * rng.normal(size=(len(numbers), width))
    for period in periods:
        for wave in (np.cos, np.sin):
            x += np.outer(wave(2 * np.pi * numbers / float(period)), rng.normal(size=width)) / np.sqrt(len(periods))
    return x


@pytest.mark.parametrize("modulus", [23, 59, 113])
@pytest.mark.parametrize("seed", range(3))
def test_planted_key_frequencies_are_found_to_the_last_one(modulus: int, seed: int) -> None:
    rng, periods = np.random.default_rng(seed), residue_periods(modulus)
    chosen = sorted(rng.permutation(len(periods))[:4].tolist())
    x = planted(np.arange(modulus), tuple(periods[k] for k in chosen), rng)
    found = key_frequencies(x, np.arange(modulus), periods=periods)
    assert np.flatnonzero(found.key).tolist() == chosen
    assert found.key_periods == tuple(periods[k] for k in chosen)
    assert found.share.sum() == pytest.approx(1.0)  # a basis of all that residues can do


def test_a_share_is_the_power_of_the_discrete_fourier_transform() -> None:
    x = np.random.default_rng(0).normal(size=(31, 8))
    power = (np.abs(np.fft.rfft(x - x.mean(0), axis=0)) ** 2).sum(1)[1:]
    found = key_frequencies(x, np.arange(31), periods=residue_periods(31), draws=20)
    np.testing.assert_allclose(found.share, power / power.sum(), atol=1e-12)


def test_no_frequency_is_key_where_numbers_are_only_told_apart() -> None:
    wrong = 0
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=(31, 20))
        wrong += key_frequencies(x, np.arange(31), periods=residue_periods(31), draws=100, level=0.95).key.any()
    assert wrong <= 6  # 5% of 40, and what chance adds to that


def test_rational_periods_beside_a_linear_term_are_found_on_numbers_that_are_no_whole_cycle() -> None:
    rng, numbers = np.random.default_rng(0), np.arange(10, 100)
    candidates = (2, Fraction(5, 2), 3, 4, 5, Fraction(20, 3), 10)
    x = planted(numbers, (Fraction(5, 2), Fraction(10)), rng) + np.outer(numbers / 20, rng.normal(size=40))
    with_line = key_frequencies(x, numbers, periods=candidates, linear=True)
    assert with_line.key_periods == (Fraction(5, 2), Fraction(10))
    without = key_frequencies(x, numbers, periods=(*candidates, 180))
    assert without.key_periods[-1] == 180  # a slope is half of a long wave
    assert with_line.share[1] > with_line.null.max()


def test_many_layers_are_fitted_at_once_and_as_each_alone() -> None:
    x = np.random.default_rng(0).normal(size=(3, 11, 5))
    fits = FrequencyFits(np.arange(11), residue_periods(11), draws=20)
    assert fits.share(x).shape == (3, 5) and fits.null(x).shape == (3, 20)
    np.testing.assert_allclose(fits.share(x)[1], fits.share(x[1]))
    assert np.isnan(fits.share(np.zeros((11, 5)))).all()  # nothing varies
    assert not key_frequencies(np.zeros((11, 5)), np.arange(11), periods=residue_periods(11), draws=20).key.any()
    twice = np.concatenate([x[0] + 1, x[0] - 1])
    np.testing.assert_allclose(
        FrequencyFits(np.tile(np.arange(11), 2), residue_periods(11)).share(twice), fits.share(x)[0]
    )


@pytest.mark.parametrize(
    ("change", "observed"),
    [
        ({"numbers": np.zeros(7)}, "the numbers are"),
        ({"numbers": np.arange(6)}, "of shape"),
        ({"periods": ()}, "the periods are"),
        ({"periods": (5, -1)}, "the periods are"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: dict, observed: str) -> None:
    given = {"numbers": np.arange(7), "periods": (7,)} | change
    with pytest.raises(UserError, match=observed) as caught:
        key_frequencies(np.ones((7, 3)), given["numbers"], periods=given["periods"])
    assert caught.value.expected and caught.value.remedy
    with pytest.raises(UserError, match="the modulus is 1"):
        residue_periods(1)
