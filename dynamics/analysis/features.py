"""The features of a trace as an analysis reads them: what answers a prompt at a checkpoint, and since when; needs no torch.

The code of a crosscoder knows all checkpoints: *which* prompts a feature answers is one fact about the whole series, and
says nothing about one checkpoint, however much it looks like it there. What is a checkpoint's own is how much of its
activation the feature's decoder explains, and how long that decoder is. Answers are therefore weighted by the length of
the decoder, as a share of its largest, so that a feature answers nothing before its birth. Dictionaries with a code for
every checkpoint (chains, published ones) have no such weight.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from dynamics.numerics.arrays import FloatArray
from dynamics.store import FeatureTable, Trace, dictionaries_in

from ..emergence.lives import FLOOR

__all__ = ["HINT", "FeatureReader", "feature_readers", "leading"]

HINT = (
    "No dictionaries were learned, so that nothing is said about features: `dynamics learn RUN` learns them, then report "
    "again."
)


class FeatureReader:
    """One dictionary of a trace, as an analysis reads it.

    Args:
        trace: the trace.
        name: of the dictionary.

    Attributes:
        name: of the dictionary.
        table: its arrays.
        steps: (snapshot,) its checkpoints.
        joint: whether one code explains all checkpoints.
        kept: whether feature j of one checkpoint is feature j of another (not in a chain).
        weight: (feature, snapshot) length of the decoder as a share of its largest; 1 where the dictionary is not joint.
    """

    def __init__(self, trace: Trace, name: str) -> None:
        self.table = FeatureTable(trace, name)
        self.name = name
        self.steps: np.ndarray = self.table.steps
        self.joint = bool(self.table.settings["joint"])
        self.kept = self.table.settings["method"] != "chain"
        self.weight: FloatArray = np.ones((self.table.features, len(self.steps)))
        if self.joint:
            strength = self.table.about["strength"].values.astype(np.float64)
            peak = strength.max(axis=1, keepdims=True)
            self.weight = np.where(peak > 0, strength / np.where(peak > 0, peak, 1.0), 0.0)
        self._where = np.searchsorted(trace.steps, self.steps)
        self._checkpoints = len(trace.steps)

    @property
    def where(self) -> str:
        """The site, in words: ``resid_post, layer 2``."""
        settings = self.table.settings
        return f"{settings['site']}" + ("" if settings["layer"] is None else f", layer {settings['layer']}")

    @property
    def features(self) -> int:
        """How many features it has."""
        return self.table.features

    def read(self, probe: str) -> bool:
        """Whether a probe was read through it."""
        return probe in self.table.probes

    def label(self, probe: str, name: str) -> np.ndarray:
        """(prompt,) a label of a probe; text as Python strings."""
        values: np.ndarray = self.table.read(probe)[name].values
        return values if values.dtype.kind in "biuf" else np.array([str(v) for v in values])

    def at(self, probe: str, position: str, snapshot: int) -> FloatArray:
        """(prompt, feature) answers at one snapshot (-1: the last); of a joint dictionary with their weight."""
        snapshot %= len(self.steps)
        values = self.table.activations(probe, position, snapshot).astype(np.float64)
        return values * self.weight[:, snapshot] if self.joint else values

    def last(self, probe: str, position: str) -> FloatArray:
        """(prompt, feature) answers at the last snapshot, 0 of features that are absent there (see :data:`FLOOR`)."""
        return self.at(probe, position, -1) * (self.weight[:, -1] >= FLOOR)

    def of(self, probe: str, position: str, features: npt.ArrayLike) -> FloatArray:
        """(snapshot, prompt, feature) the same of some features, at every snapshot.

        Raises:
            ValueError: for a chain, whose features are others at every checkpoint.
        """
        if not self.kept:
            raise ValueError("features of a chain are others at every checkpoint; expected another dictionary")
        some = np.atleast_1d(np.asarray(features, dtype=np.int64))
        values = self.table.of_features(probe, position, some).astype(np.float64)
        return values * self.weight[some].T[:, None, :] if self.joint else values

    def spread(self, values: npt.ArrayLike) -> FloatArray:
        """(checkpoint, ...) of the trace, NaN at those that the dictionary does not cover, from (snapshot, ...)."""
        own = np.asarray(values, dtype=np.float64)
        wide = np.full((self._checkpoints, *own.shape[1:]), np.nan)
        wide[self._where] = own
        return wide

    def number(self, feature: int) -> int:
        """What a feature of the last checkpoint is called through training: in a chain its track, -1 for none."""
        return int(self.table.about["track"].values[-1, feature]) if "track" in self.table.about else feature

    def curve(self, what: Literal["strength", "effect"], number: int) -> tuple[FloatArray, FloatArray] | None:
        """(snapshot,) strength or effect of a feature (of a track) and its standard error; None if not known.

        Strength is the decoder's norm in a crosscoder, and the mean length of its part otherwise; effect is in nats per token.
        """
        about = self.table.about
        if "track" in about:
            name, axis = f"track_{what}", 0
        elif what == "effect":
            name, axis = what, 1
        else:
            name, axis = ("strength", 0) if self.joint else ("mean_activation", 1)
        if name not in about or f"{name}_error" not in about:
            return None  # learned by a version that did not measure it
        value, error = (np.take(about[n].values, number, axis=axis) for n in (name, f"{name}_error"))
        return value.astype(np.float64), error.astype(np.float64)

    def effect(self) -> tuple[FloatArray, FloatArray] | None:
        """(feature,) effect at the last snapshot and its standard error, nats per token; None if not known."""
        about = self.table.about
        if "effect" not in about:
            return None
        return about["effect"].values[-1].astype(np.float64), about["effect_error"].values[-1].astype(np.float64)

    def since(self, feature: int) -> str:
        """When a feature of a joint dictionary (of the last checkpoint of a chain) is there, in words."""
        about, prefix = self.table.about, "" if self.kept else "track_"
        number = self.number(feature)
        if f"{prefix}born" not in about or number < 0:
            return "no birth is known"
        born, died = about[f"{prefix}born"].values[number], about[f"{prefix}died"].values[number]
        if not bool(about[f"{prefix}found"].values[number]):
            return "not beyond its null"
        strength = np.asarray(about[f"{prefix}strength"].values[number], dtype=np.float64)
        peak = np.nanmax(strength)
        first = strength[0] / peak if peak > 0 else 0.0
        if born[1] >= 0:
            words = f"born in ({born[0]}, {born[1]}]"
        elif np.isnan(first):
            begins = self.steps[int(about["track_first"].values[number])]
            words = f"followed from step {begins} on, its tokens were another feature's before"
        elif first >= 0.5:
            words = f"there from step {self.steps[0]} on"
        else:
            words = f"not shown to be absent before, grows ({first:.0%} of its {'length' if self.kept else 'strength'} at step {self.steps[0]})"
        return words + (f", gone in ({died[0]}, {died[1]}]" if died[1] >= 0 else "")

    def promotes(self, feature: int) -> list[str]:
        """The two tokens that it makes likeliest by itself at the last checkpoint, as the tokenizer writes them; [] if not known."""
        about = self.table.about
        if "logit_token" not in about:
            return []
        text = dict(zip(about["known_token"].values.tolist(), map(str, about["token_text"].values), strict=True))
        return [text[int(token)] for token in about["logit_token"].values[feature][:2]]


def feature_readers(trace: Trace, probe: str | None = None) -> list[FeatureReader]:
    """The dictionaries of a trace, or those through which a probe was read."""
    every = [FeatureReader(trace, name) for name in dictionaries_in(trace)]
    return [reader for reader in every if probe is None or reader.read(probe)]


def leading(readers: list[FeatureReader]) -> str:
    """The dictionary that stands for the others where there is room for one: joint, most checkpoints, most features."""
    return max(readers, key=lambda r: (r.joint, len(r.steps), r.features)).name if readers else ""
