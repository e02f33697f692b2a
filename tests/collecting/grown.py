"""Traces whose runs change, and what their collections run and write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import dynamics
from dynamics.collecting.collector import Collected
from dynamics.runs.config import Run
from dynamics.store.groups import SHELF

STEPS = [0, 3, 12]


SUMS = [
    (f"{a} + {b} =", f" {a + b}", "even" if a % 2 == 0 else "odd") for a, b in ((2, 3), (4, 1), (7, 2), (3, 5), (1, 7))
]


def probe_file(folder: Path, name: str, prompts: int, labels: tuple[str, ...] = (), shift: int = 0) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{prompts}-{'-'.join(labels)}-{shift}.jsonl"
    rows = []
    for text, answer, parity in (SUMS * 2)[shift : shift + prompts]:
        row: dict[str, Any] = {"text": text, "answer": answer, "positions": {"first": text.split()[0]}}
        known = {"parity": parity, "long": len(text) > 7}
        row |= {"labels": {label: known[label] for label in labels}} if labels else {}
        rows.append(json.dumps(row))
    file.write_text("\n".join(rows), encoding="utf-8")
    return str(file)


def run_of(series: Path, folder: Path, probes: dict[str, dict[str, Any]], **changes: Any) -> Run:
    """A run of probes: ``{"a": {"prompts": 3, "sites": [...], ...}}``."""
    declared = {}
    for name, content in probes.items():
        about = dict(content)
        file = probe_file(
            folder / "prompts", "p", about.pop("prompts", 2), tuple(about.pop("labels", ())), about.pop("shift", 0)
        )
        declared[name] = {"file": file, **about}
    settings = {
        "series": {"kind": "folder", "path": str(series)},
        "probes": declared,
        "device": "cpu",
        "batch_tokens": 1,
    }
    return Run.model_validate(settings | changes)


def collect(folder: Path, run: Run, name: str = "t", **options: Any) -> Collected:
    return dynamics.collect(name, run=run, traces=folder / "traces", **options)


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a trace but those of its shelf."""
    files = {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()}
    return {name: p.read_bytes() for name, p in files.items() if not name.startswith(SHELF)}


def same(one: Path, other: Path) -> None:
    first, second = contents(one), contents(other)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@contextmanager
def counted() -> Iterator[list[int]]:
    """Tokens that went through the first block of whatever model is measured."""
    tokens: list[int] = []
    before = torch.nn.Module.__call__

    def call(self: Any, *args: Any, **named: Any) -> Any:
        if type(self).__name__ == "GPTNeoXModel":
            ids = args[0] if args else named.get("input_ids")
            tokens.append(int(ids.numel()))
        return before(self, *args, **named)

    torch.nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield tokens
    finally:
        torch.nn.Module.__call__ = before  # type: ignore[method-assign]
