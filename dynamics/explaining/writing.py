"""Where an explanation is written, and how: all of it, or what was there before."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from checkpoints.errors import UserError

__all__ = ["require_writable", "slug", "write"]


def slug(prompt: str, *settings: object) -> str:
    """A folder name that tells questions apart: another answer is another explanation."""
    words = "-".join(re.findall(r"[A-Za-z0-9]+", prompt))[:40].strip("-").lower()
    identity = json.dumps([prompt, *settings])
    return f"{words or 'prompt'}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def require_writable(folder: Path) -> None:
    """What cannot be written is said before it is computed."""
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise _unwritable(folder, f"{nearest} is a file, or a link to nothing")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _unwritable(folder, f"{nearest} is read-only")


def _unwritable(folder: Path, why: str) -> UserError:
    return UserError(
        f"the explanation cannot be written to {folder}: {why}",
        expected="a folder that you may write to",
        remedy="name another one with --reports",
    )


def write(folder: Path, files: dict[str, str]) -> None:
    """Write all, then put all in place: a page that was there stays whole until the new one is.

    Graphs for Neuronpedia of an earlier explanation go: they would contradict this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = {folder / name: folder / f"{name}.partial" for name in files}
    try:
        for (_, path), text in zip(partial.items(), files.values(), strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for final, path in partial.items():
            path.replace(final)
        for path in folder.glob("neuronpedia/step*.json"):
            if path not in partial:
                path.unlink()
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
