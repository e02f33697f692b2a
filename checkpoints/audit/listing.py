"""Which checkpoints do not hold what their label says, judging from the listing of their files alone?

Hubs list the size and the sha256 of every large file, so that weights which are another step's show before anything is
downloaded: in one published series half of all steps serve the final ones (EleutherAI/pythia issue 205). Files are
compared by digest whether they are called alike or not; one without a digest is not compared. Who of several with the
same weights can be right is judged in :mod:`.equal`.

>>> from checkpoints.series import Checkpoint, WeightFile
>>> steps = [Checkpoint(s, f"step{s}") for s in (0, 1000, 2000)]
>>> files = {c: (WeightFile("model.safetensors", 8, sha),) for c, sha in zip(steps, "abb")}
>>> [(f.step, f.kind, f.reason) for f in audit_listing(steps, files)]
[(1000, 'stale', 'serves the weights of the last step, 2000')]
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..catalogue.entry import Entry, KnownFault
from ..series import Checkpoint, WeightFile
from .equal import Judge
from .findings import AuditFinding, Kind, name_steps

__all__ = ["audit_listing"]

Files = Mapping[int, tuple[WeightFile, ...]]

ODD = 0.01
"""Relative difference in size that metadata in a file's header cannot make, and another dtype or a lost shard does."""

_SHOWN = ("stale", "shared weights", "shared file", "no weights")
"""Findings by which a listing shows that something is wrong with a step."""

_MISSING = re.compile(
    r"\b(no|without|lacks?|missing)( any| its)?( model)? weights?\b|\bweights? (is|are|was|were) (missing|absent)\b",
    re.IGNORECASE,
)
"""How the reason of a known fault says that there are no weights."""


def audit_listing(
    checkpoints: Sequence[Checkpoint],
    files: Mapping[Checkpoint, tuple[WeightFile, ...]],
    *,
    entry: Entry | None = None,
    main: Sequence[WeightFile] | None = None,
) -> list[AuditFinding]:
    """Faults of a series that its listing shows, and those that are known.

    Args:
        checkpoints: all of them, by step.
        files: weight files of each; an empty tuple says that it has none, and one that is not there was not listed.
        entry: what is known about the series: its schedule, its faults, what is equal on purpose.
        main: weight files of the branch main; None or empty where there are none.

    Returns:
        By step; a checkpoint should be left out if ``mask`` is true for any of its findings.
    """
    labels = {c.step: c.label or c.revision for c in checkpoints}
    listed = {c.step: files[c] for c in checkpoints if c in files}
    found = [
        AuditFinding(step, labels[step], "no weights", "has no weight file", True)
        for step, held in listed.items()
        if not held
    ]
    if entry is not None:
        found += _schedule(entry, labels)
    found += _sizes(listed, labels)
    found += _same_files(listed, labels, entry, {f.sha256 for f in main or () if f.sha256})
    if entry is not None:
        found += _known(entry, checkpoints, listed, {f.step for f in found if f.kind in _SHOWN})
    return sorted(found, key=lambda f: (f.step, f.kind))


def _same_files(listed: Files, labels: Mapping[int, str], entry: Entry | None, main: set[str]) -> list[AuditFinding]:
    """Checkpoints that share all of their files, and those that share some."""
    digests = {step: {f.sha256: f.name for f in held if f.sha256} for step, held in listed.items()}
    groups: dict[frozenset[str], list[int]] = defaultdict(list)
    for step, held in listed.items():
        if held and all(f.sha256 for f in held):
            groups[frozenset(digests[step])].append(step)
    last = max([*labels, *(entry.expected_steps if entry is not None else ())], default=-1)
    judge = Judge(
        labels,
        last,
        main_is_last=entry is None or entry.main != "later",
        main_differs=bool(main) and any(last in members and not group <= main for group, members in groups.items()),
        design=entry.equal_by_design if entry is not None else (),
    )
    found: list[AuditFinding] = []
    alike = {step: {step} for step in digests}
    for group, members in groups.items():
        alike |= {step: set(members) for step in members}
        if len(members) > 1 or group <= main:
            found += judge.findings(members, equals_main=group <= main)
    judged = {f.step for f in found if f.mask} | {last} | alike.get(last, set())
    judged |= {step for group, members in groups.items() if group <= main for step in members}
    return found + _one_file(digests, judge, main, alike, judged)


def _one_file(
    digests: Mapping[int, Mapping[str, str]],
    judge: Judge,
    main: set[str],
    alike: Mapping[int, set[int]],
    judged: set[int],
) -> list[AuditFinding]:
    """Checkpoints some of whose files are another step's.

    Args:
        digests: the name of every file with a digest, by digest, for every step.
        judge: what is known of the series.
        main: digests of the files of main.
        alike: for every step, those that share all of its files, itself included.
        judged: steps that need no second word.
    """
    owners: dict[str, set[int]] = defaultdict(set)
    for step, held in digests.items():
        for digest in held:
            owners[digest].add(step)
    having = {step for step, held in digests.items() if held}
    found: list[AuditFinding] = []
    # A file that never changes is a part that is not trained; if all of the weights never change, that was judged above.
    constant = {d for d, steps in owners.items() if steps == having and len(having) > 2 and alike[min(steps)] != steps}
    for digest in sorted(constant):
        first = min(having)
        reason = (
            f"{digests[first][digest]} is the same file in every checkpoint: it holds weights that were not trained"
        )
        found.append(AuditFinding(first, judge.labels[first], "shared file", reason, False))
    for step in sorted(having - judged):
        others = {d: owners[d] - alike[step] for d in digests[step] if d not in constant}
        shared = {"main": {d for d in others if d in main}}
        shared[f"the last step, {judge.last},"] = {d for d in others if judge.last in others[d]}
        rest = set[int]().union(*others.values())
        if rest and judge.designed(alike[step]) is None:  # where it is explained, the others are at fault
            reason = f"{name_steps(rest, list(judge.labels))}; at most one label can be right"
            shared[reason] = {d for d in others if others[d]}
        for owner, taken in shared.items():
            if taken:
                names = ", ".join(sorted(digests[step][d] for d in taken))
                reason = f"{names} {'is' if len(taken) == 1 else 'are'} also in {owner.removesuffix(',')}"
                found.append(AuditFinding(step, judge.labels[step], "shared file", reason, True))
                break
    return found


def _sizes(listed: Files, labels: Mapping[int, str]) -> list[AuditFinding]:
    """Checkpoints whose weights are larger or smaller than those of more than half of all."""
    size = {step: sum(f.size for f in held) for step, held in listed.items() if held}
    near = {step: sum(abs(other - n) <= ODD * n for other in size.values()) for step, n in size.items()}
    usual = max(size, key=lambda step: near[step], default=-1)
    if usual < 0 or near[usual] * 2 <= len(size):
        return []
    reason = (
        f"where {near[usual]} of {len(size)} checkpoints have {_bytes(size[usual])}: another dtype, or not complete"
    )
    return [
        AuditFinding(step, labels[step], "odd size", f"has {_bytes(n)} of weights {reason}", False)
        for step, n in size.items()
        if abs(n - size[usual]) > ODD * size[usual]
    ]


def _bytes(number: float) -> str:
    """A size as people say it."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.3g} {units[0]}"


def _schedule(entry: Entry, labels: Mapping[int, str]) -> list[AuditFinding]:
    """Steps of the published schedule that are not listed, and listed ones that are not in it; one finding a stretch."""
    schedule = entry.expected_steps
    if not schedule:
        return []
    every = sorted({*schedule, *labels})
    found: list[AuditFinding] = []
    cases: tuple[tuple[Kind, set[int], str], ...] = (
        ("missing step", {*schedule} - {*labels}, "in the published schedule, but not listed"),
        ("unexpected step", {*labels} - {*schedule}, "listed, but not in the published schedule"),
    )
    for kind, odd, which in cases:
        stretch: list[int] = []
        for step in [*every, None]:
            if step is not None and step in odd:
                stretch.append(step)
            elif stretch:
                text = f"{name_steps(stretch, every)} {'is' if len(stretch) == 1 else 'are'} {which}"
                found.append(AuditFinding(stretch[0], labels.get(stretch[0], ""), kind, text, False))
                stretch = []
    return found


def _known(entry: Entry, checkpoints: Sequence[Checkpoint], listed: Files, shown: set[int]) -> list[AuditFinding]:
    """Faults that were reported, and whether this listing shows them; a fault without a stage holds for any."""
    found: list[AuditFinding] = []
    for fault in entry.known_faults:
        for c in checkpoints:
            if c.step in fault.all_steps and fault.stage in ("", c.stage):
                mask, present = _still(fault, listed.get(c.step), c.step in shown)
                source = f"{fault.source}, {fault.dated.isoformat()}".removeprefix(", ")
                reason = f"{fault.reason}; {present}"
                found.append(AuditFinding(c.step, c.label or c.revision, "known fault", reason, mask, source))
    return found


def _still(fault: KnownFault, held: tuple[WeightFile, ...] | None, shown: bool) -> tuple[bool, str]:
    """Whether to leave the checkpoint out, and what the present listing says about the fault.

    A fault that does not show keeps its mask: many do not show in a listing. Only weights that are there now were
    certainly put there after they were missed.
    """
    if held and _MISSING.search(fault.reason):
        return False, "the present listing has weights"
    if shown:
        return fault.mask, "the present listing shows a fault too"
    if not held or not all(f.sha256 for f in held):
        return fault.mask, "the present listing has no digests that could show it"
    return fault.mask, "the present listing does not show it"
