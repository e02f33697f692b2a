"""Folders of state dicts, and the steps that are read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoints import FolderSeries
from tests.checkpoints.foreign import save, toy


def steps(series: FolderSeries) -> list[int]:
    return [c.step for c in series.checkpoints]


def states(root: Path, **contents: Any) -> Path:
    for name, content in contents.items():
        save(root / f"{name}.pt", content)
    return root


def model(seed: int = 0, **said: Any) -> dict[str, Any]:
    return {"model_state_dict": toy(seed), **said}
