"""What a report says about onsets: order of circuits, definitions side by side, figures, terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dynamics.analysis import CurveSpec, Finding, Null, from_units
from dynamics.analysis.figures import timeline
from dynamics.analysis.onset_figures import _percent, onsets_by_definition, order_matrix
from dynamics.emergence import Interval
from dynamics.reporting.content import _definitions, row
from dynamics.reporting.ordering import order_content
from dynamics.reporting.terminal import print_report
from dynamics.validating.synthetic import schedule

pytestmark = pytest.mark.usefixtures("laid_out")
STEPS = schedule("log", 40, np.random.default_rng(0))
X = np.log10(STEPS + 1.0)
UNITS = 150
NAMES = np.arange(UNITS)
TRACE: Any = SimpleNamespace(steps=STEPS, tokens=None)


def circuit(key: str, place: float | None, *, clusters: np.ndarray | None = NAMES, seed: int = 0) -> Finding:
    """A circuit planted at 10^place, or nowhere."""
    rate = np.full(X.size, 0.1) if place is None else 0.1 + 0.8 / (1 + np.exp(-(X - place) / 0.15))
    rng = np.random.default_rng(seed)
    units = (rng.random((X.size, UNITS)) < rate[:, None]).astype(float)
    null = rng.binomial(UNITS, 0.1, size=(X.size, 200)) / UNITS
    spec = CurveSpec("", "prompts", clusters=clusters, headline=True)
    return from_units(key, key.title(), units, Null(null, "chance"), spec).assessed(TRACE)


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    late, early, twin = circuit("made.late", 3.3), circuit("made.early", 2.0, seed=1), circuit("made.also", 3.3, seed=7)
    none, other = circuit("made.none", None, seed=3), circuit("made.other", 2.7, clusters=None, seed=4)
    return [late, early, twin, none, other, replace(early, key="made.bare", title="Bare", onset_by=())]


def test_pairs_are_ordered_as_planted_and_ties_are_not(findings: list[Finding]) -> None:
    order = order_content(findings)
    keys = [c["key"] for c in order["circuits"]]
    assert keys[:2] == ["made.early", "made.other"] and set(keys[2:]) == {"made.late", "made.also"}
    pairs = {frozenset((p["first"], p["second"])): p for p in order["pairs"]}
    assert len(pairs) == 6
    for one, other in (("made.early", "made.other"), ("made.early", "made.late"), ("made.other", "made.also")):
        pair = pairs[frozenset((one, other))]
        assert (pair["first"], pair["order"]) == (one, "before")
        assert pair["before"] >= 0.95
    tie = pairs[frozenset(("made.late", "made.also"))]
    assert tie["order"] == "cannot be ordered"
    assert tie["before"] + tie["after"] + tie["tied"] == pytest.approx(1)
    assert max(tie["before"], tie["after"]) < 0.95


@pytest.mark.slow
def test_circuits_planted_at_one_place_are_seldom_put_in_order() -> None:
    wrong, places = 0, np.random.default_rng(5).uniform(2, 3.6, size=12)
    for number, place in enumerate(places):
        pair = [circuit(f"made.{name}", place, seed=2 * number + i) for i, name in enumerate("ab")]
        wrong += order_content(pair)["pairs"][0]["order"] != "cannot be ordered"
    assert wrong <= 2


def test_draws_are_paired_only_where_the_same_units_were_resampled(findings: list[Finding]) -> None:
    paired = {frozenset((p["first"], p["second"])): p["paired"] for p in order_content(findings)["pairs"]}
    assert paired[frozenset(("made.early", "made.late"))]
    assert not paired[frozenset(("made.early", "made.other"))]


def test_circuits_that_share_no_draw_are_compared_all_with_all(findings: list[Finding]) -> None:
    late, early = findings[:2]
    half = len(early.onset_by) // 2
    one = replace(early, onset_by=(*early.onset_by[:half], *[np.nan] * half))
    other = replace(late, onset_by=(*[np.nan] * half, *late.onset_by[half:]))
    for common in (0, 5):
        few = replace(other, onset_by=(*[np.nan] * (half - common), *late.onset_by[half - common :]))
        (pair,) = order_content([one, few])["pairs"]
        assert (pair["first"], pair["order"], pair["paired"]) == ("made.early", "before", False)


def test_pairs_that_too_few_draws_leave_uncalled_are_counted(findings: list[Finding]) -> None:
    assert order_content(findings)["unresolved"] == 0
    early, late = findings[1], findings[0]
    with_few = [replace(f, onset_by=f.onset_by[:25], key=f"{f.key}.few", sample="") for f in (early, late)]
    order = order_content(with_few)
    assert order["unresolved"] == 1 and order["pairs"][0]["order"] == "cannot be ordered"


def test_what_cannot_be_ordered_at_all_is_listed_with_the_reason(findings: list[Finding]) -> None:
    left = {c["key"]: c["reason"] for c in order_content(findings)["left_out"]}
    assert left == {"made.none": "not emerged", "made.bare": "no bootstrap draws of its onset"}


def test_the_matrix_shows_both_probabilities_of_every_pair(findings: list[Finding]) -> None:
    order = order_content(findings)
    figure = order_matrix(order)
    (axes,) = figure.axes
    shown = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}
    assert len(shown) == 12
    first = order["pairs"][0]
    assert 95 <= int(shown[0, 1]) == int(100 * first["before"])
    assert shown[1, 0] == (
        "0" if first["after"] == 0 else "<1" if first["after"] < 0.01 else str(int(100 * first["after"]))
    )
    assert [_percent(share) for share in (0, 0.004, 0.9499, 0.95, 0.999, 1)] == ["0", "<1", "94", "95", "99", "100"]
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels[0] == "1  Made.Early"
    figure.draw_without_rendering()


def test_the_figure_of_definitions_has_a_row_for_each_that_finds_an_onset(findings: list[Finding]) -> None:
    figure = onsets_by_definition(findings)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == [f.title for f in findings]
    assert [t.get_text() for t in axes.texts] == ["no definition finds an onset"]
    found = sum(o.state == "emerged" for f in findings for o in f.onsets)
    estimates = [line for line in axes.lines if line.get_marker() in "o^DsX"]
    assert len(estimates) == found > 15
    figure.draw_without_rendering()


@pytest.mark.parametrize("steps", [(1400,), (1000, 2000)])
def test_words_stand_beside_the_axis_wherever_the_steps_begin(steps: tuple[int, ...]) -> None:
    trace: Any = SimpleNamespace(steps=np.array(steps), tokens=None)
    curve = from_units("made.0", "", np.zeros((len(steps), 20)), Null(None, "chance"), CurveSpec("", "prompts"))
    few = [replace(curve.assessed(trace), key=f"made.{i}", title=f"A circuit of a long name {i}") for i in range(12)]
    for figure in (timeline(few), onsets_by_definition(few)):
        figure.savefig(io.BytesIO(), format="png")  # a layout that fails is a warning, and an error here
        axes = figure.axes[0]
        words = [t.get_window_extent() for t in axes.texts if t.get_text() == "not measurable"]
        assert len(words) == len(few)
        box = axes.get_window_extent()
        assert all(box.x0 <= w.x0 and w.x1 <= box.x1 for w in words)


def test_the_count_of_agreeing_definitions_leaves_out_what_no_definition_dates(findings: list[Finding]) -> None:
    said = _definitions(findings)
    assert said["found"] == 5
    assert len(said["agree"]) + len(said["apart"]) == 5
    assert "Made.None" not in {*said["agree"], *(a["title"] for a in said["apart"])}
    spreads = [a["spread_decades"] for a in said["apart"]]
    assert spreads == sorted(spreads, reverse=True)


def test_the_terminal_says_it_in_lines_below_the_table(findings: list[Finding]) -> None:
    rows = [row(f) for f in findings]
    rows[0]["mirage"] = {"verdict": "does not survive", "sentence": "", "width": 0.2, "twin_width": 1.0}
    content = {
        "run": "made",
        "counts": {"complete": 40},
        "emergence": rows,
        "definitions": _definitions(findings),
        "order": order_content(findings),
        "problem_texts": [],
    }
    out = io.StringIO()
    print_report(content, Console(file=out, width=120))
    text = " ".join(out.getvalue().split())
    assert f"definitions of emergence agree on {len(content['definitions']['agree'])} of 5 circuits" in text
    assert "5 of 6 pairs of circuits can be ordered, at a false discovery rate of 5%" in text
    assert "of 0 of 1 thresholded curves; does not survive: Made.Late (0.20 against 1.00 decades)" in text
    table = [line for line in out.getvalue().splitlines() if "┃" in line or "│" in line]
    assert len(table) == 1 + len(findings)
    assert max(len(line.rstrip()) for line in table) <= 120


def test_rows_say_why_a_definition_finds_nothing(findings: list[Finding]) -> None:
    none = row(findings[3])
    assert none["definitions_agree"] == "no definition finds an onset"
    assert {o["between"] for o in none["onsets"]} == {"–"}
    assert none["onsets"][2]["reason"] == "never above its null"
    assert none["mirage"] is None


@pytest.mark.parametrize("state", ["emerged", "transient"])
def test_what_was_reached_before_the_onset_is_not_printed_as_if_it_followed(
    findings: list[Finding], state: str
) -> None:
    found = replace(
        findings[0].emergence, state=state, onset=Interval(854, 1007), midpoint=615.4, completion=Interval(854, 1007)
    )
    shown = row(replace(findings[0], emergence=found))
    assert (shown["midpoint"], shown["completion"]) == ("–", "(854, 1007]")
    assert shown["note"] == "half of its rise, at step 615, lies before its onset"
    shown = row(replace(findings[0], emergence=replace(found, completion=Interval(725, 854))))
    assert (shown["midpoint"], shown["completion"]) == ("–", "–")
    assert shown["note"].endswith("; nine tenths of its rise, in (725, 854], lie before its onset")
    follows = row(replace(findings[0], emergence=replace(found, midpoint=900.0)))
    assert (follows["midpoint"], follows["completion"], follows["note"]) == ("900", "(854, 1007]", "")
    for midpoint, marks in ((615.4, 0), (900.0, 1)):
        (axes,) = timeline([replace(findings[0], emergence=replace(found, midpoint=midpoint))]).axes
        assert sum(line.get_marker() == "D" for line in axes.lines) == marks


def test_tokens_that_are_not_known_are_no_row_of_question_marks(findings: list[Finding]) -> None:
    known = replace(findings[0].emergence, onset_tokens=(2_000_000, 4_000_000))
    assert row(replace(findings[0], emergence=known))["tokens"] == "(2M, 4M]"
    assert row(findings[0])["tokens"] == "–"
    half = replace(known, onset_tokens=(None, 4_000_000))
    assert row(replace(findings[0], emergence=half))["tokens"] == "(?, 4M]"
