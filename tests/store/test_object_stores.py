"""Traces in object stores: what is there is what is read, what is written is there, and who writes is alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dynamics
from checkpoints import objects
from checkpoints.errors import UserError
from checkpoints.objects import Bucket, ChangedError, StoredObject
from dynamics.runs.config import Run
from dynamics.store import Trace, open_trace
from dynamics.store import mirror as mirror_module
from dynamics.store.paths import trace_path
from tests.store.declared import declare, fill, values

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
