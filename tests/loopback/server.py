"""The hub's side of HTTP: refs, trees, files and their parts, and every fault that was asked for."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.loopback.repositories import Repo, Request

if TYPE_CHECKING:
    from tests.loopback.hub import Hub

LARGE = {".safetensors", ".bin", ".msgpack", ".h5", ".pt", ".model"}
"""Suffixes of files in large-file storage."""


class Server(ThreadingHTTPServer):
    """One address of the hub; it knows its connections, so that all of them can be closed."""

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
    server: Server
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
        with hub.lock:
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
            hub.healed.wait()
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
