"""Is a trace that many processes collected, and were killed at, the same as one process's, byte for byte?

Collects a tiny organism with one process. Then, trial by trial, starts many shards of it at once into one trace, kills them with
SIGKILL at random moments, and starts each anew until all have ended. Then every file of the trace is compared with the single
process's, and the journals say how often each checkpoint was completed.

    python -m benchmarks.shards --trials 100                  # 16 shards, 40 checkpoints
    python -m benchmarks.shards --trials 2 --shards 4 --checkpoints 8 --kills 6

Each process is forked from one that has imported everything and computed nothing, so that a restart is cheap.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.kill_resume import _compare, _finish, _fork, _snapshot

__all__ = ["trial", "trials"]

NAME = "shared"


def prepared(folder: Path, checkpoints: int) -> functools.partial[Any]:
    """Train the series in a process of its own, import what collecting needs, and return how to collect.

    Args:
        folder: for the cache and the probe.
        checkpoints: how many the series has.
    """
    os.environ["DYNAMICS_CACHE"] = str(folder / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module in (
        "transformers.models.gpt_neox.modeling_gpt_neox",
        "analyses.induction",
        "dynamics.measurements.forward",
    ):
        import_module(module)
    import_module("torch").set_num_threads(1)
    collecting = import_module("dynamics.collecting.rounds")
    from checkpoints.organism import OrganismConfig, organism_folder, train
    from dynamics.runs.config import Run

    config = OrganismConfig(steps=2 * checkpoints, checkpoints=checkpoints, layers=2, d_model=32, heads=2, batch=8)
    _finish(_fork(lambda: train(NAME, config)))
    series = {"kind": "folder", "path": str(organism_folder(NAME, config))}
    probe = folder / "sums.jsonl"
    lines = [json.dumps({"text": f"{a} + {a + 1} =", "answer": " 1"}) for a in range(10, 20)]
    probe.write_text("\n".join(lines), encoding="utf-8")
    analyses = [{"name": "induction", "options": {"prompts": 8, "period": 4, "pairs": 20}}]
    probes = {"sums": {"file": str(probe), "sites": ["resid_post"]}}
    run = Run.model_validate({"series": series, "analyses": analyses, "probes": probes, "device": "cpu"})
    # a commit made while this runs is no difference between traces
    import_module("dynamics.runs.resolve").__dict__["provenance"] = lambda: {"versions": {}, "commit": None}
    return functools.partial(collecting.collect, NAME, run=run)


def trial(
    collect: functools.partial[Any], traces: Path, shards: int, kills: int, gap: float, seed: int
) -> dict[str, Any]:
    """Start all shards at once, kill so many of them at random moments, start each anew until it ends.

    Args:
        collect: collects the run.
        traces: an empty folder.
        shards: how many.
        kills: how many processes are killed; with fewer running ones left, fewer.
        gap: mean seconds between two kills.
        seed: chooses whom and when.

    Returns:
        ``killed`` processes, those that ``failed`` (ended with an error), and ``seconds``.
    """
    moments = random.Random(seed)
    due = list(accumulate(moments.uniform(0, 2 * gap) for _ in range(kills)))

    def start(shard: int) -> int:
        return _fork(lambda: _quiet(traces, shard) or collect(traces=traces, shard=f"{shard}/{shards}"))

    traces.mkdir(parents=True)
    running = {start(shard): shard for shard in range(1, shards + 1)}
    began, killed, failed, waiting = time.perf_counter(), 0, 0, []
    while running or waiting:
        now = time.perf_counter() - began
        if due and now >= due[0] and running:
            due.pop(0)
            child = moments.choice(sorted(running))
            os.kill(child, signal.SIGKILL)
            killed += 1
        for child in list(running):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                shard, code = running.pop(child), os.waitstatus_to_exitcode(status)
                if code == -signal.SIGKILL:
                    waiting.append((now + moments.uniform(0, 0.3), shard))
                elif code:
                    failed += 1
        for entry in [e for e in waiting if e[0] <= now]:
            waiting.remove(entry)
            running[start(entry[1])] = entry[1]
        time.sleep(0.005)
    return {"killed": killed, "failed": failed, "seconds": time.perf_counter() - began}


def _quiet(traces: Path, shard: int) -> None:
    """What a process says goes into a file, which tells why it failed."""
    said = os.open(traces.parent / f"{traces.name}.{shard}.said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)


def looked_at(traces: Path, reference: dict[str, str], steps: list[int]) -> tuple[list[str], Counter[int]]:
    """Every difference from the single process's trace, and how often each step was completed by the journal."""
    from dynamics.store import Trace
    from dynamics.store.journal import read_journal

    path = traces / f"{NAME}.zarr"
    differences = _compare(reference, _snapshot(traces))
    found = Trace(path)
    if found.steps.tolist() != steps or not found.complete.all():
        differences.append(f"complete at {int(found.complete.sum())} of {len(steps)} checkpoints")
    return differences, Counter(e["step"] for e in read_journal(path) if e.get("event") == "complete")


def trials(count: int, shards: int, checkpoints: int, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Many trials; see the module.

    Args:
        count: how many.
        shards: processes of each.
        checkpoints: of the series.
        kills: of each trial.
        seed: of the first; each has its own.
        folder: an empty folder.
    """
    collect = prepared(folder, checkpoints)
    began = time.perf_counter()
    _finish(_fork(lambda: collect(traces=folder / "reference")))
    alone = time.perf_counter() - began
    reference = _snapshot(folder / "reference")
    from dynamics.store import Trace

    steps = Trace(folder / "reference" / f"{NAME}.zarr").steps.tolist()
    total: dict[str, Any] = {
        "trials": 0,
        "same": 0,
        "killed": 0,
        "failed": 0,
        "completed": 0,
        "twice": 0,
        "differences": [],
    }
    for number in range(count):
        traces = folder / f"trial{number}"
        found = trial(collect, traces, shards, kills, alone / kills, seed + number)
        differences, completed = looked_at(traces, reference, steps)
        total["trials"] += 1
        total["same"] += not differences and not found["failed"]
        for key in ("killed", "failed"):
            total[key] += found[key]
        total["completed"] += sum(completed.values())
        total["twice"] += sum(n > 1 for n in completed.values())
        said = [p.read_text()[-1500:] for p in folder.glob(f"{traces.name}.*.said") if found["failed"]]
        total["differences"] += [f"trial {number}: {line}" for line in [*differences[:10], *said]]
        print(
            f"trial {number}: {found['killed']} killed, {found['failed']} failed, {len(differences)} differences, "
            f"{found['seconds']:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if not differences and not found["failed"]:
            shutil.rmtree(traces)
    return total


def main() -> None:
    """Run it and print the result; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--checkpoints", type=int, default=40)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        found = trials(options.trials, options.shards, options.checkpoints, options.kills, options.seed, Path(folder))
        seconds = time.perf_counter() - began
    if options.json:
        print(json.dumps(found))
    else:
        for line in found["differences"]:
            print(line)
        print(
            f"{found['trials']} trials of {options.shards} shards and {options.checkpoints} checkpoints in {seconds:.0f} s: "
            f"{found['killed']} processes killed, {found['failed']} ended with an error; {found['same']} traces are byte for "
            f"byte that of one process; {found['completed']} checkpoints completed, {found['twice']} of them more than once"
        )
    sys.exit(found["same"] != found["trials"])


if __name__ == "__main__":
    main()
