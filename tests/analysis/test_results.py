"""Results as a user reads them: by name, as a table, as arrays, as curves, in a notebook."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import dynamics
from checkpoints.errors import UnknownNameError, UserError
from dynamics.analysis.findings import Finding
from dynamics.analysis.results import Results
from dynamics.analysis.section import Summary
from dynamics.analysis.tables import COLUMNS, CURVES, findings_dataset
from dynamics.emergence import Emergence, Interval
from dynamics.store import write_result, writer_lock
from dynamics.store.damage import trace_damage
from tests.store.declared import declare, fill

STEPS = (0, 10, 200)
ARCHIVE = Path(__file__).parents[1] / "store/archives/version-2.zip"
"""What version 2 wrote of ``trace`` before results held arrays."""
HOSTILE = '<script>alert("1")</script>'


def found(key: str, emergence: Emergence, *, title: str = "", headline: bool = True, **others: Any) -> Finding:
    curve: dict[str, Any] = {
        "values": (0.1, 0.2, 0.9),
        "low": (0.0, 0.1, 0.8),
        "high": (0.2, 0.3, math.nan),
        "null_mean": (0.1, 0.1, 0.1),
    }
    content = curve | others
    return Finding(key, title or key, "accuracy", "prompts", headline, STEPS, emergence=emergence, **content)


BOUND = (0.3, 0.3, 0.3)
EMERGED = Emergence(
    "emerged",
    "chance",
    BOUND,
    onset=Interval(10, 200),
    onset_range=Interval(0, 200),
    onset_tokens=(1000, 20_000),
    midpoint=60.5,
    completion=Interval(10, None),
    confidence=0.75,
)
SUMMARY = Summary(
    "made",
    f"Made {HOSTILE}",
    "When?",
    (
        found("made.up", EMERGED, title=f"up {HOSTILE}", onset_by=(200.0, math.inf, math.nan), holds=0.5),
        found("made.first", Emergence("present from start", "chance", BOUND, onset=Interval(None, 0))),
        found("made.never", Emergence("not emerged", "chance", BOUND, onset=Interval(200, None)), headline=False),
        found(
            "made.none",
            Emergence("not measurable", "chance", (), reason="too few prompts"),
            values=(math.nan,) * 3,
            headline=False,
        ),
    ),
    notes=(f"a note {HOSTILE}",),
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace with two of three checkpoints, and the results of one analysis."""
    path = tmp_path / "t.zarr"
    attributes = {"dtype": "float32", "tokenizer_digest": "t", "model_config": {"layers": 3}, "run": "r"}
    run = {"analyses": [{"name": "made", "options": {}}], "probes": {}}
    fill(path, declare(attributes=attributes | {"run_config": run}))
    store(path, SUMMARY, [0, 200])
    return path


def store(path: Path, summary: Summary, complete: list[int]) -> None:
    inputs = {"complete": complete, "fingerprint": dynamics.Trace(path).attributes["fingerprint"]}
    with writer_lock(path):
        data = xr.Dataset({"by_layer": (("checkpoint",), np.arange(3.0))}, coords={"step": ("checkpoint", list(STEPS))})
        said = {"inputs": inputs, "summary": summary.to_json()}
        write_result(path, summary.analysis, data, said, findings_dataset(summary.findings, STEPS))


def test_what_is_stored_is_what_was_found(trace: Path) -> None:
    results = dynamics.open_results(trace)
    assert list(results) == ["made"] and len(results) == 1
    assert results["made"].to_json() == SUMMARY.to_json()
    assert [f.key for f in results.headlines] == ["made.up", "made.first"]
    assert results.finding("made.up") == results["made"].finding("up") == results["made"].finding("made.up")
    assert (results.name, results.path, results.outdated) == ("t", trace, ())
    assert results["made"].data.by_layer.sel(step=10).item() == 1


def test_results_that_are_older_than_the_trace_say_so(trace: Path) -> None:
    store(trace, SUMMARY, [0])
    results = dynamics.open_results(trace)
    assert results.outdated == ("made",)
    assert "older than the trace: made (dynamics analyse t makes them anew)" in repr(results)
    assert "older than the trace: made" in results._repr_html_()


def test_results_that_cannot_be_read_are_listed(trace: Path) -> None:
    with writer_lock(trace):
        write_result(trace, "odd", xr.Dataset({"x": (("n",), np.zeros(1))}), {"inputs": {}, "summary": {}})
    results = dynamics.open_results(trace)
    assert list(results) == ["made"] and (results.outdated, results.unread) == ((), ("odd",))
    assert "cannot be read: odd (dynamics analyse t makes them anew)" in repr(results)


def test_the_table_has_numbers_and_nan_where_an_interval_is_open(trace: Path) -> None:
    table = dynamics.open_results(trace).to_dataframe()
    assert list(table.columns) == list(COLUMNS) and table.index.name == "finding"
    up = table.loc["made.up"]
    assert (up.onset_after, up.onset_by, up.onset_low, up.onset_high) == (10.0, 200.0, 0.0, 200.0)
    assert (up.tokens_after, up.tokens_by, up.midpoint, up.confidence, up.holds) == (1000, 20_000, 60.5, 0.75, 0.5)
    assert up.completion_after == 10 and math.isnan(up.completion_by)
    assert (up.null, up.metric, up.unit, up.null_final) == ("chance", "accuracy", "prompts", 0.3)
    first, never = table.loc["made.first"], table.loc["made.never"]
    assert math.isnan(first.onset_after) and first.onset_by == 0  # it was there before the first checkpoint
    assert never.onset_after == 200 and math.isnan(never.onset_by)  # nor is it known to have come later
    assert table.onset_by.dtype == float and table.headline.dtype == bool
    assert table[table.headline].sort_values("onset_by").index.tolist() == ["made.first", "made.up"]
    assert table.equals(dynamics.open_results(trace)["made"].to_dataframe())


def test_arrays_have_every_curve_and_every_onset(trace: Path) -> None:
    arrays = dynamics.open_results(trace).to_xarray()
    assert set(CURVES) <= set(arrays.data_vars)
    assert all(arrays[name].dims == ("finding", "checkpoint") for name in CURVES)
    assert arrays.value.sel(finding="made.up", step=200).item() == 0.9
    assert math.isnan(arrays.high.sel(finding="made.up", step=200).item())
    assert arrays.null_upper.sel(finding="made.first").values.tolist() == list(BOUND)
    assert arrays.null_upper.sel(finding="made.none").isnull().all()
    assert arrays.onset_by.sel(finding="made.up").item() == 200 and arrays.onset_by.dims == ("finding",)
    draws = arrays.onset_draw.sel(finding="made.up").values
    assert draws[:2].tolist() == [200, math.inf] and math.isnan(draws[2])
    assert arrays.state.values.tolist() == ["emerged", "present from start", "not emerged", "not measurable"]
    assert arrays.title.dims == ("finding",) and "title" in arrays.coords
    assert all(array.attrs["long_name"] for array in arrays.data_vars.values())


def test_xarray_alone_finds_every_curve_and_onset_in_the_trace(trace: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_datatree(trace, engine="zarr") as tree:
            stored = tree["results/made/findings"].to_dataset().load().set_xindex("step")
    xr.testing.assert_equal(stored.astype(object), dynamics.open_results(trace).to_xarray().astype(object))
    assert stored.value.sel(finding="made.up", step=200) == 0.9 and stored.value.attrs["long_name"] == "the curve"
    assert dynamics.open_trace(trace)["results/made/findings"].onset_by.sel(finding="made.up") == 200


def test_results_of_an_older_program_are_read_without_them(tmp_path: Path) -> None:
    zipfile.ZipFile(ARCHIVE).extractall(path := tmp_path / "t.zarr")
    results = dynamics.open_results(path)
    assert results["made"].to_json() == SUMMARY.to_json() and (results.outdated, results.unread) == ((), ())
    assert trace_damage(path) == [] and "findings" not in dynamics.open_trace(path)["results/made"].children
    store(path, SUMMARY, [0, 200])
    assert "findings" in dynamics.open_trace(path)["results/made"].children


def test_arrays_can_be_of_the_checkpoints_of_a_trace() -> None:
    """A finding of other steps, which an analysis may make, must not keep the whole trace from being opened."""
    arrays = findings_dataset([SUMMARY.findings[0]], (10, 30))
    assert arrays.step.values.tolist() == [10, 30]
    np.testing.assert_equal(arrays.value.values, [[0.2, math.nan]])


def test_findings_of_other_checkpoints_are_aligned_by_step() -> None:
    other = Finding("b.x", "x", "", "", True, (10, 30), (1.0, 2.0), *[(math.nan,) * 2] * 3, EMERGED)
    both = Results([SUMMARY, Summary("b", "B", "", (other,))], path="t.zarr").to_xarray()
    assert both.step.values.tolist() == [0, 10, 30, 200]
    np.testing.assert_array_equal(both.value.sel(finding="b.x"), [np.nan, 1, 2, np.nan])
    np.testing.assert_array_equal(both.value.sel(finding="made.up"), [0.1, 0.2, np.nan, 0.9])


def test_arrays_are_written_and_read_without_a_warning(trace: Path, tmp_path: Path) -> None:
    arrays = dynamics.open_results(trace).to_xarray()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arrays.to_zarr(tmp_path / "found.zarr", consolidated=False)
        again = xr.open_zarr(tmp_path / "found.zarr", consolidated=False).load()
    xr.testing.assert_equal(again.drop_vars("step"), arrays.drop_vars("step"))


@pytest.mark.parametrize("shown", ["results", "summary", "finding", "trace"])
def test_hostile_text_is_text_in_a_notebook_and_in_a_terminal(shown: str, trace: Path) -> None:
    results = dynamics.open_results(trace)
    thing: Any = {
        "results": results,
        "summary": results["made"],
        "finding": results.finding("made.up"),
        "trace": dynamics.Trace(trace),
    }[shown]
    page = thing._repr_html_()
    assert "<script" not in page and page.startswith('<div class="cd-box">')
    assert shown == "trace" or "&lt;script&gt;" in page
    assert "\x1b" not in repr(Summary("a\x1b[2J", "", "", (found("a\x1b[2J.b", EMERGED),)))


def test_a_row_has_state_onset_range_and_a_curve(trace: Path) -> None:
    page = dynamics.open_results(trace)["made"]._repr_html_()
    assert page.count("<svg") == 4
    for text in (
        "emerged",
        "fragile",
        "(10, 200]",
        "(0, 200]",
        "present from start",
        "≤ 0",
        "0.90 (0.30)",
        "2 more findings",
    ):
        assert text in page, text
    assert "no value" in page  # a curve that was not measured
    assert "too few prompts" in dynamics.open_results(trace).finding("made.none")._repr_html_()


def test_text_is_short(trace: Path) -> None:
    results = dynamics.open_results(trace)
    assert repr(results.finding("made.up")) == "Finding('made.up': emerged (10, 200], 95% (0, 200], fragile)"
    assert repr(results.finding("made.never")) == "Finding('made.never': not emerged)"
    assert repr(results["made"]).splitlines()[0] == "Summary('made': 4 findings)"
    assert repr(results).splitlines()[0] == f"Results({str(trace)!r}: made)"
    many = Summary("many", "", "", tuple(found(f"many.{i}", EMERGED) for i in range(100)))
    assert len(repr(many).splitlines()) < 20 and "88 more" in repr(many)


def test_a_trace_lists_its_probes_and_the_status_of_its_checkpoints(trace: Path) -> None:
    page = dynamics.Trace(trace)._repr_html_()
    for text in (
        "2 complete, 1 pending",
        "mine",
        "number, share",
        "resid_post (checkpoint, prompt, position, layer, d_model)",
    ):
        assert text in page, text


def test_a_curve_is_drawn_into_the_axes_that_are_given(trace: Path) -> None:
    results = dynamics.open_results(trace)
    figure = mpl.figure.Figure()
    ax = figure.subplots()
    one, other = results.finding("made.up"), results.finding("made.first")
    assert one.plot(ax, color="#000000") is ax
    curve = ax.lines[0]
    assert curve.get_xdata().tolist() == [0, 10, 200] and curve.get_ydata().tolist() == [0.1, 0.2, 0.9]
    assert (ax.get_ylabel(), ax.get_xscale(), curve.get_color()) == ("accuracy", "symlog", "#000000")
    other.plot(ax, label="first")
    assert "first" in ax.get_legend_handles_labels()[1]
    assert ax.get_title(loc="left") == one.title
    assert ax.get_xlim()[1] >= 200


def test_without_axes_it_is_drawn_into_those_of_pyplot(trace: Path) -> None:
    import matplotlib.pyplot as plt

    try:
        assert dynamics.open_results(trace).finding("made.up").plot() is plt.gca()
    finally:
        plt.close("all")


def test_misspelt_names_are_answered_by_the_nearest(trace: Path) -> None:
    results, opened = dynamics.open_results(trace), dynamics.Trace(trace)
    for ask, remedy in (
        (lambda: results["mad"], "did you mean 'made'?"),
        (lambda: results.finding("made.upp"), "did you mean 'made.up'?"),
        (lambda: results["made"].finding("frist"), "did you mean 'first'?"),
        (lambda: opened.probe("mien"), "did you mean 'mine'?"),
        (lambda: opened.label("mine", "nmber"), "did you mean 'number'?"),
        (lambda: opened.values("mine", "resid_pots"), "did you mean 'resid_post'?"),
        (lambda: opened.values("mine", "number"), "trace.label('mine', 'number')"),
        (lambda: opened.label("mine", "resid_post"), "trace.values('mine', 'resid_post')"),
    ):
        with pytest.raises(UserError) as refused:
            ask()
        assert refused.value.remedy == remedy
    with pytest.raises(KeyError):  # as of any mapping
        results["mad"]
    assert results.get("mad") is None and "mad" not in results
    with pytest.raises(UnknownNameError, match="there is no finding 'x'"):
        results.finding("x")


def test_a_trace_without_results_says_how_to_get_them(tmp_path: Path) -> None:
    run = {"analyses": [], "probes": {}}
    fill(tmp_path / "bare.zarr", declare(attributes={**declare().attributes, "run_config": run}))
    with pytest.raises(UserError, match="holds no results") as refused:
        dynamics.open_results(tmp_path / "bare.zarr")
    assert "dynamics analyse bare" in refused.value.remedy


def test_reading_results_imports_no_torch_and_no_matplotlib(trace: Path) -> None:
    code = (
        "import sys, dynamics; results = dynamics.open_results(sys.argv[1]); repr(results); results._repr_html_();"
        "results.to_dataframe(); results.to_xarray();"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(trace)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_attribute_that_a_user_sees_is_documented(trace: Path) -> None:
    results = dynamics.open_results(trace)
    for thing in (results, results["made"], results.finding("made.up"), dynamics.Trace(trace)):
        said = type(thing).__doc__ or ""
        listed = said[said.index("Attributes:") :]
        for name in (n for n in vars(thing) if not n.startswith("_")):
            assert name in listed.replace(",", " ").replace(":", " ").split(), f"{type(thing).__name__}.{name}"
