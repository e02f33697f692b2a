"""Whichever file of a trace is damaged, ``verify`` says so, no reader takes it for what was measured, and a repair mends it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import dynamics
from checkpoints.errors import UserError
from dynamics.collecting.verifying import _mend_coordinates
from dynamics.store import (
    FeatureTable,
    Trace,
    TraceDeclaration,
    TraceWriter,
    open_trace,
    read_result,
    remark,
    write_features,
    write_result,
    writer_lock,
)
from dynamics.store.create import grow_trace
from dynamics.store.damage import has_manifest, trace_damage
from dynamics.store.manifest import MANIFEST, ROOT_COPY, record_of
from tests.collecting.damaging import damages, put
from tests.store.declared import declare, fill, snapshot, values

SETTINGS = {"method": "chain", "site": "resid_post", "layer": 0, "joint": False, "key": "k"}


def whole_trace(path: Path, **changes: Any) -> None:
    """Two complete checkpoints, one that failed; a result and features."""
    writer = fill(path, declare(**changes), (0, 1))
    writer.mark(2, "failed", "its files are cut off")
    steps = Trace(path).steps
    result = xr.Dataset({"curve": ("checkpoint", steps * 0.5)}, coords={"step": ("checkpoint", steps)})
    about = xr.Dataset({"fvu": ("snapshot", [0.5, 0.25])}, coords={"snapshot": steps[:2]})
    probe = xr.Dataset({"activation": (("snapshot", "prompt"), np.ones((2, 4), dtype=np.float32))})
    with writer_lock(path):
        write_result(path, "made", result, {"text": "said"})
        write_features(path, "main", about, {"mine": probe}, SETTINGS)


@pytest.mark.parametrize("layout", ["local", "sharded"])
def test_whichever_file_is_damaged_in_whatever_way_it_is_noticed(tmp_path: Path, layout: Any) -> None:
    path = tmp_path / "t.zarr"
    whole_trace(path, layout=layout)
    files = snapshot(path)
    assert trace_damage(path) == [] and len(files) > 80
    unseen = []
    for number, name in enumerate(files):
        # all five of every file are tried by benchmarks/fault_damage.py
        what, content = list(damages(files, name))[number % 5]
        put(path / name, content)
        if not trace_damage(path):
            unseen.append(f"{name} {what}")
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(files[name])
    assert unseen == []
    assert trace_damage(path) == []


def test_no_reader_takes_a_missing_chunk_of_a_complete_checkpoint_for_what_was_measured(tmp_path: Path) -> None:
    for layout in ("local", "sharded"):
        path = tmp_path / layout / "t.zarr"
        whole_trace(path, layout=layout)
        whole = Trace(path).values("mine", "predicted")
        slab = path / "mine/predicted/c/1"
        (file,) = [p for p in slab.rglob("*") if p.is_file()]
        content = file.read_bytes()
        for damage in (None, b""):
            put(file, damage)
            trace = Trace(path)
            reads = {
                "values": lambda trace=trace: trace.values("mine", "predicted"),
                "each": lambda trace=trace: dict(trace.each("mine", "predicted")),
                "lazily": lambda path=path: open_trace(path)["mine"]["predicted"].sel(step=10).values,
                "by dask": lambda path=path: open_trace(path, chunks={})["mine"]["predicted"].mean().compute(),
            }
            for how, read in reads.items():
                with pytest.raises(UserError, match=r"step 10 of mine/predicted(.|\n)*verify t --repair") as error:
                    read()
                assert "missing or empty" in str(error.value), how
            # what was not damaged can be read, and what was never measured is missing
            assert np.isfinite(trace.values("mine", "answer_logprob")[:2]).all()
            assert np.isnan(trace.values("mine", "answer_logprob")[2]).all()
        put(file, content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UserError, match="verify t --repair"):
            Trace(path).values("mine", "predicted")
        file.write_bytes(content)
        np.testing.assert_array_equal(Trace(path).values("mine", "predicted"), whole)


def test_damaged_metadata_coordinates_and_derived_data_are_not_read_either(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    whole_trace(path)
    files = snapshot(path)
    digit = files["zarr.json"].replace(b'"declared"', b'"declarez"', 1)
    for name, content in (("zarr.json", digit), ("zarr.json", b""), ("zarr.json", None), ("step/c/0", None)):
        put(path / name, content)
        with pytest.raises(UserError, match="verify t --repair"):
            Trace(path)
        (path / name).write_bytes(files[name])
    for content in (None, files["mine/text/c/0"][:-1], files["other/text/c/0"]):
        put(path / "mine/text/c/0", content)
        with pytest.raises(UserError, match=r"mine/text(.|\n)*verify t --repair"):
            Trace(path).label("mine", "text")
        (path / "mine/text/c/0").write_bytes(files["mine/text/c/0"])
    for name in ("results/made/curve/c/0", "results/made/zarr.json"):
        for what, content in damages(files, name):
            put(path / name, content)
            assert read_result(path, "made") is None, what
            (path / name).write_bytes(files[name])
    assert read_result(path, "made") is not None
    opened = FeatureTable(path, "main")
    put(path / "features/main/mine/activation/c/0/0", None)
    with pytest.raises(UserError, match="features/main/mine/activation"):
        opened.read("mine")["activation"].load()


def test_what_is_said_of_a_checkpoint_that_was_not_measured_is_held_against_what_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    writer = fill(path, declare(), (0,))
    writer.mark(1, "masked", "left out")
    with writer_lock(path):
        remark(path, [2], "not visited")
    assert trace_damage(path) == []
    for name, index in (("status", 1), ("reason", 1), ("reason", 2), (MANIFEST, 1), (MANIFEST, 2), ("nonfinite", 0)):
        file = path / name / "c" / str(index)
        content = file.read_bytes()
        file.unlink()
        assert [d.step for d in trace_damage(path)] == [(0, 10, 200)[index]], name
        file.write_bytes(content)


def test_a_writer_that_was_killed_before_the_last_mark_leaves_a_trace_that_can_be_collected_on(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    writer = fill(path, declare(), (0, 1))
    for name in ("status", MANIFEST):  # the last that is written, and the one before
        (path / name / "c" / "1").unlink()
        assert Trace(path).complete.tolist() == [True, False, False]
    assert trace_damage(path) == []
    fill(path, declare(), (1,))
    assert trace_damage(path) == [] and Trace(path).complete.tolist() == [True, True, False]
    (path / ROOT_COPY).unlink()
    assert [d.variable for d in trace_damage(path)] == [ROOT_COPY]
    TraceWriter(path, declare())
    assert trace_damage(path) == [] and writer.digest(1) == "digest1"


def test_a_record_does_not_grow_with_the_number_of_checkpoints(tmp_path: Path) -> None:
    checkpoints = tuple(dynamics_checkpoint(step) for step in range(40))
    path = tmp_path / "t.zarr"
    writer = fill(path, declare(checkpoints=checkpoints), (0, 39))
    first, last = ((path / MANIFEST / "c" / str(i)).stat().st_size for i in (0, 39))
    assert abs(first - last) < 20
    small = fill(tmp_path / "s.zarr", declare(checkpoints=checkpoints[:2]), (0,))
    noted = [len(dict(w.attributes)["files"]) for w in (writer, small)]
    assert noted[0] == noted[1]


def dynamics_checkpoint(step: int) -> Any:
    from checkpoints.series import Checkpoint

    return Checkpoint(step, f"step{step}")


def test_a_trace_whose_manifest_is_gone_as_a_whole_is_damaged_and_no_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    whole_trace(path)
    shutil.rmtree(path / MANIFEST)
    assert has_manifest(path)
    assert {d.variable for d in trace_damage(path)} >= {MANIFEST, f"{MANIFEST}/zarr.json", ROOT_COPY}
    TraceWriter(path, declare())  # goes on with it
    assert (path / ROOT_COPY).is_file() and Trace(path).complete.tolist() == [True, True, False]


def test_coordinates_in_more_than_one_chunk_are_sealed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamics.store.create._COORDINATE_CHUNK", 4)
    path = tmp_path / "t.zarr"
    checkpoints = tuple(dynamics_checkpoint(step) for step in range(6))
    TraceWriter(path, declare(checkpoints=checkpoints[:3]))
    longer = declare(checkpoints=checkpoints)
    grow_trace(path, longer)
    assert trace_damage(path) == []
    files = snapshot(path)
    for name in ("step/c/1", "revision/c/1", "mine/step/c/1"):
        (path / name).unlink()
        assert [d.variable for d in trace_damage(path)] == [name.removesuffix("/c/1")]
        _mend_coordinates(path, longer, {name.removesuffix("/c/1")})
        assert snapshot(path) == files
    assert len(Trace(path).steps) == 6


def test_what_may_be_deleted_at_any_time_is_no_damage_when_it_is_gone_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    whole_trace(path)
    for place in ("results/made", "results", "features/main/mine", "features"):
        shutil.rmtree(path / place)
        assert [d.variable for d in trace_damage(path)] == (["features/main"] if place.endswith("mine") else [])


def test_a_flipped_byte_in_features_names_what_makes_them_again(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    whole_trace(path)
    for name in ("features/main/mine/activation/c/0/0", "features/main/fvu/c/0"):
        content = (path / name).read_bytes()
        put(path / name, bytes([content[0] ^ 1]) + content[1:])
    table = FeatureTable(path, "main")
    for read in (lambda: table.read("mine")["activation"].values, lambda: table.about["fvu"].values):
        with pytest.raises(UserError, match=r"features/main/(mine/activation|fvu)(.|\n)*learn t --fresh"):
            read()


DEEP = b'{"a":' * 100_000


def test_metadata_nested_too_deeply_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    whole_trace(path)
    for name in ("mine/zarr.json", "results/made/zarr.json", "results/zarr.json", ROOT_COPY, "zarr.json"):
        (path / name).write_bytes(DEEP)
        assert trace_damage(path), name
    assert record_of(DEEP.decode()) == {}


@pytest.mark.slow
def test_a_writer_killed_between_a_record_and_what_it_records_is_no_damage_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever write: while a checkpoint is committed, marked, masked or cleared."""

    class Killed(BaseException):
        pass

    declared = declare(groups=declare().groups[1:])
    fill(tmp_path / "whole.zarr", declared, (0, 1))
    path, counts = tmp_path / "t.zarr", {"digest": "d", "stored_dtype": "float32"}
    changes: dict[str, Any] = {
        "commit": lambda w: w.commit(0, **counts),
        "mark": lambda w: w.mark(1, "masked", "why"),
        "clear": lambda w: w.clear(0),
        "fail": lambda w: w.mark(2, "failed", "why"),
    }
    for name, change in changes.items():
        for last in range(1, 9):
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(tmp_path / "whole.zarr", path)
            writer = TraceWriter(path, declared)
            if name == "commit":
                writer.clear(0)
                for group, content in values(declared, 0).items():
                    writer.write(0, group, content)
            original, calls = zarr.Array.__setitem__, iter(range(1, 100))

            def counted(*arguments: Any, original: Any = original, calls: Any = calls, last: int = last) -> None:
                if next(calls) == last:
                    raise Killed
                original(*arguments)

            finished = False
            with monkeypatch.context() as patch, suppress(Killed):
                patch.setattr(zarr.Array, "__setitem__", counted)
                change(writer)
                finished = True
            TraceWriter(path, declared)
            assert trace_damage(path) == [], (name, last)
            if finished:
                break
        assert finished and last > 2


def test_a_record_of_a_checkpoint_that_is_half_deleted_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    fill(path, declare(), (0, 1))
    files = snapshot(path)
    (path / "status/c/0").unlink()
    assert TraceWriter(path, declare()).status() == ["complete", "complete", "pending"] and snapshot(path) == files
    (path / "status/c/1").unlink()
    shutil.rmtree(path / "mine/predicted/c/1")
    assert TraceWriter(path, declare()).status() == ["complete", "pending", "pending"]
    assert {d.step for d in trace_damage(path)} == {10}


def test_a_trace_that_is_being_written_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    fill(path, declare(), (0, 1))
    (path / "status/c/1").unlink()
    with writer_lock(path), pytest.raises(UserError, match="being written by another process"):
        dynamics.verify("t", traces=tmp_path)
    assert [d.step for d in dynamics.verify("t", traces=tmp_path)] == [10]


def test_a_trace_is_declared_with_its_manifest_so_that_no_probe_takes_the_name() -> None:
    with pytest.raises(UserError, match="cannot be called 'manifest'"):
        TraceDeclaration((), (declare().groups[0].__class__(MANIFEST, "", {"text": ("x",)}, ()),))
