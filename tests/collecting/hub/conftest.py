"""A hub on loopback that is the only one there is, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import Hub, connected


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("checkpoints.hub.retry._pause", lambda failures, wait: 0.0)
    with connected(tmp_path) as running:
        yield running
