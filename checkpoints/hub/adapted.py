"""The model that a hub's checkpoints are adapters of: another repository, at one commit."""

from __future__ import annotations

from ..errors import UserError
from ..files.weights import choose_files
from ..layouts.adapters import Base, require_peft
from .files import adapter, choose, weight_files
from .said import CommitSource

__all__ = ["AdaptedModel", "require_whole", "wrong_kind"]


class AdaptedModel:
    """The model that the runs file names.

    Args:
        named: what the runs file calls it.
        source: the commit; None where there is no such revision.

    Attributes:
        named: the same.
        source: the commit.

    Raises:
        UserError: when there is no model, or ``peft`` is missing.
    """

    def __init__(self, named: str, source: CommitSource | None) -> None:
        if source is None or not choose_files(f.name for f in source.files).files:
            raise UserError(
                f"{named!r} holds no model" if source else f"there is no revision {named!r}",
                expected="the model that the adapters were trained on: config.json and its weights",
                remedy="correct `series.base` in the runs file",
            )
        require_peft(f"a series on {named!r}")
        self.named, self.source = named, source
        self._base: Base | None = None

    @property
    def base(self) -> Base:
        """Downloaded when the first adapter is read; it stays.

        Raises:
            CheckpointError: when it does not arrive.
        """
        if self._base is None:
            self._base = Base(self.source.repository.provide(self.source.commit, choose(self.source.files)))
        return self._base

    def missing_bytes(self) -> int:
        """How much :attr:`base` would download."""
        cache, commit = self.source.repository.cache, self.source.commit
        return cache.missing_bytes(cache.folder(commit), choose(self.source.files))


def require_whole(repo: str, first: CommitSource | None) -> None:
    """That a series without a base is none of adapters, judging by its first checkpoint.

    Raises:
        UserError: when it is.
    """
    if first is not None and (alone := adapter(first.files)):
        raise UserError(
            f"{repo!r} holds adapters without their model ({first.label}: {alone[0].name}), as peft saves them",
            expected="the model that they were trained on",
            remedy="name its repository as `series.base` in the runs file, or merge them (`merge_and_unload`) and save that",
        )


def wrong_kind(source: CommitSource, model: AdaptedModel | None) -> str:
    """That a checkpoint is an adapter without a model, or the other way round, as a clause; empty where it is neither."""
    alone = adapter(source.files)
    if alone and model is None:
        return f"it holds an adapter without its model ({alone[0].name}), and no `series.base` is named"
    if not alone and model is not None and weight_files(source.files):
        return f"it holds whole weights, where `series.base` says that all are adapters of {model.named}"
    return ""
