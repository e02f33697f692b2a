"""What is said while a checkpoint is measured, and what a dry run takes of a model whose checkpoints take long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dynamics.collecting.collector as collector
import dynamics.collecting.estimating as estimating
import dynamics.measurements.forward as forward
from dynamics import Trace, progress, report, status
from dynamics.collecting.estimating import estimate
from dynamics.measurements import Circuit, SourceEffects
from dynamics.reporting import Report
from tests.collecting.local.tiny import make_run, run_collect


def test_progress_names_probe_measurement_and_pass_and_so_does_the_status(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "SAID", 0.0)
    run = make_run(tmp_path, tiny_series, schedule="log", checkpoints=2)
    said = [""]
    states: list[Any] = []

    def note(_bar: progress.Bar, text: str) -> None:
        said.append(text)
        if "Circuit" in said[-2] and not states:  # of the message before
            states.append(status("mine", run=run, traces=tmp_path / "traces"))

    monkeypatch.setattr(progress.Bar, "note", note)
    run_collect(tmp_path, run)
    assert any("step 0, induction_repeats (probe" in text and "TokenLoss" in text for text in said)
    circuits = [text for text in said if ": Circuit (pass " in text]
    assert circuits and all(" of about " in text for text in circuits)
    passes = [float(text.split("(pass ")[1].split(" ")[0]) for text in circuits]
    about = float(circuits[0].split("about ")[1].rstrip(")"))
    assert 0.3 * about < max(passes) <= 1.2 * about  # an untrained model has no circuit to search for
    assert states[0].collecting and "Circuit (pass" in states[0].doing
    assert status("mine", run=run, traces=tmp_path / "traces").doing == ""


@pytest.mark.slow
def test_a_report_can_be_drawn_from_when_that_is_said(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, tiny_series)
    reports: list[Report] = []

    class Looking(progress.Reporter):
        def say(self, text: str) -> None:
            if "dynamics report mine" in text:
                reports.append(report("mine", run=run, traces=tmp_path / "traces"))

    monkeypatch.setattr(collector, "FIRST_PICTURES", 2)
    total = len(run_collect(tmp_path, run, reporter=Looking(quiet=True)).collected)
    assert total > 2 and len(reports) == 1
    assert reports[0].content["counts"] == {"complete": 2, "pending": total - 2}
    assert (reports[0].folder / "figures" / "timeline.svg").is_file()


def test_off_a_terminal_something_is_said_when_nothing_was_for_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Reporter().bar("collecting mine", 4, unit="checkpoints") as bar:
        for second in range(25):
            now[0] = float(second)
            bar.note(f"at {second}")
    assert capsys.readouterr().err.splitlines() == [
        f"collecting mine: 0/4 checkpoints, at {second}" for second in (10, 20)
    ]


def test_an_interrupt_in_the_midst_of_a_measurement_leaves_nothing_half_written(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "SAID", 0.0)
    run = make_run(tmp_path, tiny_series, schedule="log", checkpoints=2)
    seen: list[str] = []

    def note(_bar: progress.Bar, text: str) -> None:
        seen.append(text)
        if "SourceEffects" in text:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.Bar, "note", note)
        with pytest.raises(KeyboardInterrupt):
            run_collect(tmp_path, run)
    assert "SourceEffects" in seen[-1]  # not one pass more
    assert set(Trace(tmp_path / "traces/mine.zarr").status) == {"pending"}
    assert run_collect(tmp_path, run).collected == [0, 12]


def test_a_dry_run_of_long_checkpoints_runs_no_circuit_and_is_about_right(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, tiny_series, schedule="log", checkpoints=2)
    whole = estimate("mine", run=run)
    assert whole.basis.endswith("timed here") and whole.seconds is not None
    monkeypatch.setattr(estimating, "AT_ONCE", 0.0)
    for measurement in (Circuit, SourceEffects):
        monkeypatch.setattr(measurement, "run", lambda *_: pytest.fail("a dry run measured a circuit"))
    few = estimate("mine", run=run)
    assert few.basis.endswith("timed here on a few prompts") and few.seconds is not None
    assert (few.prompts, few.trace_bytes) == (whole.prompts, whole.trace_bytes)
    assert whole.seconds / 20 < few.seconds < 20 * whole.seconds  # a busy machine, and a model that is all overhead
