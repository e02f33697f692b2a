"""Which checkpoints of a trace are masked: kept out of every curve, with the reason, though their data may be there.

Three reasons: the runs file excludes them, the listing of the series gives them away (known faults, copies of other
checkpoints), or their weights do (off the path of their neighbours). The last shows only when they are loaded, and is
decided anew whenever there are more checkpoints to compare with.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from checkpoints.audit import AuditFinding, audit_weights
from checkpoints.hub import HubSeries

from .preflight import listing_findings
from .resolve import Resolved
from .store import TraceWriter

__all__ = ["apply_masks", "masks_before", "weight_findings"]


def masks_before(resolved: Resolved) -> dict[int, str]:
    """Step to reason, as far as it is known before anything is loaded."""
    assert resolved.series is not None
    reasons: dict[int, str] = {}
    # the faults of a local series are for its owner to mend: they are refused or failed, not passed over
    if isinstance(resolved.series, HubSeries) and not resolved.run.include_masked:
        reasons |= _reasons(listing_findings(resolved.series))
    return reasons | dict.fromkeys(resolved.run.exclude, "excluded in the runs file")


def weight_findings(writer: TraceWriter, steps: Iterable[int]) -> list[AuditFinding]:
    """What the weights of the collected checkpoints say, by the sketches in the trace."""
    digests = writer.digests()
    known = np.array([bool(d) for d in digests])
    if known.sum() < 3:
        return []
    measured = {name: values[known] for name, values in writer.sketches().items()}
    return audit_weights(
        np.array(list(steps))[known],
        measured["sketch"],
        measured["norm"],
        measured["nonfinite"],
        # weights that are all NaN are the same bytes at every step, which says nothing about labels
        [d if n == 0 else "" for d, n in zip((d for d in digests if d), measured["nonfinite"], strict=True)],
    )


def apply_masks(resolved: Resolved, writer: TraceWriter, before: dict[int, str]) -> dict[int, str]:
    """Mask what there is reason to mask, unmask the rest; returns step to reason.

    What was measured stays on disk: a checkpoint that is unmasked and whose data is whole is complete again.
    """
    checkpoints = resolved.declaration.checkpoints
    reasons = dict(before)
    if not resolved.run.include_masked:
        reasons = _reasons(weight_findings(writer, [c.step for c in checkpoints])) | reasons
    status, digests = writer.status(), writer.digests()
    for index, checkpoint in enumerate(checkpoints):
        reason = reasons.get(checkpoint.step)
        if reason is not None and (status[index] != "masked" or writer.reason(index) != reason):
            writer.mark(index, "masked", reason)
        elif reason is None and status[index] == "masked":
            writer.mark(index, "complete" if digests[index] else "pending")
    return reasons


def _reasons(findings: Iterable[AuditFinding]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for finding in findings:
        if finding.mask:
            text = finding.reason + (f" ({finding.source})" if finding.source else "")
            reasons[finding.step] = f"{reasons[finding.step]}; {text}" if finding.step in reasons else text
    return reasons
