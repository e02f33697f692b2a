"""The notebooks among the examples run cell by cell, and what a cell ends with can be shown."""

from __future__ import annotations

import ast
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import dynamics
from checkpoints.series import Checkpoint
from dynamics.runs.config import Run
from dynamics.store import Group, TraceDeclaration, TraceWriter, Variable
from tests.conftest import MadeOnce

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("notebook_*.py"))


@pytest.fixture(scope="module")
def collected(tiny_series: Path, made_once: MadeOnce) -> Path:
    """A folder with the trace of a tiny organism, and its results."""

    def make(folder: Path) -> None:
        analyses = [{"name": "addition", "options": {"per_context": 20, "pairs_per_context": 8, "exchanged": 4}}]
        run = Run.model_validate({"series": {"kind": "folder", "path": str(tiny_series)}, "analyses": analyses})
        dynamics.collect("organism", run=run, traces=folder / "traces")
        dynamics.analyse("organism", run=run, traces=folder / "traces")
        shutil.copytree(folder / "traces/organism.zarr", folder / "traces/organism-seed1.zarr")

    return made_once("notebooks", make)


@pytest.fixture
def beside(collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which the traces are."""
    (tmp_path / "traces").symlink_to(collected / "traces")
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    return tmp_path


def run_cells(notebook: Path) -> tuple[dict[str, Any], list[Any]]:
    """Run a script's cells as a notebook does: its names in the end, and what each cell of code ends with."""
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(notebook.read_text(encoding="utf-8").split("# %%")):
        code = ast.parse("" if cell.startswith(" [markdown]") else cell)
        last = code.body.pop() if code.body and isinstance(code.body[-1], ast.Expr) else None
        where = f"{notebook.name}, cell {number}"
        exec(compile(code, where, "exec"), names)
        if last is not None:
            assert isinstance(last, ast.Expr)
            shown.append(eval(compile(ast.Expression(last.value), where, "eval"), names))  # noqa: S307
    return names, shown


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_what_it_ends_with_is_shown(notebook: Path, beside: Path) -> None:
    import matplotlib.pyplot as plt

    try:
        _, shown = run_cells(notebook)
        assert shown
        assert all(getattr(value, "_repr_html_", value.__repr__)() for value in shown)
    finally:
        plt.close("all")


def test_there_are_three_and_the_figure_takes_ten_lines(beside: Path) -> None:
    import matplotlib.pyplot as plt

    assert [n.stem for n in NOTEBOOKS] == ["notebook_own_measure", "notebook_paper_figure", "notebook_seeds"]
    text = (EXAMPLES / "notebook_paper_figure.py").read_text(encoding="utf-8")
    (cell,) = [part for part in text.split("# %%") if "savefig" in part]
    assert len(cell.strip().splitlines()) <= 10
    try:
        names, _ = run_cells(EXAMPLES / "notebook_paper_figure.py")
        assert (beside / "onsets.pdf").read_bytes().startswith(b"%PDF")
        for key, ax in zip(names["first"], names["grid"].flat, strict=True):
            np.testing.assert_array_equal(ax.lines[0].get_ydata(), names["results"].finding(key).values)
    finally:
        plt.close("all")


def test_seeds_that_are_one_run_have_one_onset_and_no_order(beside: Path) -> None:
    import matplotlib.pyplot as plt

    try:
        names, shown = run_cells(EXAMPLES / "notebook_seeds.py")
    finally:
        plt.close("all")
    assert list(names["seeds"]) == ["organism-seed1", "organism"] or list(names["seeds"]) == [
        "organism",
        "organism-seed1",
    ]
    side_by_side = shown[0]
    assert isinstance(side_by_side, pd.DataFrame) and len(side_by_side) > 3
    states = side_by_side["state"]
    assert (states["organism"] == states["organism-seed1"]).all()
    assert len(names["shared"]) and np.allclose(names["earlier"], 0.5)


def test_the_measure_is_that_of_numpy_and_never_holds_more_than_a_few_slabs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace of 37 MB, of which a slab is a 48th: computed with less than a quarter of it in memory."""
    steps, prompts, layers, width = 12, 800, 4, 240
    rng = np.random.default_rng(0)
    sites = Variable(
        "resid_post",
        ("prompt", "position", "layer", "d_model"),
        (prompts, 1, layers, width),
        "activation",
        "activations",
        coords={"position": ("last",)},
    )
    group = Group("addition_sums", "", {"text": tuple(map(str, range(prompts)))}, (sites,))
    attributes = {"dtype": "float32", "tokenizer_digest": "t", "model_config": {}, "run": "r"}
    declaration = TraceDeclaration(
        checkpoints=tuple(Checkpoint(step, f"step{step}") for step in range(steps)),
        groups=(group,),
        attributes=attributes,
        trace_dtype="float32",
    )
    (tmp_path / "traces").mkdir()
    writer = TraceWriter(tmp_path / "traces/organism.zarr", declaration)
    first = None
    for index in range(steps - 1):  # the last one stays pending
        values = rng.normal(size=sites.shape).astype(np.float32) * rng.uniform(0.1, 3, width).astype(np.float32)
        first = values if first is None else first
        writer.write(index, "addition_sums", {"resid_post": values})
        writer.commit(index, digest=str(index), stored_dtype="float32")
    monkeypatch.chdir(tmp_path)
    whole = 4 * steps * prompts * layers * width
    mpl.use("agg")
    import matplotlib.pyplot as plt

    with dask.config.set(scheduler="synchronous"):
        run_cells(EXAMPLES / "notebook_own_measure.py")  # imports and fonts are no slabs
        tracemalloc.start()
        try:
            names, _ = run_cells(EXAMPLES / "notebook_own_measure.py")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            plt.close("all")
    assert peak < whole / 4, peak
    dimensions = names["dimensions"]
    assert dimensions.sizes == {"checkpoint": steps - 1, "layer": layers}
    assert first is not None
    expected = np.linalg.eigvalsh(np.cov(first[:, 0, 2].T))
    assert dimensions[0, 2].item() == pytest.approx(expected.sum() ** 2 / (expected**2).sum(), rel=1e-3)
    stored = names["stream"].data
    assert (
        max(np.prod(chunk) for chunk in np.array(np.meshgrid(*stored.chunks)).T.reshape(-1, stored.ndim)) * 4
        < whole / 10
    )
