"""Who writes a trace in an object store: one at a time, followed when it dies, and nothing is read of two moments."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
import xarray as xr
from filelock import FileLock

import dynamics
from checkpoints import objects
from checkpoints.errors import StoppedError, UserError
from checkpoints.objects import Bucket, ChangedError
from dynamics.store import Trace, read_result, write_result, writer_lock
from dynamics.store import mirror as mirror_module
from dynamics.store import remote as remote_module
from dynamics.store.claims import is_held
from dynamics.store.journal import journal_file, read_journal, write_journal
from dynamics.store.paths import trace_path
from tests.store.declared import declare, fill, snapshot
from tests.store.objects import filled, stored

pytest.importorskip("obstore", reason="the extra `s3` is not installed")
pytestmark = pytest.mark.usefixtures("own_store")


def test_only_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "BEAT", 0.05)
    mirror = trace_path(Path("memory://b"), "t")
    with writer_lock(mirror):
        monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "of another machine"))
        elsewhere = trace_path(Path("memory://b"), "t")
        with (
            pytest.raises(UserError, match=r"memory://b/t.zarr is being written by another process"),
            writer_lock(elsewhere),
        ):
            pass
    with writer_lock(elsewhere):  # it was released
        pass


def _writes_late(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, asleep: bool) -> None:
    """Write, sleep until another has taken over and written the rest, and write again."""
    with writer_lock(mirror):
        writer, remote = fill(mirror, declare(), (0,)), remote_module.writing(mirror)
        assert remote is not None and remote._lease._thread is not None
        remote._lease._stop.set()
        remote._lease._thread.join()
        monkeypatch.setattr(remote_module.Lease, "_is_silent", staticmethod(lambda watched, etag: watched[0] == etag))
        monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "of another machine"))
        filled("memory://b/t.zarr", (2,))
        monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "cache"))
        # else it was stopped just between a look and a write
        remote._lease._seen = remote_module._now() + (-remote_module.PATIENCE if asleep else remote_module.PATIENCE)
        if what == "state":
            writer.mark(2, "failed", "by who was dead")
        elif what == "no record":
            remote.drop_record("mine", 0)
        else:
            write_result(mirror, "late", xr.Dataset({"curve": ("checkpoint", [1.0, 2.0, 3.0])}), {})


@pytest.mark.parametrize(
    ("what", "asleep"), [("state", True), ("state", False), ("no record", False), ("result", False)]
)
def test_a_dead_writer_is_followed_and_cannot_write_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, asleep: bool
) -> None:
    monkeypatch.setattr(remote_module, "BEAT", 0.05)
    mirror = trace_path(Path("memory://b"), "t")
    said = "was written by another process meanwhile"
    if asleep or what != "state":
        said = "is not this process's to write any more"
    with pytest.raises(StoppedError, match=said):
        _writes_late(mirror, tmp_path, monkeypatch, what, asleep)
    fill(tmp_path / "t.zarr", declare(), (0, 2))
    assert stored("memory://b/t.zarr") == snapshot(tmp_path / "t.zarr")


@pytest.mark.parametrize("others", [False, True])
def test_a_sign_of_life_whose_answer_was_lost_is_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    (tmp_path / "lock").touch()
    bucket = Bucket("memory://b")
    lease = remote_module.Lease(bucket, "t.zarr.lock", tmp_path / "lock")
    lease.acquire()
    content = lease._content(1)
    if others:
        content = content.replace(lease._about["id"].encode(), b"another")
    bucket.put("t.zarr.lock", content)  # it was made, and nobody was told
    if others:
        with pytest.raises(ChangedError):
            lease._say(lease._content(2))
    else:
        lease._say(lease._content(2))
        bucket.put("t.zarr.lock", content)
    lease.release()
    found = bucket.get("t.zarr.lock")
    assert found is not None and (b"released" in found[0]) is not others


def test_a_mirror_is_pulled_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled("memory://b/t.zarr", (0,))
    mirror, pull, pulls = trace_path(Path("memory://b"), "t"), mirror_module.pull, []

    def watched(where: Path, bucket: Bucket, *, records: bool) -> dict[str, str]:
        pulls.append((records, is_held(where.with_name(f"{where.name}.pull"))))
        return pull(where, bucket, records=records)

    for module in (mirror_module, remote_module):
        monkeypatch.setattr(module, "pull", watched)
    with writer_lock(mirror):
        Trace(mirror)  # what a writer of this machine has is newer
    assert pulls == [(True, True)]
    Trace(mirror)
    assert (False, True) in pulls and all(locked for _, locked in pulls)
    before = len(pulls)
    with contextlib.ExitStack() as writer:
        pulling = mirror_module.pulling

        def late(where: Path) -> FileLock:
            lock = where.with_name(f"{where.name}.lock")
            if not is_held(lock):  # it begins when a reader was about to
                writer.enter_context(FileLock(lock))
            return pulling(where)

        monkeypatch.setattr(mirror_module, "pulling", late)
        Trace("memory://b/t.zarr")
    assert len(pulls) == before


def test_verifying_says_that_a_trace_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "BEAT", 0.05)
    filled("memory://b/t.zarr")
    mirror, bucket = trace_path(Path("memory://b"), "t"), Bucket("memory://b/t.zarr")
    there = snapshot(mirror)
    with writer_lock(mirror):
        with pytest.raises(UserError, match="is being written by a process of this machine"):
            dynamics.verify("t", traces="memory://b")
        assert snapshot(mirror) == there  # what its writer needs is not taken away
        monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "of another machine"))
        assert dynamics.verify("t", traces="memory://b") == []
        bucket.put("mine/predicted/c/2/0", b"half of it")
        with pytest.raises(UserError, match=r"memory://b/t.zarr is being written by another process \(process"):
            dynamics.verify("t", traces="memory://b")
    assert [damage.variable for damage in dynamics.verify("t", traces="memory://b")] == ["mine/predicted"]


@pytest.mark.parametrize("gone", ["cache", "cache/stores/memory/b/t.zarr"])
def test_who_deletes_the_cache_deletes_nothing_in_the_store(tmp_path: Path, gone: str) -> None:
    filled("memory://b/t.zarr", (0,))
    there = stored("memory://b/t.zarr")
    with writer_lock(trace_path(Path("memory://b"), "t")):
        shutil.rmtree(tmp_path / gone)
    assert stored("memory://b/t.zarr") == there


def test_events_of_a_killed_process_are_added_to_those_in_the_store(tmp_path: Path) -> None:
    filled("memory://b/t.zarr", (0,))
    mirror, beside = trace_path(Path("memory://b"), "t"), Bucket("memory://b")
    write_journal(mirror, "start")
    first = journal_file(mirror).read_bytes()
    beside.put("t.journal.jsonl", first + b'{"event": "elsewhere"}\n')
    write_journal(mirror, "round", purposes={})  # and it was killed
    with writer_lock(mirror):
        assert [event["event"] for event in read_journal(mirror)] == ["start", "elsewhere", "round"]
    assert (beside.get("t.journal.jsonl") or (b"",))[0].count(b"\n") == 3


def test_a_copy_of_the_metadata_that_was_left_behind_is_written_again() -> None:
    filled("memory://b/t.zarr", (0,))
    bucket = Bucket("memory://b/t.zarr")
    there = stored("memory://b/t.zarr")
    bucket.put("manifest/root.json", b"of before")
    with writer_lock(trace_path(Path("memory://b"), "t")):
        pass
    assert stored("memory://b/t.zarr") == there


def test_a_result_that_is_replaced_while_it_is_fetched_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled("memory://b/t.zarr")
    mirror, bucket = trace_path(Path("memory://b"), "t"), Bucket("memory://b/t.zarr")
    dataset = xr.Dataset({"curve": ("checkpoint", [1.0, 2.0, 3.0])})
    states = []
    for number in (1, 2):
        with writer_lock(mirror):
            write_result(mirror, "mine", dataset + number, {"number": number})
        states.append(stored(bucket.url))
    for key, content in states[0].items():
        bucket.put(key, content)
    shutil.rmtree(tmp_path / "cache")
    get = Bucket.get

    def replaced(bucket: Bucket, key: str, part: objects.Part | None = None) -> tuple[bytes, str] | None:
        found = get(bucket, key, part)
        if key == "results/mine/zarr.json" and states:
            for other, content in states.pop().items():
                bucket.put(other, content)
            states.clear()
        return found

    monkeypatch.setattr(Bucket, "get", replaced)
    read = read_result(trace_path(Path("memory://b"), "t"), "mine")
    assert read is not None and read[1] == {"number": 2} and read[0].curve.values.tolist() == [3, 4, 5]
