"""A series to be damaged, and traces that differ in nothing but what was measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _one_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit made while the tests run is no difference between two traces."""
    monkeypatch.setattr("dynamics.runs.resolve.provenance", lambda: {"versions": {}, "commit": None, "dirty": None})


@pytest.fixture
def series(tiny_series: Path, tmp_path: Path) -> Path:
    """A copy of the tiny organism's checkpoints, to be damaged."""
    return Path(shutil.copytree(tiny_series, tmp_path / "series"))
