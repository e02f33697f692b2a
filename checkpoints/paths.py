"""Where weights are kept: one cache folder, never a folder of the project."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """``$DYNAMICS_CACHE`` if it is set, else the platform's user cache (``~/.cache/circuit-dynamics`` on Linux)."""
    named = os.environ.get("DYNAMICS_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("circuit-dynamics"))
