"""What of a run is compared: its findings with the onset of every bootstrap draw, its configuration, its prompts.

From the results in its trace, which are made where they are missing; without a trace from its ``report.json``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from checkpoints.errors import UserError
from checkpoints.foreign import read_json

from ..analyser import analysed
from ..analysis.findings import Finding
from ..names import PROMPT
from ..numerics.arrays import FloatArray
from ..progress import Reporter
from ..reporting.schema import check_report
from ..runs.lookup import trace_name
from ..store import Trace
from ..store.paths import beside_traces, open_run_trace, trace_path

__all__ = ["DATED", "ComparedRun", "OnsetKnown", "Unit", "from_report", "load_compared"]

Unit = Literal["steps", "tokens"]

DATED = ("emerged", "transient", "present from start")
"""States with an onset in the series, or before it."""


@dataclass(frozen=True)
class OnsetKnown:
    """What a run says of one circuit's onset, in log2 of a unit.

    Attributes:
        low, high: the onset between two checkpoints; infinite where it is censored.
        draws: (draw, 2) the same of every bootstrap draw; NaN for one that cannot be used; may be empty.
    """

    low: float
    high: float
    draws: FloatArray

    def spread_out(self) -> tuple[FloatArray, FloatArray]:
        """The distinct intervals of the draws (interval, 2) with their shares; the observed one alone without draws."""
        usable = self.draws[~np.isnan(self.draws).any(axis=1)] if len(self.draws) else self.draws
        if not len(usable):
            return np.array([[self.low, self.high]]), np.ones(1)
        found, counts = np.unique(usable, axis=0, return_counts=True)
        return found, np.asarray(counts / counts.sum())


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One of the runs that are compared.

    Attributes:
        name: of the run.
        config: the run as it was resolved, as JSON values.
        model: what is known of the model's size.
        steps, tokens: (checkpoint,) of its series; tokens are NaN where they are not known.
        findings: by key; headline findings are compared.
        titles: of its analyses.
        counts: how many checkpoints have each status.
        origin: where its weights come from.
        provenance: the program that measured it.
        prompts: probe to a digest of its prompts; empty where they are not known.
        path: its trace, where there is one.
    """

    name: str
    config: Mapping[str, Any]
    model: Mapping[str, Any]
    steps: np.ndarray
    tokens: np.ndarray
    findings: Mapping[str, Finding]
    titles: Mapping[str, str]
    counts: Mapping[str, int]
    origin: Any = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def headlines(self) -> dict[str, Finding]:
        """The findings that are compared, by key."""
        return {key: f for key, f in self.findings.items() if f.headline}

    def known(self, key: str, unit: Unit = "steps") -> OnsetKnown | None:
        """The onset of a circuit; None where the run does not have it, it was not measurable, or tokens are not known."""
        finding = self.findings.get(key)
        if finding is None or finding.emergence.state == "not measurable" or finding.emergence.onset is None:
            return None
        onset = finding.emergence.onset
        if finding.emergence.state == "not emerged":
            ends = np.array([[self._last(finding), np.inf]])
        else:
            after, by = onset.after, onset.by
            ends = np.array([[-np.inf if after is None else after, np.inf if by is None else by]], dtype=np.float64)
        draws = finding.onset_intervals() if len(finding.onset_by) else np.empty((0, 2))
        if unit == "tokens" and not self._tokens_known:
            return None
        low, high = self._scaled(ends, unit)[0].tolist()
        return OnsetKnown(low, high, self._scaled(draws, unit))

    @cached_property
    def _tokens_known(self) -> bool:
        return bool(len(self.tokens) and np.isfinite(self.tokens).all())

    @staticmethod
    def _last(finding: Finding) -> float:
        valid = np.isfinite(finding.values) & np.isfinite(finding.emergence.null_upper)
        return float(np.array(finding.steps)[valid][-1]) if valid.any() else -np.inf

    def _scaled(self, ends: np.ndarray, unit: Unit) -> np.ndarray:
        """Steps as log2(step + 1), as midpoints are taken in log10(step + 1); tokens as log2(tokens + those of one step), likewise."""
        if unit == "steps":
            with np.errstate(divide="ignore"):
                return np.asarray(np.where(np.isfinite(ends), np.log2(np.where(np.isfinite(ends), ends, 0) + 1), ends))
        finite = np.isfinite(ends)
        order = np.argsort(self.steps)
        index = order[np.searchsorted(self.steps[order], ends[finite])]
        result = ends.astype(np.float64).copy()
        result[finite] = np.log2(self.tokens[index] + self._one_step)
        return result

    @cached_property
    def _one_step(self) -> float:
        """Tokens of the first step, as far as checkpoints say; 1 where they do not."""
        later = (self.steps > 0) & (self.tokens > 0)
        first = int(np.argmin(np.where(later, self.steps, np.inf))) if later.any() else 0
        return float(self.tokens[first] / self.steps[first]) if later.any() else 1.0


def load_compared(
    names: Sequence[str],
    *,
    runs: Path | None,
    traces: Path,
    reports: Path | None,
    reporter: Reporter,
) -> list[ComparedRun]:
    """The runs of these names; analyses that were not run yet are run.

    Raises:
        UserError: for fewer than two runs, a name twice, one that has neither a trace nor a report.
    """
    called = [trace_name(name) for name in names]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice or len(called) < 2:
        raise UserError(
            f"{twice[0]!r} is named twice" if twice else f"{len(called)} run to compare",
            expected="two or more runs, each once",
            remedy="dynamics compare RUN RUN ...",
        )
    return [_loaded(name, runs, traces, reports or beside_traces(traces, "reports"), reporter) for name in names]


def _loaded(name: str, runs: Path | None, traces: Path, reports: Path, reporter: Reporter) -> ComparedRun:
    called = trace_name(name)
    file = reports / called / "report.json"
    if not trace_path(traces, called).exists() and file.is_file():
        try:
            content: dict[str, Any] = read_json(file, dict)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file} cannot be read: {error}",
                expected="what `dynamics report` wrote",
                remedy=f"dynamics report {name}",
            ) from error
        check_report(content)
        reporter.say(f"{called}: from its report, as there is no trace of it in {traces}")
        return from_report(content)
    if not trace_path(traces, called).exists():
        open_run_trace(called, traces)  # says what is missing
    trace, results = analysed(name, runs=runs, traces=traces, fresh=False, reporter=reporter)
    summaries = [result.summary for result in results]
    about = trace.attributes
    return ComparedRun(
        name=called,
        config=about.get("run_config", {}),
        model=about.get("model_config", {}),
        steps=np.asarray(trace.steps),
        tokens=np.asarray(trace.tokens, dtype=np.float64),
        findings={finding.key: finding for summary in summaries for finding in summary.findings},
        titles={summary.analysis: summary.title for summary in summaries},
        counts=_counted(trace.status),
        origin=about.get("origin"),
        provenance={k: about.get(k) for k in ("versions", "commit", "dtype", "tokenizer_digest")},
        prompts=prompts_of(trace),
        path=trace.path,
    )


def from_report(content: Mapping[str, Any], trace: Trace | None = None) -> ComparedRun:
    """A run from its ``report.json``; which prompts it asked is known from its trace alone."""
    series = content["series"]
    findings = [Finding.from_json(f) for analysis in content["analyses"] for f in analysis["findings"]]
    return ComparedRun(
        name=content["run"],
        config=content["run_config"] or {},
        model=content["model"],
        steps=np.array(series["steps"], dtype=np.int64),
        tokens=np.array([np.nan if t is None else t for t in series["tokens"]], dtype=np.float64),
        findings={f.key: f for f in findings},
        titles={analysis["analysis"]: analysis["title"] for analysis in content["analyses"]},
        counts=content["counts"],
        origin=series["origin"],
        provenance=content["provenance"],
        prompts={} if trace is None else prompts_of(trace),
        path=None if trace is None else trace.path,
    )


def prompts_of(trace: Trace) -> dict[str, str]:
    """Probe to a digest of the texts and answers of its prompts."""
    found = {}
    for probe in trace.probes:
        dataset = trace.probe(probe)
        digest = hashlib.sha256()
        for name in sorted(str(name) for name, array in dataset.coords.items() if array.dims == (PROMPT,)):
            digest.update(name.encode())
            digest.update("\0".join(str(value) for value in dataset[name].values).encode())
        found[probe] = digest.hexdigest()[:16]
    return found


def _counted(status: Sequence[str]) -> dict[str, int]:
    return {word: list(status).count(word) for word in dict.fromkeys(status)}
