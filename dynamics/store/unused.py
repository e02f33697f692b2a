"""A trace in which nothing was measured stands in nobody's way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from .declaration import TraceDeclaration
from .derived import aside, clear_aside
from .format import array_of, check_format, open_group
from .groups import listed_groups, records_of, shelved
from .manifest import MANIFEST, record_of

__all__ = ["discard_unused"]


def discard_unused(path: Path, declaration: TraceDeclaration) -> None:
    """Delete a trace that was declared otherwise before anything was measured; the caller holds its lock.

    A first collection that is refused in its middle must not stand in the way of the corrected run.
    """
    if not path.exists():
        return
    root = open_group(path, mode="r")
    check_format(dict(root.attrs), path)
    if root.attrs.get("fingerprint") == declaration.fingerprint():
        return
    try:
        if any(map(str, np.asarray(array_of(root, "weights_digest")[:]))):
            return
        noted = (
            [record_of(str(t)).get("slabs") for t in np.asarray(array_of(root, MANIFEST)[:])]
            if MANIFEST in root
            else []
        )
    except Exception:  # what is damaged may have been measured
        return
    if any(noted) or shelved(path) or any(records_of(path / name) for name in listed_groups(path)):
        return
    clear_aside(path)
    os.replace(path, aside(path))  # half deleted, it would be no trace
    shutil.rmtree(aside(path), ignore_errors=True)
