"""What a trace gains and loses when its run has changed, in words, before anything is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.errors import UserError

from ..runs.config import Run
from ..runs.resolve import Resolved
from ..store import WEIGHTS, Group, Trace, open_trace
from ..store.declaration import TraceDeclaration
from ..store.groups import listed_groups, records_of, shelf
from ..store.manifest import MANIFEST
from ..store.paths import trace_path
from .taking import Other, Takeover, others_of

__all__ = ["Gain", "gains_of", "owed_by", "require_reused", "require_same_groups", "takeovers_of"]

_COLUMNS = ("text", "answer", "foil")

_ORDER = "the same prompts and measurements, in another order or as another version of this program describes them"
"""What is said of a group in which nothing else differs; it is taken over."""


@dataclass(frozen=True)
class Gain:
    """One probe of which a trace holds other than its run asks for.

    Attributes:
        probe: its name.
        words: what is new about it, or that it is not asked for any more.
        asked: whether the run asks for it.
    """

    probe: str
    words: str
    asked: bool = True

    def __str__(self) -> str:
        return (
            f"probe {self.probe}: {self.words}" if self.probe != WEIGHTS else f"sketches of the weights: {self.words}"
        )


def gains_of(path: Path, declaration: TraceDeclaration) -> list[Gain]:
    """What the next collection changes in the groups that a trace lists; nothing for one that notes nothing of them.

    Args:
        path: the trace.
        declaration: what it is to hold.
    """
    if not (path / MANIFEST).is_dir():
        return []
    root = Other(path, "", mine=True).root
    listed, found = listed_groups(path), []
    for group in declaration.groups:
        same = listed.get(group.name) == declaration.asked(group)
        if same or (not listed.get(group.name, "x") and declaration.same_group(group, root)):
            continue
        if group.name not in listed:
            words = f"new, {_count(len(group.prompts.get('text', ())), 'prompt')}"
        else:
            words = "; ".join(_changes(Other(path, group.name, mine=True), group, declaration)) or _ORDER
        if (path / shelf(group.name, declaration.asked(group))).is_dir():
            words += " (begun, or measured before)"
        found.append(Gain(group.name, words))
    gone = [name for name in listed if name not in {g.name for g in declaration.groups}]
    return found + [
        Gain(name, "not asked for any more; what was measured is kept unlisted", asked=False) for name in gone
    ]


def owed_by(path: Path, declaration: TraceDeclaration) -> dict[str, list[str]]:
    """Digest of weights to the probes that a measured checkpoint lacks of what a run asks for; only those that lack some."""
    found = {}
    lacking = [g for g in gains_of(path, declaration) if g.asked]
    asked = {group.name: declaration.asked(group) for group in declaration.groups}
    trace = Trace(path)
    there = {}
    for gain in lacking:
        records = records_of(path / shelf(gain.probe, asked[gain.probe])).values()
        there[gain.probe] = {str(record["weights_digest"]) for record in records}
    for digest, state in zip(trace.digests, trace.status, strict=True):
        names = [name for name, digests in there.items() if digest not in digests]
        if names and digest and state in ("complete", "masked"):
            found[digest] = names
    return found


def _changes(other: Other, group: Group, declaration: TraceDeclaration) -> list[str]:
    """What differs between a group that is there and one that is asked for."""
    columns, prompts = other.columns, group.prompts
    if group.name != WEIGHTS and "text" in columns:
        before = Counter(_rows(columns))
        now = Counter(_rows({k: [*map(str, v)] if isinstance(v[0], str) else v for k, v in prompts.items()}))
    else:
        before = now = Counter()
    said = []
    for count, word in (((now - before).total(), "more"), ((before - now).total(), "fewer")):
        if count:
            said.append(
                f"{_count(count, f'{word} prompt')}" if count < before.total() or word == "more" else "all others"
            )
    labels = [{*c} - {*_COLUMNS, "answer_id"} for c in (_along(other), prompts)]
    said += _sets("label", *labels)
    if not said and any(tuple(columns[n]) != tuple(prompts[n]) for n in labels[0] & labels[1]):
        said.append("labels with other values")
    measured = [{*map(str, of)} for of in (other.about.get("measurements", ()), group.settings.get("measurements", ()))]
    said += _sets("measurement", *measured)
    said += _sets("position", {*other.about.get("positions", {})}, {*group.settings.get("positions", {})})
    if other.about.get("twins") != group.settings.get("twins"):
        said.append("other corrupted twins")
    if other.about.get("template") != group.settings.get("template"):
        said.append("another chat template")
    for name, there in (
        ("dtype", other.about.get("dtype")),
        ("trace_dtype", (other.root.get("declared") or {}).get("trace_dtype")),
    ):
        mine = declaration.trace_dtype if name == "trace_dtype" else declaration.attributes.get(name)
        if there != mine:
            said.append(f"{name} {mine}, not {there}")
    if not said and other.about.get("description") != group.description:
        said.append("another description")
    return said


def _along(other: Other) -> set[str]:
    return (
        {str(n) for n, c in other.data.coords.items() if c.dims == ("prompt",)}
        if "prompt" in other.data.dims
        else set()
    )


def _rows(columns: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    told = [columns[name] for name in _COLUMNS if name in columns]
    return list(zip(*told, strict=True))


def _sets(what: str, before: Iterable[str], now: Iterable[str]) -> list[str]:
    new, gone = sorted({*now} - {*before}), sorted({*before} - {*now})
    return [f"new {what} {name}" for name in new] + [f"without {what} {name}" for name in gone]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def takeovers_of(resolved: Resolved, trace: Path, places: Mapping[str, str]) -> dict[str, Takeover]:
    """Probe to what others have of its group: what it replaces, what is on the shelf, and traces that the run reuses.

    Args:
        resolved: the run.
        trace: its trace.
        places: group to where it is written, in the trace.
    """
    reused = [reused_trace(trace.parent, name) for name in resolved.run.reuse]
    found = {}
    for plan, probe in resolved.probes:
        name = plan.probe.name
        others = others_of(trace, name, place=places.get(name, name), mine=True)
        others += [other for path in reused if path != trace for other in others_of(path, name)]
        if others:
            found[name] = Takeover(resolved, plan, probe, others)
    return found


def require_same_groups(path: Path, declaration: TraceDeclaration, measured: int) -> None:
    """Refuse other groups than a trace lists, where nobody can go back to its checkpoints.

    Raises:
        UserError: with what differs.
    """
    if gains := gains_of(path, declaration):
        raise UserError(
            f"{path} was collected with other probes or settings:\n    " + "\n    ".join(map(str, gains[:6])),
            expected=f"what its {measured} checkpoints were measured with: a training cannot go back to them",
            remedy="undo the change, or choose another name; where the job saves checkpoints, a run of them can gain "
            "probes at any time",
        )


def require_reused(name: str, run: Run, trace: Path) -> None:
    """Refuse to take values from what is no trace.

    Raises:
        UserError: with the trace that is not there, or cannot be read.
    """
    for reused in run.reuse:
        path = reused_trace(trace.parent, reused)
        try:
            open_trace(path)
        except UserError as error:
            error.add_note(f"in `reuse` of run {name!r}")
            raise


def reused_trace(traces: Path, name: str) -> Path:
    """The trace that a run takes values from: by the name of its run, in the same folder, or by its path."""
    return Path(name) if "/" in name else trace_path(traces, name)
