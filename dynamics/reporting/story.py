"""What was found, in plain sentences that are made from the numbers and hedged as they are.

A sentence names the two checkpoints between which a circuit emerged, never a step in between; what the definitions of emergence
say differently, what would not be found again with other prompts, and what was lost later, stands in the same paragraph. The
page begins with these sentences, ``report.md`` consists of them, and ``report.json`` has them as ``story``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..analysis.findings import Finding
from ..analysis.section import Summary
from ..emergence import FRAGILE, Interval, State
from ..wording import listed

__all__ = ["dated", "story"]

_HAPPENED = ("emerged", "transient")
_DATED = (*_HAPPENED, "present from start")

FAR = math.log10(2.0)
"""Definitions whose dates lie farther apart than a doubling of training are named."""


def story(summaries: Sequence[Summary], order: Mapping[str, Any]) -> dict[str, Any]:
    """The findings of all analyses as text.

    Args:
        summaries: of every analysis.
        order: which headline findings can be put in order (:func:`.ordering.order_content`).

    Returns:
        ``lead``: sentences about all headline findings together; ``analyses``: for each analysis with headline findings its
        name and title, ``summary`` (a few sentences) and ``circuits`` (one paragraph for each circuit with a date).
    """
    found = [finding for summary in summaries for finding in summary.findings if finding.headline]
    parts = [(summary, [f for f in summary.findings if f.headline]) for summary in summaries]
    return {
        "lead": _lead(found, order) if found else [],
        "analyses": [
            {
                "analysis": summary.analysis,
                "title": summary.title,
                "summary": _summary(findings, short := _short(findings)),
                "circuits": [_dated(f, short[f.key]) for f in findings if f.emergence.state in _DATED],
            }
            for summary, findings in parts
            if findings
        ],
    }


def _lead(found: Sequence[Finding], order: Mapping[str, Any]) -> list[str]:
    states = [f.emergence.state for f in found]
    words: tuple[tuple[State, str], ...] = (
        ("emerged", "emerged"),
        ("present from start", "had it from the first checkpoint on"),
        ("transient", "rose and were lost again" if states.count("transient") > 1 else "rose and was lost again"),
        (
            "not emerged",
            "did not exceed their null" if states.count("not emerged") > 1 else "did not exceed its null",
        ),
        ("not measurable", "could not be measured"),
    )
    counted = [f"{count} {text}" for state, text in words if (count := states.count(state))]
    one = f"The circuit {counted[0].removeprefix('1 ')}."
    sentences = [f"Of {len(found)} circuits, {listed(counted)}." if len(found) > 1 else one]
    if fragile := sum(map(_fragile, found)):
        sentences.append(
            f"{fragile} of the {len(found)} findings are marked fragile: with other prompts, other null draws or one checkpoint "
            "less, another date or state is found too often to rely on theirs."
        )
    dated = sorted(
        (f for f in found if f.emergence.state in _HAPPENED and f.emergence.onset is not None and not _fragile(f)),
        key=lambda f: _by(f.emergence.onset),
    )
    if len(dated) > 1:
        first, last = dated[0], dated[-1]
        sentences.append(
            f"{'Of those that are not fragile, the' if any(map(_fragile, found)) else 'The'} earliest onset is that of {first.title} ({_when(first.emergence.onset)}), the latest that of "
            f"{last.title} ({_when(last.emergence.onset)})."
        )
    if pairs := order["pairs"]:
        known = sum(pair["order"] != "cannot be ordered" for pair in pairs)
        sentences.append(
            f"{known} of {len(pairs)} pairs of circuits can be put in order of their onsets, at a false discovery rate of "
            f"{order['false_discovery_rate']:.0%}; of the others it is open which came first."
        )
    return sentences


def _summary(findings: Sequence[Finding], short: Mapping[str, str]) -> list[str]:
    """The circuits of one analysis in a few sentences: in the order of their onsets, then what is not sure."""
    said = []
    groups: dict[str, list[str]] = {}
    for f in sorted((f for f in findings if f.emergence.state in _HAPPENED), key=lambda f: _by(f.emergence.onset)):
        groups.setdefault(_when(f.emergence.onset), []).append(short[f.key] + _marks(f))
    if groups:
        parts = [f"{listed(names)} {when}" for when, names in groups.items()]
        said.append("Emerged: " + "; ".join(parts) + ".")
    if there := [short[f.key] + _marks(f) for f in findings if f.emergence.state == "present from start"]:
        said.append(f"From the first measured checkpoint on: {listed(there)}.")
    apart = [
        f"{short[f.key]} ({10**spread:.1f} times)"
        for f in findings
        if f.onsets and f.agreement.disagreeing and (spread := f.agreement.spread_decades or 0.0) > FAR
    ]
    if apart:
        said.append(f"Definitions of emergence date differently, in steps: {listed(apart)}.")
    said += _absent(findings, short)
    return [sentence[:1].upper() + sentence[1:] for sentence in said]


def _absent(findings: Sequence[Finding], short: Mapping[str, str]) -> list[str]:
    """What did not emerge, and what was not measured and why: not the same."""
    said = []
    for hedge, members in (
        ("", [f for f in findings if f.emergence.state == "not emerged" and not _fragile(f)]),
        (", though not in all looks", [f for f in findings if f.emergence.state == "not emerged" and _fragile(f)]),
    ):
        if members:
            nulls = listed(list(dict.fromkeys(f.emergence.null for f in members)))
            said.append(f"Not seen above the null ({nulls}){hedge}: {listed([short[f.key] for f in members])}.")
    reasons: dict[str, list[str]] = {}
    for f in findings:
        if f.emergence.state == "not measurable":
            reasons.setdefault(f.emergence.reason, []).append(short[f.key])
    return said + [f"Not measurable: {listed(names)} ({reason})." for reason, names in reasons.items()]


def _marks(finding: Finding) -> str:
    """What has to be said of a circuit wherever its date is."""
    e, marks = finding.emergence, []
    if _fragile(finding):
        marks.append("fragile")
    if e.state == "transient":
        marks.append(f"lost again {_when(e.loss)}")
    if finding.mirage is not None and finding.mirage.verdict == "does not survive":
        marks.append("sharp in this metric only")
    return f" ({', '.join(marks)})" if marks else ""


def _short(findings: Sequence[Finding]) -> dict[str, str]:
    """Titles by key, without the words before a colon that all of them begin with."""
    beginnings = {f.title.split(": ")[0] for f in findings}
    cut = len(findings) > 1 and len(beginnings) == 1 and all(": " in f.title for f in findings)
    return {f.key: f.title.split(": ", 1)[1] if cut else f.title for f in findings}


def dated(finding: Finding) -> str:
    """When a finding emerged, in a sentence; its state where it has no date."""
    e = finding.emergence
    if e.state not in _DATED:
        return f"{e.state}{': ' + e.reason if e.reason else ''}"
    return _dated(finding, finding.title)


def _dated(finding: Finding, name: str) -> str:
    """All that is known of when one circuit emerged."""
    e = finding.emergence
    subject = name[:1].upper() + name[1:]
    if e.state == "present from start":
        text = f"{subject} is there from the first measured checkpoint on (step {finding.steps[0]} or before)"
        if e.onset is not None and e.onset.by is not None:
            text = f"{subject} is there from the first measured checkpoint on, step {e.onset.by}"
    else:
        text = f"{subject} emerged {_when(e.onset)}"
        if e.onset_range is not None and e.onset_range != e.onset:
            text += f", {_when(e.onset_range)} in 95% of resamplings"
    if e.state == "transient":
        text += f", and was lost again {_when(e.loss)}" if e.loss is not None else ", and was lost again"
    elif e.state != "present from start" and (later := _later(finding)):
        text += f"; {later}"
    return f"{text}. {_level(finding)}{' '.join(['', *_hedges(finding)])}"


def _later(finding: Finding) -> str:
    """When a rise was half done and done, as far as that was seen after its onset."""
    e, parts = finding.emergence, []
    start = -np.inf if e.onset is None or e.onset.after is None else e.onset.after
    if e.midpoint is not None and e.midpoint >= start:
        parts.append(f"half of its rise was made by step {e.midpoint:.0f}")
    if e.completion is not None and e.completion.by is not None and e.completion.by > start:
        parts.append(f"nine tenths {_when(e.completion)}")
    elif e.completion is not None and e.completion.by is None:
        parts.append("it was still rising at the end")
    return listed(parts)


def _level(finding: Finding) -> str:
    """Where the curve ended, and what its null reached there."""
    measured = np.flatnonzero(np.isfinite(finding.values))
    if not measured.size:
        return ""
    last = int(measured[-1])
    at = (
        "At the end"
        if last == len(finding.values) - 1
        else f"At step {finding.steps[last]}, where it was last measured,"
    )
    text = f"{at} it is {finding.values[last]:.2f} ({finding.metric})"
    bound = finding.emergence.null_upper[last] if finding.emergence.null_upper else np.nan
    side = "at most" if finding.emergence.direction == "up" else "at least"
    return f"{text}, its null {side} {bound:.2f} ({finding.emergence.null})." if np.isfinite(bound) else f"{text}."


def _hedges(finding: Finding) -> list[str]:
    """What speaks against taking the date for more than it is."""
    e, said = finding.emergence, []
    if _fragile(finding):
        assert finding.holds is not None
        said.append(
            f"Fragile: the same in {100 * finding.holds:.0f} of 100 looks with other prompts, null draws or a checkpoint less."
        )
    if finding.onsets:
        agreement = finding.agreement
        if agreement.unanimous:
            said.append(f"All {len(agreement.states)} definitions of emergence agree on when.")
        else:
            there = sum(s not in ("not emerged", "not measurable") for s in agreement.states.values())
            apart = (
                f", and their dates differ by a factor of {10**agreement.spread_decades:.1f} in steps"
                if agreement.disagreeing and agreement.spread_decades
                else ""
            )
            said.append(f"{there} of {len(agreement.states)} definitions of emergence date it{apart}.")
    if finding.mirage is not None and finding.mirage.verdict == "does not survive":
        said.append("It looks sharp in this metric only: its continuous twin rises gradually.")
    if e.state != "transient" and e.fall is not None:
        said.append(f"It has fallen by {e.fall:.2f} since its best.")
    if e.episodes > 1:
        said.append(f"It came and went: {e.episodes} episodes above the null.")
    return said


def _fragile(finding: Finding) -> bool:
    return finding.holds is not None and finding.holds < FRAGILE


def _by(interval: Interval | None) -> float:
    return np.inf if interval is None or interval.by is None else interval.by


def _when(interval: Interval | None) -> str:
    """An interval between two checkpoints, in words."""
    if interval is None or (interval.after is None and interval.by is None):
        return "at a step that is not known"
    if interval.after is None:
        return f"by step {interval.by}"
    return (
        f"after step {interval.after}" if interval.by is None else f"between steps {interval.after} and {interval.by}"
    )
