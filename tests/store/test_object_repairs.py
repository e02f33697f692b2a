"""Repairs of traces in object stores: what was damaged is as it was, and a kill at any write leaves nothing that is believed wrongly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dynamics
from checkpoints import objects
from checkpoints.errors import UserError
from checkpoints.objects import Bucket
from dynamics.store import Trace, read_result, write_result, writer_lock
from dynamics.store import mirror as mirror_module
from dynamics.store import remote as remote_module
from dynamics.store.copies import copied
from dynamics.store.manifest import MANIFEST
from dynamics.store.paths import trace_path
from tests.store.declared import declare, fill, snapshot, values
from tests.store.objects import filled, stored
from tests.store.test_object_stores import run_of, uploaded

pytest.importorskip("obstore", reason="the extra `s3` is not installed")

URL = "memory://b/t.zarr"

STRIDE = 7
"""Writes from one kill to the next; 1 tries all."""


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror_module, "_FRESH", 0.0)
    monkeypatch.setattr(remote_module, "BEAT", 0.05)
    objects.store_of.cache_clear()


def test_a_repair_writes_measures_and_derives_again_in_a_store(
    reported: Path, tiny_series: Path, tmp_path: Path
) -> None:
    bucket, run = uploaded(reported / "traces/mine.zarr", "memory://b/mine.zarr"), run_of(tiny_series)
    before = stored(bucket.url)
    bucket.delete(["step/c/0", f"{MANIFEST}/c/4", "zarr.json"])
    for key in ("status/c/1", "weights_digest/c/2", "weights/sketch/c/5/0", "results/induction/step/c/0"):
        assert key in before
        bucket.put(key, b"others")
    Bucket("memory://b").put("mine.journal.jsonl", b'{"event": "kept"}\n')
    damage = dynamics.verify("mine", run=run, traces="memory://b", repair=True)
    assert len(damage) > 5 and all(d.repaired for d in damage)
    assert stored(bucket.url) == before
    journal = Bucket("memory://b").get("mine.journal.jsonl")
    assert journal is not None and journal[0].startswith(b'{"event": "kept"}\n') and journal[0].count(b"\n") > 1
    assert not [*(tmp_path / "cache/copies").rglob("*.zarr")]
    assert dynamics.verify("mine", run=run, traces="memory://b") == []


def test_what_the_trace_does_not_list_is_pruned(tmp_path: Path) -> None:
    filled(URL)
    before, bucket = stored(URL), Bucket(URL)
    for name in ("zarr.json", "x/c/0"):
        bucket.put(f"{MANIFEST}/groups/old.a1/{name}", b"{}")
    assert dynamics.verify("t", traces="memory://b", prune=True) == []
    assert stored(URL) == before


def test_a_trace_that_is_not_there_or_is_written_is_not_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="has no trace in memory://b"):
        dynamics.verify("t", traces="memory://b", prune=True)
    with writer_lock(trace_path(Path("memory://b"), "t")):
        fill(trace_path(Path("memory://b"), "t"), declare())
        monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "of another machine"))
        with pytest.raises(UserError, match="is being written by another process"):
            dynamics.verify("t", traces="memory://b", prune=True)


def test_a_writer_that_was_killed_here_makes_nothing_else_look_damaged() -> None:
    filled(URL)
    mirror = trace_path(Path("memory://b"), "t")
    mirror.with_name(f"{mirror.name}.owner").write_text("{}")
    Bucket(URL).put("mine/predicted/c/2/0", b"others")
    assert [(d.step, d.variable) for d in dynamics.verify("t", traces="memory://b")] == [(200, "mine/predicted")]


class Killed(BaseException):
    """The process is gone: whatever it writes from here on is not written."""


def wanted_of(folder: Path) -> dict[str, bytes]:
    """The files with other weights at a checkpoint, a checkpoint more, and another result."""
    fill(folder, declare())
    write_result(folder, "made", xr.Dataset({"a": ("checkpoint", [1.0, 2.0, 3.0])}), {"number": 1})
    writer = fill(folder, declare(), (1,))
    writer.clear(0)
    for group, content in values(declare(), 0).items():
        writer.write(0, group, {name: value + 1 for name, value in content.items()})
    writer.commit(0, digest="others", stored_dtype="float32")
    write_result(folder, "made", xr.Dataset({"b": ("checkpoint", [4.0, 5.0, 6.0])}), {"number": 2})
    return snapshot(folder)


def change(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def begun() -> None:
    mirror = trace_path(Path("memory://b"), "t")
    filled(URL)
    with writer_lock(mirror):
        write_result(mirror, "made", xr.Dataset({"a": ("checkpoint", [1.0, 2.0, 3.0])}), {"number": 1})


@pytest.mark.slow
def test_killed_at_any_write_a_repair_leaves_what_can_be_read_and_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module.Lease, "_is_silent", staticmethod(lambda watched, etag: watched[0] == etag))
    monkeypatch.setattr(remote_module.Lease, "_give_signs", lambda lease: None)
    left = [10**9]

    def until_killed(name: str) -> Callable[..., Any]:
        original = getattr(Bucket, name)

        def write(bucket: Bucket, *arguments: Any) -> Any:
            if bucket.url == URL:
                left[0] -= 1
            if left[0] < 0:
                raise Killed
            return original(bucket, *arguments)

        return write

    monkeypatch.setattr(Bucket, "each", lambda bucket, call, items: [call(item) for item in items])
    for name in ("put", "put_if", "delete"):
        monkeypatch.setattr(Bucket, name, until_killed(name))
    begun()
    first, number = stored(URL), 0
    wanted = wanted_of(tmp_path / "t.zarr")
    while True:
        left[0] = number
        with suppress(Killed), copied(Path(URL)) as folder:
            change(folder, wanted)
        killed, left[0] = left[0] < 0, 10**9
        trace = Trace(URL)  # whoever reads it now
        for index in np.flatnonzero(trace.complete):
            assert trace.digests[index] in (f"digest{index}", "others")
        for group, content in values(declare(), 0).items():
            for name in content:
                trace.values(group, name)
        found = read_result(trace_path(Path("memory://b"), "t"), "made")
        assert found is None or list(found[0].data_vars) == [{1: "a", 2: "b"}[found[1]["number"]]]
        with copied(Path(URL)) as folder:
            change(folder, wanted)
        assert stored(URL) == wanted, number
        if not killed:
            break
        number += STRIDE
        Bucket(URL).delete(list(stored(URL)))
        for key, content in first.items():
            Bucket(URL).put(key, content)
        shutil.rmtree(tmp_path / "cache")
    assert number > 20
