"""Collecting: damaged checkpoints are named, and whatever stops it, the same command goes on or says why not."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.errors import CheckpointError, StoppedError, UserError
from checkpoints.local import FolderSeries
from dynamics import Trace, status
from dynamics.store import TraceWriter
from tests.collecting.local.tiny import STEPS, files, make_run, poison, run_collect, same_files, truncate


def test_a_damaged_checkpoint_stops_the_collection_before_any_compute(series: Path, tmp_path: Path) -> None:
    truncate(series, 3)
    with pytest.raises(UserError, match=r"1 of 6 checkpoints cannot be used:\n\s+step 3: .*model.safetensors"):
        run_collect(tmp_path, make_run(tmp_path, series))
    assert not (tmp_path / "traces/mine.zarr").exists()


def test_with_keep_going_a_damaged_checkpoint_is_failed_and_tried_again_after_repair(
    series: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, series)
    run_collect(tmp_path, run, "reference")
    whole = truncate(series, 3)
    done = run_collect(tmp_path, run, keep_going=True)
    assert done.collected == [0, 1, 2, 6, 12] and done.failed.keys() == {3}
    trace = Trace(tmp_path / "traces/mine.zarr")
    assert trace.status[3] == "failed" and "model.safetensors" in trace.reasons[3]
    assert np.isnan(trace.values("sums", "resid_post")[3]).all()
    state = status("mine", run=run, traces=tmp_path / "traces")
    assert state.steps == {"complete": [0, 1, 2, 6, 12], "failed": [3]} and state.reasons.keys() == {3}
    assert run_collect(tmp_path, run, keep_going=True).failed.keys() == {3}
    (series / "step3/model.safetensors").write_bytes(whole)
    assert run_collect(tmp_path, run).collected == [3]
    # the text of a reason that was there and is gone leaves a chunk; all else is as if nothing had happened
    first, second = files(tmp_path / "reference"), files(tmp_path / "traces")
    assert set(second) - set(first) <= {"mine.zarr/reason/c/3"}
    assert [name for name in first if first[name] != second[name]] == []
    assert Trace(tmp_path / "traces/mine.zarr").reasons == [""] * 6


def test_a_config_that_cannot_be_read_fails_its_checkpoint_alone(series: Path, tmp_path: Path) -> None:
    (series / "step2/config.json").write_text("{")
    done = run_collect(tmp_path, make_run(tmp_path, series))
    assert done.failed.keys() == {2} and done.collected == [0, 1, 3, 6, 12]


def test_what_was_measured_stays_when_the_weights_go_bad_afterwards(series: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, series)
    run_collect(tmp_path, run)
    before = files(tmp_path / "traces")
    truncate(series, 6)
    done = run_collect(tmp_path, run, keep_going=True)
    assert done.already == STEPS and done.failed == {}
    assert files(tmp_path / "traces") == before


HOLD = """
import sys, time
from pathlib import Path
from dynamics.store.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_second_collector_is_refused_and_the_lock_of_a_dead_one_does_not_block(
    tiny_series: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path, tiny_series, exclude=STEPS[1:])
    command = [sys.executable, "-c", HOLD, str(tmp_path / "traces/mine.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        try:
            with pytest.raises(UserError, match=rf"written by another process \(process {holder.pid} on"):
                run_collect(tmp_path, run)
            assert not (tmp_path / "traces/mine.zarr").exists()
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    assert (tmp_path / "traces/mine.zarr.owner").exists()
    assert run_collect(tmp_path, run).collected == [0]
    assert not (tmp_path / "traces/mine.zarr.owner").exists()


class _Breaks:
    """Lets ``writes`` probes be written, and raises in the middle of the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, writes: int, error: BaseException) -> None:
        self.left = writes
        original = TraceWriter.write

        def write(writer: TraceWriter, index: int, group: str, values: Any) -> tuple[int, int]:
            self.left -= 1
            if self.left < 0:
                first = next(iter(values))
                writer._array(f"{group}/{first}")[index] = values[first]
                raise error
            return original(writer, index, group, values)

        monkeypatch.setattr(TraceWriter, "write", write)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_stops_with_a_remedy_and_the_same_command_goes_on(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    run = make_run(tmp_path, tiny_series, exclude=STEPS[3:])
    run_collect(tmp_path, run, "reference")
    with monkeypatch.context() as patch:
        _Breaks(patch, 5, OSError(code, os.strerror(code)))
        with pytest.raises(StoppedError, match=f"{os.strerror(code)}(.|\n)*run the same command again"):
            run_collect(tmp_path, run)
    trace = Trace(tmp_path / "traces/mine.zarr")
    assert trace.status[:3] == ["complete", "pending", "pending"]
    assert not list((tmp_path / "traces").glob("mine.zarr/*/*/c/1"))  # the room that it took is given back
    assert run_collect(tmp_path, run).collected == [1, 2]
    same_files(tmp_path / "reference", tmp_path / "traces")


def test_ctrl_c_drops_the_current_checkpoint_and_the_same_command_goes_on(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, tiny_series)
    run_collect(tmp_path, run, "reference")
    with monkeypatch.context() as patch:
        _Breaks(patch, 10, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_collect(tmp_path, run)
    trace = Trace(tmp_path / "traces/mine.zarr")
    assert trace.status == ["complete", "complete", *["pending"] * 4]
    assert np.isnan(trace.probe("sums")["resid_post"][2].values).all()
    assert not (tmp_path / "traces/mine.zarr.owner").exists()
    assert run_collect(tmp_path, run).collected == STEPS[2:]
    same_files(tmp_path / "reference", tmp_path / "traces")


def test_out_of_memory_stops_with_a_remedy(tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr("dynamics.measurements.forward.Together.of", out_of_memory)
    with pytest.raises(StoppedError, match=r"20 GiB(.|\n)*batch_tokens"):
        run_collect(tmp_path, make_run(tmp_path, tiny_series))


@pytest.mark.parametrize("count", [2, 6])
def test_at_most_two_sets_of_weights_are_in_memory_however_many_checkpoints(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0
    original = FolderSeries.read

    def read(self: FolderSeries, path: Path) -> Any:
        nonlocal most
        prepared = original(self, path)
        alive.add(_Watched(prepared))
        most = max(most, len(alive))
        return prepared

    class _Watched:
        """Lives as long as the tensors that it hangs on."""

        def __init__(self, prepared: Any) -> None:
            object.__setattr__(prepared, "_watched", self)

    monkeypatch.setattr(FolderSeries, "read", read)
    done = run_collect(tmp_path, make_run(tmp_path, tiny_series, exclude=STEPS[count:]))
    assert len(done.collected) == count
    assert most == 1  # beside the resident model's own
    assert len(alive) == 0


def test_a_device_that_does_not_exist_is_refused_before_anything_is_written(tiny_series: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="device 'gpu9'"):
        run_collect(tmp_path, make_run(tmp_path, tiny_series, device="gpu9"))
    assert not (tmp_path / "traces").exists()


def test_a_checkpoint_with_a_missing_tensor_is_named(series: Path, tmp_path: Path) -> None:
    poison(series, 6, lambda tensors: tensors.pop("gpt_neox.layers.1.mlp.dense_h_to_4h.bias"))
    with pytest.raises(UserError, match=r"step 6: .*dense_h_to_4h.bias' is missing"):
        run_collect(tmp_path, make_run(tmp_path, series))
    done = run_collect(tmp_path, make_run(tmp_path, series), keep_going=True)
    assert done.failed.keys() == {6}
    assert issubclass(CheckpointError, UserError)


def test_going_on_with_other_weights_is_refused(tiny_series: Path, tmp_path: Path) -> None:
    series = tmp_path / "series"
    shutil.copytree(tiny_series, series)
    run_collect(tmp_path, make_run(tmp_path, series, exclude=[12]))
    shutil.copy(series / "step6/model.safetensors", series / "step0/model.safetensors")
    with pytest.raises(UserError, match="are not those that"):
        run_collect(tmp_path, make_run(tmp_path, series))
    assert Trace(tmp_path / "traces/mine.zarr").status[:2] == ["complete"] * 2


def test_a_series_that_was_moved_goes_on(tiny_series: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_series, tmp_path / "here")
    run_collect(tmp_path, make_run(tmp_path, tmp_path / "here", exclude=[12]))
    (tmp_path / "here").rename(tmp_path / "there")
    assert run_collect(tmp_path, make_run(tmp_path, tmp_path / "there")).collected == [12]
