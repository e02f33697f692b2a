"""The command line as the tests call it, in folders with a run, its series and its trace."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.commands import Dynamics, Said, command_line
from tests.conftest import MadeOnce

RUNS = """
mine:
  description: "a <b>bold</b> run"
  series: {{kind: folder, path: {series}}}
  analyses: [{{name: induction, options: {{prompts: 8, period: 4, pairs: 20}}}}]
  device: cpu
"""


@pytest.fixture(autouse=True)
def _one_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamics.runs.resolve.provenance", lambda: {"versions": {}, "commit": None, "dirty": None})


@pytest.fixture
def dynamics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dynamics:
    """``dynamics(*arguments)`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return command_line(capsys)


@pytest.fixture
def project(tmp_path: Path, tiny_series: Path) -> Path:
    """A folder with a runs file and a series of its own."""
    shutil.copytree(tiny_series, tmp_path / "series")
    (tmp_path / "runs.yaml").write_text(RUNS.format(series="series"))
    return tmp_path


@pytest.fixture(scope="session")
def _collected(tiny_series: Path, made_once: MadeOnce) -> Path:
    import dynamics as program
    from dynamics.runs.config import Run

    run = Run.model_validate(
        {
            "series": {"kind": "folder", "path": str(tiny_series)},
            "analyses": [{"name": "induction", "options": {"prompts": 8, "period": 4, "pairs": 20}}],
            "device": "cpu",
        }
    )
    return made_once("collected", lambda folder: program.collect("mine", run=run, traces=folder / "traces"))


@pytest.fixture
def collected(_collected: Path, tmp_path: Path, tiny_series: Path) -> Path:
    """A folder with a runs file and a complete trace."""
    shutil.copytree(_collected / "traces", tmp_path / "traces")
    (tmp_path / "runs.yaml").write_text(RUNS.format(series=tiny_series))
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(said: Said, *parts: str) -> None:
    """Exit code 2, one message, no traceback, nothing on standard output."""
    assert said.code == 2, said
    assert said.err.startswith("error: ") and said.err.count("error: ") == 1, said.err
    assert "Traceback" not in said.err and said.out == ""
    for part in parts:
        assert part in said.err, said.err


VERBS = ("collect", "status", "analyse", "report")
