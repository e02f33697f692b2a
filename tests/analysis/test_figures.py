"""Shared figures: whatever is drawn, and however long its titles are, nothing is cut off or lies on something else."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from dynamics.analysis import CurveSpec, Finding, Null, from_units
from dynamics.analysis.figures import curve_grid, heat_maps, new_figure, step_axis, timeline
from dynamics.analysis.fitting import legend_below
from dynamics.analysis.onset_figures import onsets_by_definition, order_matrix
from tests.analysis.drawn import unreadable

pytestmark = pytest.mark.usefixtures("laid_out")
STEPS = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000])
SHORT, LONG = (
    "circuit",
    "the ones digit of the sum moves with a part of another context, measured with held-out prompts",
)


@pytest.fixture(scope="module")
def finding() -> Finding:
    rng = np.random.default_rng(0)
    rate = 0.1 + 0.8 / (1 + np.exp(-(np.log10(STEPS + 1.0) - 1.5) / 0.15))
    units = (rng.random((STEPS.size, 60)) < rate[:, None]).astype(float)
    null = rng.binomial(60, 0.1, size=(STEPS.size, 50)) / 60
    metric = "share of the prompts that are answered as the circuit says (all digits right)"
    spec = CurveSpec(metric, clusters=np.arange(60), headline=True)
    trace: Any = SimpleNamespace(steps=STEPS, tokens=None)
    return from_units("circuit", "", units, Null(null, "chance"), spec).assessed(trace)


def findings(one: Finding, count: int, title: str) -> list[Finding]:
    return [replace(one, key=f"made{i % 9}.c{i}", title=f"{title} {i}") for i in range(count)]


def maps(count: int, title: str, rows: int, top: float = 1.0) -> Figure:
    rng = np.random.default_rng(0)
    panels = [(f"{title} {i}", top * rng.random((rows, STEPS.size))) for i in range(count)]
    labels = [f"{title} {i}" for i in range(rows)]
    return heat_maps(panels, STEPS.tolist(), rows=labels, row_title="head or MLP", value_title=title, columns=3)


def order(count: int, title: str) -> Figure:
    circuits = [{"key": str(i), "title": f"{title} {i}"} for i in range(count)]
    pairs = [
        {"first": str(i), "second": str(j), "before": 0.99, "after": 0.005, "order": "before"}
        for i, j in combinations(range(count), 2)
    ]
    return order_matrix({"circuits": circuits, "pairs": pairs})


ROWS, GRIDS = ("timeline", "definitions", "order", "curves"), ("panels", "maps", "flat maps", "own maps")


@pytest.mark.parametrize(
    ("kind", "count", "title"),
    [
        *((k, n, t) for k in ROWS for n, t in ((1, SHORT), (5, SHORT), (1, LONG), (2, LONG), (5, LONG))),
        *((k, n, t) for k in GRIDS for n, t in ((1, SHORT), (2, LONG))),
        *(pytest.param(k, n, t, marks=pytest.mark.slow) for k in GRIDS for n, t in ((5, SHORT), (1, LONG), (5, LONG))),
        *(pytest.param(k, 26, LONG, marks=pytest.mark.slow) for k in ROWS),
        *(pytest.param(k, 10, LONG, marks=pytest.mark.slow) for k in GRIDS),  # more panels than fit a row, and a rest
    ],
)
def test_nothing_is_cut_off_and_no_title_lies_on_a_legend(finding: Finding, kind: str, count: int, title: str) -> None:
    several = findings(finding, count, title)
    one_each = [(f.title, [("", f)]) for f in several]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = {
            "panels": lambda: curve_grid(one_each),
            "curves": lambda: curve_grid([(title, [(f.title, f) for f in several])]),
            "timeline": lambda: timeline(several),
            "definitions": lambda: onsets_by_definition(several),
            "order": lambda: order(count, title),
            "maps": lambda: maps(count, title, rows=17),
            "flat maps": lambda: maps(count, title, rows=2),
            "own maps": lambda: heat_maps(
                [(f.title, np.ones((2, STEPS.size))) for f in several],
                STEPS.tolist(),
                rows=["0", "1"],
                row_title="stream after layer",
                value_title="effect of patching (logits)",
                alike=False,
            ),
        }[kind]()
        assert unreadable(figure) == []


def test_what_a_figure_of_ones_own_says_fits_too() -> None:
    figure = new_figure(2.0, 1.5)
    for axes in figure.subplots(1, 2):
        axes.plot([0, 1], [0, 1], label=LONG)
        axes.set_title(LONG, loc="left")
        axes.set_xlabel(LONG)
        axes.set_ylabel(LONG)
        axes.legend()
    figure.suptitle(LONG)
    legend_below(figure, figure.axes[0].lines)
    assert unreadable(figure) == []


def test_a_figure_in_which_all_fits_keeps_its_size_and_its_words(finding: Finding) -> None:
    figure = curve_grid([(f.title, [("", f)]) for f in findings(replace(finding, metric="accuracy"), 2, SHORT)])
    assert unreadable(figure) == []
    assert figure.get_size_inches() == pytest.approx((8.6, 2.75))
    assert [axes.get_title("left") for axes in figure.axes] == ["circuit 0", "circuit 1"]


def test_drawing_again_changes_nothing() -> None:
    figure = maps(5, LONG, rows=5)
    assert unreadable(figure) == []
    size, words = figure.get_size_inches(), [axes.get_title("left") for axes in figure.axes]
    assert unreadable(figure) == []
    assert figure.get_size_inches() == pytest.approx(size)
    assert [axes.get_title("left") for axes in figure.axes] == words


def test_colours_of_heat_maps_span_the_values_and_the_bar_says_so() -> None:
    figure = maps(2, "share", rows=3, top=0.2)
    images = [image for axes in figure.axes for image in axes.images]
    shown = np.concatenate([np.ravel(image.get_array()) for image in images])
    low, high = float(shown.min()), float(shown.max())
    assert [image.get_clim() for image in images] == [(low, high)] * 2 and high < 0.21
    assert figure.axes[-1].get_ylabel() == f"share, {low:.2g} to {high:.2g}"


def test_maps_of_different_quantities_have_colour_scales_of_their_own() -> None:
    panels = [("a", np.array([[0.0, 1.0]])), ("b", np.array([[0.1, 0.2]])), ("nothing", np.full((1, 2), np.nan))]
    figure = heat_maps(panels, [0, 1], rows=["r"], row_title="", value_title="score", alike=False)
    images = [image for axes in figure.axes for image in axes.images]
    assert [image.get_clim() for image in images] == [(0.0, 1.0), (0.1, 0.2), (0.0, 1.0)]
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["score, 0 to 1", "score, 0.1 to 0.2", "score, 0 to 1"]


def test_a_panel_without_values_says_so_instead_of_showing_an_empty_scale(finding: Finding) -> None:
    nothing = replace(finding, values=(float("nan"),) * STEPS.size)
    shown, empty = curve_grid([("a", [("a", finding)]), ("b", [("b", nothing)])]).axes
    assert [text.get_text() for text in empty.texts] == ["no value at any checkpoint"] and not shown.texts
    assert not empty.get_yticks().size


@pytest.mark.parametrize(
    ("steps", "ticks"), [([0, 2, 4, 8], [0, 1, 8]), ([0, 1, 2], [0, 1]), ([0, 500, 9000], [0, 1, 10, 100, 1000])]
)
def test_a_short_training_has_its_last_step_on_the_axis(steps: list[int], ticks: list[int]) -> None:
    axes = new_figure(3, 2).subplots()
    step_axis(axes, steps)
    assert axes.get_xticks().tolist() == ticks
