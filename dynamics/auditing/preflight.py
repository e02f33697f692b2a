"""What is wrong with a series, as far as that shows before any compute."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence

from checkpoints.audit import AuditFinding, audit_listing
from checkpoints.errors import CheckpointError
from checkpoints.files.tensors import TensorInfo
from checkpoints.loading import compare_headers
from checkpoints.series import Checkpoint, Series, WeightFile

__all__ = ["contradiction_findings", "listing_findings", "preflight"]


def preflight(series: Series, checkpoints: Sequence[Checkpoint]) -> dict[Checkpoint, str]:
    """What is wrong with checkpoints' files, without loading their weights: checkpoint to reason, for the bad ones.

    Every checkpoint must have the same tensors as most of the series has. Files that would have to be downloaded
    first are not looked at.
    """
    forms: dict[str, dict[str, TensorInfo]] = {}  # one header of each form: those of thousands of checkpoints are large
    found: dict[Checkpoint, str] = {}
    bad: dict[Checkpoint, str] = {}
    for checkpoint in checkpoints:
        try:
            header = series.header(checkpoint)
        except CheckpointError as error:
            bad[checkpoint] = error.observed
        else:
            if header is not None:
                text = json.dumps(sorted((k, v.shape, v.floating) for k, v in header.items()))
                found[checkpoint] = form = hashlib.sha256(text.encode()).hexdigest()
                forms.setdefault(form, header)
    if not found:
        return bad
    reference = forms[Counter(found.values()).most_common(1)[0][0]]
    for checkpoint, form in found.items():
        problems = compare_headers(reference, forms[form])
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            bad[checkpoint] = f"{series.fetch(checkpoint)}: tensor {', '.join(problems[:3])}{more}"
    return bad


def contradiction_findings(series: Series) -> list[AuditFinding]:
    """What checkpoints say of themselves that their labels, or the rest of the series, do not."""
    return [
        AuditFinding(c.step, c.label or c.revision, "says otherwise", reason, True)
        for c, reason in series.contradictions().items()
    ]


def listing_findings(series: Series, listed: Mapping[Checkpoint, tuple[WeightFile, ...]]) -> list[AuditFinding]:
    """What the listing of a series says about its checkpoints (see ``checkpoints.audit``).

    Args:
        series: the series.
        listed: the weight files of those of its checkpoints that could be listed, with their checksums.
    """
    try:
        main = series.main_files()
    except CheckpointError:  # the comparison with it is a bonus
        main = ()
    return audit_listing(series.checkpoints, listed, entry=series.entry, main=main)
