"""A small run with a trace, results and features, for faults to happen to; made in forked processes.

One layer, four checkpoints, four prompts: what is written is written in the way of any trace, and in so few files that every
single change of one can be tried.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.fault_figures import forked

__all__ = ["NAME", "Made", "snapshot", "workplace"]

NAME = "faulty"
ANALYSIS = "examples.own_analysis"
DICTIONARY = "made"
STEPS = (0, 1, 2, 4)
MEMORY = Path("/dev/shm")
"""Thousands of small files are faster there than on a disk."""


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder, in memory where the system has such a place."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="faults-", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Made:
    """Folders of stages, each with ``traces``: ``nothing``, ``collected`` (half of the checkpoints), ``whole``, ``analysed``,
    ``learned`` (with features) and ``damaged`` (a slab and a result are not what was written).

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["DYNAMICS_CACHE"] = str(folder / "cache")
        os.environ["HF_HUB_OFFLINE"] = "1"
        for module in (
            "transformers.models.gpt_neox.modeling_gpt_neox",
            ANALYSIS,
            "dynamics.collecting.rounds",
            "dynamics.collecting.verifying",
            "dynamics.measurements.forward",
            "dynamics.reporting.build",
        ):
            import_module(module)
        import_module("torch").set_num_threads(1)
        # laying figures out takes longer than all else
        import_module("dynamics.analysis.fitting").FittingLayout.execute = lambda self, fig: None
        # a change of the program while this runs is no difference between traces
        import_module("dynamics.analyser").__dict__["code_digest"] = lambda modules: ""
        import_module("dynamics.runs.resolve").__dict__["provenance"] = lambda: {"versions": {}, "commit": None}
        from checkpoints.organism import OrganismConfig, organism_folder, train

        config = OrganismConfig(steps=STEPS[-1], checkpoints=len(STEPS), layers=1, d_model=16, heads=2, batch=4)
        self._must(functools.partial(train, "faulty", config))
        self.series = organism_folder("faulty", config)
        sums = [{"text": f"2 + {n} =", "answer": f" {n + 2}", "foil": " 9"} for n in range(1, 5)]
        self.prompts = folder / "prompts.jsonl"
        self.prompts.write_text("\n".join(map(json.dumps, sums)), encoding="utf-8")
        self._stage("nothing", None, lambda at: (at / "traces").mkdir())
        self._stage("collected", "nothing", self.collect(exclude=STEPS[2:]))
        self._stage("whole", "collected", self.collect())
        self._stage("analysed", "whole", self.analyse)
        self._stage("learned", "analysed", _learn)
        self._stage("damaged", "learned", _damage)

    def run(self, **changes: Any) -> Any:
        """The run."""
        from dynamics.runs.config import Run

        content = {
            "series": {"kind": "folder", "path": str(self.series)},
            "probes": {"prompts": {"file": str(self.prompts), "sites": ["resid_post"]}},
            "analyses": [ANALYSIS],
            "device": "cpu",
        }
        return Run.model_validate(content | changes)

    def collect(self, **changes: Any) -> Callable[[Path], object]:
        """Collect into the folder ``traces`` of a folder."""
        return lambda at: self._verb("dynamics.collecting.rounds", "collect", at, **changes)

    def analyse(self, at: Path) -> object:
        """Run the analysis anew."""
        return self._verb("dynamics.analyser", "analyse", at)

    def report(self, at: Path) -> object:
        """Write the report."""
        return self._verb("dynamics.reporting.build", "report", at)

    def repair(self, at: Path) -> object:
        """Measure and derive again what is damaged."""
        function = import_module("dynamics.collecting.verifying").verify
        return function(NAME, run=self.run(), traces=at / "traces", repair=True)

    def rewrite(self, at: Path) -> object:
        """Write the features again, as learning does last."""
        from checkpoints.errors import stopped_by_disk
        from dynamics.store import FeatureTable, write_features, writer_lock
        from dynamics.store.derived import sweep_derived

        trace = _trace(at)
        with stopped_by_disk(f"features of {trace}"), writer_lock(trace):
            sweep_derived(trace)  # what a killed writer took out is put back by the next one
            table = FeatureTable(trace, DICTIONARY)
            probes = {probe: table.read(probe).load() for probe in table.probes}
            write_features(trace, DICTIONARY, table.about.load(), probes, table.settings)
        return None

    def look(self, at: Path, *, damaged: bool = False) -> None:
        """Everything that reads a trace, in this process; what was measured must be readable, whatever became of the rest.

        Args:
            at: the folder.
            damaged: whether something of it was damaged before: then what cannot be read has to say how it is mended.
        """
        import xarray as xr

        from checkpoints.errors import UserError
        from dynamics import status, verify
        from dynamics.store import Trace, dictionaries_in, read_result

        path = _trace(at)
        if not path.exists():
            return
        status(NAME, run=self.run(), traces=at / "traces")
        trace = Trace(path)
        for probe in trace.probes:
            try:
                trace.probe(probe).load()
            except UserError as error:
                if not damaged or "--repair" not in str(error):
                    raise
        dictionaries_in(trace), read_result(path, ANALYSIS)
        if not damaged:
            xr.open_datatree(path, engine="zarr").load()
        try:
            verify(NAME, run=self.run(), traces=at / "traces")
        except UserError as error:
            if "no checkpoint" not in str(error):
                raise

    def copy(self, stage: str) -> Path:
        """A copy of a stage, in a folder of its own that is there once."""
        at = self.folder / "at"
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(self.folder / stage, at)
        return at

    def _verb(self, module: str, name: str, at: Path, **changes: Any) -> object:
        return getattr(import_module(module), name)(NAME, run=self.run(**changes), traces=at / "traces")

    def _stage(self, stage: str, before: str | None, work: Callable[[Path], object]) -> None:
        at = self.folder / "at"  # whose path a run may note
        shutil.rmtree(at, ignore_errors=True)
        if before is None:
            at.mkdir()
        else:
            shutil.copytree(self.folder / before, at)
        self._must(lambda: work(at))
        at.rename(self.folder / stage)

    def _must(self, work: Callable[[], object]) -> None:
        ended = forked(work)
        if ended.code:
            raise RuntimeError(f"what nothing was done to failed:\n{ended.said[-2000:]}")


def _trace(at: Path) -> Path:
    return at / "traces" / f"{NAME}.zarr"


def _learn(at: Path) -> None:
    """Features of two that nobody learned: they are written as any are."""
    import numpy as np
    import xarray as xr

    from dynamics.store import write_features, writer_lock

    about = xr.Dataset({"fvu": ("snapshot", np.linspace(1, 0, len(STEPS)))}, coords={"snapshot": list(STEPS)})
    about = about.assign(alive=("feature", [True, False]))
    dims = ("snapshot", "position", "prompt", "rank")
    read = xr.Dataset(
        {"index": (dims[1:], np.zeros((1, 4, 1), "int32")), "activation": (dims, np.ones((4, 1, 4, 1), "float32"))},
        coords={"position": ["last"]},
    )
    settings = {"method": "crosscoder", "site": "resid_post", "layer": 0, "joint": True, "key": "k"}
    with writer_lock(_trace(at)):
        write_features(_trace(at), DICTIONARY, about, {"prompts": read}, settings)


def _damage(at: Path) -> None:
    chunk = next(p for p in sorted((_trace(at) / "prompts/resid_post/c/2").rglob("*")) if p.is_file())
    chunk.write_bytes(b"another")
    (_trace(at) / "results" / ANALYSIS / "zarr.json").write_bytes(b"{")


def snapshot(at: Path) -> dict[str, str]:
    """Every file of the trace, and whatever is left beside it, with the sha256 of its content."""
    traces = at / "traces"
    return {
        str(p.relative_to(traces)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(traces.glob(f"{NAME}.zarr*/**/*"))
        if p.is_file()
    }
