"""A *series*: the ordered checkpoints of one training run, wherever they are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from .errors import CheckpointError, UserError, short

if TYPE_CHECKING:
    from .catalogue.entry import Entry
    from .files.tensors import TensorInfo
    from .loading import Prepared

__all__ = ["LAST_STEP", "OPTIMIZER_STEPS", "Checkpoint", "Series", "SeriesConfig", "WeightFile", "ordered"]

OPTIMIZER_STEPS = "optimizer steps"
"""What steps count unless a source says otherwise."""


LAST_STEP = 2**63 - 1
"""A step is an integer of 64 bits, as traces store it."""


@dataclass(frozen=True)
class Checkpoint:
    """One member of a series.

    Attributes:
        step: optimizer steps done.
        revision: what pins it at the source: a path relative to the series' folder, or a commit sha.
        tokens: tokens seen, or None where they were not recorded; never inferred from ``step`` without a documented
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


class SeriesConfig(BaseModel):
    """What a runs file says about a series, of whatever kind.

    Attributes:
        pinned: whether a trace goes back to the very commits that it was collected from.
        stored: whether there are checkpoints to open; else the weights existed in a training job only.
        reading: keys that say where the checkpoints lie and how they are read, and nothing of how they were trained.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pinned: ClassVar[bool] = False
    stored: ClassVar[bool] = True
    reading: ClassVar[frozenset[str]] = frozenset({"kind"})

    def left_out(self) -> Mapping[str, str]:
        """What lies beside its checkpoints and is not taken (:attr:`Series.left_out`), where no request is needed for that."""
        return {}

    def anchored(self, base: Path) -> Self:
        """The same with every relative path made absolute, from the folder of the runs file."""
        return self


class Series(ABC):
    """Where checkpoints come from: a folder, a hub, a source of one's own.

    What a source cannot say has a default, so that one with a few files on this disk needs the abstract members only.

    Attributes:
        name: a short name for messages.
        origin: where the weights come from, for the trace's provenance.
        checkpoints: all of them, by increasing step.
        pinned: whether the content of each checkpoint is fixed, by a commit; else it may be written again.
        local: whether all files are on this disk, so that reading needs no download and a bad file is its owner's to
            mend.
        repository: where it is published; empty if it is not.
        step_counts: what the steps count.
        entry: what the catalogue knows about the series.
        moved: checkpoints whose label stands for other content by now, as they are now.
        vanished: checkpoints that the source no longer lists; they are still in ``checkpoints``.
        unlisted: why the last :meth:`all_files` could not list some checkpoints.
        left_out: what lies beside the checkpoints, looks like one or like a part of one, and is not taken: name to reason.
    """

    name: str
    origin: str
    checkpoints: tuple[Checkpoint, ...]
    pinned: bool = False
    local: bool = True
    repository: str = ""
    step_counts: str = OPTIMIZER_STEPS
    entry: Entry | None = None
    moved: tuple[Checkpoint, ...] = ()
    vanished: tuple[Checkpoint, ...] = ()
    unlisted: Mapping[Checkpoint, CheckpointError] = MappingProxyType({})
    left_out: Mapping[str, str] = MappingProxyType({})

    @property
    @abstractmethod
    def tokenizer_folder(self) -> Path:
        """A local folder with the tokenizer that all checkpoints share."""

    @property
    @abstractmethod
    def config_folder(self) -> Path:
        """A local folder with the model's config; there need be no weights in it."""

    @abstractmethod
    def weight_files(self, checkpoint: Checkpoint) -> tuple[WeightFile, ...]:
        """The files that :meth:`fetch` would provide weights from, without fetching them; empty if there are none.

        Raises:
            CheckpointError: when the source cannot list them.
        """

    @abstractmethod
    def fetch(self, checkpoint: Checkpoint) -> Path:
        """Make the checkpoint's config and weights available locally and say where; may take long.

        Raises:
            CheckpointError: when this checkpoint cannot be had; the others may be fine.
        """

    @abstractmethod
    def read(self, fetched: Path) -> Prepared:
        """Read what :meth:`fetch` returned into memory.

        Raises:
            CheckpointError: when it cannot be read as weights.
        """

    @abstractmethod
    def header(self, checkpoint: Checkpoint) -> dict[str, TensorInfo] | None:
        """Names, shapes and dtypes of the stored tensors; None where that would cost a download.

        Raises:
            CheckpointError: when the files are there and cannot be read.
        """

    def contradictions(self) -> dict[Checkpoint, str]:
        """What checkpoints say of themselves that neither their label nor the rest of the series does, as clauses."""
        return {}

    def release(self, checkpoint: Checkpoint) -> None:  # noqa: B027 (most sources download nothing)
        """The fetched files are not needed any more: what was downloaded may be deleted."""

    def sweep(self, keep: Collection[str] = ()) -> None:  # noqa: B027
        """Delete what killed runs left of downloads, except of these revisions."""

    def download_bytes(self, checkpoint: Checkpoint) -> int:
        """How much :meth:`fetch` would download. Raises what :meth:`weight_files` does."""
        return 0

    def shared_bytes(self) -> dict[str, int]:
        """How much comes with the first checkpoint that is read, whichever it is: what all share, by name, to bytes."""
        return {}

    def main_files(self) -> tuple[WeightFile, ...]:
        """The weight files of what the source serves by default; empty where that is none of its own.

        Raises:
            CheckpointError: when they cannot be listed.
        """
        return ()

    def all_files(
        self, checkpoints: Iterable[Checkpoint] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> dict[Checkpoint, tuple[WeightFile, ...]]:
        """:meth:`weight_files` of many checkpoints.

        Args:
            checkpoints: which; all if None.
            progress: called with (listed, of all).

        Returns:
            What could be listed, in order; why others could not is in ``unlisted``.

        Raises:
            UserError: when nothing of the series can be had.
        """
        wanted = list(self.checkpoints if checkpoints is None else checkpoints)
        found: dict[Checkpoint, tuple[WeightFile, ...]] = {}
        unlisted: dict[Checkpoint, CheckpointError] = {}

        def list_one(checkpoint: Checkpoint) -> None:
            try:
                found[checkpoint] = self.weight_files(checkpoint)
            except CheckpointError as error:
                unlisted[checkpoint] = error
            except OSError as error:
                unlisted[checkpoint] = CheckpointError(
                    f"its files cannot be listed: {error.strerror or error}",
                    expected="a folder or file that can be read",
                    remedy="see whether it is still there and may be read, then run the same command again",
                )

        self.for_each(list_one, wanted, progress)
        self.unlisted = unlisted
        return {checkpoint: found[checkpoint] for checkpoint in wanted if checkpoint in found}

    def for_each(
        self,
        call: Callable[[Checkpoint], None],
        wanted: Sequence[Checkpoint],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Do something for several checkpoints, one after the other unless a source can do better."""
        for done, checkpoint in enumerate(wanted, 1):
            call(checkpoint)
            if progress is not None:
                progress(done, len(wanted))

    def state(self, checkpoint: Checkpoint, files: tuple[WeightFile, ...] | None = None) -> tuple[str, ...] | None:
        """What changes when the content of a checkpoint's files does, without reading them; None where nothing says it.

        Of files on this disk: where they are, and size and times of each, because checksums would cost as much as reading
        them. The time of change is among them, as copying sets back that of modification.

        Args:
            checkpoint: of the series.
            files: its weight files, where they are listed already.
        """
        try:
            path = self.fetch(checkpoint).absolute()
            folder = path if path.is_dir() else path.parent
            listed = self.weight_files(checkpoint) if files is None else files
            about = [(f.name, (folder / f.name).stat()) for f in listed]
        except (CheckpointError, OSError):
            return None
        return (
            (str(path), *(f"{name} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for name, s in about))
            if about
            else None
        )


def ordered(checkpoints: list[Checkpoint], *, where: str) -> tuple[Checkpoint, ...]:
    """Sort by step, and refuse a step that occurs twice or is none.

    Raises:
        UserError: for these, whatever said the step: a name, what is in a file, a branch, the runs file.
    """
    for checkpoint in checkpoints:
        if not 0 <= checkpoint.step <= LAST_STEP:
            raise UserError(
                f"{where} has a checkpoint of step {short(str(checkpoint.step), 40)}: {checkpoint.label or checkpoint.revision!r}",
                expected=f"steps from 0 to {LAST_STEP}",
                remedy="move it away, or say by a pattern of names which checkpoints there are",
            )
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
