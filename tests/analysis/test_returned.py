"""What an analysis hands over is taken as meant, or refused by the names that its author gave."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from checkpoints.errors import UserError
from dynamics import analysis as da

STEPS = np.array([0, 1, 2, 4, 8])
TRACE: Any = SimpleNamespace(steps=STEPS, tokens=None)
UNITS = np.random.default_rng(0).normal(size=(5, 7))
DRAWS = da.sign_flip_null(UNITS)
NULL = da.Null(DRAWS, "no difference")
SPEC = da.CurveSpec()
PROBE = da.Probe("sums", ("1+1=",), answer=("2",))


def made(**functions: Any) -> da.Analysis:
    return da.Analysis("mine", SimpleNamespace(TITLE="Mine", __name__="mine", __doc__="When?", **functions))


def summarised(returned: Any) -> da.Summary:
    return made(summarise=lambda trace, options: returned).summary(TRACE, da.AnalysisOptions())


def curve(key: Any = "k", units: Any = UNITS, null: Any = NULL, spec: Any = SPEC) -> da.Curve:
    return da.from_units(key, "a title", units, null, spec)


def bare(values: Any = UNITS[:, 0], draws: Any = None, null: Any = None) -> da.Curve:
    return da.Curve("k", "a title", values, draws, da.Null(null, "nothing"))


def layered(units: Any, null: Any) -> da.Curve:
    return da.best_layer("k", "a title", units, da.Null(null, "nothing"))


def section(**given: Any) -> da.Section:
    return da.Section(**{"findings": [curve()], **given})


def refusal(make: Callable[[], Any]) -> UserError:
    with pytest.raises(UserError) as refused:
        make()
    assert refused.value.expected and refused.value.remedy
    return refused.value


@pytest.mark.parametrize(
    ("returned", "observed"),
    [
        (lambda: None, "summarise of analysis 'mine' returned None (NoneType)"),
        (lambda: [curve()], "summarise of analysis 'mine' returned [Curve("),
        (lambda: curve(), "summarise of analysis 'mine' returned Curve("),
        (lambda: section(findings=curve()), "`findings` of the section is Curve("),
        (lambda: section(findings=["x"]), "`findings` of the section is a list whose entry 0 is 'x' (str)"),
        (lambda: section(notes="a note"), "`notes` of the section is 'a note' (str)"),
        (lambda: section(notes=["a", 3]), "`notes` of the section is a list whose entry 1 is 3 (int)"),
        (lambda: section(definitions=("a",)), "`definitions` of the section is a list whose entry 0 is 'a' (str)"),
        (lambda: section(findings=[curve(), curve()]), "analysis 'mine' has two findings with the key 'k'"),
        (lambda: section(findings=[curve(spec=da.CurveSpec(twin="t"))]), "'k' of analysis 'mine' names the twin 't'"),
        (lambda: section(arrays={"x": (("checkpoint",), np.zeros(4))}), "`arrays` of the section cannot be put"),
        (lambda: section(arrays={"x": (("checkpoint", "layer"), np.zeros(5))}), "`arrays` of the section cannot"),
        (lambda: section(arrays={"x": (("checkpoint",), np.array([{}] * 5))}), "the array 'x' of the section is of"),
        (
            lambda: section(arrays={"findings": (("checkpoint",), np.zeros(5))}),
            "array of the section is called 'findings'",
        ),
    ],
)
def test_a_section_that_does_not_fit_is_refused(returned: Callable[[], Any], observed: str) -> None:
    assert observed in refusal(lambda: summarised(returned())).observed


@pytest.mark.parametrize(
    ("make", "observed"),
    [
        (lambda: curve(units=UNITS[:4]), "values of the curve 'k': of shape (4,)"),
        (lambda: curve(units=UNITS.T), "values of the curve 'k': of shape (7,)"),
        (lambda: curve(units=UNITS[:, 0]), "units of the curve 'k': of shape (5,)"),
        (lambda: curve(units=UNITS[:, None]), "units of the curve 'k': of shape (5, 1, 7)"),
        (lambda: curve(units=UNITS[:, :0]), "units of the curve 'k': of shape (5, 0)"),
        (lambda: curve(units=None), "units of the curve 'k': None (NoneType)"),
        (lambda: curve(units="abc"), "units of the curve 'k': 'abc' (str)"),
        (lambda: curve(units=[[1.0], [1.0, 2.0]]), "units of the curve 'k': [[1.0], [1.0, 2.0]] (list)"),
        (lambda: curve(units=UNITS * 1j), "units of the curve 'k': of type complex128"),
        (lambda: curve(spec=da.CurveSpec(clusters=np.zeros(5))), "`clusters` of the curve 'k': of shape (5,) for 7"),
        (lambda: curve(null=DRAWS), "`null` of the curve 'k' is array("),
        (lambda: curve(null=da.Null(DRAWS[:4], "x")), "draws of the null of the curve 'k': of shape (4, 400)"),
        (lambda: curve(null=da.Null(DRAWS.T, "x")), "draws of the null of the curve 'k': of shape (400, 5)"),
        (lambda: curve(null=da.Null(DRAWS[:, 0], "x")), "draws of the null of the curve 'k': of shape (5,)"),
        (lambda: curve(null=da.Null(0.0, "x")), "draws of the null of the curve 'k': of shape ()"),  # type: ignore
        (lambda: curve(spec="up"), "`spec` of the curve 'k' is 'up' (str)"),
        (lambda: curve(key=3), "`key` of the curve 3 is 3 (int)"),
        (lambda: curve(key=""), "the curve 'a title' has no key"),
        (lambda: bare(values=UNITS), "values of the curve 'k': of shape (5, 7)"),
        (lambda: bare(values=["a"] * 5), "values of the curve 'k': ['a', 'a', 'a', 'a', 'a'] (list)"),
        (lambda: bare(draws=UNITS[:4]), "draws of the curve 'k': of shape (4, 7)"),
        (lambda: bare(draws=UNITS[:, 0]), "draws of the curve 'k': of shape (5,)"),
        (lambda: layered(UNITS, None), "units of the curve 'k': of shape (5, 7)"),
        (lambda: layered(UNITS[:, None], DRAWS), "draws of the null of the curve 'k': of shape (5, 400)"),
        (lambda: da.CurveSpec(direction="sideways"), "`direction` of a CurveSpec is 'sideways'"),  # type: ignore
        (lambda: da.CurveSpec(limits=3), "`limits` of a CurveSpec is 3 (int)"),  # type: ignore[arg-type]
    ],
)
def test_a_curve_of_wrong_numbers_is_refused_by_its_key(make: Callable[[], Any], observed: str) -> None:
    assert observed in refusal(lambda: summarised(da.Section([make()]))).observed


def test_lists_of_numbers_are_as_good_as_arrays() -> None:
    arrays = summarised(da.Section([curve()])).to_json()
    lists = summarised(da.Section([curve(units=UNITS.tolist(), null=da.Null(DRAWS.tolist(), NULL.name))])).to_json()  # type: ignore[arg-type]
    assert arrays == lists


@pytest.mark.parametrize(
    ("returned", "observed"),
    [
        (lambda: None, "plan of analysis 'mine' returned None (NoneType)"),
        (lambda: da.Request(PROBE, (da.Answers(),)), "plan of analysis 'mine' returned Request("),
        (lambda: [PROBE], "plan of analysis 'mine' returned a list whose entry 0 is Probe("),
        (lambda: "sums", "plan of analysis 'mine' returned 'sums' (str)"),
        (lambda: [da.Request("sums", (da.Answers(),))], "`probe` of a Request is 'sums' (str)"),  # type: ignore
        (lambda: [da.Request(PROBE, da.Answers())], "`measurements` of the Request of probe 'sums' is Answers("),  # type: ignore
        (lambda: [da.Request(PROBE, (da.Answers,))], "`measurements` of the Request of probe 'sums' is (<class"),  # type: ignore
    ],
)
def test_a_plan_of_something_else_than_requests_is_refused(returned: Callable[[], Any], observed: str) -> None:
    analysis = made(plan=lambda context, options: returned())
    assert observed in refusal(lambda: analysis.plan(da.Context(None), da.AnalysisOptions())).observed


def test_a_plan_may_yield_its_requests() -> None:
    asked = da.Request(PROBE, (da.Answers(),))
    assert made(plan=lambda context, options: iter([asked])).plan(da.Context(None), da.AnalysisOptions()) == [asked]


@pytest.mark.parametrize(
    ("returned", "observed"),
    [
        (None, "figures of analysis 'mine' returned None (NoneType)"),
        ({"a": "b"}, "figures of analysis 'mine' returned for 'a' 'b' (str)"),
        ({"a/b": None}, "figures of analysis 'mine' returned a figure named 'a/b' (str)"),
    ],
)
def test_figures_that_are_none_are_refused(returned: Any, observed: str) -> None:
    analysis = made(figures=lambda summary: returned)
    assert observed in refusal(lambda: analysis.figures(summarised(section()))).observed


@pytest.mark.parametrize("panels", [[], [("a", [])]])
def test_a_figure_without_curves_is_refused(panels: Any) -> None:
    assert "no panel" in refusal(lambda: da.curve_grid(panels)).observed
