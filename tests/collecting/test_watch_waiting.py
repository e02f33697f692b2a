"""Following a job: half-written, failed and missing checkpoints are waited for, tried again, and named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from checkpoints import UserError
from dynamics.auditing import masking
from dynamics.cli import cli
from dynamics.collecting import watching
from dynamics.collecting.watching import watch
from dynamics.progress import Reporter
from dynamics.store import Trace
from tests.collecting.jobs import give, run, saved, script

PAUSE: Callable[[], None] = lambda: None  # noqa: E731


def in_parts(source: Path, target: Path) -> Path:
    """The same checkpoint in several parts with their index."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(source).save_pretrained(target, max_shard_size="60KB")
    return target


@pytest.mark.parametrize("indexed", [True, False], ids=["by the index, copied with old times", "by their numbers"])
def test_a_checkpoint_whose_parts_are_missing_is_waited_for(
    tiny_series: Path, tmp_path: Path, indexed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    job, (first, second, *_) = tmp_path / "job", saved(tiny_series)
    give(job, first, tiny_series)
    parts = in_parts(second, tmp_path / "parts")
    names = sorted(p.name for p in parts.iterdir())
    late = [n for n in names if n.startswith("model-") and "00001-of" not in n]
    assert len(late) > 1
    if not indexed:
        late.append("model.safetensors.index.json")

    def put(some: list[str]) -> None:
        (job / second.name).mkdir(exist_ok=True)
        for name in some:
            shutil.copy(parts / name, job / second.name)
            if indexed:
                os.utime(job / second.name / name, (1, 1))

    early = [name for name in names if name not in late]
    actions = (PAUSE, PAUSE, lambda: put(early), *[PAUSE] * 12, lambda: put(late), PAUSE, PAUSE)
    last = int(second.name.removeprefix("step"))
    done = watch(
        "slow", run=run(tmp_path, job), traces=tmp_path, poll=1, until=last, reporter=Reporter(), sleep=script(*actions)
    )
    assert done.collected == [int(first.name.removeprefix("step")), last] and not done.failed and not done.missing
    said = capsys.readouterr().err
    assert said.count(f"waiting for step {last}, which holds up those after it: ") == 1 and "lacks" in said


def cut(folder: Path) -> bytes:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    os.truncate(file, 9000)
    return whole


def test_when_it_ends_what_is_there_is_tried_and_what_failed_is_named(tiny_series: Path, tmp_path: Path) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    for source in sources[:4]:
        give(job, source, tiny_series)
    cut(job / sources[1].name)
    steps = [int(s.name.removeprefix("step")) for s in sources[:4]]
    arguments = ["collect", "--watch", str(job), "--poll", "0.1", "--patience", "0.01", "--until", "99"]
    result = CliRunner().invoke(cli, [*arguments, "--analyses", "induction", "--traces", str(tmp_path)])
    assert result.exit_code == 1, result.output
    assert f"waiting for step {steps[1]}, which holds up those after it: " in result.output
    assert f"step {steps[1]} failed: " in result.output and "step 99 not collected: it never came" in result.output
    trace = Trace(tmp_path / "job.zarr")
    assert (trace.steps.tolist(), trace.status) == (steps, ["complete", "failed", "complete", "complete"])


def test_a_failed_checkpoint_is_tried_again_when_its_files_change_and_not_before(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamics.collecting.watching._GIVEN_UP", 0.0)
    job, sources = tmp_path / "job", saved(tiny_series)
    for source in sources[:2]:
        give(job, source, tiny_series)
    whole = cut(job / sources[0].name)
    began: list[list[str]] = []
    once = watching.collect_once

    def counted(*arguments: Any, **named: Any) -> Any:
        done = once(*arguments, **named)
        began.append(Trace(done.trace).status)
        return done

    monkeypatch.setattr(watching, "collect_once", counted)
    repair = [lambda: (job / sources[0].name / "model.safetensors").write_bytes(whole)]
    actions: Any = (*[PAUSE] * 6, *repair, *[PAUSE] * 6)
    done = watch("again", run=run(tmp_path, job), traces=tmp_path, poll=1, patience=5, sleep=script(*actions))
    assert began == [["failed", "complete"], ["complete", "complete"]]
    assert not done.failed and len(done.collected) == 2
    began.clear()
    cut(job / sources[0].name)
    last = int(sources[1].name.removeprefix("step"))
    done = watch("again", run=run(tmp_path, job), traces=tmp_path, poll=1, until=last, sleep=script())
    assert began == [] and len(done.already) == 2  # what was measured while its files were good stays


def test_what_failed_in_an_earlier_watch_is_tried_once_by_the_same_command(tiny_series: Path, tmp_path: Path) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    for source in sources[:2]:
        give(job, source, tiny_series)
    whole = cut(job / sources[0].name)
    first, last = (int(s.name.removeprefix("step")) for s in sources[:2])
    asked = run(tmp_path, job)
    done = watch("later", run=asked, traces=tmp_path, poll=1, patience=1, sleep=script())
    assert done.failed.keys() == {first} and done.collected == [last]
    assert watch("later", run=asked, traces=tmp_path, poll=1, until=last, sleep=script()).failed.keys() == {first}
    (job / sources[0].name / "model.safetensors").write_bytes(whole)
    done = watch("later", run=asked, traces=tmp_path, poll=1, until=last, sleep=script())
    assert (done.collected, done.already, done.failed) == ([first], [last], {})


def test_what_was_there_and_was_not_collected_is_named_at_the_end(tiny_series: Path, tmp_path: Path) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    first, second, third, fourth = (int(s.name.removeprefix("step")) for s in sources[:4])
    give(job, sources[1], tiny_series)

    def late_and_short() -> None:
        give(job, sources[0], tiny_series)  # before one that was collected
        give(job, sources[3], tiny_series)
        cut(job / sources[3].name)
        (job / "step77").mkdir()

    actions: Any = (*[PAUSE] * 3, late_and_short, *[PAUSE] * 2, lambda: shutil.rmtree(job / sources[3].name))
    done = watch("end", run=run(tmp_path, job), traces=tmp_path, poll=1, patience=3, sleep=script(*actions))
    assert done.collected == [second]
    assert done.missing.keys() == {first, fourth}
    assert "came after later ones" in done.missing[first] and "deleted before it was whole" in done.missing[fourth]
    assert third not in done.missing


def test_watching_a_folder_in_which_nothing_is_ever_saved_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint was saved in"):
        watch("none", run=run(tmp_path, tmp_path / "job"), traces=tmp_path, poll=1, patience=2, sleep=script())
    (tmp_path / "job" / "logs").mkdir(parents=True)
    with pytest.raises(UserError, match="is not a series of checkpoints: it holds logs"):
        watch("none", run=run(tmp_path, tmp_path / "job"), traces=tmp_path, poll=1, patience=2, sleep=script())


def test_a_masked_checkpoint_is_looked_at_again_when_its_files_change(tiny_series: Path, tmp_path: Path) -> None:
    job, sources = tmp_path / "job", saved(tiny_series)
    for source in sources[:2]:
        give(job, source, tiny_series)
    state = job / sources[1].name / "trainer_state.json"
    state.write_text('{"global_step": 7}')
    masked: list[list[str]] = []

    def right() -> None:
        masked.append(Trace(tmp_path / "masked.zarr").status)
        state.write_text(f'{{"global_step": {sources[1].name.removeprefix("step")}}}')

    actions: Any = (*[PAUSE] * 3, right)
    done = watch("masked", run=run(tmp_path, job), traces=tmp_path, poll=1, patience=3, sleep=script(*actions))
    assert masked == [["complete", "masked"]]
    assert len(done.collected) == 2 and not done.masked and not done.missing


def test_a_folder_that_goes_and_comes_back_is_waited_for_and_another_training_in_its_place_is_refused(
    tiny_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, away, sources = tmp_path / "job", tmp_path / "away", saved(tiny_series)
    for source in sources[:2]:
        give(job, source, tiny_series)
    back = lambda: (away.rename(job), give(job, sources[2], tiny_series))  # noqa: E731
    actions: Any = (*[PAUSE] * 3, lambda: job.rename(away), PAUSE, back)
    asked = run(tmp_path, job)
    done = watch("back", run=asked, traces=tmp_path, poll=1, patience=4, reporter=Reporter(), sleep=script(*actions))
    assert len(done.collected) == 3 and not done.missing
    assert capsys.readouterr().err.count(f"waiting: {job} is gone") == 1

    def another() -> None:
        shutil.rmtree(job)
        for source, step in zip(sources[1:5], (0, 1, 2, 3), strict=True):  # steps 0 to 2 have other weights
            give(job, source, tiny_series)
            (job / source.name).rename(job / f"as{step}")
        for step in range(4):
            (job / f"as{step}").rename(job / f"step{step}")

    before = Trace(tmp_path / "back.zarr").digests
    with pytest.raises(UserError, match="are not those that"):
        watch("back", run=asked, traces=tmp_path, poll=1, patience=4, sleep=script(PAUSE, another))
    assert Trace(tmp_path / "back.zarr").digests == before


def test_a_clock_that_was_set_back_does_not_hold_up_what_comes_after_a_broken_checkpoint(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamics.collecting.watching._GIVEN_UP", 0.0)
    monkeypatch.setattr("dynamics.collecting.watching.time.time", lambda: 0.0)
    job, sources = tmp_path / "job", saved(tiny_series)
    for source in sources[:2]:
        give(job, source, tiny_series)
    cut(job / sources[0].name)
    first, last = (int(s.name.removeprefix("step")) for s in sources[:2])
    done = watch("clock", run=run(tmp_path, job), traces=tmp_path, poll=1, until=last, sleep=script())
    assert done.collected == [last] and done.failed.keys() == {first}


def test_a_quiet_look_does_not_open_the_trace_and_weights_are_compared_when_a_tenth_is_new_and_at_the_end(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, weighed = [], []
    trace, findings = watching.Trace, masking.weight_findings
    monkeypatch.setattr(watching, "Trace", lambda path: opened.append(path) or trace(path))
    monkeypatch.setattr(masking, "weight_findings", lambda *known: weighed.append(len(known[1])) or findings(*known))
    monkeypatch.setattr(watching, "_TENTH", 1)  # of the checkpoints that there were: when they are twice as many
    job, sources = tmp_path / "job", saved(tiny_series)
    looks: list[int] = []

    def look(source: Path | None) -> Callable[[], None]:
        return lambda: (looks.append(len(opened)), source is None or give(job, source, tiny_series))

    actions = [look(a) for source in sources[:4] for a in (source, None, None, None, None)]
    done = watch("few", run=run(tmp_path, job), traces=tmp_path, poll=1, patience=6, sleep=script(*actions))
    assert len(done.collected) == 4 and not done.masked
    assert looks[9] == looks[8]  # nothing was new for two looks
    assert sorted(set(weighed)) == [1, 2, 4] and weighed.count(4) <= 4
