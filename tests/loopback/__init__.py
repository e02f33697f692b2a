"""A hub on this machine, for tests: it speaks as much of the hub's protocol as reading repositories takes.

::

    with Hub() as hub:
        repo = hub.repo("owner/model")
        commit = repo.branch("step1000", {"config.json": "{}", "model.safetensors": weights})
        hub.fail("owner/model", "step1000", 503, times=2)  # every kind of request about it, twice
        ...
        assert hub.asked("/resolve/") == 2

That it speaks the real protocol is tested in tests/hub/test_loopback.py, with ``huggingface_hub``'s own functions.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LARGE = {".safetensors", ".bin", ".msgpack", ".h5", ".pt", ".model"}
"""Suffixes of files in large-file storage."""

Files = Mapping[str, bytes | str] | Path


@dataclass(frozen=True)
class Request:
    """One request as it came: header names in small letters, and what was answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int


@dataclass
class Fault:
    """Something to do wrong, ``times`` times (None: for ever)."""

    kind: str
    repo: str
    commit: str | None
    what: tuple[str, ...]
    file: str | None = None
    times: int | None = None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0
    content: bytes | None = None


@dataclass
class Repo:
    """A repository: names of revisions, and the files of every commit that there ever was."""

    hub: Hub
    name: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def branch(self, name: str, files: Files) -> str:
        """Make a branch, or move it to these files; returns the commit."""
        self.branches[name] = commit = self._commit(name, files)
        return commit

    def tag(self, name: str, files: Files) -> str:
        """Make a tag; returns the commit."""
        self.tags[name] = commit = self._commit(f"tag {name}", files)
        return commit

    def find(self, revision: str) -> str | None:
        """The commit of a revision."""
        return (
            self.branches.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else None)
        )

    def _commit(self, name: str, files: Files) -> str:
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in sorted(files.rglob("*")) if p.is_file()}
        content = {path: c.encode() if isinstance(c, str) else c for path, c in files.items()}
        text = json.dumps([self.name, name, [(p, hashlib.sha256(c).hexdigest()) for p, c in sorted(content.items())]])
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = content
        for blob in content.values():
            self.hub.blobs[hashlib.sha256(blob).hexdigest()] = blob
        return commit


class Hub:
    """The server.

    Attributes:
        url: its address.
        requests: every request so far.
        page: entries on one page of a listing of files.
        ranges: whether parts of files can be asked for.
        store: address that large files are referred to; another port, which makes it another host to HTTP.
        tokens: that it knows; ``tokens[t]`` are the gated repositories whose terms the owner of ``t`` accepted.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.page, self.ranges = 1000, True
        self.tokens: dict[str, set[str]] = {}
        self._faults: list[Fault] = []
        self._healed = threading.Event()
        self._lock = threading.Lock()
        self._servers = (_Server(self), _Server(self))
        self.url, self.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Hub:
        for server in self._servers:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close it, and every connection to it; nobody is there any more."""
        self._healed.set()
        while self._threads:
            server = self._servers[len(self._threads) - 1]
            server.shutdown()
            server.hang_up()
            server.server_close()
            self._threads.pop().join()

    def repo(self, name: str, *, private: bool = False, gated: bool = False) -> Repo:
        """The repository of that name; made if there is none."""
        return self.repos.setdefault(name, Repo(self, name, private, gated))

    def fail(
        self,
        repo: str,
        label: str | None,
        status: int,
        *,
        times: int | None = None,
        retry_after: str | int | None = None,
        what: tuple[str, ...] = ("refs", "tree", "file"),
        file: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer requests with a status: about a revision (label None: about any, and the list of revisions)."""
        sent = dict(headers or {}) | ({} if retry_after is None else {"Retry-After": str(retry_after)})
        self._add(Fault("fail", repo, self._of(repo, label), what, file, times, status, sent))

    def truncate(self, repo: str, label: str, file: str, *, after: int, times: int | None = None) -> None:
        """Close the connection at a byte of the file."""
        self._add(Fault("truncate", repo, self._of(repo, label), ("content",), file, times, after=after))

    def corrupt(
        self, repo: str, label: str, file: str, *, content: bytes | None = None, times: int | None = None
    ) -> None:
        """Serve other bytes than listed: these, or as many of others."""
        self._add(Fault("corrupt", repo, self._of(repo, label), ("content",), file, times, content=content))

    def stall(self, repo: str, label: str, file: str, *, after: int, times: int | None = None) -> None:
        """Send nothing more from a byte of the file on, and keep the connection, until :meth:`heal`."""
        self._healed.clear()
        self._add(Fault("stall", repo, self._of(repo, label), ("content",), file, times, after=after))

    def heal(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()
        self._healed.set()

    def asked(self, part: str, *, method: str = "GET") -> list[Request]:
        """Requests whose path contains this."""
        with self._lock:
            return [r for r in self.requests if part in r.path and r.method == method]

    def _of(self, repo: str, label: str | None) -> str | None:
        if label is None:
            return None
        commit = self.repos[repo].find(label)
        assert commit is not None, f"{repo} has no {label}"
        return commit

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def fault(self, kind: str, repo: str, commit: str | None, what: str, file: str | None = None) -> Fault | None:
        """The fault to commit now, which has then been committed once more."""
        with self._lock:
            for fault in self._faults:
                fits = fault.repo == repo and (fault.commit is None or fault.commit == commit)
                if (
                    fits
                    and fault.kind == kind
                    and what in fault.what
                    and fault.file in (None, file)
                    and fault.times != 0
                ):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 64

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by the other side in the meantime

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is not worth a word."""


class _Refuse(Exception):
    def __init__(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.headers = status, dict(headers or {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server
    _stalls = False

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _answer(self) -> None:
        hub = self.server.hub
        after = None
        self._stalls = False
        try:
            status, headers, body, after = self._route(hub)
        except _Refuse as error:
            status, headers, body = error.status, error.headers, json.dumps({"error": "refused"}).encode()
        with hub._lock:
            sent = {key.lower(): value for key, value in self.headers.items()}
            hub.requests.append(Request(self.command, self.path, sent, status))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if after is None else body[:after])
        self.wfile.flush()
        if self._stalls:
            hub._healed.wait()
        if after is not None:
            self.close_connection = True

    def _route(self, hub: Hub) -> tuple[int, dict[str, str], bytes, int | None]:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if parts[0] == "lfs":
            return self._content(hub, query["repo"], query["commit"], query["file"], hub.blobs[parts[1]], {})
        if parts[:2] == ["api", "models"]:
            return (*self._api(hub, parts[2:], query), None)
        if "resolve" in parts[1:3]:
            at = parts.index("resolve")
            return self._resolve(hub, "/".join(parts[:at]), unquote(parts[at + 1]), unquote("/".join(parts[at + 2 :])))
        raise _Refuse(404)

    def _repo(self, hub: Hub, name: str) -> Repo:
        repo = hub.repos.get(name)
        if repo is None or (repo.private and self._token() not in hub.tokens):
            raise _Refuse(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        return repo

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _fail(self, hub: Hub, repo: str, commit: str | None, what: str, file: str | None = None) -> None:
        fault = hub.fault("fail", repo, commit, what, file)
        if fault is not None:
            raise _Refuse(fault.status, fault.headers)

    def _api(self, hub: Hub, parts: list[str], query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        at = next((i for i, p in enumerate(parts) if i and p in ("refs", "tree", "revision")), len(parts))
        repo, rest = self._repo(hub, "/".join(parts[:at])), [unquote(p) for p in parts[at:]]
        if rest == ["refs"]:
            self._fail(hub, repo.name, None, "refs")
            listed: Any = {
                kind: [{"name": n, "ref": f"refs/{where}/{n}", "targetCommit": c} for n, c in names.items()]
                for kind, where, names in (
                    ("branches", "heads", repo.branches),
                    ("tags", "tags", repo.tags),
                    ("converts", "convert", {}),
                )
            }
            return 200, {"Content-Type": "application/json"}, json.dumps(listed).encode()
        commit = repo.find(rest[1] if rest else "main")
        if commit is None:
            raise _Refuse(404, {"X-Error-Code": "RevisionNotFound"})
        self._fail(hub, repo.name, commit, "tree")
        if rest[:1] != ["tree"]:
            siblings = [{"rfilename": path} for path in repo.commits[commit]]
            info = {"id": repo.name, "sha": commit, "siblings": siblings, "private": repo.private, "tags": []}
            return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
        entries = _tree(repo.commits[commit], recursive=query.get("recursive") == "true")
        start = int(query.get("cursor", 0))
        headers = {"Content-Type": "application/json"}
        if start + hub.page < len(entries):
            more = f"{hub.url}{urlsplit(self.path).path}?recursive={query.get('recursive')}&cursor={start + hub.page}"
            headers["Link"] = f'<{more}>; rel="next"'
        return 200, headers, json.dumps(entries[start : start + hub.page]).encode()

    def _resolve(self, hub: Hub, name: str, revision: str, file: str) -> tuple[int, dict[str, str], bytes, int | None]:
        repo = self._repo(hub, name)
        if repo.gated and repo.name not in hub.tokens.get(self._token(), set()):
            known = self._token() in hub.tokens
            message = f"Access to model {name} is restricted and you are not in the authorized list."
            raise _Refuse(403 if known else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
        commit = repo.find(revision)
        if commit is None:
            raise _Refuse(404, {"X-Error-Code": "RevisionNotFound"})
        self._fail(hub, repo.name, commit, "file", file)
        if file not in repo.commits[commit]:
            raise _Refuse(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        blob = repo.commits[commit][file]
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if Path(file).suffix not in LARGE:
            headers["ETag"] = f'"{_git_blob(blob)}"'
            return self._content(hub, repo.name, commit, file, blob, headers)
        sha = hashlib.sha256(blob).hexdigest()
        headers |= {
            "X-Linked-Etag": f'"{sha}"',
            "X-Linked-Size": str(len(blob)),
            "ETag": f'"{sha}"',
            "Location": f"{hub.store}/lfs/{sha}?repo={name}&commit={commit}&file={file}",
        }
        return 302, headers, b"", None

    def _content(
        self, hub: Hub, repo: str, commit: str, file: str, blob: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes, int | None]:
        if self.command == "GET":
            fault = hub.fault("corrupt", repo, commit, "content", file)
            if fault is not None:
                blob = bytes(255 - byte for byte in blob) if fault.content is None else fault.content
        start, status, size = 0, 200, len(blob)
        wanted = self.headers.get("Range", "")
        if wanted and hub.ranges:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= size:
                raise _Refuse(416, {"Content-Range": f"bytes */{size}"})
            status = 206
            headers = headers | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        fault = hub.fault("truncate", repo, commit, "content", file) if self.command == "GET" else None
        if fault is None and self.command == "GET":
            fault = hub.fault("stall", repo, commit, "content", file)
            self._stalls = fault is not None
        return status, headers, blob[start:], None if fault is None else max(0, fault.after - start)


def _tree(files: Mapping[str, bytes], *, recursive: bool) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for path, content in sorted(files.items()):
        folders = [str(p) for p in reversed(Path(path).parents) if str(p) not in (".", "/")]
        for folder in folders if recursive else folders[:1]:
            entries[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
        if folders and not recursive:
            continue
        entry: dict[str, Any] = {"type": "file", "oid": _git_blob(content), "size": len(content), "path": path}
        if Path(path).suffix in LARGE:
            sha = hashlib.sha256(content).hexdigest()
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {len(content)}\n".encode()
            entry |= {"oid": _git_blob(pointer), "lfs": {"oid": sha, "size": len(content), "pointerSize": len(pointer)}}
        entries[path] = entry
    return list(entries.values())


def _git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def connected(folder: Path) -> Iterator[Hub]:
    """A hub that is the only one that code under test can reach; caches and home are empty folders in ``folder``.

    ``huggingface_hub`` reads its environment when it is imported, so that its constants are replaced too.
    """
    import huggingface_hub
    from huggingface_hub import constants

    home = folder / "home"
    home.mkdir()
    with Hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMICS_CACHE", str(folder / "cache"))
        patch.setenv("HF_ENDPOINT", hub.url)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH", "AGENT_HARNESSES_PATH"):  # fmt: skip
            patch.setattr(constants, name, str(home / name.lower()))
        huggingface_hub.close_session()
        try:
            yield hub
        finally:
            huggingface_hub.close_session()
