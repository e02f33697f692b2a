"""The sentences of a report say what its numbers say, and no more; its formats are what they are documented to be."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from checkpoints import UserError
from dynamics.analysis import Finding
from dynamics.analysis.section import Summary
from dynamics.emergence import Emergence, Interval
from dynamics.reporting.markdown import markdown
from dynamics.reporting.ordering import order_content
from dynamics.reporting.schema import check_report, report_schema
from dynamics.reporting.story import story

STEPS = (0, 10, 100, 1000)
WRITTEN_BY = """python -c "import json; from dynamics.reporting.schema import report_schema
print(json.dumps(report_schema(), indent=1))" > docs/_static/report.schema.json"""
SCHEMA = Path(__file__).parents[2] / "docs/_static/report.schema.json"


def finding(key: str, state: Any, onset: Interval | None = None, **changed: Any) -> Finding:
    fields = {name: changed.pop(name) for name in ("holds", "values") if name in changed}
    emergence = Emergence(state=state, null="shuffled answers", null_upper=(0.2,) * 4, onset=onset, **changed)
    made = Finding(
        key=f"made.{key}",
        title=f"circuit {key}",
        metric="accuracy",
        unit="prompts",
        headline=True,
        steps=STEPS,
        values=(0.1, 0.1, 0.8, 0.93),
        low=(np.nan,) * 4,
        high=(np.nan,) * 4,
        null_mean=(0.1,) * 4,
        emergence=emergence,
    )
    return replace(made, **fields)


def told(*findings: Finding) -> dict[str, Any]:
    summary = Summary(analysis="made", title="Made", question="?", findings=findings)
    return story([summary], order_content(findings))


def test_an_onset_is_said_as_the_interval_between_its_checkpoints() -> None:
    made = finding("a", "emerged", Interval(10, 100), onset_range=Interval(0, 1000), midpoint=60.0)
    (sentence,) = told(made)["analyses"][0]["circuits"]
    assert sentence.startswith(
        "Circuit a emerged between steps 10 and 100, between steps 0 and 1000 in 95% of resamplings;"
    )
    assert "half of its rise was made by step 60" in sentence
    assert "At the end it is 0.93 (accuracy), its null at most 0.20 (shuffled answers)." in sentence


def test_open_ends_are_said_as_open() -> None:
    start = finding("a", "present from start", Interval(None, 0))
    lost = finding("b", "transient", Interval(0, 10), loss=Interval(100, None))
    rising = finding("c", "emerged", Interval(10, 100), completion=Interval(1000, None))
    said = told(start, lost, rising)["analyses"][0]
    one, two, three = said["circuits"]
    assert said["summary"] == [
        "Emerged: circuit b (lost again after step 100) between steps 0 and 10; circuit c between steps 10 and 100.",
        "From the first measured checkpoint on: circuit a.",
    ]
    assert one.startswith("Circuit a is there from the first measured checkpoint on, step 0.")
    assert "was lost again after step 100." in two
    assert "it was still rising at the end" in three


def test_what_did_not_emerge_and_what_was_not_measured_are_told_apart_with_null_and_reason() -> None:
    said = told(
        finding("a", "not emerged", Interval(1000, None)),
        finding("b", "not measurable", reason="no prompt fits the tokenizer"),
        finding("c", "not emerged", Interval(1000, None), holds=0.5),
    )
    absent, unsure, unmeasured = said["analyses"][0]["summary"]
    assert said["analyses"][0]["circuits"] == []
    assert absent == "Not seen above the null (shuffled answers): circuit a."
    assert unsure == "Not seen above the null (shuffled answers), though not in all looks: circuit c."
    assert unmeasured == "Not measurable: circuit b (no prompt fits the tokenizer)."
    assert said["lead"][0] == "Of 3 circuits, 2 did not exceed their null and 1 could not be measured."


def test_what_is_fragile_is_said_and_is_not_named_as_the_first() -> None:
    early = finding("early", "emerged", Interval(0, 10), holds=0.4)
    sure, late = (
        finding("sure", "emerged", Interval(10, 100), holds=1.0),
        finding("late", "emerged", Interval(100, 1000)),
    )
    said = told(early, sure, late)
    assert any("earliest onset is that of circuit sure (between steps 10 and 100)" in s for s in said["lead"])
    assert any(s.startswith("1 of the 3 findings are marked fragile") for s in said["lead"])
    assert said["analyses"][0]["summary"][0].startswith("Emerged: circuit early (fragile) between steps 0 and 10;")
    assert "Fragile: the same in 40 of 100 looks" in said["analyses"][0]["circuits"][0]


def test_without_findings_there_is_no_story() -> None:
    assert told() == {"lead": [], "analyses": []}


def test_text_of_a_run_is_no_markup_in_markdown(content: dict[str, Any]) -> None:
    hostile = copy.deepcopy(content)
    hostile["description"] = "<script>x</script> [a](javascript:b) `c` **d**\n# e"
    text = markdown(hostile)
    assert "&lt;script&gt;x&lt;/script&gt; \\[a\\](javascript:b) \\`c\\` \\*\\*d\\*\\* \\# e" in text
    assert "<script" not in text


@pytest.fixture(scope="module")
def content(reported: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((reported / "reports/mine/report.json").read_text())
    return read


def test_a_written_report_is_what_the_published_schema_says(content: dict[str, Any], reported: Path) -> None:
    check_report(content)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(content)
    assert content["story"]["analyses"][0]["analysis"] == "induction"
    assert (reported / "reports/mine/report.md").read_text() == markdown(content)


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == report_schema(), WRITTEN_BY


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda c: c["emergence"][0].update(state="perhaps"), "emergence.0.state"),
        (lambda c: c["analyses"][0]["findings"][0]["values"].__setitem__(0, "high"), "analyses.0.findings.0.values.0"),
        (lambda c: c.update(unknown=1), "unknown"),
        (lambda c: c.pop("order"), "order"),
    ],
)
def test_what_is_no_report_is_refused_with_the_place(content: dict[str, Any], change: Any, where: str) -> None:
    changed = copy.deepcopy(content)
    change(changed)
    with pytest.raises(UserError) as caught:
        check_report(changed)
    assert where in caught.value.observed
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(report_schema()).validate(changed)


def test_another_format_is_refused_with_the_remedy(content: dict[str, Any]) -> None:
    for other, observed in (({**content, "format": 3}, "format 3"), ([], "no report")):
        with pytest.raises(UserError) as caught:
            check_report(other)
        assert observed in caught.value.observed and "dynamics report RUN" in caught.value.remedy
