"""Writing a report: the page, ``report.json``, ``report.md``, and every figure as SVG and PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.errors import unwritable
from checkpoints.paths import StrPath, as_path, replace_text

from ..analyser import Result, analysed
from ..analysis.figures import timeline
from ..analysis.onset_figures import onsets_by_definition, order_matrix
from ..progress import Reporter
from ..runs.lookup import requested
from ..store.lock import alone
from ..store.paths import beside_traces
from .content import headlines, report_content, row
from .markdown import markdown
from .page import report_page
from .pictures import Picture, Pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..runs.config import Run

__all__ = ["Report", "report"]


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        folder: holds ``index.html``, ``report.json``, ``report.md`` and ``figures/``.
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
    trace, results = analysed(name, runs=runs, traces=traces, run=run, fresh=False, reporter=reporter)
    content = report_content(name, trace, results)
    folder = (folder or beside_traces(traces, "reports")) / name
    try:
        with alone(folder, f"the report in {folder}"):
            _write(folder, results, content, reporter)
    except OSError as error:
        raise unwritable(f"the report in {folder}", error, option="--reports") from error
    return Report(folder, content)


def _write(folder: Path, results: Sequence[Result], content: dict[str, Any], reporter: Reporter) -> None:
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figures = Pictures(folder / "figures", reporter)
    pictures = _overview(results, content, figures)
    sections = []
    for result, summary in zip(results, content["analyses"], strict=True):
        images = figures.of(
            result.summary.analysis,
            (result.summary.to_json(), result.summary.data),
            result.analysis.module.__name__,
            partial(result.analysis.figures, result.summary),
        )
        rows = [row(f) for f in result.summary.findings]
        details = [{**r, "definition": f.definition} for r, f in zip(rows, result.summary.findings, strict=True)]
        sections.append({**summary, "images": list(images.values()), "rows": details})
    figures.finish()
    page = report_page(content, headlines(results), sections, pictures)
    replace_text(folder / "index.html", page)
    replace_text(folder / "report.md", markdown(content))
    replace_text(folder / "report.json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _overview(results: Sequence[Result], content: Mapping[str, Any], figures: Pictures) -> dict[str, Picture]:
    """The pictures that a report begins with, as far as there is something to be seen."""
    main = headlines(results)

    def drawn() -> dict[str, Figure]:
        made = {"timeline": timeline(main)} if main else {}
        if any(f.onsets for f in main):
            made["definitions"] = onsets_by_definition(main)
        if len(content["order"]["circuits"]) > 1:
            made["order"] = order_matrix(content["order"])
        return made

    shown = ([result.summary.to_json() for result in results], content["order"])
    return figures.of("", shown, __name__, drawn)
