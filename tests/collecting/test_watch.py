"""Following a training job's folder: checkpoints are collected as they appear, also when the job deletes them again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import dynamics
from checkpoints import UserError
from checkpoints.hub import HubConfig
from checkpoints.loading import Prepared
from checkpoints.local import FolderSeries
from dynamics.cli import cli
from dynamics.collecting import visiting
from dynamics.collecting.watching import watch
from dynamics.progress import Reporter
from dynamics.runs.config import AnalysisEntry
from dynamics.store import Trace
from tests.collecting.jobs import give, run, saved, script


def test_checkpoints_are_collected_as_they_appear(tiny_series: Path, tmp_path: Path) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    actions: list[Callable[[], None]] = []
    for source in sources[:4]:
        actions += [lambda s=source: give(job, s, tiny_series), lambda: None, lambda: None]  # type: ignore[misc]
    done = watch("live", run=run(tmp_path, job), traces=tmp_path, poll=1, patience=4, sleep=script(*actions))
    steps = [int(s.name.removeprefix("step")) for s in sources[:4]]
    assert done.collected == steps
    trace = Trace(tmp_path / "live.zarr")
    assert trace.steps.tolist() == steps
    assert trace.status == ["complete"] * 4


def test_what_every_look_would_say_again_is_said_once(
    tiny_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    actions: list[Callable[[], None]] = []
    for source in sources[:3]:
        actions += [lambda s=source: give(job, s, tiny_series), lambda: None, lambda: None]  # type: ignore[misc]
    # the tiny model is asked in a language that it does not have
    does_not_fit = AnalysisEntry(name="hallucination", optional=True)
    asked = run(tmp_path, job).model_copy(update={"analyses": (does_not_fit,)})
    done = watch("live", run=asked, traces=tmp_path, poll=1, patience=4, reporter=Reporter(), sleep=script(*actions))
    assert len(done.collected) == 3
    assert capsys.readouterr().err.count("analysis 'hallucination' is left out of 'live'") == 1


def test_a_job_that_deletes_its_old_checkpoints_loses_nothing(tiny_series: Path, tmp_path: Path) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    actions: list[Callable[[], None]] = []
    for place, source in enumerate(sources[:4]):
        actions += [lambda s=source: give(job, s, tiny_series), lambda: None, lambda: None]  # type: ignore[misc]
        if place:
            actions.append(lambda s=sources[place - 1]: shutil.rmtree(job / s.name))  # type: ignore[misc]
    watch("rotated", run=run(tmp_path, job), traces=tmp_path, poll=1, patience=5, sleep=script(*actions))
    trace = Trace(tmp_path / "rotated.zarr")
    assert len(trace.steps) == 4
    assert trace.complete.all()


def test_a_checkpoint_that_is_still_being_written_waits(tiny_series: Path, tmp_path: Path) -> None:
    job, (first, second, *_) = tmp_path / "job", saved(tiny_series)
    give(job, first, tiny_series)
    weights = (second / "model.safetensors").read_bytes()
    target = job / second.name

    def half() -> None:
        target.mkdir()
        shutil.copy(second / "config.json", target)
        (target / "model.safetensors").write_bytes(weights[: len(weights) // 2])

    seen: list[int] = []

    def whole() -> None:
        seen.extend(Trace(tmp_path / "slow.zarr").steps.tolist())
        (target / "model.safetensors").write_bytes(weights)

    pause: Callable[[], None] = lambda: None  # noqa: E731
    actions = (pause, pause, half, pause, pause, pause, whole, pause, pause)
    watch("slow", run=run(tmp_path, job), traces=tmp_path, poll=1, patience=8, sleep=script(*actions))
    assert seen == [int(first.name.removeprefix("step"))]
    assert Trace(tmp_path / "slow.zarr").status == ["complete", "complete"]


def test_watching_ends_at_the_last_step_and_says_what_was_not_finite(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = visiting.write_checkpoint
    monkeypatch.setattr(visiting, "write_checkpoint", lambda *args, **more: real(*args, **more) or 3)
    job, sources = tmp_path / "job", saved(tiny_series)
    for source in sources[:2]:
        give(job, source, tiny_series)
    last = int(sources[1].name.removeprefix("step"))
    done = watch("until", run=run(tmp_path, job), traces=tmp_path, poll=1, until=last, sleep=lambda _s: None)
    assert done.collected[-1] == last
    assert done.nonfinite == dict.fromkeys(done.collected, 3)


def test_a_series_that_got_longer_makes_its_trace_grow(tiny_series: Path, tmp_path: Path) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    for source in sources[:2]:
        give(job, source, tiny_series)
    dynamics.collect("longer", run=run(tmp_path, job), traces=tmp_path)
    whole = Trace(tmp_path / "longer.zarr")
    before = whole.values("sums", "resid_post")
    for source in sources[2:4]:
        give(job, source, tiny_series)
    done = dynamics.collect("longer", run=run(tmp_path, job), traces=tmp_path)
    assert len(done.already) == 2 and len(done.collected) == 2
    grown = Trace(tmp_path / "longer.zarr")
    assert (grown.values("sums", "resid_post")[:2] == before).all()
    dynamics.collect("at_once", run=run(tmp_path, job), traces=tmp_path)
    at_once = Trace(tmp_path / "at_once.zarr")
    assert (grown.values("sums", "resid_post") == at_once.values("sums", "resid_post")).all()
    assert grown.steps.tolist() == at_once.steps.tolist()
    assert dynamics.verify("longer", traces=tmp_path) == []


def test_a_look_does_not_read_again_what_was_read_before(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    reads: list[str] = []
    read = FolderSeries.read

    def counted(self: FolderSeries, fetched: Path) -> Prepared:
        reads.append(fetched.name)
        return read(self, fetched)

    monkeypatch.setattr(FolderSeries, "read", counted)
    actions: list[Callable[[], None]] = []
    for source in sources[:4]:
        actions += [lambda s=source: give(job, s, tiny_series), lambda: None, lambda: None]  # type: ignore[misc]
    watch("cheap", run=run(tmp_path, job), traces=tmp_path, poll=1, patience=4, sleep=script(*actions))
    assert reads == [s.name for s in sources[:4]]


def test_only_a_folder_can_be_watched(tmp_path: Path) -> None:
    wrong = run(tmp_path, tmp_path).model_copy(update={"series": HubConfig(repo="a/b")})
    with pytest.raises(UserError, match="cannot be watched"):
        watch("x", run=wrong, traces=tmp_path)


def test_the_command_watches_a_folder(tiny_series: Path, tmp_path: Path) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    for source in sources[:3]:
        give(job, source, tiny_series)
    last = sources[2].name.removeprefix("step")
    arguments = ["collect", "--watch", str(job), "--poll", "0.1", "--until", last, "--analyses", "induction"]
    result = CliRunner().invoke(cli, [*arguments, "--traces", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "3 checkpoints complete" in result.output
    assert Trace(tmp_path / "job.zarr").complete.all()
