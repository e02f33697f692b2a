"""A collection that was killed and resumed is the same, byte for byte, as one that never was.

The suite kills a few times; ``python benchmarks/kill_resume.py --kills 20`` (or ``DYNAMICS_KILLS=20``) kills more often.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dynamics.store import Trace
from tests.collecting.hub.publishing import REPO, STEPS, published, run
from tests.loopback import connected

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"
KILLS = int(os.environ.get("DYNAMICS_KILLS", "6"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_random_moments_and_resumed_every_file_is_that_of_an_uninterrupted_collection() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", str(KILLS), "--seed", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 10 * KILLS, check=False)
    assert done.returncode == 0, done.stderr[-2000:] or done.stdout[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["differences"] == []
    assert len(result["kills"]) == KILLS
    # it did kill in the middle: some work was there, and some was not
    assert any(kill["complete"] or kill["half_written"] for kill in result["kills"])
    assert any(kill["complete"] < 6 for kill in result["kills"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_anywhere_while_its_trace_grows_and_resumed_it_is_that_of_an_uninterrupted_growth() -> None:
    command = [sys.executable, str(SCRIPT), "--growing", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:] or done.stdout[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["differences"] == []
    kills = {kill["at"]: kill["checkpoints"] for kill in result["kills"]}
    # a reader saw the old trace until all of the new one was there
    assert kills["replace_bytes 7"] == kills["rewrite 1"] == 3
    assert kills["TraceWriter.commit 1"] == 6


COLLECT = """
import sys
from importlib import import_module
from pathlib import Path
from dynamics.runs.config import Run
import dynamics
import_module("dynamics.runs.resolve").__dict__["provenance"] = lambda: {"versions": {}, "commit": None}
done = dynamics.collect("x", run=Run.model_validate_json(Path(sys.argv[1]).read_text()), traces=Path(sys.argv[2]))
sys.exit(bool(done.failed))
"""


def test_killed_in_the_middle_of_a_download_it_goes_on_at_that_byte(tmp_path: Path) -> None:
    with connected(tmp_path) as hub:
        published(hub, tmp_path)
        wanted = tmp_path / "run.json"
        few = tuple(s for s in STEPS if s > 64)
        wanted.write_text(run(tmp_path).model_copy(update={"exclude": few}).model_dump_json())

        def command(traces: str, cache: str) -> subprocess.Popen[bytes]:
            environment = os.environ | {"DYNAMICS_CACHE": str(tmp_path / cache), "OMP_NUM_THREADS": "1"}
            arguments = [sys.executable, "-c", COLLECT, str(wanted), str(tmp_path / traces)]
            return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE)

        def finished(process: subprocess.Popen[bytes]) -> None:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said.decode()[-2000:]

        finished(command("whole", "whole-cache"))
        whole = snapshot(tmp_path / "whole")

        hub.stall(REPO, "step32", "model.safetensors", after=40_000)
        commit = hub.repo(REPO).branches["step32"]
        (part,) = [tmp_path / f"cache2/hub/lab--tiny-pythia/commits/{commit}/model.safetensors.part"]
        process = command("killed", "cache2")
        trace = tmp_path / "killed" / "x.zarr"
        try:
            until(lambda: part.is_file() and part.stat().st_size > 0 and "complete" in states(trace))
        finally:
            process.kill()
            process.communicate()
        have = part.stat().st_size
        assert 0 < have <= 40_000
        assert states(trace).count("complete") < len(STEPS) - len(few)
        hub.heal()
        before = len(hub.requests)
        finished(command("killed", "cache2"))
        asked = [r for r in hub.requests[before:] if commit in r.path and "/lfs/" in r.path]
        assert [r.headers.get("range") for r in asked] == [f"bytes={have}-"]
        assert snapshot(tmp_path / "killed") == whole
        assert not list((tmp_path / "cache2").rglob("*.safetensors*"))


def states(trace: Path) -> list[str]:
    return Trace(trace).status if trace.exists() else []


def until(there: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def snapshot(traces: Path) -> dict[str, bytes]:
    """Every file of the traces in a folder, without journal and lock."""
    return {str(p.relative_to(traces)): p.read_bytes() for p in sorted(traces.rglob("*")) if p.is_file() and p.suffix not in (".jsonl", ".lock")}  # fmt: skip
