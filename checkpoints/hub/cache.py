"""What is on disk of one repository, in this project's own cache and never in the user's of ``huggingface_hub``.

::

    hub/OWNER--NAME/
        refs.json              branches and tags, as last listed
        trees/COMMIT.json      files of a commit; never changes
        commits/COMMIT/        config and weights of a checkpoint; .complete.json, written last, says that they are whole
        config/COMMIT/         config alone
        tokenizer/COMMIT/      tokenizer alone
        trainer/COMMIT/        what the trainer wrote of itself
        dictionaries/COMMIT/   sparse dictionaries, in the repository's own folders
        locks/                 see below

Files are stored under their own names, once, with no blobs and links beside them: a checkpoint is deleted by deleting
its folder, and a download that was cut off is ``NAME.part`` in the same folder.

Two locks per commit, both released by the operating system when a process dies. ``COMMIT.lock`` is held while its
folder is being changed (downloading, deleting); its file goes with the last folder of the commit. ``COMMIT.*.use`` is
held, one per user, from fetching to releasing: as long as any other one is held, the folder is not deleted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import StoppedError, UserError
from ..foreign import read_json
from ..paths import cache_folder
from .files import HubFile, is_commit, is_repository

__all__ = ["RepositoryCache", "checksums", "without_cache_path"]

_COMPLETE = ".complete.json"
_KINDS = ("commits", "config", "tokenizer", "trainer", "dictionaries")


class RepositoryCache:
    """The cache of one repository.

    Raises:
        UserError: when the name cannot be that of a repository.
    """

    def __init__(self, repo: str) -> None:
        if not is_repository(repo):
            raise UserError(
                f"{repo!r} is not the name of a repository",
                expected="owner/name",
                remedy="write it as its page on the hub is addressed",
            )
        self.root = cache_folder() / "hub" / repo.replace("/", "--")
        self._uses: dict[str, FileLock] = {}

    def folder(self, commit: str, kind: str = "commits") -> Path:
        """Where files of a commit are; there need be none."""
        if not is_commit(commit):
            raise UserError(
                f"{commit!r} is no commit",
                expected="40 hexadecimal digits",
                remedy="copy the commit from the history of the repository",
            )
        return self.root / kind / commit

    def commits(self) -> list[str]:
        """Commits of which weights, or parts of them, are here."""
        folder = self.root / "commits"
        return sorted(p.name for p in folder.iterdir() if is_commit(p.name)) if folder.is_dir() else []

    def read(self, name: str) -> Any:
        """A JSON file, or None where there is none that can be read."""
        return _read(self.root / name)

    def write(self, name: str, content: Any) -> None:
        """Replace a JSON file at once; a reader at the same time sees the old one or the new one."""
        file = self.root / name
        with self.writing():
            file.parent.mkdir(parents=True, exist_ok=True)
            new = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
            new.write_text(json.dumps(content), encoding="utf-8")
            os.replace(new, file)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say what to do where the cache cannot be written.

        Raises:
            UserError: instead of OSError.
        """
        try:
            yield
        except OSError as error:
            raise StoppedError(
                f"the cache {self.root} cannot be written: {error.strerror or error}",
                expected="a writable folder with room for two checkpoints",
                remedy="make room, or set DYNAMICS_CACHE to another folder",
            ) from error

    def lacking(self, folder: Path, files: Iterable[HubFile]) -> list[HubFile]:
        """Which files are not here whole. Their names are given only after they were verified."""
        return [f for f in files if not (path := folder / f.name).is_file() or path.stat().st_size != f.size]

    def missing_bytes(self, folder: Path, files: Iterable[HubFile]) -> int:
        """How much is left to download of these files."""
        parts = ((f, folder / f"{f.name}.part") for f in self.lacking(folder, files))
        return sum(f.size - min(f.size, part.stat().st_size if part.is_file() else 0) for f, part in parts)

    def is_complete(self, folder: Path, files: Iterable[HubFile]) -> bool:
        """Whether all of these files were put here."""
        listed = {entry["name"] for entry in _manifest(folder).get("files", [])}
        files = list(files)
        return listed >= {f.name for f in files} and not self.lacking(folder, files)

    def finish(self, folder: Path, files: Iterable[HubFile], *, keep: bool) -> None:
        """Write down that the folder is complete, and whether it shall stay."""
        entries = [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in files]
        self.write(str((folder / _COMPLETE).relative_to(self.root)), {"files": entries, "keep": keep})

    def is_finished(self, folder: Path) -> bool:
        """Whether the folder was complete once."""
        return bool(_manifest(folder))

    def is_kept(self, folder: Path) -> bool:
        """Whether the folder is to stay."""
        return bool(_manifest(folder).get("keep"))

    def delete(self, folder: Path) -> None:
        """Delete a folder; the statement that it is complete goes first."""
        if folder.is_dir():
            with self.writing():
                (folder / _COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(folder)

    @contextmanager
    def changing(self, commit: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock of a commit's folders; yields False where another one has it and ``wait`` is false."""
        with self.writing():
            lock = self._lock(f"{commit}.lock")
            with suppress(Timeout):
                lock.acquire(timeout=-1 if wait else 0)
        try:
            yield lock.is_locked
        finally:
            if lock.is_locked and not any((self.root / kind / commit).exists() for kind in _KINDS):
                with suppress(
                    OSError
                ):  # a process that waits for it notices that its name is gone, and makes a new one
                    Path(lock.lock_file).unlink()
            lock.release()

    def use(self, commit: str) -> None:
        """No other process may delete this commit's weights from now on; only while :meth:`changing` it."""
        if commit not in self._uses:
            with self.writing():
                lock = self._lock(f"{commit}.{uuid.uuid4().hex}.use")
                lock.acquire(timeout=0)
            self._uses[commit] = lock

    def release(self, commit: str) -> None:
        """The opposite of :meth:`use`."""
        lock = self._uses.pop(commit, None)
        if lock is not None:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def is_used(self, commit: str) -> bool:
        """Whether any process uses this commit's weights; only while :meth:`changing` it."""
        if commit in self._uses:
            return True
        for file in (self.root / "locks").glob(f"{commit}.*.use"):
            lock = FileLock(file)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
            lock.release()
            file.unlink(missing_ok=True)  # the process that held it is dead
        return False

    def _lock(self, name: str) -> FileLock:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / name, thread_local=False)  # fetched by one thread, perhaps released by another


def checksums(folder: Path) -> dict[str, str | None]:
    """The sha256 of every file that was put into a folder, as it was verified; None for small files without one."""
    return {entry["name"]: entry["sha256"] for entry in _manifest(folder).get("files", [])}


def _manifest(folder: Path) -> dict[str, Any]:
    content = _read(folder / _COMPLETE)
    return content if isinstance(content, dict) else {}


def _read(file: Path) -> Any:
    try:
        return read_json(file)
    except (OSError, ValueError):
        return None


def without_cache_path(reason: str) -> str:
    """A reason without the folder of a commit in the cache, which is gone when it is read."""
    folder = rf"{re.escape(str(cache_folder()))}/\S*?/commits/[0-9a-f]{{40}}"
    return re.sub(rf"{folder}/?(?!\w)", "its folder", re.sub(rf"{folder}/(?=\w)", "", reason))
