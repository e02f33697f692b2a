"""Does a finding that is not called fragile come back, in another sample of the same truth?"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from dynamics.emergence import FRAGILE, Emergence, assess, looks_that_hold, unit_bootstrap

STEPS = np.unique(np.round(10 ** np.linspace(0, 5, 30)).astype(int))
X = np.log10(STEPS + 1.0)


def look(rng: np.random.Generator, rate: np.ndarray, prompts: int) -> tuple[Emergence, float | None]:
    """One sample of a rate over prompts, and how many looks at it hold."""
    right = rng.random((len(STEPS), prompts)) < rate[:, None]
    draws = unit_bootstrap(right.astype(float), draws=100)
    null = rng.binomial(prompts, 0.1, size=(len(STEPS), 200)) / prompts
    found = assess(STEPS, right.mean(axis=1), draws=draws, null=null, null_name="chance", limits=(0, 1))
    return found, looks_that_hold(STEPS, draws, null, found)


def test_a_clear_jump_holds_and_one_that_hugs_its_bound_is_fragile() -> None:
    clear, share = look(np.random.default_rng(0), np.where(X > 3, 0.8, 0.1), 200)
    assert (clear.state, share) == ("emerged", pytest.approx(1.0, abs=0.05))
    _, share = look(np.random.default_rng(0), np.where(X > 3, 0.18, 0.1), 200)
    assert share < FRAGILE


@pytest.mark.slow
def test_what_is_not_fragile_comes_back_in_another_sample() -> None:
    rng = np.random.default_rng(2)
    kept, again, fragile, differing = 0, 0, 0, 0
    for _ in range(60):
        height = float(rng.choice([0.0, 0.05, 0.15, 0.3, 0.6]))
        rate = 0.1 + height * expit((X - rng.uniform(1.5, 3.5)) / rng.uniform(0.02, 0.2))
        (one, share), (other, _) = look(rng, rate, 250), look(rng, rate, 250)
        if share >= FRAGILE:
            kept, again = kept + 1, again + (one.state == other.state)
        else:
            fragile, differing = fragile + 1, differing + (one.state != other.state)
    assert kept >= 15
    assert again / kept >= 0.95
    assert differing / fragile > 0.05


def test_checkpoints_that_were_not_measured_change_nothing_of_what_holds() -> None:
    right = np.random.default_rng(0).random((len(STEPS), 200)) < np.where(X > 3, 0.8, 0.1)[:, None]
    draws = unit_bootstrap(right.astype(float), draws=100)
    null = np.random.default_rng(1).binomial(200, 0.1, size=(len(STEPS), 200)) / 200
    values = right.mean(axis=1)
    values[[4, 11]], draws[[4, 11]], null[[4, 11]] = np.nan, np.nan, np.nan
    found = assess(STEPS, values, draws=draws, null=null, null_name="chance", limits=(0, 1))
    assert (found.state, looks_that_hold(STEPS, draws, null, found)) == ("emerged", pytest.approx(1.0, abs=0.05))


def test_without_draws_or_a_null_nothing_is_known_of_it() -> None:
    nothing = assess(STEPS, X, null=None, null_name="none")
    assert looks_that_hold(STEPS, np.zeros((len(STEPS), 50)), np.zeros((len(STEPS), 50)), nothing) is None
    found = assess(STEPS, X, null=np.random.default_rng(0).normal(size=(len(STEPS), 50)), null_name="noise")
    assert looks_that_hold(STEPS, None, np.zeros((len(STEPS), 50)), found) is None
