"""Writing a report: the page, ``report.json``, and every figure as SVG and PNG."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from checkpoints.errors import unwritable
from checkpoints.paths import StrPath, as_path, replace_text

from ..analyser import analyse
from ..analysis.figures import timeline
from ..analysis.onset_figures import onsets_by_definition, order_matrix
from ..progress import Reporter
from ..runs.lookup import requested
from ..store.paths import beside_traces, open_run_trace
from .content import headlines, report_content, row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..runs.config import Run

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        folder: holds ``index.html``, ``report.json`` and ``figures/``.
        content: what ``report.json`` says.
    """

    folder: Path
    content: dict[str, Any]


def report(
    name: str,
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    reports: StrPath | None = None,
    run: Run | None = None,
    reporter: Reporter | None = None,
) -> Report:
    """Analyse a trace as far as needed and write ``reports/NAME/``.

    Args:
        reports: folder of reports; without it, ``reports`` beside the folder of traces.

    Raises:
        UserError: when there is no trace, or the folder cannot be written.
        StoppedError: when the disk is full.
    """
    reporter = reporter or Reporter(quiet=True)
    folder = None if reports is None else as_path(reports, "reports")
    name, run, traces = requested(name, run, runs=runs, traces=traces)
    results = analyse(name, runs=runs, traces=traces, run=run, fresh=False, reporter=reporter)
    trace = open_run_trace(name, traces)
    content = report_content(name, trace, results)
    folder = (folder or beside_traces(traces, "reports")) / name
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        reporter.say("drawing figures ...")
        main = headlines(results)
        pictures = {"timeline": _save(timeline(main), folder, "timeline")} if main else {}
        if any(f.onsets for f in main):
            pictures["definitions"] = _save(onsets_by_definition(main), folder, "definitions")
        if len(content["order"]["circuits"]) > 1:
            pictures["order"] = _save(order_matrix(content["order"]), folder, "order")
        sections = []
        for result, summary in zip(results, content["analyses"], strict=True):
            images = {
                key: _save(figure, folder, f"{result.summary.analysis}-{key}")
                for key, figure in result.analysis.figures(result.summary).items()
            }
            rows = [row(f) for f in result.summary.findings]
            details = [{**r, "definition": f.definition} for r, f in zip(rows, result.summary.findings, strict=True)]
            sections.append({**summary, "images": images, "rows": details})
        page = (
            _environment()
            .get_template("report.html.j2")
            .render(
                content=content,
                sections=sections,
                pictures=pictures,
                provenance=json.dumps(content["provenance"], indent=1),
            )
        )
        replace_text(folder / "index.html", page)
        replace_text(folder / "report.json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise unwritable(f"the report in {folder}", error, option="--reports") from error
    return Report(folder, content)


def _environment() -> Environment:
    return Environment(loader=PackageLoader("dynamics.reporting"), autoescape=True, undefined=StrictUndefined)


def _save(figure: Figure, folder: Path, name: str) -> Mapping[str, str]:
    """Save SVG and PNG; the page gets the SVG as data, so that it needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "circuit-dynamics"})
    svg = buffer.getvalue()
    (folder / "figures" / f"{name}.svg").write_bytes(svg)
    figure.set_layout_engine("none")  # it is laid out: doing it again takes as long as drawing
    figure.savefig(folder / "figures" / f"{name}.png", dpi=160)
    return {"name": name, "data": "data:image/svg+xml;base64," + base64.b64encode(svg).decode()}
