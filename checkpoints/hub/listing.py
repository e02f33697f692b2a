"""Which checkpoints a series has: revisions whose names match, or repositories, and the commits they were pinned to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..catalogue.entry import Entry, Label
from ..errors import UserError
from ..series import Checkpoint, ordered
from .client import HubClient, UnreachableError
from .files import is_commit
from .repository import Repository

__all__ = ["Listing", "list_repositories", "list_revisions", "pinned"]


@dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        checkpoints: by step.
        moved: pinned ones whose branch points to another commit by now, with that commit.
        vanished: pinned ones whose branch is gone.
        unavailable: checkpoints whose repository cannot be had, to the reason.
    """

    checkpoints: tuple[Checkpoint, ...]
    moved: tuple[Checkpoint, ...] = ()
    vanished: tuple[Checkpoint, ...] = ()
    unavailable: Mapping[str, str] | None = None


def list_revisions(entry: Entry, repository: Repository) -> Listing:
    """The branches and tags whose names are those of checkpoints.

    Raises:
        UserError: when there is none, or two are of one step, or they cannot be listed.
    """
    refs = repository.refs()
    found = [
        Checkpoint(label.step, commit, label.tokens, label.stage, name)
        for name, commit in refs.items()
        if (label := _parse(entry, name)) is not None
    ]
    if not found:
        raise UserError(
            f"no branch or tag of {entry.repo!r} is a checkpoint: it has {_some(refs) or 'none at all'}",
            expected=_pattern(entry),
            remedy="give the pattern of their names as `series.revisions`",
        )
    return Listing(_ordered(found, entry))


def list_repositories(entry: Entry, repositories: Mapping[str, Repository], client: HubClient) -> Listing:
    """The repositories of a series that has one for each checkpoint; the branch ``main`` of each.

    A repository that cannot be had is still listed, with ``main`` in place of a commit: a gap must not go unseen.

    Raises:
        UserError: when none can be had, or no name is that of a checkpoint, or there is no connection.
    """
    labels = {name: label for name in repositories if (label := _parse(entry, name)) is not None}
    if not labels:
        raise UserError(
            f"no repository of {entry.name!r} is a checkpoint: it has {_some(repositories)}",
            expected=_pattern(entry),
            remedy="correct `series.revisions`, the pattern of their names",
        )
    commits: dict[str, str] = {}
    errors: dict[str, UserError] = {}

    def list_one(name: str) -> None:
        try:
            commit = repositories[name].commit("main")
        except UnreachableError:
            raise
        except UserError as error:
            errors[name] = error
        else:
            if commit is None:
                errors[name] = UserError(
                    f"{name!r} has no branch main",
                    expected="a repository with weights on main",
                    remedy="leave this checkpoint out with `exclude`",
                )
            else:
                commits[name] = commit

    client.in_parallel(list_one, labels)
    if not commits:
        raise next(iter(errors.values()))
    found = [
        Checkpoint(label.step, commits.get(name, "main"), label.tokens, label.stage, name)
        for name, label in labels.items()
    ]
    return Listing(_ordered(found, entry), unavailable={name: e.observed for name, e in errors.items()})


def pinned(listing: Listing, pins: Mapping[int, Checkpoint]) -> Listing:
    """The same with the commits that were collected before, wherever branches point by now.

    Raises:
        UserError: when a pin is no commit.
    """
    for step, pin in pins.items():
        if not is_commit(pin.revision):
            raise UserError(
                f"step {step} is pinned to {pin.revision!r}",
                expected="a commit of 40 hexadecimal digits",
                remedy="collect into another trace: in this one its revision was changed",
            )
    present = {checkpoint.step: checkpoint for checkpoint in listing.checkpoints}
    vanished = tuple(pin for step, pin in sorted(pins.items()) if step not in present)
    kept = [replace(c, revision=pins.get(c.step, c).revision) for c in listing.checkpoints]
    moved = tuple(c for c in listing.checkpoints if pins.get(c.step, c).revision != c.revision)
    checkpoints = tuple(sorted([*kept, *vanished], key=lambda c: c.step))
    return Listing(checkpoints, moved, vanished, listing.unavailable)


def _parse(entry: Entry, name: str) -> Label | None:
    try:
        return entry.parse(name)
    except (ValueError, TypeError, KeyError, ArithmeticError):
        raise UserError(
            f"{name!r} matches {entry.revisions!r}, and what is there for the step is no number",
            expected="a pattern as step(?P<step>\\d+)",
            remedy="correct `series.revisions`",
        ) from None


def _ordered(found: list[Checkpoint], entry: Entry) -> tuple[Checkpoint, ...]:
    try:
        return ordered(found, where=entry.repo)
    except UserError as error:
        stages = sorted({c.stage for c in found})
        if len(stages) > 1:
            remedy = f"choose one stage with `series.stage`; there are {', '.join(map(repr, stages))}"
        else:
            remedy = "give a narrower pattern as `series.revisions`, with `series.repo`"
        raise UserError(error.observed, expected=error.expected, remedy=remedy) from None


def _pattern(entry: Entry) -> str:
    stage = f" of a stage {entry.stage}" if entry.stage else ""
    return f"names that match {entry.revisions}{stage}"


def _some(names: Mapping[str, object]) -> str:
    listed = sorted(names)
    return ", ".join(map(repr, listed[:5])) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
