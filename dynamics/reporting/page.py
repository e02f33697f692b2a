"""The page of a report: one HTML text that needs nothing else and asks for nothing, whatever a run calls its parts.

Its policy forbids every request and lets only its own script and style run, known by their hashes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..analysis.findings import Finding
from ..charting import loader, page_parts, payload, source
from .pictures import Picture
from .timeline import timeline_rows

__all__ = ["report_page"]


def report_page(
    content: Mapping[str, Any],
    findings: Sequence[Finding],
    sections: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, Picture],
    *,
    files: bool = True,
) -> str:
    """The page as HTML.

    Args:
        content: what ``report.json`` says.
        findings: the headline findings, in the order of the table.
        sections: every analysis as in ``report.json``, with ``images`` (its pictures) and ``rows`` (its table).
        pictures: those of the overview.
        files: whether figures lie beside the page, to which it leads.
    """
    data, numbers = _data(content, findings, sections)
    environment = Environment(loader=loader("dynamics.reporting"), autoescape=True, undefined=StrictUndefined)
    package = "dynamics.reporting"
    return environment.get_template("report.html.j2").render(
        content=content,
        sections=sections,
        pictures=pictures,
        numbers=numbers,
        said={part["analysis"]: part for part in content["story"]["analyses"]},
        data=data,
        files=files,
        parts=page_parts(data, style=source(package, "report.css"), scripts=[source(package, "timeline.js")]),
        provenance=json.dumps(content["provenance"], indent=1, ensure_ascii=False),
    )


def _data(
    content: Mapping[str, Any], findings: Sequence[Finding], sections: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, int]]:
    """What the page's script draws, and the number of every figure that it draws by the name of its files."""
    everything = [finding for section in sections for finding in section["findings"]]
    keys, checkpoints = {finding["key"] for finding in everything}, len(content["series"]["steps"])
    drawn = [
        {"name": image.name, "panels": image.panels}
        for section in sections
        for image in section["images"]
        if image.panels is not None and _is_known(image.panels, keys, checkpoints)
    ]
    rows = timeline_rows(findings)
    data = payload(
        content["series"],
        everything,
        drawn,
        more=[finding.key for finding in findings],
        reasons={problem["step"]: problem["reason"] for problem in content["problems"]},
        unit="step" if content["series"]["step_counts"] == "optimizer steps" else content["series"]["step_counts"],
    )
    return data | {"timeline": rows}, {figure["name"]: number for number, figure in enumerate(drawn)}


def _is_known(panels: Sequence[Mapping[str, Any]], keys: set[str], checkpoints: int) -> bool:
    """Whether the page has the numbers of every line: an analysis may draw a curve that it does not hand over."""
    lines = [line for panel in panels for line in panel["lines"]]
    return all(line["key"] in keys if "key" in line else len(line["values"]) == checkpoints for line in lines)
