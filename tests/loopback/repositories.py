"""What a hub holds, what it was asked, and what it is to do wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.loopback.hub import Hub

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
