"""A *series*: the ordered checkpoints of one training run, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from .errors import UserError

__all__ = ["Checkpoint", "Series", "ordered"]


@dataclass(frozen=True)
class Checkpoint:
    """One member of a series.

    Attributes:
        step: optimizer steps done.
        tokens: tokens seen, or None where nobody recorded them; never inferred from ``step`` without a documented
            number of tokens per step.
        stage: training stage (``""`` where there is only one).
        revision: what the source calls it: a path relative to the series' folder, or a commit sha.
    """

    step: int
    revision: str
    tokens: int | None = None
    stage: str = ""


class Series(Protocol):
    """Where checkpoints come from; sources (a folder, the organism, ...) implement it."""

    @property
    def name(self) -> str:
        """A short name for messages."""

    @property
    def origin(self) -> str:
        """Where the weights come from, for the trace's provenance."""

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All checkpoints, by increasing step."""

    @property
    def tokenizer_folder(self) -> Path:
        """A folder with the tokenizer that all checkpoints share."""

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """A local folder with this checkpoint's config and weights."""


def ordered(checkpoints: list[Checkpoint], *, where: str) -> tuple[Checkpoint, ...]:
    """Sort by step and refuse a step that occurs twice."""
    result = tuple(sorted(checkpoints, key=lambda c: c.step))
    for one, other in pairwise(result):
        if one.step == other.step:
            raise UserError(
                f"{where} has two checkpoints of step {one.step}: {one.revision!r} and {other.revision!r}",
                expected="one checkpoint a step",
                remedy="move one of the two away",
            )
    return result
