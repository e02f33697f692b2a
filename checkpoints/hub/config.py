"""What a runs file says about a series on a hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ..catalogue.entry import Entry
from ..paths import beside
from ..series import SeriesConfig
from .files import is_repository

__all__ = ["HubConfig"]


class HubConfig(SeriesConfig):
    """A published series: one of the catalogue by its name, or any repository whose revisions are checkpoints.

    >>> HubConfig(repo="someone/model").entry().parse("step-1000")
    Label(step=1000, tokens=None, stage='')
    """

    pinned: ClassVar[bool] = True
    reading: ClassVar[frozenset[str]] = frozenset(
        {"kind", "revisions", "tokens_per_step", "base", "tokenizer", "keep", "retries"}
    )

    kind: Literal["hub"] = "hub"
    name: str | None = Field(None, description="A series of the catalogue (`dynamics series`), such as pythia-70m.")
    repo: str | None = Field(None, description="Instead of a name: any repository, owner/name.")
    revisions: str = Field(
        r"(?:global_step|step|checkpoint)[-_]?(?P<step>\d+)",
        description="With `repo`: pattern that the whole name of a branch or tag matches, with a group named step.",
    )
    tokens_per_step: int | None = Field(None, ge=1, description="Tokens in one optimizer step, if it was constant.")
    stage: str = Field("", description="Pattern of the training stages to take, instead of the catalogue's choice.")
    base: str | None = Field(
        None,
        description="Repository of the model, owner/name or owner/name@revision, where the checkpoints are adapters of it "
        "(LoRA, ...) as `peft` saves them.",
    )
    tokenizer: str | None = Field(
        None, description="Repository or local folder of the tokenizer, if the series' own is not the right one."
    )
    keep: bool = Field(False, description="Keep what is downloaded, instead of deleting each checkpoint after its use.")
    retries: int = Field(5, ge=1, description="How often a request is made before it is given up.")

    @field_validator("repo")
    @classmethod
    def _repository(cls, value: str | None) -> str | None:
        if value is not None and not is_repository(value):
            raise ValueError(f"{value!r} is not the name of a repository, as in EleutherAI/pythia-70m")
        return value

    @field_validator("base")
    @classmethod
    def _base(cls, value: str | None) -> str | None:
        if value is not None and not is_repository(value.partition("@")[0]):
            raise ValueError(
                f"{value!r} is not the name of a repository, as in EleutherAI/pythia-70m or owner/name@main"
            )
        return value

    @field_validator("stage")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from error
        return value

    @field_validator("tokenizer")
    @classmethod
    def _not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("expected a repository or a folder")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> HubConfig:
        if (self.name is None) == (self.repo is None):
            said = "both were given" if self.name is not None else "neither was given"
            raise ValueError(f"give either `name` (a series of the catalogue) or `repo` (a repository): {said}")
        if self.name is not None and self.revisions != type(self).model_fields["revisions"].default:
            raise ValueError("`revisions` goes with `repo`; the catalogue knows those of a named series")
        if self.repo is not None:
            try:
                self.entry()
            except ValidationError as error:
                raise ValueError("; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())) from None
            if self.stage and "stage" not in re.compile(self.revisions).groupindex:
                raise ValueError(f"`stage` is given, and `revisions` {self.revisions!r} has no group named stage")
        return self

    def anchored(self, base: Path) -> Self:
        """See the base class; of a tokenizer that begins like a path."""
        if self.tokenizer is None or not self.tokenizer.startswith((".", "~")):
            return self
        return self.model_copy(update={"tokenizer": str(beside(base, self.tokenizer))})

    def entry(self) -> Entry:
        """What is known about the series: the catalogue's entry with this config's changes, or one made of the config.

        Raises:
            UserError: when the catalogue has no series of that name.
        """
        changes = {
            key: value
            for key, value in (("tokens_per_step", self.tokens_per_step), ("stage", self.stage))
            if value is not None and value != ""
        }
        if self.name is not None:
            from ..catalogue import find_entry  # all its data: only read when it is needed

            return find_entry(self.name).model_copy(update=changes)
        assert self.repo is not None
        basics = {"name": self.repo.rpartition("/")[2], "family": "", "repo": self.repo, "revisions": self.revisions}
        return Entry.model_validate(basics | changes)
