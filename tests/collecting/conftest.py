"""What tests of collecting share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.collecting.grown import STEPS
from tests.conftest import MadeOnce


@pytest.fixture(scope="session")
def few(tiny_series: Path, made_once: MadeOnce) -> Path:
    """Three checkpoints of the tiny organism. Read-only."""

    def make(folder: Path) -> None:
        for step in STEPS:
            shutil.copytree(tiny_series / f"step{step}", folder / f"step{step}")

    return made_once("three checkpoints", make)
