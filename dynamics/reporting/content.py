"""What a report says, as JSON values: everything on the page and in ``report.json`` comes from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..analyser import Result
from ..analysis.findings import Finding
from ..emergence import FRAGILE, Emergence, Onset
from ..store import Trace
from ..wording import steps_text
from .ordering import order_content
from .schema import FORMAT
from .story import story

__all__ = ["headlines", "report_content", "row"]

_MODEL: dict[str, tuple[str, ...]] = {
    "model_type": (),
    "num_hidden_layers": ("n_layer", "n_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads"),
    "vocab_size": (),
}
"""What the page says of a model: keys of its config, and what other families of models call them."""


def headlines(results: Sequence[Result]) -> list[Finding]:
    """The headline findings of all analyses, in order."""
    return [f for result in results for f in result.summary.findings if f.headline]


def row(finding: Finding) -> dict[str, Any]:
    """One line of the emergence table, as text; ``onsets`` has one for each definition.

    What was reached before the onset, within the noise of the null, does not follow it: that is said in the note.
    """
    e = finding.emergence
    happened = e.state in ("emerged", "transient")
    before = _before_onset(e) if happened else {}
    value, bound = finding.values[-1], e.null_upper[-1] if e.null_upper else float("nan")
    last = f"{value:.2f}" if np.isfinite(value) else "–"
    return {
        "title": finding.title,
        "state": e.state,
        "onset": str(e.onset) if e.onset is not None and e.state != "not emerged" else "–",
        "range": str(e.onset_range) if happened and e.onset_range is not None else "–",
        "tokens": _tokens(e) if happened else "–",
        "midpoint": f"{e.midpoint:.0f}" if happened and e.midpoint is not None and "midpoint" not in before else "–",
        "completion": str(e.completion or "–") if happened and "completion" not in before else "–",
        "width": f"{e.width_decades:.2f}" if happened and e.width_decades is not None else "–",
        "final": f"{last} ({bound:.2f})" if np.isfinite(bound) else last,
        "metric": finding.metric,
        "null": e.null,
        "note": "; ".join([*_notes(finding), *before.values()]),
        "onsets": [_onset(onset) for onset in finding.onsets],
        "definitions_agree": finding.agreement.sentence if finding.onsets else "",
        "mirage": _mirage(finding),
    }


def _onset(onset: Onset) -> dict[str, str]:
    """One definition's onset, as text."""
    there = onset.state not in ("not emerged", "not measurable")
    name = onset.definition if onset.reach is None else f"{onset.definition} of {onset.reach:g}"
    return {
        "definition": name,
        "state": onset.state,
        "between": str(onset.between) if there and onset.between is not None else "–",
        "range": str(onset.range) if there and onset.range is not None else "–",
        "estimate": f"{onset.step:.0f}" if there and onset.step is not None else "–",
        "width": f"{onset.width_decades:.2f}" if there and onset.width_decades is not None else "–",
        "reason": onset.reason,
    }


def _mirage(finding: Finding) -> dict[str, Any] | None:
    """What its continuous twin says of a rise; None where there is none of either."""
    if finding.mirage is None or finding.emergence.state not in ("emerged", "transient"):
        return None
    return {name: getattr(finding.mirage, name) for name in ("verdict", "sentence", "width", "twin_width")}


def _before_onset(e: Emergence) -> dict[str, str]:
    """Which of ``midpoint`` and ``completion`` lie before the onset, in words."""
    start = None if e.onset is None else e.onset.after
    found = {}
    if start is not None and e.midpoint is not None and e.midpoint < start:
        found["midpoint"] = f"half of its rise, at step {e.midpoint:.0f}, lies before its onset"
    if start is not None and e.completion is not None and e.completion.by is not None and e.completion.by <= start:
        found["completion"] = f"nine tenths of its rise, in {e.completion}, lie before its onset"
    return found


def _notes(finding: Finding) -> list[str]:
    e = finding.emergence
    if e.state == "not measurable":
        return [e.reason]
    parts = []
    measured = np.isfinite(finding.values)
    if not measured[-1]:
        parts.append(f"last measured at step {finding.steps[int(np.flatnonzero(measured)[-1])]}")
    if e.state == "transient" and e.loss is not None:
        parts.append(f"lost in {e.loss}")
    if finding.holds is not None and finding.holds < FRAGILE:
        parts.append(
            f"fragile: holds in {100 * finding.holds:.0f} of 100 looks with other prompts, null draws and checkpoints"
        )
    if e.episodes > 1:
        parts.append(f"came and went: {e.episodes} episodes above the null")
    return parts


def _tokens(e: Emergence) -> str:
    if e.onset_tokens is None or e.onset_tokens == (None, None):
        return "–"
    after, by = (("?" if t is None else _count(t)) for t in e.onset_tokens)
    return f"({after}, {by}]"


def _count(tokens: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return str(tokens)


def report_content(name: str, trace: Trace, results: Sequence[Result]) -> dict[str, Any]:
    """The whole report as JSON values.

    ``docs/report-format.md`` describes it, :mod:`.schema` checks it. Keys: ``format``, ``run``, ``story`` (see :func:`.story.story`), ``series`` (steps and status of every checkpoint), ``counts``, ``problems``,
    ``problem_texts`` (the same, steps of one reason together), ``emergence`` (headline rows), ``order`` (see
    :func:`order_content`), ``definitions`` (see :func:`_definitions`), ``analyses`` (summaries), ``probes``,
    ``provenance``, ``truth``.
    """
    attributes = trace.attributes
    config = attributes.get("model_config", {})
    root = trace.tree.to_dataset()
    problems = [
        {"step": int(s), "status": status, "reason": reason}
        for s, status, reason in zip(trace.steps, trace.status, trace.reasons, strict=True)
        if status in ("failed", "masked")
    ]
    for name_of_count, words in (
        ("nonfinite", "the model returned {} values that are not finite"),
        ("overflowed", "{} activations were too large for float16 and are stored as infinity"),
    ):
        counted = root[name_of_count].values
        problems += [
            {"step": int(trace.steps[i]), "status": "complete", "reason": words.format(int(counted[i]))}
            for i in np.flatnonzero((counted > 0) & trace.complete)
        ]
    order = order_content(headlines(results))
    return {
        "format": FORMAT,
        "run": name,
        "description": attributes.get("run_config", {}).get("description", ""),
        "series": {
            "origin": attributes.get("origin"),
            "steps": [int(s) for s in trace.steps],
            "tokens": [None if np.isnan(t) else int(t) for t in trace.tokens],
            "status": trace.status,
            "step_counts": attributes.get("step_counts", "optimizer steps"),
        },
        "counts": dict(Counter(trace.status)),
        "problems": problems,
        "problem_texts": _grouped(problems),
        "model": {
            k: value
            for k, names in _MODEL.items()
            if (value := next((config[n] for n in (k, *names) if config.get(n) is not None), None)) is not None
        },
        "emergence": [{**row(f), "key": f.key} for f in headlines(results)],
        "story": story([result.summary for result in results], order),
        "order": order,
        "definitions": _definitions(headlines(results)),
        "analyses": [result.summary.to_json() for result in results],
        "probes": [_probe(trace, probe) for probe in trace.probes],
        "truth": _truth(attributes),
        "provenance": {
            k: attributes.get(k)
            for k in ("versions", "platform", "commit", "dirty", "tokenizer_digest", "dtype", "fingerprint")
        },
        "run_config": attributes.get("run_config"),
    }


def _definitions(findings: Sequence[Finding]) -> dict[str, Any]:
    """How far the definitions of emergence agree over the findings that any of them dates.

    Keys: ``found`` (how many those are), ``agree`` (titles of those on which all agree), ``apart`` (title and sentence
    of the others, those that lie farthest apart first).
    """
    agreements = {f.title: f.agreement for f in findings if f.onsets}
    found = {t: a for t, a in agreements.items() if set(a.states.values()) - {"not emerged", "not measurable"}}
    apart = sorted((t for t, a in found.items() if not a.unanimous), key=lambda t: -(found[t].spread_decades or 0.0))
    return {
        "found": len(found),
        "agree": [title for title, a in found.items() if a.unanimous],
        "apart": [
            {"title": t, "sentence": found[t].sentence, "spread_decades": found[t].spread_decades} for t in apart
        ],
    }


def _grouped(problems: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence per status and reason."""
    steps: dict[tuple[str, str], list[int]] = {}
    for problem in problems:
        steps.setdefault((problem["status"], problem["reason"]), []).append(problem["step"])
    return [f"{steps_text(members)} ({status}): {reason}" for (status, reason), members in steps.items()]


def _probe(trace: Trace, name: str) -> dict[str, Any]:
    dataset = trace.probe(name)
    texts = [str(t) for t in dataset["text"].values[:3]]
    return {
        "name": name,
        "description": str(dataset.attrs.get("description", "")),
        "prompts": int(dataset.sizes["prompt"]),
        "examples": texts,
        "variables": {
            str(v): ", ".join(f"{d} {n}" for d, n in dataset[v].sizes.items() if d != "checkpoint")
            for v in dataset.data_vars
        },
    }


def _truth(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """For an organism: from which step each world was in the data (what can have formed when); None: never shown."""
    series = attributes.get("run_config", {}).get("series", {})
    curriculum = series.get("curriculum", {}) if series.get("kind") == "organism" else {}
    return [
        {"world": w, "from_step": e["from_step"] if e["share"] else None, "share": e["share"]}
        for w, e in curriculum.items()
    ]
