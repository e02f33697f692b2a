"""A small run of the tiny organism, what its collection writes, and damage done to its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from checkpoints.organism.worlds import addition as world
from dynamics import collect
from dynamics.collecting.collector import Collected
from dynamics.runs.config import Run

STEPS = [0, 1, 2, 3, 6, 12]
PROMPTS = [world.prompt(a, b, context, digit) for a, b in ((23, 45), (61, 17)) for context in world.CONTEXTS for digit in world.DIGITS]  # fmt: skip


def make_run(folder: Path, series: Path, **changes: Any) -> Run:
    """Sums of several lengths from a file, and a small induction analysis."""
    file = folder / "sums.jsonl"
    file.write_text("\n".join(json.dumps({"text": t, "answer": a}) for t, a in PROMPTS), encoding="utf-8")
    content: dict[str, Any] = {
        "series": {"kind": "folder", "path": str(series)},
        "analyses": [{"name": "induction", "options": {"prompts": 8, "period": 4, "pairs": 20}}],
        "probes": {"sums": {"file": str(file), "sites": ["resid_post"]}},
        "device": "cpu",
    }
    return Run.model_validate(content | changes)


def run_collect(folder: Path, run: Run, traces: str = "traces", **options: Any) -> Collected:
    return collect("mine", run=run, traces=folder / traces, **options)


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a traces folder but the journal and the lock."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith((".journal.jsonl", ".zarr.lock"))
    }


def same_files(one: Path, other: Path) -> None:
    first, second = files(one), files(other)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def truncate(series: Path, step: int) -> bytes:
    file = series / f"step{step}" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    return whole


def poison(series: Path, step: int, change: Any) -> None:
    file = series / f"step{step}" / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
