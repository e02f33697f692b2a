"""Writing checkpoints of a trace that other processes write, too: only those that this process has claimed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import UserError

from ..names import Status
from .claims import Claims
from .declaration import FORMAT_VERSION, TraceDeclaration, require_declared
from .format import check_format, open_group
from .manifest import MANIFEST
from .writer import TraceWriter

__all__ = ["ShardWriter"]


class ShardWriter(TraceWriter):
    """Goes on with a trace that a :class:`TraceWriter` has prepared; what concerns all checkpoints is left to one later.

    Nothing that is read of a checkpoint is kept in memory, as others may write it; and every write begins with a look
    whether the checkpoint is still this process's.

    Args:
        path: the trace.
        declaration: what it is to hold.
        claims: those of this process.
        durable: see :class:`TraceWriter`.
        gains: see :class:`TraceWriter`.

    Raises:
        UserError: when the trace has to be prepared first: to grow, to gain groups, or to be brought to this version.
    """

    def __init__(
        self, path: Path, declaration: TraceDeclaration, claims: Claims, *, durable: bool = False, gains: bool = True
    ) -> None:
        self.claims = claims
        super().__init__(path, declaration, durable=durable, gains=gains)

    def _prepare(self) -> None:
        """Nothing is prepared, but refused where that would be needed."""
        if change := self._unprepared():
            others = ", ".join(map(str, self.claims.others())) or "none by now"
            raise UserError(
                f"{self.path} is being written by shards ({others}), and this run asks for more: {change}",
                expected="the run that they collect",
                remedy="wait until they have finished, or stop them; what they have collected stays",
            )

    def _unprepared(self) -> str:
        """What a :class:`TraceWriter` would change; empty for nothing, and then the places of groups are known."""
        root = open_group(self.path, mode="r")
        attributes: dict[str, Any] = dict(root.attrs)
        check_format(attributes, self.path)
        require_declared(self.path, attributes, self._declaration, groups=not self._gains)
        if MANIFEST not in root or attributes["format_version"] != FORMAT_VERSION or "exchange" in attributes:
            return "the trace is of an earlier version, or another process was killed in its middle"
        if self._declaration.longer(attributes):
            return "checkpoints that the series has by now"
        self._open()
        self._find_places(True)
        growing = {group.name: self._declaration.asked(group) for group in self._shelved()}
        if growing != attributes.get("growing", {}) or (self._gone and not growing):
            return f"other measurements ({', '.join([*growing, *self._gone]) or 'fewer'})"
        return ""

    def exchange(self) -> list[str]:
        """Nothing: groups are listed by whoever writes the trace alone, when all shards have ended."""
        return []

    def _column(self, name: str) -> np.ndarray:
        return self._read(name)

    def _entry(self, name: str, index: int) -> str:
        return str(self._read(name, index))

    def _mark(self, index: int, status: Status, reason: str, **about: Any) -> None:
        self.claims.require(index)
        super()._mark(index, status, reason, **about)

    def write(self, index: int, group: str, values: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """See the base class."""
        self.claims.require(index)
        return super().write(index, group, values)

    def note(self, index: int, group: str, *, digest: str, stored_dtype: str) -> None:
        """See the base class."""
        self.claims.require(index)
        super().note(index, group, digest=digest, stored_dtype=stored_dtype)

    def _clear(self, index: int, place: str) -> None:
        self.claims.require(index)
        super()._clear(index, place)

    def _pin(self, index: int, revision: str) -> None:
        """The one file that several checkpoints share: one process at a time changes it."""
        if self._entry("revision", index) != revision:
            with self.claims.door():
                super()._pin(index, revision)
