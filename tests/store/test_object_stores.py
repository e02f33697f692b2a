"""Traces in object stores: what is there is what is read, what is written is there, and who writes is alone."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import dynamics
from checkpoints import objects
from checkpoints.errors import StoppedError, UserError
from checkpoints.objects import Bucket, ChangedError, StoredObject
from checkpoints.series import Checkpoint
from dynamics.runs.config import Run
from dynamics.serving.library import Library
from dynamics.store import Trace, open_trace, read_result, write_result, writer_lock
from dynamics.store.mirror import nodes_in, require_inside
from dynamics.store.paths import trace_path
from tests.store.declared import CHECKPOINTS, declare, fill, snapshot, values
from tests.store.objects import filled, stored

pytest.importorskip("obstore", reason="the extra `s3` is not installed")
pytestmark = pytest.mark.usefixtures("own_store")


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
