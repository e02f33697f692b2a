"""Composition of heads: the strongest pair of each role, and the pair that induction is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynamics.analysis import Curve, CurveSpec, Null, Trace
from dynamics.numerics.draws import DRAWS

from .prompts import WORDS

__all__ = ["ROLES", "Pairs", "read_pairs", "unrelated"]

ROLES = {"q": "queries", "k": "keys", "v": "values"}
_OTHERS = 1000
_VALUES = 2**22
_SPEC = CurveSpec("composition beyond unrelated directions", "none (weights alone)")


@dataclass(frozen=True)
class Pairs:
    """Composition in one trace.

    Attributes:
        scores: (checkpoint, source, reader) beyond unrelated directions; NaN where there is no such pair.
        freedom: (checkpoint, source, reader) degrees of freedom of unrelated directions.
        dimensions: of the stream.
        sources, readers: names.
    """

    scores: np.ndarray
    freedom: np.ndarray
    dimensions: float
    sources: tuple[str, ...]
    readers: tuple[str, ...]

    def role(self, role: str) -> np.ndarray:
        """(reader,) whether a reader is of a role."""
        return np.array([name.endswith(f".{role}") for name in self.readers])

    def keys_of(self, head: str) -> str:
        """The reader that is a head's keys, which heads may share.

        >>> Pairs(np.empty(0), np.empty(0), 0, (), ("L0H0.q", "L0H1.q", "L0KV0.k", "L0KV0.v")).keys_of("L0H1")
        'L0KV0.k'
        """
        if f"{head}.k" in self.readers:
            return f"{head}.k"
        layer, number = head.split("H")
        queries = sum(name.startswith(f"{layer}H") for name in self.readers)
        keys = [name for name in self.readers if name.startswith(f"{layer}KV") and name.endswith(".k")]
        return keys[int(number) // (queries // len(keys))]

    def strongest(self, role: str) -> Curve:
        """The strongest pair of a role through training."""
        columns = self.role(role)
        values = np.fmax.reduce(self.scores[..., columns].reshape(len(self.scores), -1), axis=-1)
        return Curve(
            f"composition_{role}",
            f"heads: strongest {role.upper()}-composition",
            values,
            None,
            Null(self._strongest_unrelated(columns), "strongest pair of unrelated directions"),
            _SPEC.but(
                metric=f"{_SPEC.metric} (strongest pair)",
                definition=f"share of what a head writes that a later head's {ROLES[role]} read, as a ratio of Frobenius "
                "norms, minus 1/sqrt(d); the pair in which it is largest",
            ),
        )

    def between(self, source: str, reader: str, alike: np.ndarray, key: str, title: str) -> Curve:
        """One pair through training, against pairs of other heads: in a trained model all pairs compose somewhat.

        Args:
            source, reader: names.
            alike: (source, reader) pairs that are no null, because they may do the same.
            key, title: of the curve.
        """
        row, column = self.sources.index(source), self.readers.index(reader)
        other = self.role(reader.rpartition(".")[2]) & ~alike
        other[row, column] = False
        others = self.scores[:, other]
        others = others[:, np.isfinite(others).any(0)]
        if others.shape[1] > _OTHERS:
            others = others[:, np.random.default_rng(6).permutation(others.shape[1])[:_OTHERS]]
        return Curve(
            key,
            title,
            self.scores[:, row, column],
            None,
            Null(others, "pairs of heads of other kinds"),
            _SPEC.but(
                definition=f"composition of {source} with {reader}, minus 1/sqrt(d); the pair was chosen by where its "
                "heads look at the last checkpoint, not by its composition"
            ),
        )

    def _strongest_unrelated(self, columns: np.ndarray) -> np.ndarray:
        """(checkpoint, draw) the strongest of so many unrelated pairs."""
        result = np.full((len(self.scores), DRAWS), np.nan)
        for c, (scores, freedom) in enumerate(zip(self.scores[..., columns], self.freedom[..., columns], strict=True)):
            pairs = freedom[np.isfinite(scores)]
            size = _VALUES // DRAWS
            for start in range(0, len(pairs), size):
                drawn = unrelated(pairs[start : start + size], self.dimensions, DRAWS, c + 1000 * start).max(1)
                result[c] = np.fmax(result[c], drawn)
        return result


def unrelated(freedom: np.ndarray, dimensions: float, draws: int, seed: int) -> np.ndarray:
    """(draw, pair) composition beyond 1/sqrt(d) of pairs (pair,) whose directions have nothing to do with each other.

    Chi-squared over its degrees of freedom, by the cube of a normal variable (Wilson and Hilferty 1931).
    """
    spread = 2 / (9 * freedom)
    z = np.random.default_rng(seed).standard_normal((draws, len(freedom)), dtype=np.float32)
    square = np.maximum(1 - spread + np.sqrt(spread) * z, 0) ** 3
    return np.asarray((np.sqrt(square) - 1) / np.sqrt(dimensions))


def read_pairs(trace: Trace) -> Pairs | None:
    """Composition of a trace; None where the model has one layer, or nothing is measured."""
    scores = trace.values(WORDS, "composition").astype(np.float64)
    if not np.isfinite(scores).any():
        return None
    about = trace.probe(WORDS)
    ranks = [trace.values(WORDS, f"{name}_rank").astype(np.float64) for name in ("source", "reader")]
    dimensions = trace.values(WORDS, "stream_dimensions")
    return Pairs(
        scores,
        ranks[0][:, :, None] * ranks[1][:, None, :],
        float(dimensions[trace.complete][0]),
        tuple(map(str, about["source"].values)),
        tuple(map(str, about["reader"].values)),
    )
