"""Series of several parts, one after the other on one axis: pretraining, then SFT, then DPO or RL, each with steps of its own.

A part is a folder or a hub's series, and counts from where the part before ended: with SFT of 500 steps behind pretraining of
10,000, its checkpoint 100 is step 10,100, of the stage ``sft``. A part's checkpoint of step 0 is the one that the part before ended
with, and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .errors import CheckpointError, UserError
from .hub import HubConfig
from .local import FolderConfig
from .paths import beside
from .series import LAST_STEP, Checkpoint, Series, SeriesConfig, WeightFile, ordered
from .tokenizing import tokenizer_difference

if TYPE_CHECKING:
    from .files.tensors import TensorInfo
    from .loading import Prepared

__all__ = ["PartConfig", "Stage", "StagedConfig", "StagedSeries"]


class PartConfig(BaseModel):
    """One stage of a training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str = Field(min_length=1, description="What the stage is called: sft, dpo, rl, ...")
    series: Annotated[FolderConfig | HubConfig, Field(discriminator="kind")] = Field(
        description="Its checkpoints, a folder's or a hub's; a name alone is that of a published series."
    )
    starts: int | None = Field(
        None,
        ge=0,
        le=LAST_STEP,
        description="Step of the whole training at which it starts; else where the part before ends. Give it where that one may "
        "still grow.",
    )

    @field_validator("series", mode="before")
    @classmethod
    def _published(cls, value: Any) -> Any:
        return {"kind": "hub", "name": value} if isinstance(value, str) else value


class StagedConfig(SeriesConfig):
    """A training of several stages, with one axis of steps."""

    pinned: ClassVar[bool] = True  # a hub's parts are; folders pass over the pins
    reading: ClassVar[frozenset[str]] = frozenset({"kind", "tokenizer"})

    kind: Literal["staged"] = "staged"
    parts: tuple[PartConfig, ...] = Field(min_length=1, description="The stages, in their order.")
    tokenizer: Path | None = Field(
        None, description="Folder of the tokenizer, where the parts have different ones; else the last part's."
    )

    @field_validator("parts")
    @classmethod
    def _once(cls, value: tuple[PartConfig, ...]) -> tuple[PartConfig, ...]:
        names = [part.stage for part in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two parts are of stage {twice[0]!r}")
        return value

    def anchored(self, base: Path) -> Self:
        """See the base class; of every part, and the tokenizer."""
        parts = tuple(part.model_copy(update={"series": part.series.anchored(base)}) for part in self.parts)
        tokenizer = None if self.tokenizer is None else beside(base, self.tokenizer)
        return self.model_copy(update={"parts": parts, "tokenizer": tokenizer})


@dataclass(frozen=True)
class Stage:
    """A part that is open: its name, its own series, and the step of the whole training at which it starts."""

    stage: str
    series: Series
    starts: int


class StagedSeries(Series):
    """The checkpoints of all parts, by the step of the whole training.

    Tokens are added up where every part says them from its start; otherwise they are unknown.

    Raises:
        UserError: when a part begins before the one before it ends, parts count different things, or have different tokenizers.
    """

    def __init__(self, parts: Sequence[Stage], *, name: str, tokenizer: Path | None = None) -> None:
        self.name, self._parts, self._given = name, tuple(parts), tokenizer
        self.origin = "; ".join(f"{part.stage}: {part.series.origin}" for part in parts)
        self.pinned = all(part.series.pinned for part in parts)
        self.local = all(part.series.local for part in parts)
        counted = {part.series.step_counts for part in parts}
        if len(counted) > 1:
            raise UserError(
                f"the parts of {name} count {' and '.join(sorted(counted))}",
                expected="parts whose steps count the same",
                remedy="leave out the part whose steps are not documented",
            )
        self.step_counts = counted.pop()
        self._own: dict[int, tuple[Stage, Checkpoint]] = {}
        joints: dict[str, str] = {}
        found: list[Checkpoint] = []
        end: Checkpoint | None = None
        for part in parts:
            seen = 0 if end is None and not part.starts else None if end is None else end.tokens
            if end is not None and part.starts != end.step:
                seen = None
            for own in part.series.checkpoints:
                whole = self._whole(part, own, seen)
                if end is not None and whole.step == end.step and own.step == 0:
                    joints[f"{part.stage}: {own.label or own.revision}"] = f"it is where stage {end.stage} ends"
                    continue
                if end is not None and whole.step <= end.step:
                    raise UserError(
                        f"stage {part.stage!r} of {name} has a checkpoint at step {whole.step}, and stage {end.stage!r} ends at {end.step}",
                        expected="stages one after the other",
                        remedy="correct `starts`, or leave it out",
                    )
                self._own[whole.step] = part, own
                found.append(whole)
            end = found[-1] if found else None
        self.checkpoints = ordered(found, where=name)
        self._joints, self.left_out = joints, joints | self._left_out()
        self.moved, self.vanished = self._all("moved"), self._all("vanished")
        self._fetched: dict[Path, Series] = {}
        if tokenizer is None:
            self._require_one_tokenizer()

    @property
    def tokenizer_folder(self) -> Path:
        """The configured folder, else the last part's: a chat template comes with the stages that need it."""
        return self._given or self._parts[-1].series.tokenizer_folder

    @property
    def config_folder(self) -> Path:
        """The last part's."""
        return self._parts[-1].series.config_folder

    def weight_files(self, checkpoint: Checkpoint) -> tuple[WeightFile, ...]:
        """See the base class."""
        part, own = self._own[checkpoint.step]
        return part.series.weight_files(own)

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """See the base class."""
        part, own = self._own[checkpoint.step]
        path = part.series.fetch(own)
        self._fetched[path] = part.series
        return path

    def read(self, fetched: Path) -> Prepared:
        """See the base class."""
        return self._fetched[fetched].read(fetched)

    def header(self, checkpoint: Checkpoint) -> dict[str, TensorInfo] | None:
        """See the base class."""
        part, own = self._own[checkpoint.step]
        return part.series.header(own)

    def contradictions(self) -> dict[Checkpoint, str]:
        """Those of the parts, and what the catalogue knows to be wrong with their checkpoints."""
        found: dict[Checkpoint, str] = {}
        unlisted: dict[Checkpoint, CheckpointError] = {}
        for part in self._parts:
            whole = self._by_own(part, self.checkpoints)
            said = part.series.contradictions()
            for fault in part.series.entry.known_faults if part.series.entry is not None else ():
                wrong = [c for c in part.series.checkpoints if c.step in fault.all_steps and c.stage == fault.stage]
                said |= {c: fault.reason for c in wrong if fault.mask}
            found |= {whole[c]: reason for c, reason in said.items() if c in whole}
            unlisted |= {whole[c]: error for c, error in part.series.unlisted.items() if c in whole}
        self.unlisted = {**self.unlisted, **unlisted}
        return found

    def all_files(
        self, checkpoints: Iterable[Checkpoint] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> dict[Checkpoint, tuple[WeightFile, ...]]:
        """See the base class; part by part, as what lies beside the weights of a hub's part is known only from then on."""
        wanted = list(self.checkpoints if checkpoints is None else checkpoints)
        found: dict[Checkpoint, tuple[WeightFile, ...]] = {}
        unlisted: dict[Checkpoint, CheckpointError] = {}
        done = 0
        for part in self._parts:
            if not (mine := self._by_own(part, wanted)):
                continue

            def count(now: int, _all: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + now, len(wanted))

            listed = part.series.all_files(list(mine), count)
            found |= {mine[own]: files for own, files in listed.items()}
            unlisted |= {mine[own]: error for own, error in part.series.unlisted.items() if own in mine}
            done += len(mine)
        self.unlisted, self.left_out = unlisted, self._joints | self._left_out()
        return {checkpoint: found[checkpoint] for checkpoint in wanted if checkpoint in found}

    def release(self, checkpoint: Checkpoint) -> None:
        """See the base class."""
        part, own = self._own[checkpoint.step]
        part.series.release(own)

    def sweep(self, keep: Collection[str] = ()) -> None:
        """See the base class."""
        for part in self._parts:
            part.series.sweep(keep)

    def download_bytes(self, checkpoint: Checkpoint) -> int:
        """See the base class."""
        part, own = self._own[checkpoint.step]
        return part.series.download_bytes(own)

    def shared_bytes(self) -> dict[str, int]:
        """See the base class."""
        return {name: size for part in self._parts for name, size in part.series.shared_bytes().items()}

    def for_each(
        self,
        call: Callable[[Checkpoint], None],
        wanted: Sequence[Checkpoint],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Part by part, as fast as each can."""
        done = 0
        for part in self._parts:
            mine = self._by_own(part, wanted)

            def call_own(own: Checkpoint, mine: Mapping[Checkpoint, Checkpoint] = mine) -> None:
                call(mine[own])

            def count(now: int, _all: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + now, len(wanted))

            part.series.for_each(call_own, list(mine), count)
            done += len(mine)

    def state(self, checkpoint: Checkpoint, files: tuple[WeightFile, ...] | None = None) -> tuple[str, ...] | None:
        """See the base class."""
        part, own = self._own[checkpoint.step]
        return part.series.state(own, files)

    def _whole(self, part: Stage, own: Checkpoint, seen: int | None) -> Checkpoint:
        """A part's checkpoint on the axis of the whole training."""
        tokens = None if own.tokens is None or seen is None else seen + own.tokens
        label = own.label or f"{part.stage} {own.step}"
        return replace(own, step=part.starts + own.step, tokens=tokens, stage=part.stage, label=label)

    def _by_own(self, part: Stage, wanted: Iterable[Checkpoint]) -> dict[Checkpoint, Checkpoint]:
        """A part's own checkpoints to these of the whole training, in order."""
        return {self._own[c.step][1]: c for c in wanted if self._own[c.step][0] is part}

    def _left_out(self) -> dict[str, str]:
        """What lies beside the checkpoints of the parts."""
        return {f"{p.stage}: {name}": reason for p in self._parts for name, reason in p.series.left_out.items()}

    def _all(self, which: str) -> tuple[Checkpoint, ...]:
        return tuple(
            self._whole(part, own, None) for part in self._parts for own in getattr(part.series, which)
        )  # fmt: skip

    def _require_one_tokenizer(self) -> None:
        used = self.tokenizer_folder
        for part in self._parts[:-1]:
            try:
                other = part.series.tokenizer_folder
            except (UserError, CheckpointError):  # it has none of its own
                continue
            if what := tokenizer_difference(used, other):
                raise UserError(
                    f"stage {part.stage!r} of {self.name} has another tokenizer than stage {self._parts[-1].stage!r} ({what})",
                    expected="one tokenizer for all stages, by which all prompts are read",
                    remedy="name the folder of the one to use as `series.tokenizer`",
                )
