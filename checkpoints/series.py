"""A *series*: the ordered checkpoints of one training run, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .errors import UserError

if TYPE_CHECKING:
    from .files.tensors import TensorInfo
    from .loading import Prepared

__all__ = ["Checkpoint", "Series", "WeightFile", "ordered"]


@dataclass(frozen=True)
class Checkpoint:
    """One member of a series.

    Attributes:
        step: optimizer steps done.
        revision: what pins it at the source: a path relative to the series' folder, or a commit sha.
        tokens: tokens seen, or None where nobody recorded them; never inferred from ``step`` without a documented
            number of tokens per step.
        stage: training stage (``""`` where there is only one).
        label: what the source calls it, where that is not the revision: a branch or a tag.
    """

    step: int
    revision: str
    tokens: int | None = None
    stage: str = ""
    label: str = ""


@dataclass(frozen=True)
class WeightFile:
    """One weight file of a checkpoint, as its source lists it.

    Attributes:
        name: path within the checkpoint.
        size: bytes.
        sha256: of the content, or None where the source does not say.
    """

    name: str
    size: int
    sha256: str | None = None


class Series(Protocol):
    """Where checkpoints come from; sources (a folder, a hub, the organism, ...) implement it."""

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
        """A local folder with the tokenizer that all checkpoints share."""

    @property
    def config_folder(self) -> Path:
        """A local folder with the model's config; there need be no weights in it."""

    def weight_files(self, checkpoint: Checkpoint) -> tuple[WeightFile, ...]:
        """The files that :meth:`fetch` would provide weights from, without fetching them; empty if there are none.

        Raises:
            CheckpointError: when the source cannot list them.
        """

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """Make the checkpoint's config and weights available locally and say where; may take long.

        Raises:
            CheckpointError: when this checkpoint cannot be had; the others may be fine.
        """

    def read(self, fetched: Path) -> Prepared:
        """Read what :meth:`fetch` returned into memory.

        Raises:
            CheckpointError: when it cannot be read as weights.
        """

    def header(self, checkpoint: Checkpoint) -> dict[str, TensorInfo] | None:
        """Names, shapes and dtypes of the stored tensors; None where that would cost a download.

        Raises:
            CheckpointError: when the files are there and cannot be read.
        """

    def release(self, checkpoint: Checkpoint) -> None:
        """The fetched files are not needed any more: what was downloaded may be deleted."""


def ordered(checkpoints: list[Checkpoint], *, where: str) -> tuple[Checkpoint, ...]:
    """Sort by step and refuse a step that occurs twice."""
    result = tuple(sorted(checkpoints, key=lambda c: c.step))
    for one, other in pairwise(result):
        if one.step == other.step:
            names = " and ".join(repr(c.label or c.revision) for c in (one, other))
            raise UserError(
                f"{where} has two checkpoints of step {one.step}: {names}",
                expected="one checkpoint a step",
                remedy="move one of the two away",
            )
    return result
