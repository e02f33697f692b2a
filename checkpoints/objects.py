"""Objects in a store (S3, Google Cloud Storage, Azure, anything that speaks S3): reading, listing, conditional writing.

A store has no rename, no lock and no append. It has single objects that are written whole or not at all, and a condition on a
write: *only if there is none* or *only if it is still the one that I read* (its etag). Everything that several processes agree
on is made of these two.

Needs the extra ``s3`` (``obstore``), which is imported with the first request. Credentials and endpoints are those of the
environment, as its documentation names them: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, ...
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar

from .errors import StoppedError, UserError, first_line, short

__all__ = ["Bucket", "ChangedError", "StoredObject", "is_url", "store_of", "url_of"]

_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "memory")
_URL = re.compile(rf"({'|'.join(_SCHEMES)}):/+(.*)", re.DOTALL)
_TRIES = 6
"""How often a request is made whose answer, or whose end, did not arrive; each of these tries again by itself where it may."""
_RETRIES = 6
"""How often the library makes a request that may be made again, before it gives up."""
_DEADLINE = 120.0
"""Seconds without anything of an answer after which no other try is made."""
_MOST_AT_ONCE = 16
_AT_ONCE = 2**26
"""Bytes beyond which an object is written in several requests."""
Part = Mapping[Literal["range", "offset", "suffix"], Any]
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class ChangedError(Exception):
    """A conditional write was refused: the object is another than was expected, or there is one."""


def is_url(path: object) -> bool:
    """Whether a path says a place in an object store.

    >>> is_url("s3://bucket/traces"), is_url(Path("s3://bucket/traces")), is_url("traces/s3:")
    (True, True, False)
    """
    return _URL.fullmatch(os.fspath(path) if isinstance(path, str | os.PathLike) else "") is not None


def url_of(path: object) -> str:
    """The URL that a path says, which may have lost a slash on its way.

    >>> url_of(Path("s3://bucket/traces")), url_of("memory:///a/")
    ('s3://bucket/traces', 'memory://a')
    """
    found = _URL.fullmatch(str(path))
    assert found is not None, path
    return f"{found[1]}://{found[2].rstrip('/')}"


@dataclass(frozen=True)
class StoredObject:
    """An object as its store lists it.

    Attributes:
        size: bytes.
        etag: changes with the content; the same content may get another.
    """

    size: int
    etag: str


class Bucket:
    """The objects below one URL; keys are relative to it, parts separated by slashes.

    Raises:
        UserError: when the extra ``s3`` is not installed, or the URL is none that it knows.
    """

    def __init__(self, url: str) -> None:
        self.url = url_of(url)
        self._store, self._prefix = store_of(self.url)

    def get(self, key: str, part: Part | None = None) -> tuple[bytes, str] | None:
        """Content and etag; None where there is no such object.

        Args:
            key: of the object.
            part: only these bytes: ``{"range": (start, end)}``, ``{"offset": from}`` or ``{"suffix": last}``.
        """
        import obstore

        def once() -> tuple[bytes, str] | None:
            options: Any = None if part is None else {"range": next(iter(part.values())) if "range" in part else part}
            try:
                found = obstore.get(self._store, self._prefix + key, options=options)
                content = bytes(found.bytes())
            except FileNotFoundError:
                return None
            size = found.range[1] - found.range[0]
            if len(content) != size:
                raise ConnectionError(f"{len(content)} of {size} bytes arrived")
            return content, str(found.meta["e_tag"])

        return self._asked(key, once)

    def put(self, key: str, content: bytes) -> str:
        """Write an object, whatever is there; its etag."""
        import obstore

        several = len(content) > _AT_ONCE
        put = partial(obstore.put, self._store, self._prefix + key, content, use_multipart=several)
        return str(self._asked(key, put)["e_tag"])

    def put_if(self, key: str, content: bytes, etag: str | None) -> str:
        """Write an object only if it is the one with this etag, or, for None, there is none; its new etag.

        Raises:
            ChangedError: when it is another. Where an answer was lost, what is there decides whether the write was made.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def once() -> str:
            mode: Any = "create" if etag is None else {"e_tag": etag}
            try:
                return str(
                    obstore.put(self._store, self._prefix + key, content, mode=mode, use_multipart=False)["e_tag"]
                )
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if "NoSuchBucket" in str(error):
                    raise
                there = self.get(key)
                if there is None or there[0] != content:
                    raise ChangedError(key) from error
                return there[1]  # this very write, the answer to which was lost

        return self._asked(key, once)

    def listing(self, prefix: str = "") -> dict[str, StoredObject]:
        """Key to what is listed, of all objects below a prefix, which is a whole part of keys."""
        import obstore

        def once() -> dict[str, StoredObject]:
            whole = (self._prefix + prefix).rstrip("/")
            pages = obstore.list(self._store, whole or None, chunk_size=1000)
            cut = len(self._prefix)
            return {o["path"][cut:]: StoredObject(o["size"], str(o["e_tag"])) for page in pages for o in page}

        return self._asked(prefix, once)

    def folders(self) -> list[str]:
        """Names of what has objects below it, directly below this URL, in order."""
        import obstore

        def once() -> list[str]:
            found = obstore.list_with_delimiter(self._store, self._prefix.rstrip("/") or None)
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

        return self._asked("", once)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there do not matter."""
        import obstore

        for key in keys:

            def once(key: str = key) -> None:
                with suppress(FileNotFoundError):
                    obstore.delete(self._store, self._prefix + key)

            self._asked(key, once)

    def download(self, key: str, file: Path, listed: StoredObject | None = None) -> str:
        """Stream an object into a file, which is there whole or not at all; its etag.

        Args:
            key: of the object.
            file: which; its folder is made.
            listed: how it was listed; another one that is there by now is refused.

        Raises:
            FileNotFoundError: when there is no such object.
            ChangedError: when it is another than was listed.
        """
        import obstore

        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}.{time.monotonic_ns()}.part")
        heard = [time.monotonic()]

        def once() -> str:
            try:
                found = obstore.get(self._store, self._prefix + key)
                known = StoredObject(found.meta["size"], str(found.meta["e_tag"]))
                if listed not in (None, known):
                    raise ChangedError(key)
                with part.open("wb") as stream:
                    for piece in found.stream(min_chunk_size=2**22):
                        stream.write(piece)
                        heard[0] = time.monotonic()
                    size = stream.tell()
                if size != known.size:
                    raise ConnectionError(f"{size} of {known.size} bytes arrived")
                os.replace(part, file)
                return known.etag
            finally:
                part.unlink(missing_ok=True)

        return self._asked(key, once, heard)

    def each(self, call: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Do something with several objects at a time; results in order, or the first error."""
        listed = list(items)
        if len(listed) < 2:
            return [call(item) for item in listed]
        with ThreadPoolExecutor(min(_MOST_AT_ONCE, len(listed))) as pool:
            return list(pool.map(call, listed))

    def _asked(self, key: str, once: Callable[[], _Result], heard: list[float] | None = None) -> _Result:
        """An answer, after as many tries as that takes.

        Args:
            key: of what is asked for.
            once: asks.
            heard: when, by the monotonic clock, something of an answer arrived last, which ``once`` changes.
        """
        heard = heard or [time.monotonic()]
        for number in count():
            pause, began = min(0.1 * 2**number, 5.0), time.monotonic()

            def is_last(number: int = number, pause: float = pause, began: float = began) -> bool:
                now = time.monotonic()  # the next try may take as long as this one
                return number + 1 >= _TRIES or now + pause + (now - max(began, heard[0])) > heard[0] + _DEADLINE

            try:
                with self._explained(key, is_last):
                    return once()
            except ConnectionError:
                time.sleep(pause)
        raise AssertionError

    @contextmanager
    def _explained(self, key: str, is_last: Callable[[], bool]) -> Iterator[None]:
        """What the library says, in our words; what may pass is a ConnectionError until it was tried often enough."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        where = f"{self.url}/{key}".rstrip("/")
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise UserError(
                f"{where} may not be read or written: {_said(error)}",
                expected="credentials that allow it",
                remedy="see that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or those of your cloud) are set and may do that",
            ) from error
        except (BaseError, ConnectionError, FileNotFoundError) as error:
            said = _said(error)
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
                raise
            if not is_last() and not re.search(r"NoSuchBucket|InvalidBucketName|code: 40[013]", str(error)):
                raise ConnectionError(said) from error
            raise StoppedError(
                f"{where} does not answer as it should: {said}",
                expected="an object store that can be reached, and a bucket that exists",
                remedy="correct the URL, or AWS_ENDPOINT_URL and AWS_REGION; else run the same command again, it goes on",
            ) from error


def _said(error: BaseException) -> str:
    return short(first_line(error))


@cache
def store_of(url: str) -> tuple[Any, str]:
    """The library's store of a URL, once for all of a process, and the prefix of keys where it has none itself."""
    from datetime import timedelta

    try:
        from obstore.exceptions import BaseError
        from obstore.store import MemoryStore, from_url
    except ImportError as error:
        raise UserError(
            f"{url} is in an object store, and `obstore` is not installed",
            expected="the extra `s3`",
            remedy="pip install 'circuit-dynamics[s3]'",
        ) from error
    if url.startswith("memory:"):  # the objects of this process
        name, _, rest = url.removeprefix("memory://").partition("/")
        if rest:
            return store_of(f"memory://{name}")[0], f"{rest}/"
        return MemoryStore(), ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    options: Any = {"connect_timeout": "15s", "read_timeout": "30s", "timeout": "1h"}
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    retry: Any = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_DEADLINE / 4)}
    retry["backoff"] = {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=5), "base": 2}
    try:
        return from_url(url, client_options=options, retry_config=retry), ""
    except (BaseError, ValueError, TypeError) as error:
        raise UserError(
            f"{url} cannot be the place of objects: {_said(error)}",
            expected="s3://BUCKET/PATH, gs://BUCKET/PATH or az://ACCOUNT/CONTAINER/PATH",
            remedy="correct the URL",
        ) from error
