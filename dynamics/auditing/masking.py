"""Which checkpoints of a trace are masked: kept out of every curve, with the reason, though their data may be there.

Four reasons: the runs file excludes them, the listing of the series gives them away (known faults, copies of other
checkpoints), they say of themselves what their label does not, or their weights do (off the path of their neighbours). The last shows only when they are loaded, and is
decided anew whenever there are more checkpoints to compare with. What ``dynamics audit --weights`` has read and kept
counts as loaded, so that a checkpoint is also held against those that are masked or failed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checkpoints.audit import AuditFinding
from checkpoints.series import Checkpoint, Series

from ..runs.config import Run
from ..runs.resolve import Resolved
from ..store import Trace, TraceWriter
from ..store.weights import WeightSketches
from .preflight import contradiction_findings, listing_findings
from .sketches import Known, compare, kept_sketches, measured_sketches, traced_sketches

__all__ = ["Before", "apply_masks", "expected_masks", "known_before", "weight_findings"]


@dataclass(frozen=True)
class Before:
    """What is known of a series before any of it is loaded.

    Attributes:
        reasons: step to why it is masked.
        kept: step to what an audit has read of its weights; empty where nothing found is to be masked.
        unlisted: step to why its files could not be listed.
    """

    reasons: dict[int, str] = field(default_factory=dict)
    kept: Mapping[int, Known] = field(default_factory=dict)
    unlisted: Mapping[int, str] = field(default_factory=dict)


def known_before(run: Run, series: Series) -> Before:
    """What is known of a run's checkpoints before anything is loaded."""
    excluded = dict.fromkeys(run.exclude, "excluded in the runs file")
    if run.include_masked:
        return Before(excluded)
    listed = series.all_files()
    if series.local:
        # what its files' list shows is for its owner to mend: it is refused or failed, not passed over
        return Before(_reasons(contradiction_findings(series)) | excluded, kept_sketches(series, listed))
    reasons = _reasons([*listing_findings(series, listed), *contradiction_findings(series)])
    unlisted = {c.step: error.observed for c, error in series.unlisted.items()}
    return Before(reasons | excluded, kept_sketches(series, listed), unlisted)


def expected_masks(trace: Path, resolved: Resolved, before: Before) -> dict[int, str]:
    """Step to reason: what the next collection would begin by masking. Nothing is written.

    Args:
        trace: the trace; there need be none.
        resolved: the run.
        before: what is known of it.
    """
    if resolved.run.include_masked:
        return dict(before.reasons)
    checkpoints = resolved.declaration.checkpoints
    failed: set[int] = set()
    if trace.exists():
        failed = Trace(trace).steps_of("failed")
    known = {**before.kept, **traced_sketches(trace, checkpoints)}
    return _reasons(compare(known, failed | {*before.reasons})) | before.reasons


def weight_findings(
    writer: TraceWriter, checkpoints: Sequence[Checkpoint], before: Before | None = None
) -> list[AuditFinding]:
    """What the weights of the checkpoints say, by the sketches in the trace, and for others by those that were kept.

    Args:
        writer: of the trace.
        checkpoints: of the trace.
        before: what is known besides.
    """
    before = before or Before()
    steps = [c.step for c in checkpoints]
    # not those that were not asked for, between which training may have stood still
    failed = {s for s, state in zip(steps, writer.status(), strict=True) if state == "failed"}
    known = {**before.kept, **measured_sketches(steps, writer.digests(), WeightSketches(writer.path))}
    return compare(known, failed | {*before.reasons})


def apply_masks(resolved: Resolved, writer: TraceWriter, before: Before, *, weigh: bool = True) -> dict[int, str]:
    """Mask what there is reason to mask, unmask the rest; returns step to reason.

    What was measured stays on disk: a checkpoint that is unmasked and whose data is whole is complete again.

    Args:
        resolved: the run.
        writer: of its trace.
        before: what is known before anything is loaded.
        weigh: mask also by weights that were not masked before; without, most of the neighbours are not there yet, or few
            are new, and nothing is compared unless something is masked.
    """
    checkpoints = resolved.declaration.checkpoints
    reasons = dict(before.reasons)
    status = writer.status()
    masked = {c.step for c, state in zip(checkpoints, status, strict=True) if state == "masked"} - before.reasons.keys()
    if not resolved.run.include_masked and (weigh or masked):
        found = _reasons(weight_findings(writer, checkpoints, before))
        reasons = {step: reason for step, reason in found.items() if weigh or step in masked} | reasons
    for index, checkpoint in enumerate(checkpoints):
        reason = reasons.get(checkpoint.step)
        if reason is not None and (status[index] != "masked" or writer.reason(index) != reason):
            writer.mark(index, "masked", reason)
        elif reason is None and status[index] == "masked":
            writer.unmask(index)
    return reasons


def _reasons(findings: Iterable[AuditFinding]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for finding in findings:
        if finding.mask:
            text = finding.reason + (f" ({finding.source})" if finding.source else "")
            reasons[finding.step] = f"{reasons[finding.step]}; {text}" if finding.step in reasons else text
    return reasons
