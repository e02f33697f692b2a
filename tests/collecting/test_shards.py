"""Several processes collect one trace: whose a checkpoint is, who is alive, and that the trace is that of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dynamics
from checkpoints.errors import StoppedError, UserError
from dynamics.cli import main
from dynamics.collecting.sharding import parse_shard, parts
from dynamics.progress import Reporter
from dynamics.runs.config import Run
from dynamics.store import claims as claims_module
from dynamics.store import writer_lock
from dynamics.store.claims import Claims, Watcher, members_of, shards_folder
from dynamics.store.journal import read_journal, write_journal
from dynamics.store.lock import joined
from tests.conftest import runs_file

TRIALS = int(os.environ.get("DYNAMICS_TRIALS", "2"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign of life every 20 ms, and the same commit for all traces."""
    monkeypatch.setattr(claims_module, "BEAT", 0.02)
    monkeypatch.setattr("dynamics.runs.resolve.provenance", lambda: {"versions": {}, "commit": None, "dirty": None})


def run_of(series: Path, **more: object) -> Run:
    analyses = [{"name": "induction", "options": {"prompts": 8, "period": 4, "pairs": 20}}]
    return Run.model_validate({"series": {"kind": "folder", "path": str(series)}, "analyses": analyses, **more})


def files_in(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: content for name, content in found.items() if not name.endswith((".journal.jsonl", ".lock"))}


def joined_claims(trace: Path, shard: str = "1/2", patience: float = 60.0) -> Claims:
    claims = Claims(trace, shard, patience=patience)
    with joined(trace, claims):
        pass
    return claims


@given(st.dictionaries(st.integers(0, 200), st.integers(1, 10**12), max_size=60), st.integers(1, 20))
def test_every_checkpoint_is_in_one_part_and_no_part_is_larger_than_a_greedy_one_may_be(
    sizes: dict[int, int], count: int
) -> None:
    found = parts(sizes, count)
    assert sorted(index for part in found for index in part) == sorted(sizes)
    loads = [sum(sizes[index] for index in part) for part in found]
    assert max(loads) <= sum(sizes.values()) / count + max(sizes.values(), default=0)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "a/4", "4", "", "1/4/4", "-1/4", "1/1234567", "¹/4"])
def test_what_is_no_part_is_refused(text: str, tiny_series: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no part of anything") as caught:
        dynamics.collect("x", run=run_of(tiny_series), traces=tmp_path, shard=text)
    assert "from 1 to N" in caught.value.expected
    assert list(tmp_path.iterdir()) == []


def test_parts_may_be_written_with_blanks() -> None:
    assert parse_shard(" 3 / 16 ") == (3, 16)


def test_shards_refuse_what_needs_one_process(
    tiny_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adaptive = run_of(tiny_series, schedule="adaptive")
    with pytest.raises(UserError, match="does not know what the others will find"):
        dynamics.collect("x", run=adaptive, traces=tmp_path, shard="1/2")
    with pytest.raises(UserError, match="shard and only together"):
        dynamics.collect("x", run=run_of(tiny_series), traces=tmp_path, shard="1/2", only=[0])
    with pytest.raises(SystemExit) as stop:
        main(["collect", "--watch", str(tmp_path / "job"), "--shard", "1/2"])
    assert stop.value.code == 2
    assert "--shard and --watch together" in capsys.readouterr().err


def test_shards_one_after_the_other_make_the_trace_of_one_process(tiny_series: Path, tmp_path: Path) -> None:
    run = run_of(tiny_series)
    dynamics.collect("x", run=run, traces=tmp_path / "one")
    first = dynamics.collect("x", run=run, traces=tmp_path / "two", shard="2/3")
    assert len(first.collected) == 6  # nobody else came
    assert first.others == []
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")
    assert not shards_folder(tmp_path / "two/x.zarr").exists()
    again = dynamics.collect("x", run=run, traces=tmp_path / "two", shard="1/3")
    assert (again.collected, len(again.already)) == ([], 2)
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")
    assert len([e for e in read_journal(tmp_path / "two/x.zarr") if e["event"] == "complete"]) == 6


@pytest.mark.slow
def test_shards_at_once_share_the_checkpoints_out(tiny_series: Path, tmp_path: Path) -> None:
    run, done = run_of(tiny_series), {}

    def collect(shard: str) -> None:
        done[shard] = dynamics.collect("x", run=run, traces=tmp_path / "two", shard=shard)

    threads = [threading.Thread(target=collect, args=(shard,)) for shard in ("1/2", "2/2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [step for part in done.values() for step in part.collected]
    assert sorted(steps) == sorted({*steps})
    assert len(steps) == 6
    dynamics.collect("x", run=run, traces=tmp_path / "one")
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")


@pytest.mark.slow
def test_a_run_that_asks_for_more_gains_it_from_shards_too(tiny_series: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"text": "12 + 13 =", "answer": " 1"}))
    more = {"probes": {"mine": {"file": str(tmp_path / "p.jsonl"), "sites": ["resid_post"]}}}
    for folder, shards in (("one", [None]), ("two", ["1/2", "2/2"])):
        dynamics.collect("x", run=run_of(tiny_series), traces=tmp_path / folder)
        for shard in shards:
            dynamics.collect("x", run=run_of(tiny_series, **more), traces=tmp_path / folder, shard=shard)
    assert "mine" in dynamics.Trace(tmp_path / "two/x.zarr").probes
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")


def test_while_shards_are_at_work_nobody_writes_the_trace_alone_or_asks_them_for_more(
    tiny_series: Path, tmp_path: Path
) -> None:
    run, trace = run_of(tiny_series), tmp_path / "x.zarr"
    dynamics.collect("x", run=run, traces=tmp_path, only=[0])
    other = joined_claims(trace, "7/9")
    with pytest.raises(UserError, match=rf"being written by shard 7/9 \(process {os.getpid()} on "):
        dynamics.collect("x", run=run, traces=tmp_path)
    results = dynamics.analyse("x", run=run, traces=tmp_path)  # can be looked at
    assert results
    assert not (trace / "results").exists()
    (tmp_path / "p.jsonl").write_text(json.dumps({"text": "12 + 13 =", "answer": " 1"}))
    more = run_of(tiny_series, probes={"mine": {"file": str(tmp_path / "p.jsonl"), "sites": ["resid_post"]}})
    with pytest.raises(UserError, match=r"being written by shards \(7/9 .*asks for more: other measurements \(mine\)"):
        dynamics.collect("x", run=more, traces=tmp_path, shard="1/2")
    done = dynamics.collect("x", run=run, traces=tmp_path, shard="1/2")  # the same run may join
    assert len(done.collected) == 5
    assert [text.partition(" (")[0] for text in done.others] == ["7/9"]
    other.leave()
    assert dynamics.collect("x", run=run, traces=tmp_path).already == [*dynamics.Trace(trace).steps]


def test_status_says_who_is_at_work_and_what_is_claimed(
    tiny_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, trace = run_of(tiny_series), tmp_path / "traces/mine.zarr"
    runs_file(tmp_path, tiny_series, analyses="[induction]")
    dynamics.collect("mine", run=run, traces=tmp_path / "traces", only=[0])
    claims = joined_claims(trace, "2/5")
    assert claims.take(3) == "mine"
    claims.say_doing("step 6, induction (probe 1 of 2)")
    state = dynamics.status("mine", run=run, traces=tmp_path / "traces")
    step = int(dynamics.Trace(trace).steps[3])
    assert state.collecting
    assert state.shards[0].startswith(f"shard 2/5 (process {os.getpid()} on ")
    assert state.shards[0].endswith(f"step 6, induction (probe 1 of 2); has claimed step {step}")
    main(["status", "mine", "--runs", str(tmp_path / "runs.yaml"), "--traces", str(tmp_path / "traces")])
    printed = capsys.readouterr().out
    assert "being collected now by 1 process" in printed
    assert f"has claimed step {step}" in printed
    claims.leave()
    assert not dynamics.status("mine", run=run, traces=tmp_path / "traces").shards


def test_a_claim_has_one_owner_until_that_one_is_gone(tmp_path: Path) -> None:
    trace = tmp_path / "x.zarr"
    one, two, three = (joined_claims(trace, f"{n}/3") for n in (1, 2, 3))
    assert [c.take(5) for c in (one, two, one, three)] == ["mine", "alive", "mine", "alive"]
    one.require(5)
    one.leave()
    assert [c.take(5) for c in (two, three)] == ["mine", "alive"]
    with pytest.raises(StoppedError, match=r"shard 1/3 of .* was silent"):
        one.require(5)  # it woke up
    with pytest.raises(StoppedError):
        three.require(5)
    two.require(5)
    assert Claims.owned(trace, two.id) == [5]
    for claims in (two, three):
        claims.leave()


@pytest.mark.slow
def test_of_many_that_want_a_checkpoint_at_once_one_gets_it(tmp_path: Path) -> None:
    trace = tmp_path / "x.zarr"
    gone = joined_claims(trace)
    everybody = [joined_claims(trace, f"{n}/9") for n in range(1, 9)]
    assert gone.take(1) == "mine"
    gone.leave()
    for index in (0, 1):  # that nobody has, and whose owner has gone
        barrier, got = threading.Barrier(len(everybody)), []

        def take(
            claims: Claims, barrier: threading.Barrier = barrier, index: int = index, got: list[str] = got
        ) -> None:
            barrier.wait()
            got.append(claims.take(index))

        threads = [threading.Thread(target=take, args=(claims,)) for claims in everybody]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got.count("mine") == 1
    for claims in everybody:
        claims.leave()


def test_on_another_machine_life_is_a_beat_that_changes_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "x.zarr"
    claims = joined_claims(trace)
    monkeypatch.setattr(claims_module, "machine", lambda: "elsewhere")
    beat = shards_folder(trace) / f"{claims.id}.beat"
    os.utime(beat, (1, 1))  # its machine's clock stands at 1970
    watcher = Watcher(trace, patience=0.5)
    assert watcher.state(claims.id) == "unknown"
    assert watcher.settled(claims.id) == "alive"
    other = Claims(trace, "2/2", patience=0.5)
    other.join()
    claims.take(0)
    assert other.take(0) in ("alive", "unknown")
    claims._stop.set()  # its machine loses its power
    deadline = time.monotonic() + 10
    while other.take(0) != "mine":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert watcher.settled(claims.id) == "dead"
    with pytest.raises(StoppedError, match="counts as dead"):
        claims.require(0)
    other.leave()
    claims.leave()


def test_a_door_that_a_dead_process_held_opens(tmp_path: Path) -> None:
    trace = tmp_path / "x.zarr"
    one, two = joined_claims(trace, "1/2"), joined_claims(trace, "2/2")
    with one.door():
        one.leave()
        with two.door():
            pass
    with two.door():
        pass
    two.leave()


def test_who_writes_alone_after_the_shards_are_dead_takes_their_journals_and_clears_what_they_left(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "x.zarr"
    trace.mkdir()
    claims = joined_claims(trace)
    write_journal(trace, "complete", into=claims.journal, step=4, seconds=1.0)
    write_journal(trace, "complete", step=2, seconds=1.0)
    assert [e["step"] for e in read_journal(trace)] == [2, 4]
    with pytest.raises(UserError, match="being written by shard 1/2"), writer_lock(trace):
        pass
    claims.leave()
    with writer_lock(trace):
        assert not shards_folder(trace).exists()
        assert members_of(trace) == []
    assert [e["step"] for e in read_journal(trace)] == [2, 4]


def test_a_shard_refuses_a_trace_that_is_written_by_one_process(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamics.store.lock._JOINING", 0.2)
    with (
        writer_lock(tmp_path / "x.zarr"),
        pytest.raises(UserError, match="being written by another process"),
    ):
        dynamics.collect("x", run=run_of(tiny_series), traces=tmp_path, shard="1/2", reporter=Reporter(quiet=True))
    assert not shards_folder(tmp_path / "x.zarr").exists()


@pytest.mark.slow
def test_bad_files_are_refused_or_recorded_by_the_shard_whose_they_are(tiny_series: Path, tmp_path: Path) -> None:
    series = Path(shutil.copytree(tiny_series, tmp_path / "series"))
    broken = sorted(series.glob("step*"), key=lambda p: int(p.name.removeprefix("step")))[2]
    next(broken.glob("*.safetensors")).write_bytes(b"nothing")
    run = run_of(series)
    with pytest.raises(UserError, match="1 of 6 checkpoints cannot be used"):
        dynamics.collect("x", run=run, traces=tmp_path / "two", shard="1/2")
    failed: dict[int, str] = {}
    for shard in ("2/2", "1/2"):
        failed |= dynamics.collect("x", run=run, traces=tmp_path / "two", shard=shard, keep_going=True).failed
    assert list(failed) == [int(broken.name.removeprefix("step"))]
    dynamics.collect("x", run=run, traces=tmp_path / "one", keep_going=True)
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_shards_killed_at_random_and_started_anew_leave_the_trace_of_one_process() -> None:
    command = [sys.executable, "-m", "benchmarks.shards", "--trials", str(TRIALS), "--json"]
    command += ["--shards", "5", "--checkpoints", "10", "--kills", "8", "--seed", "1"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120 + 90 * TRIALS, check=False, cwd=root, env=environment
    )
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["differences"] == []
    assert (found["same"], found["failed"]) == (TRIALS, 0)
    assert found["killed"] > TRIALS
    # who is killed after a checkpoint is complete may not have come to its line in the journal
    assert 10 * TRIALS - found["killed"] <= found["completed"] <= 10 * TRIALS + found["killed"]
