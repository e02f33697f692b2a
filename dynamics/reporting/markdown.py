"""``report.md``: a report as prose, for people who read text and for programs that do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["as_markdown", "markdown"]


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is: nothing in it is markup, or HTML.

    >>> as_markdown("6 * 9 <b>_x_</b>")
    '6 \\\\* 9 &lt;b&gt;\\\\_x\\\\_&lt;/b&gt;'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(text.split()))


def markdown(content: Mapping[str, Any]) -> str:
    """A report's story with what a reader must know to judge it, from what ``report.json`` says."""
    series, story = content["series"], content["story"]
    lines = [f"# {as_markdown(content['run'])}: when circuits emerged", ""]
    if content["description"]:
        lines += [as_markdown(content["description"]), ""]
    complete = content["counts"].get("complete", 0)
    steps = series["steps"]
    measured = f"{complete} of {len(steps)} checkpoints were measured"
    lines += [measured + (f", steps {steps[0]} to {steps[-1]}." if steps else "."), ""]
    if series["step_counts"] != "optimizer steps":
        lines += [f"Steps are numbers of {as_markdown(series['step_counts'])}.", ""]
    lines += [f"- {as_markdown(text)}" for text in content["problem_texts"]]
    lines += ["", *(as_markdown(sentence) for sentence in story["lead"])]
    notes = {analysis["analysis"]: analysis["notes"] for analysis in content["analyses"]}
    questions = {analysis["analysis"]: analysis["question"] for analysis in content["analyses"]}
    for part in story["analyses"]:
        lines += ["", f"## {as_markdown(part['title'])}", "", as_markdown(questions[part["analysis"]]), ""]
        lines += [as_markdown(" ".join(part["summary"])), "", *(f"- {as_markdown(text)}" for text in part["circuits"])]
        if notes[part["analysis"]]:
            lines += ["", "What to know:", "", *(f"- {as_markdown(note)}" for note in notes[part["analysis"]])]
    lines += [
        "",
        "## How to read this",
        "",
        "An onset is an interval between two measured checkpoints: the last that was not above the null's bound, and the first "
        "that was. The bound holds for all checkpoints together: a curve that only follows its null exceeds it anywhere with 5% "
        "probability. The interval in 95% of resamplings also covers the choice of prompts. All curves, nulls and definitions "
        "are in report.json.",
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"
