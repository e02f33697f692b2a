"""Which prompts go through the model together, and what of them is computed once.

All observations of all probes are fed from the same passes. Prompts with the same tokens are one row of one pass, whichever
probes they belong to; it is run with the first of them. Prompts of a probe that begin alike are continued from the keys and
values of their *prefix*, where the model can do so and nothing that is wanted needs whole prompts: the length of the prefix is
the one with which the fewest tokens are computed. Rows of a pass have equal length, so that nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.architecture import Architecture, ModelShape
from ..models.prefixes import numbers_per_token
from ..probes import TokenizedProbe
from .base import Observation, Placed

__all__ = ["LOGITS", "Part", "Pass", "Passes", "tokens_at_once"]

LOGITS = 2**25
"""At most this many logits in one pass: at every position of 8,192 tokens, 50,000 words would be 1.6 GB."""

CACHED = 2**26
"""At most this many numbers of keys and values are kept, unless one prefix has more."""

WORTH = 0.25
"""A prefix is shared if that saves this share of a probe's tokens, and :data:`OVERHEAD` tokens besides."""

OVERHEAD = 256
"""What one more pass costs, in tokens; its Python code takes as long as so many of a small model."""

_IN_PLACE = 2**22
"""Numbers of one array up to which a processor's passes are faster: larger ones are fetched from the system each time."""

_FEWEST = 512
"""Tokens of one pass below which the weights are read too often."""


def tokens_at_once(batch_tokens: int, shape: ModelShape, device: Any) -> int:
    """How many tokens go into one pass: on a processor no more than what its memory is fast for.

    >>> shape = ModelShape(layers=6, heads=8, d_model=512, d_head=64, d_mlp=2048, vocab=50304)
    >>> [tokens_at_once(n, shape, "cpu") for n in (64, 8192)], tokens_at_once(8192, shape, "cuda")
    ([64, 2048], 8192)
    """
    if str(device).partition(":")[0] != "cpu":
        return batch_tokens
    return min(batch_tokens, max(_FEWEST, _IN_PLACE // max(shape.d_mlp, shape.d_model)))


@dataclass(frozen=True)
class Part:
    """The prompts of one probe in a pass.

    Attributes:
        probe: number of the probe.
        rows: (prompt,) which of its prompts.
        index: (prompt,) which row of the pass each is.
    """

    probe: int
    rows: np.ndarray
    index: np.ndarray


@dataclass(frozen=True)
class Pass:
    """Rows of tokens that go through the model together.

    Attributes:
        ids: (row, token) token ids, from the first token of a prompt on.
        parts: whose prompts they are.
        start: how many tokens of each row the last shared pass has computed.
        prefix: (row,) which of its rows each continues; None where a pass begins at the first token.
        shared: whether these are prefixes, of which keys and values are kept for the passes that follow.
        kept: token positions at which logits are needed.
    """

    ids: np.ndarray
    parts: tuple[Part, ...]
    start: int = 0
    prefix: np.ndarray | None = None
    shared: bool = False
    kept: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens it computes."""
        return int(self.ids.shape[0] * (self.ids.shape[1] - self.start))


class Passes:
    """The passes of some probes; what is in them depends neither on which of the probes are wanted, nor on the weights.

    Args:
        asked: the probes and what is observed of each; one of which nothing is observed takes no pass.
        architecture: of the model.
        tokens: at most about so many in one pass.
    """

    def __init__(
        self,
        asked: Sequence[tuple[TokenizedProbe, Sequence[Observation]]],
        architecture: Architecture,
        tokens: int,
    ) -> None:
        self._architecture, self._tokens = architecture, tokens
        known: dict[bytes, int] = {}
        ids: list[np.ndarray] = []
        home: list[int] = []
        room: list[int] = []
        self._distinct: list[np.ndarray] = []  # (prompt,) of every probe: which of the distinct prompts each is
        self._needed: list[list[np.ndarray]] = []
        for number, (probe, observations) in enumerate(asked):
            found = np.zeros(len(probe.ids) if observations else 0, dtype=np.int64)
            for row in range(len(found)):
                key = np.ascontiguousarray(probe.ids[row], dtype=np.int64).tobytes()
                found[row] = known.setdefault(key, len(ids))
                if found[row] == len(ids):
                    ids.append(np.asarray(probe.ids[row]))
                    home.append(number)
                    room.append(len(probe.ids[row]) - 1 if architecture.cached else 0)
            self._distinct.append(found)
            self._needed.append([positions for m in observations for positions in m.logits(probe)])
        self._ids, self._home = ids, np.array(home, dtype=np.int64)
        self._room = np.array(room, dtype=np.int64)  # tokens of each that may be a prefix
        self._lengths = np.array([len(row) for row in ids], dtype=np.int64)
        for (probe, observations), found in zip(asked, self._distinct, strict=True):
            for observation in observations:
                if not isinstance(observation, Placed) or observation.reads(probe) is None:
                    self._room[found] = 0
                for positions in observation.logits(probe):
                    np.minimum.at(self._room, found, positions)

    def homes(self, probe: int) -> list[int]:
        """The probes with whose passes this one's prompts are run, itself included."""
        return np.unique(self._home[self._distinct[probe]]).tolist() if len(self._distinct[probe]) else []

    def of(self, home: int) -> Iterator[Pass]:
        """The passes of one probe: of its prompts that no earlier probe has."""
        mine = np.flatnonzero(self._home == home)
        touching = [n for n, found in enumerate(self._distinct) if np.isin(found, mine, assume_unique=False).any()]
        length = self.prefix(home)
        continued = mine[self._room[mine] >= length] if length else mine[:0]
        for rows in self._batches(np.setdiff1d(mine, continued), 0, touching):
            yield self._pass(rows, touching)
        if len(continued):
            yield from self._continued(continued, length, touching)

    def prefix(self, home: int) -> int:
        """How many tokens of a probe's prompts are computed once for all that begin with them; 0 where none are."""
        mine = np.flatnonzero((self._home == home) & (self._room > 0))
        total = int(self._lengths[self._home == home].sum())
        if len(mine) < 2:
            return 0
        longest = int(self._room[mine].max())
        heads = np.full((len(mine), longest), -1, dtype=np.int64)
        for i, row in enumerate(mine):
            count = min(longest, self._lengths[row])
            heads[i, :count] = self._ids[row][:count]
        order = np.lexsort(heads.T[::-1])
        mine, heads = mine[order], heads[order]
        differ = heads[1:] != heads[:-1]
        alike = np.where(
            differ.any(1), differ.argmax(1), longest
        )  # tokens that a prompt has in common with the one before
        room = self._room[mine]
        best, saved = 0, max(WORTH * total, 0.0) + OVERHEAD
        for length in range(1, longest + 1):
            which = np.concatenate([[0], np.cumsum(alike < length)])[room >= length]
            less = (len(which) - len(np.unique(which))) * length
            if less > saved:
                best, saved = length, less
        return best

    def _continued(self, rows: np.ndarray, length: int, touching: Sequence[int]) -> Iterator[Pass]:
        """Passes of prefixes, each followed by those that continue them."""
        heads, of = np.unique(np.stack([self._ids[row][:length] for row in rows]), axis=0, return_inverse=True)
        of = of.reshape(-1)
        fit = CACHED // (numbers_per_token(self._architecture.shape) * length)
        size = max(1, min(fit, self._tokens // length))
        for first in range(0, len(heads), size):
            here = np.flatnonzero((of >= first) & (of < first + size))
            yield Pass(heads[first : first + size], self._parts(rows[here], touching, of[here] - first), shared=True)
            at = dict(zip(rows[here].tolist(), (of[here] - first).tolist(), strict=True))
            for batch in self._batches(rows[here], length, touching):
                yield self._pass(batch, touching, length, np.array([at[int(row)] for row in batch]))

    def _batches(self, rows: np.ndarray, start: int, touching: Sequence[int]) -> Iterator[np.ndarray]:
        """Distinct prompts of equal length, as many as fit; the keys and values of a prefix weigh as a quarter of a token."""
        for length in np.unique(self._lengths[rows]):
            same = rows[self._lengths[rows] == length]
            size = max(1, self._tokens // (int(length) - start + -(-start // 4)))
            for first in range(0, len(same), size):
                batch = same[first : first + size]
                whole = int(length) if self._architecture.whole else 0
                computed = whole or max(1, len(self._kept(self._parts(batch, touching))))
                fit = max(1, LOGITS // (computed * self._architecture.shape.vocab))
                for second in range(0, len(batch), fit):
                    yield batch[second : second + fit]

    def _pass(
        self, rows: np.ndarray, touching: Sequence[int], start: int = 0, prefix: np.ndarray | None = None
    ) -> Pass:
        parts = self._parts(rows, touching)
        return Pass(np.stack([self._ids[row] for row in rows]), parts, start, prefix, kept=self._kept(parts))

    def _parts(self, rows: np.ndarray, touching: Sequence[int], index: np.ndarray | None = None) -> tuple[Part, ...]:
        where = np.full(len(self._ids), -1, dtype=np.int64)
        where[rows] = np.arange(len(rows)) if index is None else index
        parts = []
        for number in touching:
            at = where[self._distinct[number]]
            prompts = np.flatnonzero(at >= 0)
            if len(prompts):
                parts.append(Part(number, prompts, at[prompts]))
        return tuple(parts)

    def _kept(self, parts: Sequence[Part]) -> tuple[int, ...]:
        wanted = [positions[part.rows] for part in parts for positions in self._needed[part.probe]]
        return tuple(np.unique(np.concatenate(wanted)).tolist()) if wanted else ()
