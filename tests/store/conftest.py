"""What tests of object stores have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import objects
from dynamics.store import mirror


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, an empty store, and a mirror that is pulled whenever a trace is opened."""
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror, "_FRESH", 0.0)
    objects.store_of.cache_clear()
