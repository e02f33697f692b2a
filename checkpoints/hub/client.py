"""What a hub lists, and the bytes of its files; every failure becomes a sentence for the user."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from ..errors import CheckpointError, UserError
from .files import HubFile, is_commit, is_safe
from .retry import GaveUpError, PassingError, persist
from .transport import RefusedError, endpoint, get, no_hub, offline, shown

__all__ = ["HubClient", "UnreachableError"]

_THREADS = 8

T = TypeVar("T")


class UnreachableError(UserError):
    """Nothing answered at all: there may be no connection."""


class HubClient:
    """Read-only access to a hub: that of ``HF_ENDPOINT`` if it is set, else the library's default.

    Args:
        tries: how often a request is made before it is given up.
        sleep: waits between tries; for tests.
    """

    def __init__(self, *, tries: int = 5, sleep: Callable[[float], object] | None = None) -> None:
        self._tries = tries
        self._interrupted = threading.Event()
        self._sleep = sleep or self._interrupted.wait

    @property
    def endpoint(self) -> str:
        """Where the hub is; raises UserError where ``HF_ENDPOINT`` is no web address."""
        return endpoint()

    @property
    def offline(self) -> bool:
        """Whether the user wants no requests to be made."""
        return offline()

    def refs(self, repo: str, *, connection_tries: int | None = None) -> dict[str, str]:
        """Every branch and tag with the commit that it points to; a branch hides a tag of the same name.

        Args:
            repo: the repository.
            connection_tries: how often it is tried where nothing answers at all, if less than otherwise.

        Raises:
            UserError: when there is no such repository, a login is needed, or the hub does not answer as it should.
            UnreachableError: when there was no connection.
        """
        try:
            content, _ = self._json(repo, f"{endpoint()}/api/models/{repo}/refs", connection_tries)
            listed = [(ref["name"], ref["targetCommit"]) for kind in ("tags", "branches") for ref in content[kind]]
        except (RefusedError, GaveUpError) as error:
            no_answer = isinstance(error, GaveUpError) and error.connection
            raise (UnreachableError if no_answer else UserError)(
                f"{shown(endpoint())} does not list the revisions of {repo!r}: {error}",
                expected="a list of branches and tags",
                remedy="see whether it can be reached from here, and try again later",
            ) from None
        except (KeyError, TypeError):
            raise no_hub(repo) from None
        for name, commit in listed:
            if not isinstance(name, str) or not isinstance(commit, str) or not is_commit(commit):
                raise UserError(
                    f"{repo!r} lists {name!r} at {commit!r}",
                    expected="a commit of 40 hexadecimal digits",
                    remedy="see whether HF_ENDPOINT is a hub, and try again later",
                )
        return dict(listed)

    def tree(self, repo: str, commit: str) -> tuple[HubFile, ...]:
        """All files of a commit by name, those in folders included.

        Raises:
            CheckpointError: when they cannot be listed, or a name would lead out of the folder it is downloaded to.
            UserError: when the repository is gone or a login is needed.
        """
        where = f"the files of {repo} at {commit[:8]}"
        url: str | None = f"{endpoint()}/api/models/{repo}/tree/{commit}?recursive=true"
        files: list[HubFile] = []
        seen = set()
        try:
            while url is not None and url not in seen:
                seen.add(url)
                content, url = self._json(repo, url)
                files += [_file(item) for item in content if item["type"] == "file"]
        except (RefusedError, GaveUpError) as error:
            raise CheckpointError(
                f"{where} cannot be listed: {error}", remedy="try again later", expected="a list of its files"
            ) from None
        except (KeyError, TypeError, ValueError):
            raise no_hub(repo) from None
        for file in files:
            if not is_safe(file.name):
                raise CheckpointError(
                    f"{where} are refused: one is called {file.name!r}",
                    expected="names that stay in the folder that they are downloaded to",
                    remedy="tell the owner of the repository, or leave this checkpoint out with `exclude`",
                )
        return tuple(sorted(files, key=lambda f: f.name))

    def download(self, repo: str, commit: str, file: HubFile, target: Path) -> None:
        """Put one file at ``target``, whole and verified; what an earlier attempt left beside it is continued.

        Raises:
            CheckpointError: when it does not arrive, or arrives with other contents than listed, twice.
            UserError: when a login is needed.
            OSError: when it cannot be written.
        """
        partial = target.with_name(target.name + ".part")
        which = f"{file.name} of {repo} at {commit[:8]}"
        for _ in range(2):
            try:
                self._complete(repo, commit, file, partial)
            except (RefusedError, GaveUpError) as error:
                raise CheckpointError(
                    f"{which} cannot be downloaded: {error}", remedy="try again later", expected=f"{file.size:,} bytes"
                ) from None
            expected, found = _identity(file, partial)
            if expected == found:
                os.replace(partial, target)
                return
            partial.unlink()
        raise CheckpointError(
            f"{which} arrives damaged: {found}", expected=expected, remedy="try again later, or another HF_ENDPOINT"
        )

    def in_parallel(
        self, work: Callable[[T], None], items: Iterable[T], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Call ``work`` for every item in a few threads; the first exception ends it, also while threads pause.

        Args:
            work: what to do.
            items: with what.
            progress: called with (done, of all).
        """
        try:
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="hub") as pool:
                futures = [pool.submit(work, item) for item in items]
                try:
                    for done, future in enumerate(as_completed(futures), 1):
                        future.result()
                        if progress is not None:
                            progress(done, len(futures))
                except BaseException:
                    self._interrupted.set()  # Ctrl-C must not wait minutes for a hub
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            self._interrupted.clear()

    def _complete(self, repo: str, commit: str, file: HubFile, partial: Path) -> None:
        """Request what ``partial`` lacks until it has the size of the file. Trying counts anew when some has come."""
        most = _size(partial)

        def once() -> None:
            nonlocal most
            try:
                self._append(repo, f"{endpoint()}/{repo}/resolve/{commit}/{quote(file.name)}", file.size, partial)
            except PassingError as error:
                error.progressed = _size(partial) > most
                most = max(most, _size(partial))
                if error.reason == "HTTP 416":
                    partial.unlink(missing_ok=True)
                raise

        persist(once, tries=self._tries, sleep=self._pause)

    def _append(self, repo: str, url: str, size: int, partial: Path) -> None:
        have = _size(partial)
        if have == size and partial.exists():
            return
        if have > size:
            partial.unlink()
            have = 0
        with get(repo, url, {"Range": f"bytes={have}-"} if have else {}) as response:
            if have and response.status_code != 206:  # the whole file, from its beginning
                have = 0
            elif have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                partial.unlink()
                raise PassingError("the hub sends another part of the file than it was asked for")
            with partial.open("ab" if have else "wb") as stream:
                for chunk in response.iter_bytes():
                    stream.write(chunk)
                    have += len(chunk)
                    if have > size:  # it cannot become right any more: no need to fill the disk
                        return
        if have < size:
            raise PassingError(f"the connection ended at byte {have:,} of {size:,}")

    def _json(self, repo: str, url: str, connection_tries: int | None = None) -> tuple[Any, str | None]:
        """The content of an answer, and the address of its next page."""

        def once() -> tuple[Any, str | None]:
            with get(repo, url, {}) as response:
                response.read()
                more = response.links.get("next", {}).get("url")
                try:
                    content = response.json()
                except ValueError:
                    raise no_hub(repo) from None
            if more is not None and not more.startswith(("http://", "https://")):
                raise no_hub(repo)
            return content, more

        return persist(once, tries=self._tries, sleep=self._pause, connection_tries=connection_tries)

    def _pause(self, seconds: float) -> None:
        self._sleep(seconds)
        if self._interrupted.is_set():
            raise KeyboardInterrupt


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _file(item: Mapping[str, Any]) -> HubFile:
    large = item.get("lfs")
    if large is not None:  # so are files in Xet storage
        return HubFile(str(item["path"]), int(large["size"]), sha256=str(large["oid"]).removeprefix("sha256:"))
    return HubFile(str(item["path"]), int(item["size"]), blob=str(item["oid"]))


def _identity(file: HubFile, path: Path) -> tuple[str, str]:
    """What a file should be and what it is, in the terms in which the hub lists it."""
    size = path.stat().st_size
    expected, found = f"{file.size:,} bytes", f"{size:,} bytes"
    with path.open("rb") as stream:
        if file.sha256 is not None:
            return (
                f"{expected}, sha256 {file.sha256}",
                f"{found}, sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()}",
            )
        if file.blob is not None and len(file.blob) == 40:
            digest = hashlib.sha1(b"blob %d\0" % size)  # as git names it
            while block := stream.read(1 << 20):
                digest.update(block)
            return f"{expected}, git blob {file.blob}", f"{found}, git blob {digest.hexdigest()}"
    return expected, found
