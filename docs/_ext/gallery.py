"""Pages of the gallery, made while the documentation is built from what lies in ``docs/gallery``.

``python docs/_ext/gallery.py FOLDER FILE`` writes FILE from the folder of a report or of an explanation: what its page needs,
and no more. Pictures stay out; the curves that a page draws itself are in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dynamics.analysis.findings import Finding
from dynamics.explaining import explanation_page
from dynamics.reporting.content import row
from dynamics.reporting.page import report_page
from dynamics.reporting.pictures import Picture

__all__ = ["kept", "page_of", "write_gallery"]

KEPT = Path(__file__).parents[1] / "gallery"
_DIGITS = 3


def kept(folder: Path) -> dict[str, Any]:
    """What the gallery keeps of a written report or explanation."""
    if (explanation := folder / "explanation.json").exists():
        return {"kind": "explanation", "content": _short(json.loads(explanation.read_text(encoding="utf-8")))}
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    content["provenance"] = {"commit": content["provenance"]["commit"]}
    content["run_config"] = None
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    shown = {
        analysis: {name: drawn["about"] for name, drawn in drawn_by["figures"].items() if drawn["about"]["panels"]}
        for analysis, drawn_by in figures.items()
        if analysis
    }
    panels = [panel for of in shown.values() for about in of.values() for panel in about["panels"]]
    drawn = {line.get("key") for panel in panels for line in panel["lines"]}
    for analysis in content["analyses"]:
        analysis["findings"] = [f for f in analysis["findings"] if f["headline"] or f["key"] in drawn]
        for finding in analysis["findings"]:
            finding["onset_by"] = []
    return {"kind": "report", "content": _short(content), "figures": _short(shown)}


def page_of(content: dict[str, Any]) -> str:
    """The page of what was kept."""
    if content["kind"] == "explanation":
        return explanation_page(content["content"])
    report, figures = content["content"], content["figures"]
    sections: list[dict[str, Any]] = []
    findings: dict[str, Finding] = {}
    for summary in report["analyses"]:
        drawn = figures.get(summary["analysis"], {})
        images = [Picture(f"{summary['analysis']}-{name}", "", **about) for name, about in drawn.items()]
        found = [Finding.from_json(f) for f in summary["findings"]]
        rows = [{**row(f), "definition": f.definition} for f in found]
        sections.append({**summary, "images": images, "rows": rows})
        findings |= {f.key: f for f in found}
    return report_page(report, [findings[row["key"]] for row in report["emergence"]], sections, {}, files=False)


def write_gallery(folder: Path) -> list[Path]:
    """Every page of the gallery, written into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file in sorted(KEPT.glob("*.json")):
        written.append(folder / f"{file.stem}.html")
        written[-1].write_text(page_of(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
    return written


def _short(value: Any) -> Any:
    """Numbers with as many digits as a page shows."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(json.dumps(kept(source), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
