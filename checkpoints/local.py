"""Series in a local folder or file, in any of the layouts of :mod:`checkpoints.layouts`; nothing is copied."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from .errors import CheckpointError, UserError
from .files.owned import files_state
from .layouts import LAYOUTS, Base, LayoutOptions, choose
from .paths import StrPath, as_path, beside, cache_folder, require_path, step_pattern
from .series import LAST_STEP, Checkpoint, Series, SeriesConfig, WeightFile, ordered
from .tokenizing import tokenizer_difference

if TYPE_CHECKING:
    from .files.tensors import TensorInfo
    from .loading import Prepared

__all__ = ["FolderConfig", "FolderSeries"]


class FolderConfig(SeriesConfig):
    """A series in a local folder, or in one file."""

    reading: ClassVar[frozenset[str]] = frozenset(
        {"kind", "path", "layout", "config", "pattern", "steps", "every", "tokens_per_step", "base", "tokenizer"}
    )

    kind: Literal["folder"] = "folder"
    path: Path = Field(
        description="Folder with one sub-folder or file per checkpoint (stepN, checkpoint-N, ...), or a file of several."
    )
    layout: Literal["auto", "transformers", "nanogpt", "litgpt", "torchtitan", "state-dicts"] = Field(
        "auto", description="How the trainer laid the checkpoints out; auto: whichever layout is found."
    )
    config: Path | None = Field(
        None, description="A transformers config.json or its folder, for files that carry none; wins where they do."
    )
    pattern: str | None = Field(
        None,
        description="Pattern that the whole name of a checkpoint's folder or file matches, with a group named step; it wins "
        "over what the files say.",
    )
    steps: tuple[Annotated[int, Field(ge=0, le=LAST_STEP)], ...] | None = Field(
        None, description="Steps of the state dicts in one file that does not say them, in its order."
    )
    every: int | None = Field(
        None, ge=1, le=LAST_STEP, description="The same, where they are this many steps apart, from 0 on."
    )
    tokens_per_step: int | None = Field(
        None, ge=1, le=LAST_STEP, description="Tokens in one optimizer step, if it was constant."
    )
    base: Path | None = Field(
        None,
        description="Folder of the model, where the checkpoints are adapters of it (LoRA, ...) as `peft` saves them.",
    )
    tokenizer: Path | None = Field(None, description="Folder of the tokenizer, if the checkpoints do not carry one.")

    @field_validator("pattern")
    @classmethod
    def _has_a_step(cls, value: str | None) -> str | None:
        return None if value is None else step_pattern(value)

    @model_validator(mode="after")
    def _steps_once(self) -> FolderConfig:
        if self.steps is not None and self.every is not None:
            raise ValueError("`steps` and `every` both say the steps; give one of the two")
        return self

    def left_out(self) -> Mapping[str, str]:
        """See the base class."""
        with suppress(UserError):  # which opening it will say
            return FolderSeries(self).left_out
        return {}

    def anchored(self, base: Path) -> Self:
        """See the base class; of the folder, the tokenizer, the config and the base."""
        paths = {key: getattr(self, key) for key in ("path", "tokenizer", "config", "base")}
        return self.model_copy(update={k: beside(base, path) for k, path in paths.items() if path is not None})


class FolderSeries(Series):
    """The checkpoints in one folder or file, given by its path or with settings.

    Tokens are what the checkpoint itself says, else come from ``tokens_per_step``; otherwise they are unknown.

    Attributes:
        layout: the layout that they are in.

    Raises:
        UserError: when there is no such folder, no checkpoint in it, or nothing that says what they are.
    """

    def __init__(self, config: FolderConfig | StrPath, *, name: str = "") -> None:
        if not isinstance(config, FolderConfig):
            config = FolderConfig(path=as_path(config, "config"))
        self.name, self.origin = name or config.path.name, str(config.path)
        self._config = config
        pattern = None if config.pattern is None else re.compile(config.pattern)
        for path in (config.path, config.config, config.tokenizer, config.base):
            if path is not None:
                require_path(path)
        base = None if config.base is None else Base(config.base)
        self._options = LayoutOptions(config.config, config.steps, config.every, pattern, base)
        if not config.path.exists():
            raise UserError(
                f"there is no folder or file {config.path}",
                expected="a folder with one sub-folder or file per checkpoint (stepN, checkpoint-N, ...), or one file",
                remedy="correct `series.path`; relative paths are relative to the runs file",
            )
        if config.config is not None and not config.config.exists():
            raise UserError(
                f"there is no config {config.config}",
                expected="a config.json as transformers writes it, or its folder",
                remedy="correct `series.config`; relative paths are relative to the runs file",
            )
        self._root = config.path if config.path.is_dir() else config.path.parent
        try:
            self.layout, found = choose(config.path, config.layout, self._options)
        except OSError as error:  # a folder that is not ours, or goes while we look
            raise UserError(
                f"{error.filename or config.path} cannot be read: {error.strerror or error}",
                expected="a folder that stays, and may be read",
                remedy="run the same command again, or let its owner give you access",
            ) from error
        self._layout = LAYOUTS[self.layout]
        per_step = config.tokens_per_step
        checkpoints = [
            Checkpoint(f.step, f.revision, per_step * f.step if f.tokens is None and per_step is not None else f.tokens)
            for f in found.checkpoints
        ]
        self.left_out = found.left_out
        self._contradictions = {f.step: f.contradiction for f in found.checkpoints if f.contradiction}
        self.checkpoints = ordered(checkpoints, where=str(config.path))
        # a file that says its step itself may be overwritten with the next one while the series is visited
        self._listed = {f.revision: f.state for f in found.checkpoints if f.state}

    @property
    def tokenizer_folder(self) -> Path:
        """The configured folder, else the first with a tokenizer: the series', the config's, a checkpoint's, the base."""
        if self._config.tokenizer is not None:
            return self._config.tokenizer
        given = [] if self._config.config is None else [self._config.config]
        last = [] if self._config.base is None else [self._config.base]
        for path in (self._root, *given, *(self.fetch(c) for c in self.checkpoints), *last):
            folder = path if path.is_dir() else path.parent
            if (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
                return folder
        raise UserError(
            f"no tokenizer was found in {self._root} or its checkpoints",
            expected="tokenizer.json beside the weights",
            remedy="name its folder as `series.tokenizer` in the runs file",
        )

    @property
    def config_folder(self) -> Path:
        """Where the configured or the first usable checkpoint's ``config.json`` is; made of what it says otherwise.

        Raises:
            UserError: when nothing says the architecture.
        """
        given = self._config.config or self._config.base
        fault: CheckpointError | None = None
        for path in (self.fetch(c) for c in self.checkpoints) if given is None else (given,):
            if path.name == "config.json":
                return path.parent
            if (path / "config.json").is_file() and (given is not None or self._layout.files(path)):
                return path
            try:
                if (config := self._layout.config(path, self._options)) is None:
                    break
                return _kept(config.to_json_string(use_diff=False))
            except CheckpointError as error:
                fault = fault or error
        raise fault or UserError(
            f"nothing in {self._config.path} says the architecture: its files are plain state dicts",
            expected="the model's config, or an adapter that builds the module",
            remedy="name a transformers config.json as `series.config`, or an adapter",
        )

    def contradictions(self) -> dict[Checkpoint, str]:
        """What checkpoints say of themselves that their names, or the tokenizer of the series, do not.

        A ``pattern`` in the runs file says that names hold, and a ``tokenizer`` that it does.
        """
        found = {c: [self._contradictions[c.step]] for c in self.checkpoints if c.step in self._contradictions}
        if self._config.tokenizer is None:
            with suppress(UserError):  # there is none
                used = self.tokenizer_folder
                for checkpoint in self.checkpoints:
                    if what := tokenizer_difference(used, self.fetch(checkpoint)):
                        where = "beside the series" if used == self._root else f"in {used.name}"
                        found.setdefault(checkpoint, []).append(
                            f"it carries another tokenizer than the one {where} ({what}), by which all prompts are read"
                        )
        return {checkpoint: "; ".join(clauses) for checkpoint, clauses in found.items()}

    def weight_files(self, checkpoint: Checkpoint) -> tuple[WeightFile, ...]:
        """The files that the checkpoint is read from, some of which may hold other things too."""
        path = self.fetch(checkpoint)
        folder = path if path.is_dir() else path.parent
        files = self._layout.files(path)
        return tuple(WeightFile(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files)

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """The checkpoint's own folder or file; ``file#index`` where several share a file."""
        return self._root / checkpoint.revision

    def read(self, fetched: Path) -> Prepared:
        """The weights in memory, under transformers' names wherever the architecture is known.

        Raises:
            CheckpointError: when they cannot be read, would run code, or do not fit.
        """
        try:
            before = files_state(self._layout.files(fetched))
            prepared = self._layout.read(fetched, self._options)
            after = files_state(self._layout.files(fetched))
        except OSError as error:
            raise CheckpointError(
                f"{fetched} cannot be read: {error.strerror or error}",
                expected="weights that stay where they are while they are read",
                remedy="see whether it is still there and may be read, then run the same command again",
            ) from error
        listed = self._listed.get(fetched.relative_to(self._root).as_posix(), before)
        if not before == after == listed:
            since = "it was listed: it may be of another step by now" if before != listed else "reading it began"
            raise CheckpointError(
                f"{fetched} was written again since {since}",
                expected="checkpoints that stay as they are",
                remedy="run the same command again",
            )
        return prepared

    def header(self, checkpoint: Checkpoint) -> dict[str, TensorInfo]:
        """The stored tensors of the model, under their stored names, without reading them.

        Raises:
            CheckpointError: when the files cannot be read, or would run code.
        """
        return self._layout.header(self.fetch(checkpoint))


def _kept(config: str) -> Path:
    """A folder with this ``config.json``, in the cache."""
    folder = cache_folder() / "configs" / hashlib.sha256(config.encode()).hexdigest()[:16]
    file = folder / "config.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"config.{os.getpid()}.partial"
        partial.write_text(config, encoding="utf-8")
        partial.replace(file)
    return folder
