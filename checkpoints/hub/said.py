"""What the checkpoints of a hub say of themselves: the step of their trainer, and the tokenizer that they carry.

Of each only these small files are fetched, and of tokenizers only those that the listing shows to be another file than the
one that prompts are read by, one of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..layouts.content import recorded_step
from ..layouts.folders import trainer_state
from ..series import Checkpoint
from ..tokenizing import tokenizer_difference
from .files import CONFIG, TOKENIZER, VOCABULARIES, HubFile
from .repository import Repository

__all__ = ["CommitSource", "Looking"]

_TRAINER = "trainer_state.json"


@dataclass(frozen=True)
class CommitSource:
    """A commit: its repository, its files, and what messages call it."""

    repository: Repository
    commit: str
    files: tuple[HubFile, ...]
    label: str


class Looking:
    """Looks at what checkpoints say of themselves.

    Args:
        sources: checkpoint to its commit.
        for_each: calls something for several checkpoints.
        said: checkpoint to what was found, as clauses; more are added.

    Attributes:
        unlisted: why some could not be looked at.
    """

    def __init__(
        self,
        sources: Mapping[Checkpoint, CommitSource],
        for_each: Callable[[Callable[[Checkpoint], None], Sequence[Checkpoint]], None],
        said: dict[Checkpoint, list[str]],
    ) -> None:
        self.unlisted: dict[Checkpoint, CheckpointError] = {}
        self._sources, self._for_each, self._said = sources, for_each, said

    def compare_steps(self) -> None:
        """The step that the trainer wrote down with the label's."""

        def look(checkpoint: Checkpoint, files: list[HubFile]) -> str:
            folder = self._fetched(checkpoint, files, "trainer")
            step = recorded_step({"step": trainer_state(folder).get("global_step")})
            return "" if step in (None, checkpoint.step) else f"its trainer_state.json says step {step}"

        about = {c: [f for f in source.files if f.name == _TRAINER] for c, source in self._sources.items()}
        for checkpoint, clause in self._each({c: f for c, f in about.items() if f}, look).items():
            self._said[checkpoint].append(clause)

    def compare_tokenizers(self, used: Path, of: CommitSource) -> None:
        """The tokenizer that each carries with the one in a folder, which came from a commit."""
        known = {name: file.content for name, file in _tokenizer(of.files).items()}

        def look(checkpoint: Checkpoint, files: list[HubFile]) -> str:
            if all(known.get(f.name) == f.content for f in files):
                return ""
            what = tokenizer_difference(used, self._fetched(checkpoint, files, "tokenizer"))
            if not what:
                return ""
            return f"it carries another tokenizer than the one of {of.label} ({what}), by which all prompts are read"

        alike: dict[tuple[str, ...], list[Checkpoint]] = {}
        carried = {c: list(_tokenizer(source.files).values()) for c, source in self._sources.items()}
        for checkpoint, files in carried.items():
            if files:
                alike.setdefault(tuple(f"{f.name} {f.content}" for f in files), []).append(checkpoint)
        found = self._each({members[0]: carried[members[0]] for members in alike.values()}, look)
        for members in alike.values():
            for checkpoint in members if members[0] in found else ():
                self._said[checkpoint].append(found[members[0]])

    def _each(
        self, files: Mapping[Checkpoint, list[HubFile]], call: Callable[[Checkpoint, list[HubFile]], str]
    ) -> dict[Checkpoint, str]:
        """What there is to say, several at a time."""
        found: dict[Checkpoint, str] = {}

        def look(checkpoint: Checkpoint) -> None:
            try:
                if clause := call(checkpoint, files[checkpoint]):
                    found[checkpoint] = clause
            except CheckpointError as error:
                self.unlisted[checkpoint] = error

        self._for_each(look, list(files))
        return found

    def _fetched(self, checkpoint: Checkpoint, files: list[HubFile], kind: str) -> Path:
        source = self._sources[checkpoint]
        return source.repository.provide(source.commit, files, kind=kind)


def _tokenizer(files: Sequence[HubFile]) -> dict[str, HubFile]:
    """Files of a tokenizer, by name; empty where there is no whole one."""
    found = {f.name: f for f in files if f.name in TOKENIZER and f.name != CONFIG}
    return found if found.keys() & set(VOCABULARIES) else {}
