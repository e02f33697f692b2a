r"""Planted truth: activations made of a known sparse dictionary that changes along a synthetic series.

Token t has sparse activations :math:`a_{tf} \ge 0`, the same at every checkpoint, as a corpus has the same content
whatever the model makes of it. At checkpoint c feature f has a direction :math:`d_{cf}` of length 1 and a strength
:math:`s_{cf}`, and

.. math:: x_{ct} = b_c + \sum_f a_{tf} s_{cf} d_{cf} + \text{noise}.

Features are ``stable``; ``born`` (strength 0 before their checkpoint) or ``dead`` (0 from it on); ``rotated`` (the
direction turns by a right angle from it on); or ``split``: until their checkpoint one *parent* fires wherever either
of two features fires that never fire together, then each of the two *children* has a direction of its own, at 45
degrees from the parent's. Changes take ``ramp`` checkpoints.

>>> stream = PlantedStream(PlantedConfig(checkpoints=4, d_model=8, stable=5, batch=16))
>>> next(stream.batches()).shape
(4, 16, 8)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamics.learning.crosscoder import TrainConfig, Trainer
from dynamics.learning.dictionary import Dictionary, Stream
from dynamics.numerics.arrays import FloatArray, IntArray

__all__ = ["KINDS", "PlantedConfig", "PlantedStream", "PlantedTruth", "train_dictionary"]


KINDS = ("stable", "born", "dead", "rotated", "parent", "child")


@dataclass(frozen=True)
class PlantedConfig:
    """What is planted; two equal configurations give equal batches.

    Attributes:
        checkpoints, d_model: sizes.
        stable, born, dead, rotated: how many features of each kind.
        split: how many parents; each has two children.
        active: features that fire on a token, on average.
        noise: standard deviation of the noise in each dimension; a feature has length 1 when it fires with 1.
        ramp: checkpoints that a change takes; with 1 it is complete at its checkpoint.
        batch: tokens in a batch.
        seed: of everything.
    """

    checkpoints: int = 10
    d_model: int = 32
    stable: int = 24
    born: int = 0
    dead: int = 0
    rotated: int = 0
    split: int = 0
    active: float = 3.0
    noise: float = 0.05
    ramp: int = 1
    batch: int = 512
    seed: int = 0


@dataclass(frozen=True)
class PlantedTruth:
    """The dictionary that was planted.

    Attributes:
        directions: (checkpoint, feature, d_model) of length 1, also where the strength is 0.
        strength: (checkpoint, feature) 0 to 1.
        kind: (feature,) position in :data:`KINDS`.
        event: (feature,) checkpoint at which it changes first; -1 for a stable one.
        parent: (feature,) the parent of a child; -1 for others.
        offset: (checkpoint, d_model) what every token has.
    """

    directions: FloatArray
    strength: FloatArray
    kind: IntArray
    event: IntArray
    parent: IntArray
    offset: FloatArray

    def of_kind(self, name: str) -> IntArray:
        """Numbers of the features of a kind."""
        return np.flatnonzero(self.kind == KINDS.index(name))

    @property
    def vectors(self) -> FloatArray:
        """(checkpoint, feature, d_model) direction times strength."""
        return self.directions * self.strength[..., None]

    @property
    def lineages(self) -> FloatArray:
        """(checkpoint, feature, d_model) what the model answers with where the feature's tokens are.

        For a child before the split that is its parent's direction: what one dictionary over all checkpoints finds, in
        which a feature is the same tokens throughout. Others are as in :attr:`vectors`.
        """
        found = self.vectors.copy()
        for child in self.of_kind("child"):
            found[:, child] += self.vectors[:, self.parent[child]]
        return found


class PlantedStream:
    """Batches (checkpoint, token, d_model) of planted activations, without end.

    Attributes:
        config: what is planted.
        truth: the dictionary.
        rates: (feature,) probability to fire on a token.
    """

    def __init__(self, config: PlantedConfig) -> None:
        self.config = config
        self.truth = _plant(config)
        rng = np.random.default_rng([config.seed, 1])
        # a parent fires with its children, which divide its tokens
        weight = rng.uniform(0.5, 1.5, size=self.truth.kind.size)
        weight[self.truth.of_kind("child")] = 0.0
        self.rates = np.minimum(0.5, config.active * weight / weight.sum())
        for child in self.truth.of_kind("child"):
            self.rates[child] = self.rates[self.truth.parent[child]] / 2

    @property
    def checkpoints(self) -> int:
        """Checkpoints in a batch."""
        return self.config.checkpoints

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.config.d_model

    def activations(self, number: int) -> FloatArray:
        """(token, feature) the true activations of batch ``number``."""
        return self._drawn(number)[0]

    def batch(self, number: int) -> npt.NDArray[np.float32]:
        """(checkpoint, token, d_model) batch ``number``; a function of the configuration and the number alone."""
        active, rng = self._drawn(number)
        c = self.config
        noise = rng.standard_normal((c.checkpoints, c.batch, c.d_model), dtype=np.float32)
        clean = active @ self.truth.vectors + self.truth.offset[:, None]
        return clean.astype(np.float32) + np.float32(c.noise) * noise

    def batches(self, start: int = 0) -> Iterator[npt.NDArray[np.float32]]:
        """All batches from number ``start`` on."""
        while True:
            yield self.batch(start)
            start += 1

    def _drawn(self, number: int) -> tuple[FloatArray, np.random.Generator]:
        rng = np.random.default_rng([self.config.seed, 2, number])
        shape = (self.config.batch, self.truth.kind.size)
        active = np.where(rng.random(shape) < self.rates, rng.uniform(0.5, 1.5, shape), 0.0)
        children = self.truth.of_kind("child")
        for first, second in children.reshape(-1, 2):
            parent = self.truth.parent[first]
            left = rng.random(self.config.batch) < 0.5
            active[:, first], active[:, second] = active[:, parent] * left, active[:, parent] * ~left
        return active, rng


def _plant(config: PlantedConfig) -> PlantedTruth:
    c = config
    rng = np.random.default_rng([c.seed, 0])
    names = ["stable"] * c.stable + ["born"] * c.born + ["dead"] * c.dead + ["rotated"] * c.rotated
    names += ["parent"] * c.split + ["child"] * (2 * c.split)
    kind = np.array([KINDS.index(name) for name in names], dtype=np.int64)
    if kind.size == 0 or (set(names) != {"stable"} and c.checkpoints < 4):
        raise ValueError(f"{kind.size} features over {c.checkpoints} checkpoints; expected features, and 4 checkpoints")
    start, turned = _unit(rng.standard_normal((2, kind.size, c.d_model)))
    turned = _unit(turned - (turned * start).sum(axis=-1, keepdims=True) * start)  # at a right angle
    # two checkpoints before a change and two after it, so that it can be seen
    event = np.where(kind == 0, -1, rng.integers(2, c.checkpoints - 1, size=kind.size))
    parents, children = np.flatnonzero(kind == KINDS.index("parent")), np.flatnonzero(kind == KINDS.index("child"))
    parent = np.full(kind.size, -1, dtype=np.int64)
    parent[children] = np.repeat(parents, 2)
    event[children] = event[parent[children]]
    at = np.arange(c.checkpoints)[:, None]
    changed = np.clip((at - event + 1) / c.ramp, 0.0, 1.0)
    changed[:, kind == KINDS.index("stable")] = 0.0
    strength = np.ones((c.checkpoints, kind.size))
    appears, disappears = np.isin(kind, [1, 5]), np.isin(kind, [2, 4])
    strength[:, appears] = changed[:, appears]
    strength[:, disappears] = 1.0 - changed[:, disappears]
    angle = np.where(kind == KINDS.index("rotated"), changed * np.pi / 2, 0.0)[..., None]
    directions = np.cos(angle) * start + np.sin(angle) * turned
    for number, child in enumerate(children):
        sign = 1.0 if number % 2 == 0 else -1.0
        directions[:, child] = _unit(start[parent[child]] + sign * turned[parent[child]])
    offset = rng.standard_normal((c.checkpoints, c.d_model))
    return PlantedTruth(directions, strength, kind, event, parent, offset)


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def train_dictionary(stream: Stream, config: TrainConfig) -> Dictionary:
    """A crosscoder, trained from the beginning to the end."""
    trainer = Trainer.start(config, stream)
    trainer.run(stream)
    return trainer.dictionary()
