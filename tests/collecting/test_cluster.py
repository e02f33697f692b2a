"""A cluster of dask collects the trace of one process, also where workers are killed; without one, nothing of it is imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dynamics
from checkpoints.errors import UserError
from dynamics.collecting.cluster import cluster_client, collect_on_cluster
from dynamics.progress import Reporter
from dynamics.runs.config import Run
from dynamics.store.claims import shards_folder
from tests.collecting.test_shards import files_in, run_of

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers, for all tests here."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with cluster_client(2, None, QUIET) as found:
            yield found


@pytest.fixture(autouse=True)
def _one_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamics.runs.resolve.provenance", lambda: {"versions": {}, "commit": None, "dirty": None})


@pytest.mark.slow
def test_two_workers_make_the_trace_of_one_process(client: Any, tiny_series: Path, tmp_path: Path) -> None:
    run = run_of(tiny_series)
    done = collect_on_cluster(client, "x", run, traces=tmp_path / "two", reporter=QUIET)
    assert sorted(done.collected) == dynamics.collect("x", run=run, traces=tmp_path / "one").collected
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")
    assert not shards_folder(tmp_path / "two/x.zarr").exists()
    again = collect_on_cluster(client, "x", run, traces=tmp_path / "two", reporter=QUIET)
    assert (again.collected, len(again.already)) == ([], 6)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_checkpoint_only(client: Any, tiny_series: Path, tmp_path: Path) -> None:
    run, trace = run_of(tiny_series), tmp_path / "two/x.zarr"
    killed = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any(shards_folder(trace).glob("claims/[0-9]*.*")):
            time.sleep(0.02)
        pids = client.run(os.getpid, nanny=False)
        os.kill(victim := sorted(pids.values())[0], signal.SIGKILL)
        killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    done = collect_on_cluster(client, "x", run, traces=tmp_path / "two", reporter=QUIET)
    killer.join()
    assert killed
    assert len(done.collected) >= 5  # a checkpoint may have been ended just before its worker died
    assert dynamics.Trace(trace).complete.all()
    dynamics.collect("x", run=run, traces=tmp_path / "one")
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")


@pytest.mark.slow
def test_an_error_on_a_worker_is_told_as_one_here(client: Any, tiny_series: Path, tmp_path: Path) -> None:
    run = run_of(tiny_series)
    raw = run.model_dump(mode="json")
    other = Run.model_validate({**raw, "device": "cpu"})
    wrong = other.model_copy(update={"device": "cuda:99"})
    with pytest.raises(UserError, match="device 'cuda:99' cannot be used"):
        collect_on_cluster(client, "x", wrong, traces=tmp_path, reporter=QUIET)


def test_nobody_at_an_address_is_an_error(tiny_series: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scheduler answers at nowhere:1x"):
        dynamics.collect("x", run=run_of(tiny_series), traces=tmp_path, scheduler="nowhere:1x")


def test_two_ways_at_once_are_refused(tiny_series: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shard and workers together"):
        dynamics.collect("x", run=run_of(tiny_series), traces=tmp_path, shard="1/2", workers=2)


def test_without_the_extra_the_error_names_it(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="the package `distributed` is not installed") as caught:
        dynamics.collect("x", run=run_of(tiny_series), traces=tmp_path, workers=2)
    assert "circuit-dynamics[cluster]" in caught.value.remedy


ONE = """
import sys
from pathlib import Path
import dynamics
from dynamics.runs.config import Run
for number, shard in enumerate((None, "1/2")):
    run = Run.model_validate_json(Path(sys.argv[1]).read_text())
    dynamics.collect("x", run=run, traces=f"{sys.argv[2]}/{number}", shard=shard)
    loaded = [name for name in sys.modules if name.partition(".")[0] in ("distributed", "tornado", "bokeh")]
    assert not loaded, (shard, loaded)
"""


@pytest.mark.slow
def test_one_process_imports_nothing_of_a_cluster(tiny_series: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(run_of(tiny_series).model_dump_json())
    command = [sys.executable, "-c", ONE, str(tmp_path / "run.json"), str(tmp_path / "traces")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
