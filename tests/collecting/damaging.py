"""Damage done to the files of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def damages(files: dict[str, bytes], name: str) -> Iterator[tuple[str, bytes | None]]:
    """Five ways in which a file may be another than was written."""
    content, middle = files[name], len(files[name]) // 2
    yield "deleted", None
    yield "emptied", b""
    yield "truncated", content[:-1]
    yield "flipped", content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    last = name.rsplit("/", 1)[-1]
    others = (c for n, c in files.items() if n.rsplit("/", 1)[-1] == last and c != content)
    yield "replaced", next(others, b"another file")


def put(file: Path, content: bytes | None) -> None:
    file.unlink() if content is None else file.write_bytes(content)
