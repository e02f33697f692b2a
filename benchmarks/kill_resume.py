"""Is a collection that was killed and resumed the same, byte for byte, as one that never was?

Collects a tiny organism once without interruption. Then collects it again and again into other folders, killing the
process with SIGKILL at a random moment and starting it anew, until it finishes; every file of the finished traces is
compared with the uninterrupted one's. Only the journal, which tells when what happened, may differ.

    python benchmarks/kill_resume.py --kills 20
    python benchmarks/kill_resume.py --growing

Each process is forked from one that has imported everything and computed nothing, so that a restart is cheap.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["Kill", "kill_and_resume", "kill_while_growing"]

Kill = dict[str, Any]
"""What was there at one kill: ``after`` (seconds) or ``at`` (a call), ``complete`` checkpoints, whether one was
``half_written``; how many ``checkpoints`` a growing trace had."""


def kill_and_resume(kills: int, folder: Path, *, seed: int = 0) -> tuple[list[Kill], list[str]]:
    """Kill ``kills`` times; returns what was there at each kill, and every difference found (none is the claim).

    Args:
        kills: how many processes to kill; collections that finish first do not count.
        folder: an empty folder for weights and traces.
        seed: chooses the moments.
    """
    os.environ["DYNAMICS_CACHE"] = str(folder / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    collect = _prepared(folder)
    started = time.perf_counter()
    _finish(_fork(lambda: collect(traces=folder / "reference")))
    whole = time.perf_counter() - started
    reference = _snapshot(folder / "reference")
    moments = random.Random(seed)
    found: list[Kill] = []
    differences: list[str] = []
    attempt = 0
    while len(found) < kills:
        attempt += 1
        traces = folder / f"attempt{attempt}"
        while len(found) < kills:
            delay = moments.uniform(0, whole)
            child = _fork(lambda traces=traces: collect(traces=traces))  # type: ignore[misc]
            if not _kill(child, delay):
                break
            found.append({"after": round(delay, 3)} | _look(traces / "killed.zarr"))
        _finish(_fork(lambda traces=traces: collect(traces=traces)))  # type: ignore[misc]
        differences += [f"{traces.name}: {line}" for line in _compare(reference, _snapshot(traces))]
    return found, differences


def kill_while_growing(folder: Path) -> tuple[list[Kill], list[str]]:
    """Kill a collection at every step of making a trace longer, and in the first checkpoint after; see above.

    Args:
        folder: an empty folder for weights and traces.
    """
    os.environ["DYNAMICS_CACHE"] = str(folder / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    collect = _prepared(folder)
    series = Path(collect.keywords["run"].series.path)  # type: ignore[attr-defined]
    later = sorted((p for p in series.glob("step*")), key=lambda p: int(p.name.removeprefix("step")))[3:]
    (folder / "later").mkdir()
    for place in later:
        place.rename(folder / "later" / place.name)
    _finish(_fork(lambda: collect(traces=folder / "short")))
    for place in later:
        (folder / "later" / place.name).rename(place)
    for name in ("reference", *(f"at{n}" for n in range(len(_GROWING)))):
        shutil.copytree(folder / "short", folder / name)
    _finish(_fork(lambda: collect(traces=folder / "reference")))
    reference = _snapshot(folder / "reference")
    found: list[Kill] = []
    differences: list[str] = []
    for number, (module, name, call) in enumerate(_GROWING):
        traces = folder / f"at{number}"
        child = _fork(lambda t=traces, m=module, n=name, c=call: _kill_at(m, n, c) or collect(traces=t))  # type: ignore[misc]
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            raise RuntimeError(f"call {call} of {name} did not come")
        # whoever reads meanwhile finds the old trace or the new one
        steps = import_module("dynamics.store").Trace(traces / "killed.zarr").steps.tolist()
        found.append({"at": f"{name} {call}", "checkpoints": len(steps)} | _look(traces / "killed.zarr"))
        _finish(_fork(lambda t=traces: collect(traces=t)))  # type: ignore[misc]
        differences += [f"{traces.name}: {line}" for line in _compare(reference, _snapshot(traces))]
    return found, differences


_GROWING = (
    *(("dynamics.store.create", "replace_bytes", call) for call in (3, 7, 20)),
    ("zarr", "Array.__setitem__", 1),
    ("dynamics.store.create", "rewrite", 1),
    *(("dynamics.store.manifest", "replace_bytes", call) for call in (1, 2)),
    ("dynamics.store.create", "os.replace", 1),
    ("dynamics.store.writer", "TraceWriter.commit", 1),
)
"""Where to kill: module, function, and before which of its calls."""


def _kill_at(module: str, name: str, call: int) -> None:
    """From now on this process kills itself before that call."""
    owner: Any = import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), itertools.count(1)

    def counted(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, last, counted)


def _prepared(folder: Path) -> functools.partial[object]:
    """Train the series in a process of its own, import what collecting needs, and return how to collect."""
    for module in (
        "transformers.models.gpt_neox.modeling_gpt_neox",
        "analyses.induction",
        "dynamics.measurements.forward",
    ):
        import_module(module)
    import_module("torch").set_num_threads(1)  # small models, and whoever else computes on this machine
    collecting = import_module("dynamics.collecting.rounds")
    from checkpoints.organism import OrganismConfig, organism_folder, train
    from dynamics.runs.config import Run

    config = OrganismConfig(steps=12, checkpoints=6, layers=2, d_model=32, heads=2, batch=8)
    _finish(_fork(lambda: train("killed", config)))
    probe = folder / "sums.jsonl"
    lines = [json.dumps({"text": f"{a} + {a + 1} =", "answer": " 1"}) for a in range(10, 40)]
    probe.write_text("\n".join(lines), encoding="utf-8")
    run = Run.model_validate(
        {
            "series": {"kind": "folder", "path": str(organism_folder("killed", config))},
            "analyses": [{"name": "induction", "options": {"prompts": 8, "period": 4, "pairs": 20}}],
            "probes": {"sums": {"file": str(probe), "sites": ["resid_pre", "resid_post", "attn_out", "mlp_out"]}},
            "device": "cpu",
        }
    )
    # a commit made while this runs is no difference between traces
    import_module("dynamics.runs.resolve").__dict__["provenance"] = lambda: {"versions": {}, "commit": None}
    return functools.partial(collecting.collect, "killed", run=run)


def _fork(work: Callable[[], object]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def _finish(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError("a process that nobody killed failed (its error is above)")


def _kill(child: int, delay: float) -> bool:
    """Kill after ``delay`` seconds; False if it had finished by then."""
    deadline = time.perf_counter() + delay
    while time.perf_counter() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status):
                raise RuntimeError("a resumed collection failed (its error is above)")
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _look(trace: Path) -> Kill:
    complete = {p.name for p in (trace / "status/c").glob("*")}
    begun = {p.name for p in trace.glob("*/*/c/*") if p.parent.parent.name in ("resid_post", "token_loss", "entropy")}
    return {"complete": len(complete), "half_written": bool(begun - complete)}


def _snapshot(traces: Path) -> dict[str, str]:
    """Every file below the folder but the journal and the lock, with the sha256 of its content."""
    return {
        str(p.relative_to(traces)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(traces.rglob("*"))
        if p.is_file() and not p.name.endswith((".journal.jsonl", ".zarr.lock"))
    }


def _compare(reference: dict[str, str], other: dict[str, str]) -> list[str]:
    lines = [f"{name} is missing" for name in sorted(reference.keys() - other.keys())]
    lines += [f"{name} is extra" for name in sorted(other.keys() - reference.keys())]
    return lines + [f"{n} differs" for n in sorted(reference.keys() & other.keys()) if reference[n] != other[n]]


def main() -> None:
    """Run it and print the result; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--growing", action="store_true", help="kill at every step of making a trace longer instead")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        if options.growing:
            kills, differences = kill_while_growing(Path(folder))
        else:
            kills, differences = kill_and_resume(options.kills, Path(folder), seed=options.seed)
        seconds = time.perf_counter() - started
    if options.json:
        print(json.dumps({"kills": kills, "differences": differences, "seconds": round(seconds, 1)}))
    else:
        for kill in kills:
            half = ", one half written" if kill["half_written"] else ""
            when = f"before {kill['at']}" if options.growing else f"after {kill['after']:.3f} s"
            print(f"killed {when}: {kill['complete']} checkpoints complete{half}")
        for line in differences:
            print(line)
        verdict = f"{len(differences)} differences" if differences else "every file equals the uninterrupted trace's"
        print(f"{len(kills)} kills in {seconds:.0f} s: {verdict}")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
