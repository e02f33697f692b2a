"""Derived data may be cut off, deleted or damaged anywhere: what was measured can be read, and it can be derived again."""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from benchmarks.fault_writes import Died, dying, full, watched
from checkpoints.series import Checkpoint
from dynamics.store import (
    FeatureTable,
    Group,
    Trace,
    TraceDeclaration,
    TraceWriter,
    Variable,
    dictionaries_in,
    read_result,
    write_features,
    write_result,
)
from dynamics.store.derived import aside, sweep_derived, whole
from tests.store.declared import CHECKPOINTS, declare

STEPS = [c.step for c in CHECKPOINTS]
SETTINGS = {"method": "chain", "site": "resid_post", "layer": 0, "joint": False}


def result(scale: float, steps: list[int] = STEPS) -> xr.Dataset:
    return xr.Dataset(
        {"curve": ("checkpoint", np.arange(len(steps)) * scale), "lost": ("checkpoint", np.full(len(steps), np.nan))},
        coords={"step": ("checkpoint", steps)},
    )


def put_result(trace: Path, scale: float) -> None:
    write_result(trace, "made", result(scale), {"scale": scale})


def put_features(trace: Path, scale: float) -> None:
    about = xr.Dataset({"fvu": ("snapshot", np.full(3, scale))}, coords={"snapshot": STEPS})
    probe = xr.Dataset({"activation": (("snapshot", "prompt"), np.full((3, 2), scale))})
    write_features(trace, "made", about, {"mine": probe}, SETTINGS | {"key": str(scale)})


def seen_result(trace: Path) -> float | None:
    found = read_result(trace, "made")
    if found is None:
        return None
    np.testing.assert_array_equal(found[0]["curve"], np.arange(3) * found[1]["scale"])
    return float(found[1]["scale"])


def seen_features(trace: Path) -> float | None:
    opened = Trace(trace)
    if not dictionaries_in(opened):
        return None
    table = FeatureTable(opened, "made")
    scale = float(table.settings["key"])
    assert (table.about["fvu"].values == scale).all()
    assert (table.read("mine")["activation"].values == scale).all()
    return scale


Put = Callable[[Path, float], None]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    TraceWriter(tmp_path / "t.zarr", small())
    return tmp_path / "t.zarr"


def small(**changes: Any) -> TraceDeclaration:
    group = Group("mine", "", {"text": ("x",)}, (Variable("entropy", ("prompt",), (1,), "float", ""),))
    return declare(groups=(group,), **changes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Object at zarr.json.partial")  # without consolidated metadata zarr looks around
def test_a_writer_that_dies_at_any_change_leaves_the_old_or_the_new_and_the_next_one_goes_on(trace: Path) -> None:
    put_result(trace, 0)
    last, absent = 0.0, []
    for at in itertools.count(1):
        try:
            with watched(dying(at, within=at % 2 == 0)):
                put_result(trace, at)
            break
        except Died as change:
            found = seen_result(trace)
            if found is None:
                absent.append(str(change))
            # what is written aside is nothing that a reader sees
            with xr.open_datatree(trace, engine="zarr", consolidated=None if at % 2 else False) as stock:
                assert {"/", "/mine"} <= set(stock.groups) <= {"/", "/mine", "/results", "/results/made"}
            sweep_derived(trace)
            now = seen_result(trace)
            assert now in (last, at) and found in (None, now)
            assert not aside(trace).exists()
            last = now
    assert at > 20
    assert len(absent) <= 2, absent  # between two renames


def test_a_disk_that_fills_up_at_any_change_leaves_what_was_there(trace: Path) -> None:
    put_features(trace, 0)
    last = 0.0
    for at in itertools.count(1, 2):
        with watched(full(at)):
            try:
                put_features(trace, at)
                break
            except OSError as error:
                full_disk = error
        assert full_disk.errno == errno.ENOSPC
        sweep_derived(trace)
        now = seen_features(trace)
        assert now in (last, at)
        last = now
    assert at > 15


@pytest.mark.parametrize("put", [put_result, put_features])
def test_whichever_file_of_derived_data_is_deleted_or_emptied_it_counts_as_absent(trace: Path, put: Put) -> None:
    put(trace, 1)
    kind, seen = ("results", seen_result) if put is put_result else ("features", seen_features)
    files = [p for p in (trace / kind / "made").rglob("*") if p.is_file()]
    assert len(files) > 5
    for file in files:
        if put is put_result:
            file.unlink()
        else:
            file.write_bytes(b"")
        assert Trace(trace).probes == ["mine"]
        assert seen(trace) is None
        put(trace, 1)
        assert seen(trace) == 1


def test_derived_data_can_be_deleted_by_hand(trace: Path) -> None:
    for gone in ("results", "results/made", "features/made", "features"):
        put_result(trace, 1)
        put_features(trace, 1)
        shutil.rmtree(trace / gone)
        assert (seen_result(trace), seen_features(trace)) == ((None, 1) if "results" in gone else (1, None))
        assert Trace(trace).probes == ["mine"]
    TraceWriter(trace, small())
    with xr.open_datatree(trace, engine="zarr") as stock:
        assert set(stock.children) == {"mine", "results"}


def test_results_of_a_trace_that_has_grown_count_as_absent_and_no_reader_trips_over_them(trace: Path) -> None:
    put_result(trace, 1.0)
    put_features(trace, 1.0)
    longer = small(checkpoints=(*CHECKPOINTS, Checkpoint(300, "step300", None, "")))
    TraceWriter(trace, longer)
    assert not whole(trace, "results/made") and seen_features(trace) == 1.0
    with xr.open_datatree(trace, engine="zarr") as stock:
        assert set(stock.children) == {"mine", "features"}
    assert Trace(trace).steps.tolist() == [*STEPS, 300]
