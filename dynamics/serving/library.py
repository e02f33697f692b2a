"""What an assistant can ask of reports: answers as JSON values, with the numbers that the reports have.

Reading changes nothing: reports are read as they were written, and where the trace of a run holds more by now, that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.errors import UserError, nearest
from checkpoints.foreign import read_json

from ..comparing.configs import design_of
from ..comparing.content import compare_content
from ..comparing.loading import from_report
from ..emergence import FRAGILE
from ..explaining.schema import check_explanation
from ..reporting.markdown import markdown
from ..reporting.schema import check_report
from ..runs.config import DEFAULT_RUNS_FILE, load_runs
from ..runs.lookup import find_cells
from ..store import Trace
from ..store.paths import trace_names, trace_path

__all__ = ["Library"]


@dataclass(frozen=True)
class Library:
    """The reports of a folder, with the runs and traces that they belong to.

    Attributes:
        reports: folder of reports.
        traces: folder of traces; need not be there.
        runs_file: the runs file; None for ``runs.yaml`` if there is one.
    """

    reports: Path
    traces: Path
    runs_file: Path | None = None

    def runs(self) -> list[dict[str, Any]]:
        """Every run that is declared, collected or reported: how far it is, and what its report holds.

        Raises:
            UserError: when the runs file is wrong.
        """
        declared = {}
        if self.runs_file is not None or DEFAULT_RUNS_FILE.exists():
            declared = {name: run.description for name, run in load_runs(self.runs_file).items()}
        collected = set(trace_names(self.traces))
        reported = {path.parent.name for path in self.reports.glob("*/report.json")}
        found = []
        for name in sorted(declared.keys() | collected | reported):
            entry: dict[str, Any] = {
                "run": name,
                "description": declared.get(name, ""),
                "collected": name in collected,
                "reported": name in reported,
            }
            if name in reported:
                try:
                    content = self.report(name)
                except UserError as error:
                    entry |= {"reported": False, "problem": error.observed}
                else:
                    steps = content["series"]["steps"]
                    entry |= {
                        "description": content["description"],
                        "checkpoints": content["counts"],
                        "steps": [steps[0], steps[-1]] if steps else [],
                        "circuits": len(content["emergence"]),
                        "analyses": [analysis["analysis"] for analysis in content["analyses"]],
                    }
                    if remark := self._remark(name, content):
                        entry["remark"] = remark
            found.append(entry)
        return found

    def report(self, run: str) -> dict[str, Any]:
        """All of ``report.json``.

        Raises:
            UserError: when there is no report, or it is not one.
        """
        file = self.reports / run / "report.json"
        there = sorted(path.parent.name for path in self.reports.glob("*/report.json"))
        if run not in there:
            raise UserError(
                f"there is no report of {run!r} in {self.reports}",
                expected=f"one of: {', '.join(there)}" if there else "a folder of reports that `dynamics report` wrote",
                remedy=nearest(run, there) if there else f"dynamics report {run}",
            )
        try:
            content: dict[str, Any] = read_json(file, dict)
            check_report(content)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} cannot be read: {error}",
                expected="what `dynamics report` wrote",
                remedy=f"dynamics report {run}",
            ) from error
        return content

    def text(self, run: str) -> str:
        """``report.md``: the findings of a run as prose.

        Raises:
            UserError: as :meth:`report`.
        """
        content = self.report(run)
        remark = self._remark(run, content)
        return markdown(content) + (f"\n{remark}\n" if remark else "")

    def circuits(self, run: str, *, analysis: str = "", all_curves: bool = False) -> list[dict[str, Any]]:
        """When each circuit of a run emerged, and how sure that is; headline findings unless all are asked for.

        Raises:
            UserError: as :meth:`report`, and for an analysis that the report does not have.
        """
        analyses = self.report(run)["analyses"]
        names = [entry["analysis"] for entry in analyses]
        if analysis and analysis not in names:
            raise UserError(
                f"the report of {run!r} has no analysis {analysis!r}",
                expected=f"one of: {', '.join(names)}",
                remedy=nearest(analysis, names),
            )
        return [
            _dated(finding)
            for entry in analyses
            if analysis in ("", entry["analysis"])
            for finding in entry["findings"]
            if all_curves or finding["headline"]
        ]

    def circuit(self, run: str, key: str) -> dict[str, Any]:
        """One circuit: its dates by every definition, its curve with its null, and what it means.

        Raises:
            UserError: as :meth:`report`, and for a key that the report does not have.
        """
        finding = self._finding(run, key)
        curve = ("steps", "values", "low", "high", "null_mean")
        more = ("metric", "unit", "definition", "onsets", "definitions_agree", "mirage")
        return (
            _dated(finding)
            | {name: finding[name] for name in more}
            | {"curve": {name: finding[name] for name in curve} | {"null_upper": finding["emergence"]["null_upper"]}}
        )

    def order(self, run: str, first: str = "", second: str = "") -> dict[str, Any]:
        """Which of a run's circuits came first: every pair that can be put in order, or the pair that is named.

        Raises:
            UserError: as :meth:`circuit`.
        """
        order = self.report(run)["order"]
        named = {self._finding(run, key)["key"] for key in (first, second) if key}
        pairs = [pair for pair in order["pairs"] if named <= {pair["first"], pair["second"]}]
        if len(named) < 2:
            pairs = [pair for pair in pairs if pair["order"] != "cannot be ordered"]
        return {
            "false_discovery_rate": order["false_discovery_rate"],
            "by_onset": order["circuits"],
            "pairs": pairs,
            "left_out": [entry for entry in order["left_out"] if not named or entry["key"] in named],
        }

    def comparison(self, runs: Sequence[str], key: str = "") -> dict[str, Any]:
        """What `dynamics compare` says of several runs, from their reports: see :mod:`dynamics.comparing.content`.

        Args:
            runs: two or more; shifts are against the first. A sweep stands for its cells.
            key: only this circuit.

        Raises:
            UserError: as :meth:`circuit`, and for fewer than two runs.
        """
        cells = [cell for name in runs for cell in self._cells(name)]
        names = list(dict.fromkeys(cells))
        if len(names) < 2:
            raise UserError(
                f"{len(names)} run to compare", expected="two or more", remedy="`list_runs` says which there are"
            )
        found = [from_report(self.report(name), self._trace(name)) for name in names]
        content = compare_content(found, design_of(found))
        if not key:
            return content
        if all(circuit["key"] != key for circuit in content["circuits"]):
            key = self._finding(names[0], key)["key"]
        for part in ("circuits", "effects", "effects_tokens"):
            content[part] = [entry for entry in content[part] if entry["key"] == key]
        return content

    def _cells(self, name: str) -> list[str]:
        """The cells of a sweep; the name itself for any other run, whether it is declared or not."""
        if self.runs_file is None and not DEFAULT_RUNS_FILE.exists():
            return [name]
        return find_cells(name, runs=self.runs_file)

    def _trace(self, name: str) -> Trace | None:
        """The trace of a run, which says which prompts it asked; None where there is none that can be read."""
        with suppress(UserError):
            return Trace(trace_path(self.traces, name)) if trace_path(self.traces, name).exists() else None
        return None

    def explanations(self, run: str) -> list[dict[str, Any]]:
        """The prompts of a run that were explained."""
        found = []
        for file in sorted(self.reports.glob("*/explain-*/explanation.json")):
            if (
                file.parent.parent.name != run
            ):  # not a path of the caller's: what it names is among what is there, or nothing
                continue
            try:
                content = _explanation(file)
            except UserError:
                continue
            steps = [checkpoint["step"] for checkpoint in content["checkpoints"]]
            found.append(
                {
                    "name": file.parent.name,
                    "prompt": content["prompt"],
                    "answer": content["answer"]["text"],
                    "foil": content["foil"]["text"],
                    "steps": steps,
                }
            )
        return found

    def explanation(self, run: str, name: str, *, step: int | None = None, edges: int = 20) -> dict[str, Any]:
        """What the model computed on a prompt at one checkpoint: the strongest edges, and how well they explain it.

        Raises:
            UserError: when there is no such explanation or checkpoint.
        """
        names = [entry["name"] for entry in self.explanations(run)]
        if name not in names:
            raise UserError(
                f"there is no explanation {name!r} of {run!r}",
                expected=f"one of: {', '.join(names)}" if names else "one that `dynamics explain` wrote",
                remedy=nearest(name, names) if names else f'dynamics explain {run} "PROMPT"',
            )
        content = _explanation(self.reports / run / name / "explanation.json")
        by_step = {checkpoint["step"]: checkpoint for checkpoint in content["checkpoints"]}
        at = by_step.get(max(by_step) if step is None else step)
        if at is None:
            raise UserError(
                f"step {step} was not explained",
                expected=f"one of: {', '.join(map(str, by_step))}",
                remedy="leave the step out for the last",
            )
        ids = [node["id"] for node in content["nodes"]]
        strongest = sorted(at["edges"], key=lambda edge: -abs(edge[3] or 0.0))[:edges]
        kept = ("step", "state", "reason", "answer_probability", "foil_probability", "logit_difference", "faithfulness")
        return {
            "prompt": content["prompt"],
            "tokens": content["tokens"],
            "answer": content["answer"]["text"],
            "foil": content["foil"]["text"],
            "twin": content["corrupted"],
            **{name: at[name] for name in (*kept, "edges_kept", "edges_total")},
            "strongest_edges": [
                {"source": ids[source], "target": ids[target], "port": port, "logits": score}
                for source, target, port, score in strongest
            ],
            "curve": {
                "steps": list(by_step),
                "answer_probability": [c["answer_probability"] for c in by_step.values()],
                "logit_difference": [c["logit_difference"] for c in by_step.values()],
            },
        }

    def _finding(self, run: str, key: str) -> dict[str, Any]:
        findings = {f["key"]: f for analysis in self.report(run)["analyses"] for f in analysis["findings"]}
        titles = {f["title"].lower(): f for f in findings.values()}
        found: dict[str, Any] | None = findings.get(key) or titles.get(key.lower())
        if found is None:
            raise UserError(
                f"the report of {run!r} has no circuit {key!r}",
                expected="a key or title that `list_circuits` gives",
                remedy=nearest(key, list(findings)),
            )
        return found

    def _remark(self, run: str, content: dict[str, Any]) -> str:
        """What makes a report older than its trace; empty where nothing does, or the trace is not here."""
        path = trace_path(self.traces, run)
        if not path.exists():
            return ""
        try:
            trace = Trace(path)
        except UserError as error:
            return f"The trace of this run cannot be read: {error.observed}"
        then = (content["series"]["steps"], content["series"]["status"], content["provenance"].get("fingerprint"))
        if then == ([int(s) for s in trace.steps], trace.status, trace.attributes.get("fingerprint")):
            return ""
        now, before = int(trace.complete.sum()), content["counts"].get("complete", 0)
        more = (
            f"holds {now} checkpoints by now, this report {before}"
            if now != before
            else "has changed since this report"
        )
        return f"The trace {more}: `dynamics report {run}` writes it anew."


def _explanation(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(file, dict)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read: {error}",
            expected="what `dynamics explain` wrote",
            remedy="run `dynamics explain` again",
        ) from error
    check_explanation(content)
    return content


def _dated(finding: dict[str, Any]) -> dict[str, Any]:
    """When a circuit emerged, and how sure that is, without its curve."""
    e = finding["emergence"]
    holds = finding["holds"]
    named = ("state", "onset", "onset_range", "onset_tokens", "midpoint", "completion", "loss", "confidence", "final")
    return {
        "key": finding["key"],
        "title": finding["title"],
        **{name: e[name] for name in named},
        "null": e["null"],
        "null_upper_at_the_end": next((v for v in reversed(e["null_upper"]) if v is not None), None),
        "holds": holds,
        "fragile": None if holds is None else holds < FRAGILE,
        "reason": e["reason"],
    }
