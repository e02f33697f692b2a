"""On planted truth: what share of the features is recovered, and are their births and deaths where they were planted?

Measured as follows, pooled over two series of 48 lineages (features that are the same tokens throughout: a split's
parent is not one, its children have its direction before):

- *recovered*: one latent has a mean cosine of at least 0.9 with the planted vectors over the checkpoints where the
  feature is present;
- *in time*: that latent is reported as born (or dead) within one checkpoint of the planted one;
- *false birth*: a latent that is reported as born, and whose nearest planted feature (by the same mean cosine) neither is
  born nor comes of a split within one checkpoint of it; as a share of all reported births. A child of a split does
  begin there: a late split is found as the parent and a new feature, which is right. Counted as false, too, these
  would be up to 9% of the births.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from dynamics.learning.crosscoder import TrainConfig
from dynamics.learning.dictionary import Dictionary, Fit, evaluate, refit
from dynamics.learning.tracks import Tracks, changes, follow, partings, turning_points
from tests.learning.planted import KINDS, PlantedConfig, PlantedStream, train_dictionary

pytestmark = pytest.mark.slow

STEPS = np.arange(10) * 100
SERIES = PlantedConfig(checkpoints=10, d_model=32, stable=16, born=10, dead=6, rotated=6, split=5, active=3.0)


@dataclass
class Recovered:
    """One series, its dictionary, and which latent is which planted feature."""

    stream: PlantedStream
    dictionary: Dictionary
    fit: Fit
    tracks: Tracks
    kinds: np.ndarray
    events: np.ndarray
    parents: np.ndarray
    cosine: np.ndarray  # (planted, latent)

    @property
    def latent(self) -> np.ndarray:
        return np.asarray(self.cosine.argmax(axis=1))

    @property
    def owner(self) -> np.ndarray:
        return np.asarray(self.cosine.argmax(axis=0))

    def near(self, kind: str, found: np.ndarray) -> np.ndarray:
        """(planted of the kind,) whether its latent has the event within one checkpoint."""
        of = np.flatnonzero(self.kinds == kind)
        at = found[self.latent[of], 1]
        return (at >= 0) & (np.abs(at - self.events[of]) <= 1)


@pytest.fixture(scope="module")
def recovered() -> list[Recovered]:
    result = []
    for seed in (0, 1):
        config = PlantedConfig(**{**SERIES.__dict__, "seed": seed})
        stream = PlantedStream(config)
        truth = stream.truth
        lives = np.flatnonzero(truth.kind != KINDS.index("parent"))
        trained = train_dictionary(
            stream,
            TrainConfig(features=96, k=float(stream.rates[lives].sum()), steps=800, learning_rate=4e-3, resample=50),
        )
        dictionary = refit(trained, (stream.batch(20_000 + n) for n in range(30)))
        fit = evaluate(dictionary, (stream.batch(10_000 + n) for n in range(10)))
        tracks = follow(
            STEPS,
            dictionary.decoder.numpy(),
            variance=dictionary.variance.numpy(),
            error=fit.error,
            dimensions=fit.dimensions,
        )
        planted = truth.lineages[:, lives]
        vectors = (dictionary.decoder * dictionary.scale[:, None]).numpy().transpose(1, 0, 2)
        length = np.linalg.norm(planted, axis=2)
        products = np.einsum("cfd,cmd->cfm", planted, vectors)
        spread = length[:, :, None] * np.linalg.norm(vectors, axis=2)[:, None]
        cosine = np.divide(products, spread, out=np.zeros_like(products), where=spread > 1e-9)
        mean = (cosine * (length > 0)[:, :, None]).sum(axis=0) / (length > 0).sum(axis=0)[:, None]
        kinds = np.array([KINDS[k] for k in truth.kind[lives]])
        result.append(Recovered(stream, dictionary, fit, tracks, kinds, truth.event[lives], truth.parent[lives], mean))
    return result


def test_nine_in_ten_features_are_recovered_at_cosine_0_9(recovered: list[Recovered]) -> None:
    best = np.concatenate([r.cosine.max(axis=1) for r in recovered])
    assert (best >= 0.9).mean() >= 0.9


def test_nine_in_ten_births_and_deaths_are_found_within_one_checkpoint(recovered: list[Recovered]) -> None:
    assert np.concatenate([r.near("born", r.tracks.born) for r in recovered]).mean() >= 0.9
    assert np.concatenate([r.near("dead", r.tracks.died) for r in recovered]).mean() >= 0.9


def test_at_most_one_birth_in_twenty_is_false(recovered: list[Recovered]) -> None:
    true, births, deaths, false_deaths = 0, 0, 0, 0
    for r in recovered:
        for latent in r.tracks.births:
            owner = r.owner[latent]
            begins = r.kinds[owner] in ("born", "child")
            true += bool(begins and abs(r.tracks.born[latent, 1] - r.events[owner]) <= 1)
        births += len(r.tracks.births)
        deaths += len(r.tracks.deaths)
        false_deaths += sum(r.kinds[r.owner[latent]] != "dead" for latent in r.tracks.deaths)
    assert births >= 18
    assert births - true <= 0.05 * births
    assert false_deaths <= 0.05 * deaths


def test_features_that_turn_are_seen_to_drift_and_stable_ones_are_not(recovered: list[Recovered]) -> None:
    for r in recovered:
        good = r.cosine.max(axis=1) >= 0.9
        for feature in np.flatnonzero(good & (r.kinds == "rotated")):
            drift = r.tracks.drift[r.latent[feature]]
            assert np.nanargmin(drift) + 1 == r.events[feature] and np.nanmin(drift) < 0.5
        stable = r.latent[good & (r.kinds == "stable")]
        assert np.nanmin(r.tracks.drift[stable]) > 0.9


def test_splits_are_found_where_they_were_planted_and_no_merge_is(recovered: list[Recovered]) -> None:
    found = 0
    for r in recovered:
        pairs = partings(r.dictionary.decoder.numpy(), r.tracks.present)
        assert pairs.split.all()
        for (one, other), between in zip(pairs.features, pairs.between, strict=True):
            a, b = r.owner[one], r.owner[other]
            assert r.parents[a] == r.parents[b] >= 0
            assert between.tolist() == [r.events[a] - 1, r.events[a]]
            found += 1
    assert found >= 4  # of 10: others are found as the parent and one new feature


def test_most_of_the_variance_is_explained_and_the_code_is_as_sparse_as_planted(recovered: list[Recovered]) -> None:
    for r in recovered:
        noise = 32 * SERIES.noise**2 / r.dictionary.scale.numpy() ** 2
        assert (r.fit.fvu < noise + 0.08).all() and (r.fit.fvu > 0.9 * noise).all()
        assert r.fit.l0[0] == pytest.approx(3.0, rel=0.1)


def test_a_dictionary_in_which_nothing_happens_has_no_turning_point(recovered: list[Recovered]) -> None:
    rng = np.random.default_rng(0)
    wrong = sum(turning_points(rng.exponential(size=(60, 12))).at.size > 0 for _ in range(40))
    assert wrong <= 6
    together = changes(recovered[0].dictionary.decoder.numpy())
    together[:, 4] += 0.5
    assert turning_points(together).at.tolist() == [4]
