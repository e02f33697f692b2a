"""The hub: its repositories, the requests so far, and the faults to come."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType

from tests.loopback.repositories import Fault, Repo, Request
from tests.loopback.server import Server


class Hub:
    """The server.

    Attributes:
        url: its address.
        requests: every request so far.
        page: entries on one page of a listing of files.
        ranges: whether parts of files can be asked for.
        store: address that large files are referred to; another port, which makes it another host to HTTP.
        tokens: that it knows; ``tokens[t]`` are the gated repositories whose terms the owner of ``t`` accepted.
        lock: for whoever reads or changes the requests and the faults.
        healed: what stalled answers wait for.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.page, self.ranges = 1000, True
        self.tokens: dict[str, set[str]] = {}
        self._faults: list[Fault] = []
        self.healed = threading.Event()
        self.lock = threading.Lock()
        self._servers = (Server(self), Server(self))
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
        self.healed.set()
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
        self.healed.clear()
        self._add(Fault("stall", repo, self._of(repo, label), ("content",), file, times, after=after))

    def heal(self) -> None:
        """No more faults."""
        with self.lock:
            self._faults.clear()
        self.healed.set()

    def asked(self, part: str, *, method: str = "GET") -> list[Request]:
        """Requests whose path contains this."""
        with self.lock:
            return [r for r in self.requests if part in r.path and r.method == method]

    def _of(self, repo: str, label: str | None) -> str | None:
        if label is None:
            return None
        commit = self.repos[repo].find(label)
        assert commit is not None, f"{repo} has no {label}"
        return commit

    def _add(self, fault: Fault) -> None:
        with self.lock:
            self._faults.append(fault)

    def fault(self, kind: str, repo: str, commit: str | None, what: str, file: str | None = None) -> Fault | None:
        """The fault to commit now, which has then been committed once more."""
        with self.lock:
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
