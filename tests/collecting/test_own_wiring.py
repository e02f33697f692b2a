"""A table of the user's own: a wrong wiring is found before anything is measured, and what is left without one is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dynamics
from checkpoints.errors import UserError
from dynamics.runs.config import Run
from dynamics.runs.resolve import resolve

TABLES = """
from dataclasses import replace
from dynamics.models.sites import FAMILIES
from dynamics.models.wiring import WIRINGS
BARE = FAMILIES["gpt_neox"]
WRONG = replace(BARE, wiring=replace(WIRINGS["gpt_neox"], layout="by kind"))
"""


def run_with(table: str, series: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (folder / "own_tables.py").write_text(TABLES)
    monkeypatch.syspath_prepend(folder)
    analyses: list[dict[str, Any]] = [
        {"name": "addition", "options": {"per_context": 20, "pairs_per_context": 8, "exchanged": 4}}
    ]
    content = {"series": {"kind": "folder", "path": str(series)}, "analyses": analyses, "sites": f"own_tables:{table}"}
    return Run.model_validate(content)


def test_a_wrong_wiring_is_refused_before_anything_is_measured(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with("WRONG", tiny_series, tmp_path, monkeypatch)
    with pytest.raises(UserError, match="the wiring is not the model's: what L0H0") as refused:
        dynamics.collect("mine", run=run, traces=tmp_path)
    assert "`layout`" in refused.value.remedy
    assert not dynamics.Trace(tmp_path / "mine.zarr").complete.any()


def test_what_is_left_out_without_a_wiring_is_said(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    resolve("mine", run_with("BARE", tiny_series, tmp_path, monkeypatch), say=said.append)
    (line,) = said
    assert line.startswith("analysis 'addition' of 'mine' goes without Circuit") and "is not known" in line
