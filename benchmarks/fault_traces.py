"""A small run with a trace, results and features, for faults to happen to; made in forked processes."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.fault_figures import forked

__all__ = ["NAME", "Made", "look", "snapshot"]

NAME = "faulty"
STEPS = 6


class Made:
    """Folders ``collected`` (all checkpoints but the last two), ``whole``, ``analysed`` and ``learned``, each with ``traces``.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["DYNAMICS_CACHE"] = str(folder / "cache")
        os.environ["HF_HUB_OFFLINE"] = "1"
        for module in (
            "transformers.models.gpt_neox.modeling_gpt_neox",
            "analyses.induction",
            "dynamics.measurements.forward",
            "dynamics.learning.learn",
            "dynamics.reporting.build",
        ):
            import_module(module)
        import_module("torch").set_num_threads(1)
        # laying figures out takes longer than all else
        import_module("dynamics.analysis.fitting").FittingLayout.execute = lambda self, fig: None
        # a commit made while this runs is no difference between traces
        import_module("dynamics.runs.resolve").__dict__["provenance"] = lambda: {"versions": {}, "commit": None}
        from checkpoints.organism import OrganismConfig, organism_folder, train

        config = OrganismConfig(steps=12, checkpoints=STEPS, layers=2, d_model=32, heads=2, batch=8)
        self._must(functools.partial(train, "faulty", config))
        self.series = organism_folder("faulty", config)
        steps = [0, 1, 2, 3, 6, 12]
        self._stage("collected", None, self.collect(exclude=steps[4:]))
        self._stage("whole", "collected", self.collect())
        self._stage("analysed", "whole", self.analyse)
        self._stage("learned", "analysed", self.learn)

    def run(self, **changes: Any) -> Any:
        """The run."""
        from dynamics.runs.config import Run

        dictionaries = {"main": {"corpus": {"kind": "probes"}, "features": 24, "k": 4, "steps": 10, "rows": 24, "batch": 64, "layer": 1, "context": 24}}  # fmt: skip
        content = {
            "series": {"kind": "folder", "path": str(self.series)},
            "analyses": [{"name": "induction", "options": {"prompts": 8, "period": 4}}, "shared_concepts"],
            "dictionaries": dictionaries,
            "device": "cpu",
        }
        return Run.model_validate(content | changes)

    def collect(self, **changes: Any) -> Callable[[Path], object]:
        """Collect into the folder ``traces`` of a folder."""
        return lambda at: self._verb("dynamics.collecting.rounds", "collect", at, **changes)

    def analyse(self, at: Path) -> object:
        """Run the analysis anew."""
        return import_module("dynamics.analyser").analyse(NAME, ["induction"], run=self.run(), traces=at / "traces")

    def report(self, at: Path) -> object:
        """Write the report."""
        return self._verb("dynamics.reporting.build", "report", at)

    def learn(self, at: Path) -> object:
        """Learn what is not learned yet."""
        return self._verb("dynamics.learning.learn", "learn", at)

    def rewrite(self, at: Path) -> object:
        """Write the features again, as learning does last."""
        from dynamics.store import FeatureTable, write_features, writer_lock

        trace = at / "traces" / f"{NAME}.zarr"
        table = FeatureTable(trace, "main")
        probes = {probe: table.read(probe).load() for probe in table.probes}
        with writer_lock(trace):
            write_features(trace, "main", table.about.load(), probes, table.settings)
        return None

    def copy(self, stage: str) -> Path:
        """A copy of a stage, in a folder of its own that is there once."""
        at = self.folder / "at"
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(self.folder / stage, at)
        return at

    def _verb(self, module: str, name: str, at: Path, **changes: Any) -> object:
        return getattr(import_module(module), name)(NAME, run=self.run(**changes), traces=at / "traces")

    def _stage(self, stage: str, before: str | None, work: Callable[[Path], object]) -> None:
        at = self.folder / stage
        if before is None:
            at.mkdir()
        else:
            shutil.copytree(self.folder / before, at)
        self._must(lambda: work(at))

    def _must(self, work: Callable[[], object]) -> None:
        ended = forked(work)
        if ended.code:
            raise RuntimeError(f"what nothing was done to failed:\n{ended.said[-2000:]}")


def look(at: Path) -> None:
    """Everything that reads a trace, in this process; what was measured must be readable, whatever became of the rest."""
    import xarray as xr

    from checkpoints.errors import UserError
    from dynamics import status, verify
    from dynamics.store import Trace, dictionaries_in, read_result

    path = at / "traces" / f"{NAME}.zarr"
    if not path.exists():
        return
    status(NAME, traces=at / "traces")
    trace = Trace(path)
    for probe in trace.probes:
        trace.probe(probe).load()
    dictionaries_in(trace), read_result(path, "induction")
    xr.open_datatree(path, engine="zarr").load()
    try:
        verify(NAME, traces=at / "traces")
    except UserError as error:
        if "no checkpoint" not in str(error):
            raise


def snapshot(at: Path) -> dict[str, str]:
    """Every file of the trace, and whatever is left beside it, with the sha256 of its content."""
    traces = at / "traces"
    return {
        str(p.relative_to(traces)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(traces.glob(f"{NAME}.zarr*/**/*"))
        if p.is_file()
    }
