"""One repository: what it lists and its files, from the hub, or offline from what was saved of them."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from ..errors import CheckpointError, StoppedError, UserError
from .cache import RepositoryCache
from .client import HubClient, UnreachableError
from .files import HubFile, is_commit

__all__ = ["Downloads", "Repository"]


class Downloads(ABC):
    """What is downloaded of one place, a commit at a time, into its cache.

    Raises:
        UserError: when the name cannot be that of a repository.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.cache = RepositoryCache(name)

    @property
    def offline(self) -> bool:
        """Whether no requests are made."""
        return False

    @property
    def _why_offline(self) -> str:
        return ""

    @abstractmethod
    def _download_one(self, commit: str, file: HubFile, path: Path) -> None:
        """Put a file of a commit there, verified. A CheckpointError when it cannot be had."""

    def provide(
        self, commit: str, files: Iterable[HubFile], *, kind: str = "commits", keep: bool = True, use: bool = False
    ) -> Path:
        """Download what is not here yet of these files of a commit, and say where they are.

        Args:
            commit: the commit.
            files: of its tree.
            kind: which of the cache's folders.
            keep: whether they stay when no process uses them any more.
            use: whether they are used from now on, until ``cache.release``.

        Raises:
            CheckpointError: when one of them cannot be had; what has come stays.
            UserError: when a login is needed, or the cache cannot be written.
        """
        files, folder = list(files), self.cache.folder(commit, kind)
        with self.cache.changing(commit):
            if use:
                self.cache.use(commit)
            try:
                if not self.cache.is_complete(folder, files):
                    self._download(commit, files, folder)
                    self.cache.finish(folder, files, keep=keep or self.cache.is_kept(folder))
                elif keep and not self.cache.is_kept(folder):
                    self.cache.finish(folder, files, keep=True)
            except BaseException:
                if use:
                    self.cache.release(commit)
                raise
        return folder

    def _download(self, commit: str, files: list[HubFile], folder: Path) -> None:
        if self.offline:
            raise CheckpointError(
                f"{self.name} at {commit[:8]} is not in the cache, and {self._why_offline}",
                remedy="connect (unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE), and run the same command again",
                expected="a connection, or a download of an earlier run",
            )
        with self.cache.writing():
            folder.mkdir(parents=True, exist_ok=True)
            needed, free = self.cache.missing_bytes(folder, files), shutil.disk_usage(folder).free
            if needed > free:
                raise StoppedError(
                    f"{self.name} at {commit[:8]} needs {needed / 1e9:.1f} GB more, and {folder} has {free / 1e9:.1f} GB free",
                    remedy="make room, or set DYNAMICS_CACHE to another folder",
                    expected="room for the whole checkpoint",
                )
            for file in self.cache.lacking(folder, files):
                (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
                self._download_one(commit, file, folder / file.name)


class Repository(Downloads):
    """A repository behind a client, with its cache.

    Raises:
        UserError: when the name cannot be that of a repository.
    """

    def __init__(self, name: str, client: HubClient) -> None:
        super().__init__(name)
        self._client = client
        self._refs: dict[str, str] | None = None
        self._trees: dict[str, tuple[HubFile, ...]] = {}
        self._unreachable = False

    @property
    def offline(self) -> bool:
        """Whether no requests are made: the user said so, or there was no connection when revisions were listed."""
        return self._unreachable or self._client.offline

    @property
    def _why_offline(self) -> str:
        return "HF_HUB_OFFLINE is set" if self._client.offline else "the hub could not be reached"

    def refs(self) -> dict[str, str]:
        """Branches and tags with their commits, listed once; without a connection, as they were listed last.

        Raises:
            UserError: when they cannot be listed and never were.
        """
        if self._refs is None:
            self._refs = self._list_refs()
        return self._refs

    def commit(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a commit; None where there is no such branch or tag."""
        return revision if is_commit(revision) else self.refs().get(revision)

    def _list_refs(self) -> dict[str, str]:
        saved = self.cache.read("refs.json")
        if not isinstance(saved, dict) or not all(isinstance(c, str) and is_commit(c) for c in saved.values()):
            saved = None
        if not self._client.offline:
            try:
                # who has a list already need not wait half a minute to learn that there is no connection
                listed = self._client.refs(self.name, connection_tries=None if saved is None else 2)
            except UnreachableError:
                if saved is None:
                    raise
                self._unreachable = True
            else:
                self.cache.write("refs.json", listed)
                return listed
        if saved is None:
            raise UserError(
                f"the revisions of {self.name!r} were never listed, and the hub is offline (HF_HUB_OFFLINE)",
                expected=f"a list from an earlier run in {self.cache.root}",
                remedy="unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, once",
            )
        return dict(saved)

    def tree(self, commit: str) -> tuple[HubFile, ...]:
        """All files of a commit; asked for once and for all, since a commit never changes.

        Raises:
            CheckpointError: when they cannot be listed.
            UserError: when the repository is gone or a login is needed.
        """
        if commit not in self._trees:
            files = self._saved_tree(commit)
            if files is None:
                if self.offline:
                    raise CheckpointError(
                        f"the files of {self.name} at {commit[:8]} were never listed, and {self._why_offline}",
                        expected=f"a list from an earlier run in {self.cache.root}",
                        remedy="connect (unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE), and run the same command again",
                    )
                files = self._client.tree(self.name, commit)
                self.cache.write(f"trees/{commit}.json", {"files": [[f.name, f.size, f.sha256, f.blob] for f in files]})
            self._trees[commit] = files
        return self._trees[commit]

    def _saved_tree(self, commit: str) -> tuple[HubFile, ...] | None:
        saved = self.cache.read(f"trees/{commit}.json")
        try:
            files = tuple(HubFile(*entry) for entry in saved["files"])
        except (TypeError, KeyError):
            return None
        return files if all(isinstance(f.name, str) and isinstance(f.size, int) for f in files) else None

    def _download_one(self, commit: str, file: HubFile, path: Path) -> None:
        self._client.download(self.name, commit, file, path)
