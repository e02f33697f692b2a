"""What happens around a run: links to nothing, folders that may not be written, others at work, clocks that are set back."""

from __future__ import annotations

import errno
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import dynamics.analyser as analyser_module
import dynamics.reporting.build as report_module
from checkpoints.errors import StoppedError, UserError, stopped_by_disk, unwritable
from dynamics.auditing import sketches
from dynamics.store import Trace, writer_lock
from dynamics.store.claims import shards_folder
from dynamics.store.journal import add_journals, read_journal
from dynamics.store.lock import alone
from tests.cli.commands import Dynamics
from tests.cli.conftest import VERBS, files, refused


@pytest.mark.parametrize("place", ["traces/mine.zarr", "traces"])
def test_a_link_to_nothing_is_refused_and_nothing_is_made_where_it_leads(
    dynamics: Dynamics, project: Path, place: str
) -> None:
    (project / place).parent.mkdir(exist_ok=True)
    (project / place).symlink_to(project / "unmounted" / "x")
    for verb in (*VERBS, "verify"):
        refused(dynamics(verb, "mine"), f"{place} is a link to nothing", "bring back what it leads to")
    assert not (project / "unmounted").exists() and (project / place).is_symlink()


@pytest.mark.parametrize("place", ["reports", "reports/mine/figures"])
def test_a_report_below_a_link_to_nothing_is_refused(dynamics: Dynamics, collected: Path, place: str) -> None:
    (collected / place).parent.mkdir(parents=True, exist_ok=True)
    (collected / place).symlink_to("unmounted")
    said = dynamics("report", "mine")
    assert said.code == 2 and f"{place} is a link to nothing" in said.err and "--reports" in said.err


def test_a_trace_under_another_name_has_the_same_lock_and_journal(dynamics: Dynamics, collected: Path) -> None:
    (collected / "other").mkdir()
    (collected / "other/mine.zarr").symlink_to(collected / "traces/mine.zarr")
    assert dynamics("status", "mine", "--traces", "other").out.endswith(
        dynamics("status", "mine").out.partition("\n")[2]
    )
    with writer_lock(collected / "traces/mine.zarr"):
        refused(dynamics("collect", "mine", "--traces", "other"), "is being written by another process")
    assert dynamics("analyse", "mine", "--traces", "other").code == 0
    assert [p.name for p in (collected / "other").iterdir()] == ["mine.zarr"]


def test_what_two_processes_would_write_at_once_is_written_in_turn(
    dynamics: Dynamics, collected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (collected / "reports").mkdir()
    monkeypatch.setattr(report_module, "alone", partial(alone, patience=0.05))
    with FileLock(collected / "reports/mine.lock"):
        said = dynamics("report", "mine")
    assert said.code == 2 and "the report in reports/mine is being written by another process" in said.err
    assert not (collected / "reports/mine").exists()
    with pytest.raises(ZeroDivisionError), alone(collected / "x", "x"):
        raise ZeroDivisionError
    assert not (collected / "x.lock").exists()


def test_a_trace_that_may_not_be_written_is_analysed_all_the_same(
    dynamics: Dynamics, collected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(collected / "traces/mine.zarr")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "zarr.json.partial")

    monkeypatch.setattr(analyser_module, "write_result", refuse)
    said = dynamics("analyse", "mine")
    assert said.code == 0 and "results are not stored: traces/mine.zarr may not be written" in said.err
    assert files(collected / "traces/mine.zarr") == before


def test_a_folder_that_may_not_be_written_any_more_is_not_said_to_be_full(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"Permission denied: f(.|\n)*you may write to(.|\n)*allow it"):  # noqa: SIM117
        with stopped_by_disk("the trace"):
            raise PermissionError(errno.EACCES, "Permission denied", "f")
    (tmp_path / "link").symlink_to("nowhere")
    error = FileExistsError(errno.EEXIST, "File exists", str(tmp_path / "link"))
    assert unwritable("x", error).observed == f"x cannot be written: {tmp_path / 'link'} is a link to nothing"


def test_an_audit_needs_no_cache_that_it_may_write(
    dynamics: Dynamics, collected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "sketches")

    monkeypatch.setattr(sketches.np, "savez", refuse)
    said = dynamics("audit", "mine", "--weights")
    assert said.code == 0 and "weights of 6 compared" in said.out


def test_a_clock_that_is_set_back_does_not_turn_a_processs_journal_round(tmp_path: Path) -> None:
    trace = tmp_path / "mine.zarr"
    shards_folder(trace).mkdir()
    for name, times in (("a", (100.0, 40.0, 50.0)), ("b", (90.0, 101.0, None))):
        lines = (f'{{"event": "{name}{n}", "time": {"null" if at is None else at}}}\n' for n, at in enumerate(times))
        (shards_folder(trace) / f"{name}.journal.jsonl").write_text("".join(lines))
    add_journals(trace)
    shutil.rmtree(shards_folder(trace))
    assert [event["event"] for event in read_journal(trace)] == ["b0", "a0", "a1", "a2", "b1", "b2"]


@pytest.mark.parametrize("array", ["step", "weights/step"])
def test_a_copy_made_while_its_original_grew_is_refused_until_it_is_repaired(
    dynamics: Dynamics, project: Path, array: str
) -> None:
    """Files of before the growth beside files of after: the steps that were copied first lack the last checkpoint."""
    last = project / "series/step12"
    last.rename(project / "later")
    assert dynamics("collect", "mine").code == 0
    chunk = project / "traces/mine.zarr" / array / "c/0"
    before = chunk.read_bytes()
    (project / "later").rename(last)
    assert dynamics("collect", "mine").code == 0
    whole = files(project / "traces/mine.zarr")
    chunk.write_bytes(before)
    for verb in ("status", "analyse"):
        refused(dynamics(verb, "mine"), f"the array {array} of traces/mine.zarr is damaged: it holds other steps")
    with pytest.raises(UserError, match="other steps than were declared"):
        Trace(project / "traces/mine.zarr")
    assert dynamics("verify", "mine", "--repair").code == 0
    assert files(project / "traces/mine.zarr") == whole
