"""Traces in object stores: what is there is what is read, what is written is there, and who writes is alone."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock

import dynamics
from checkpoints import objects
from checkpoints.errors import StoppedError, UserError
from checkpoints.objects import Bucket, ChangedError, StoredObject
from checkpoints.series import Checkpoint
from dynamics.runs.config import Run
from dynamics.serving.library import Library
from dynamics.store import Trace, open_trace, read_result, write_result, writer_lock
from dynamics.store import mirror as mirror_module
from dynamics.store import remote as remote_module
from dynamics.store.claims import is_held
from dynamics.store.journal import journal_file, read_journal, write_journal
from dynamics.store.mirror import nodes_in, require_inside
from dynamics.store.paths import trace_path
from tests.store.declared import CHECKPOINTS, declare, fill, snapshot, values

pytest.importorskip("obstore", reason="the extra `s3` is not installed")


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, an empty store, and a mirror that is pulled whenever a trace is opened."""
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror_module, "_FRESH", 0.0)
    objects.store_of.cache_clear()


def uploaded(folder: Path, url: str) -> Bucket:
    """The files of a folder as objects."""
    bucket = Bucket(url)
    for file in folder.rglob("*"):
        if file.is_file():
            bucket.put(file.relative_to(folder).as_posix(), file.read_bytes())
    return bucket


@pytest.mark.parametrize("layout", ["local", "sharded"])
def test_a_trace_in_a_store_reads_as_in_a_folder(tmp_path: Path, layout: str) -> None:
    declaration = declare(layout=layout)
    fill(tmp_path / "t.zarr", declaration)
    uploaded(tmp_path / "t.zarr", "memory://b/t.zarr")
    trace = Trace("memory://b/t.zarr")
    assert trace.status == ["complete", "pending", "complete"]
    for group, content in values(declaration, 2).items():
        for name, expected in content.items():
            assert np.array_equal(trace.values(group, name)[2], expected.astype(trace.probe(group)[name].dtype)), name
    assert repr(trace).startswith("Trace('memory://b/t.zarr'")
    assert open_trace(Path("memory://b/t.zarr"))["mine"]["text"].size == 4


def test_slabs_are_fetched_when_they_are_read_and_kept(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    bucket = uploaded(tmp_path / "t.zarr", "memory://b/t.zarr")
    mirror = trace_path(Path("memory://b"), "t")
    slabs = mirror / "mine" / "predicted" / "c"
    assert not slabs.exists()
    first = Trace(mirror).values("mine", "predicted")
    assert sorted(p.name for p in slabs.iterdir()) == ["0", "2"]  # nothing was measured at the other
    bucket.delete([key for key in bucket.listing() if key.startswith("mine/predicted/c/")])
    assert np.array_equal(Trace(mirror).values("mine", "predicted"), first)


def test_of_a_shard_only_what_is_asked_for_is_fetched(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare(layout="sharded"))
    uploaded(tmp_path / "t.zarr", "memory://b/t.zarr")
    tree = open_trace("memory://b/t.zarr")
    layer = tree["mine"]["resid_post"].isel(checkpoint=2, layer=1).values
    assert np.array_equal(layer, values(declare(), 2)["mine"]["resid_post"][:, :, 1])
    assert not [*(tmp_path / "cache").rglob("mine/resid_post/c")]


def test_what_changed_in_the_store_is_read_anew(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare(), (0,))
    uploaded(tmp_path / "t.zarr", "memory://b/t.zarr")
    assert Trace("memory://b/t.zarr").status == ["complete", "pending", "pending"]
    writer = fill(tmp_path / "t.zarr", declare(), (2,))
    writer.clear(0)
    other = {g: {n: v + 1 for n, v in c.items()} for g, c in values(declare(), 0).items()}
    for group, content in other.items():
        writer.write(0, group, content)
    writer.commit(0, digest="others", stored_dtype="float32")
    Trace("memory://b/t.zarr").values("mine", "predicted")
    uploaded(tmp_path / "t.zarr", "memory://b/t.zarr")
    trace = Trace("memory://b/t.zarr")
    assert trace.status == ["complete", "pending", "complete"] and trace.digests[0] == "others"
    assert np.array_equal(trace.values("mine", "predicted")[0], other["mine"]["predicted"])


def test_a_chunk_that_is_not_in_the_store_is_damage(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    bucket = uploaded(tmp_path / "t.zarr", "memory://b/t.zarr")
    bucket.delete(["mine/predicted/c/2/0"])
    with pytest.raises(UserError, match=r"step 200 of mine/predicted of memory://b/t.zarr is damaged"):
        Trace("memory://b/t.zarr").values("mine", "predicted")


def test_what_is_not_there_is_said_by_its_url(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"memory://b/none.zarr is not a trace: there is no such folder"):
        Trace("memory://b/none.zarr")
    with pytest.raises(UserError, match="has no trace in memory://b"):
        dynamics.report(
            "none",
            traces="memory://b",
            run=Run.model_validate({"series": {"kind": "organism"}, "analyses": ["induction"]}),
        )


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(UserError, match="`obstore` is not installed") as caught:
        Trace("s3://a-bucket/t.zarr")
    assert "extra `s3`" in caught.value.expected and "circuit-dynamics[s3]" in caught.value.remedy


def test_paths_import_nothing_of_object_stores(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    code = (
        f"import sys, dynamics; dynamics.open_trace({str(tmp_path / 't.zarr')!r}); assert 'obstore' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_conditions_on_a_write_hold() -> None:
    bucket = Bucket("memory://b")
    first = bucket.put_if("k", b"1", None)
    with pytest.raises(ChangedError):
        bucket.put_if("k", b"2", None)
    second = bucket.put_if("k", b"2", first)
    with pytest.raises(ChangedError):
        bucket.put_if("k", b"3", first)
    assert bucket.put_if("k", b"2", first) == second  # its answer was lost, and it was asked again
    assert bucket.get("k") == (b"2", second) and bucket.listing() == {"k": StoredObject(1, second)}


def run_of(series: Path) -> Run:
    analyses = [{"name": "induction", "options": {"prompts": 8, "period": 4}}]
    return Run.model_validate({"series": {"kind": "folder", "path": str(series)}, "analyses": analyses})


def stored(url: str) -> dict[str, bytes]:
    """Every object and its content."""
    bucket = Bucket(url)
    found = ((key, bucket.get(key)) for key in bucket.listing())
    return {key: content[0] for key, content in found if content is not None}


def filled(url: str, indices: tuple[int, ...] = (0, 2), **changes: object) -> None:
    """A trace in a store with the checkpoints of these indices complete."""
    folder, _, name = url.rpartition("/")
    mirror = trace_path(Path(folder), name.removesuffix(".zarr"))
    with writer_lock(mirror):
        fill(mirror, declare(**changes), indices)


def test_what_is_written_to_a_store_is_what_a_folder_would_hold(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare(), (0, 2))
    filled("memory://b/t.zarr", (0,))
    filled("memory://b/t.zarr", (2,))
    assert stored("memory://b/t.zarr") == snapshot(tmp_path / "t.zarr")
    assert not [*(tmp_path / "cache").rglob("resid_post/c/*")]  # what is in the store is not kept twice


def test_a_mirror_without_what_was_written_is_filled_from_the_store(tmp_path: Path) -> None:
    filled("memory://b/t.zarr", (0,))
    shutil.rmtree(tmp_path / "cache")
    filled("memory://b/t.zarr", (2,))
    fill(tmp_path / "t.zarr", declare(), (0, 2))
    assert stored("memory://b/t.zarr") == snapshot(tmp_path / "t.zarr")


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


def test_traces_below_a_url_are_listed_and_opening_it_drops_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    filled("memory://b/traces/t.zarr")
    filled("memory://b/traces/u.zarr", (0,))
    library = Library(tmp_path, Path("memory://b/traces"))
    assert [(entry["run"], entry["collected"]) for entry in library.runs()] == [("t", True), ("u", True)]
    there = snapshot(tmp_path / "cache")
    with pytest.raises(UserError, match=r"memory://b/traces is a folder of traces: t.zarr, u.zarr"):
        Trace("memory://b/traces")
    assert there.keys() <= snapshot(tmp_path / "cache").keys()


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


def test_a_store_that_nobody_answers_for_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    for name, value in {"AWS_ENDPOINT_URL": address, **dict.fromkeys(keys, "x")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "_DEADLINE", 0.5)
    monkeypatch.setattr(objects, "_TRIES", 10**9)
    with pytest.raises(StoppedError, match="does not answer as it should"):
        Trace("s3://b/t.zarr")


def test_results_are_replaced_in_one_write_of_the_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled("memory://b/t.zarr")
    mirror = trace_path(Path("memory://b"), "t")
    dataset = xr.Dataset({"curve": ("checkpoint", [1.0, 2.0, 3.0])})
    listed: list[bool] = []
    put = Bucket.put

    def looked_at(bucket: Bucket, key: str, content: bytes) -> str:
        if key.startswith("results/mine/"):
            root = bucket.get("zarr.json")
            assert root is not None
            listed.append("results/mine" in nodes_in(root[0]))
        return put(bucket, key, content)

    monkeypatch.setattr(Bucket, "put", looked_at)
    for number in (1, 2):
        with writer_lock(mirror):
            write_result(mirror, "mine", dataset + number, {"number": number})
    shutil.rmtree(tmp_path / "cache")
    found = read_result(trace_path(Path("memory://b"), "t"), "mine")
    assert found is not None and found[1] == {"number": 2} and found[0].curve.values.tolist() == [3, 4, 5]
    assert listed and not any(listed)  # while its objects are written, nobody is told of them


def test_other_measurements_are_refused_where_there_is_no_rename() -> None:
    filled("memory://b/t.zarr")
    with pytest.raises(UserError, match="was collected with other settings"):
        filled("memory://b/t.zarr", (1,), trace_dtype="float16")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("collect", {"shard": "1/2"}),
        ("collect", {"workers": 2}),
        ("learn", {}),
    ],
)
def test_what_needs_a_folder_is_refused(tiny_series: Path, verb: str, arguments: dict[str, object]) -> None:
    run = run_of(tiny_series)
    with pytest.raises(UserError, match=r"is not possible in an object store \(memory://b\)"):
        getattr(dynamics, verb)("mine", run=run, traces="memory://b", **arguments)


def test_verifying_reads_what_is_in_the_store() -> None:
    filled("memory://b/t.zarr")
    assert dynamics.verify("t", traces="memory://b") == []
    bucket = Bucket("memory://b/t.zarr")
    bucket.put("mine/predicted/c/2/0", b"others")
    (damage,) = dynamics.verify("t", traces="memory://b")
    assert (damage.step, damage.variable) == (200, "mine/predicted")


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


def test_a_trace_in_a_store_grows_at_its_end(tmp_path: Path) -> None:
    more = (*CHECKPOINTS, Checkpoint(300, "step300"))
    filled("memory://b/t.zarr", (0,))
    filled("memory://b/t.zarr", (3,), checkpoints=more)
    fill(tmp_path / "t.zarr", declare(), (0,))
    fill(tmp_path / "t.zarr", declare(checkpoints=more), (3,))
    assert stored("memory://b/t.zarr") == snapshot(tmp_path / "t.zarr")


def test_a_run_is_collected_and_reported_there(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_of(tiny_series)
    dynamics.collect("mine", run=run, traces="memory://b")
    assert "mine.journal.jsonl" in Bucket("memory://b").listing()
    shutil.rmtree(tmp_path / "cache")
    assert len(dynamics.status("mine", run=run, traces="memory://b").steps["complete"]) == 6
    dynamics.report("mine", run=run, traces="memory://b")
    assert (tmp_path / "reports" / "mine" / "index.html").is_file()
    assert [*dynamics.open_results("memory://b/mine.zarr")] == ["induction"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a//b", "C:/x"])
def test_names_that_lead_out_of_the_cache_are_refused(tmp_path: Path, name: str) -> None:
    require_inside(["zarr.json", "sums/tokens/zarr.json"], tmp_path)
    with pytest.raises(UserError, match="outside of it"):
        require_inside(["zarr.json", name], tmp_path)
