"""What need not be measured, because it was: values that another group has of the same weights, prompts and measurement.

The other group is the one that is to be replaced, one on the trace's shelf, or one of another trace (``reuse`` in the runs
file). Of a measurement that gives each prompt what depends on that prompt alone (``each_prompt``), single prompts, positions
and answers are taken; of any other, the whole or nothing, and only where all the prompts are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from checkpoints.foreign import parse_json

from ..measurements import Activations, Answers, Intervention, Measurement
from ..names import CHECKPOINT, POSITION, PROMPT
from ..probes import TokenizedProbe
from ..runs.plan import ProbePlan
from ..runs.resolve import Resolved
from ..store.groups import SHELF, records_of, root_records, slabs_in
from ..store.manifest import MANIFEST, parsed, slab_entry
from ..store.variable import Variable

__all__ = ["Other", "Taken", "Takeover", "others_of"]

_COUNTED = ("token", "key")
"""Dimensions as long as the longest prompt: beyond a shorter one there is nothing."""

_SAME = ("tokenizer_digest", "model_config")
"""Attributes of the root that two traces have in common where one takes values of the other."""


class Other:
    """A group from which values may be taken.

    Args:
        path: its trace.
        place: of the group in it.
        mine: whether that is the trace that is written.
    """

    def __init__(self, path: Path, place: str, *, mine: bool) -> None:
        self.path, self.folder, self.mine = path, path / place, mine
        self.trace = path.name.removesuffix(".zarr")

    @cached_property
    def root(self) -> dict[str, Any]:
        """Attributes of its trace."""
        content: dict[str, Any] = parsed((self.path / "zarr.json").read_bytes())["attributes"]
        return content

    @cached_property
    def records(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """Digest of weights to the index of their checkpoint and what was noted of the group there."""
        found = records_of(self.folder)
        if not (self.folder / MANIFEST).is_dir():  # version 1
            for index, record in enumerate(root_records(self.path)):
                slabs = (v.partition("/") for v in record.get("slabs") or {})
                mine = {
                    name: record["slabs"][f"{group}/{name}"] for group, _, name in slabs if group == self.folder.name
                }
                if mine:
                    found[index] = record | {"slabs": mine}
        return {str(r.get("weights_digest")): (i, r) for i, r in found.items()}

    def whole(self, digest: str) -> bool:
        """Whether it has the checkpoint with these weights as it was written, and nothing of it overflowed."""
        if digest not in self.records:
            return False
        index, record = self.records[digest]
        entries = record["slabs"].items()
        return record.get("overflowed") == 0 and all(slab_entry(self.folder / v, index) == e for v, e in entries)

    @cached_property
    def about(self) -> dict[str, Any]:
        """Attributes of the group."""
        content: dict[str, Any] = parse_json((self.folder / "zarr.json").read_bytes())["attributes"]
        return content

    @cached_property
    def data(self) -> xr.Dataset:
        """The group, lazily."""
        opened = xr.open_dataset(self.folder, engine="zarr", consolidated=False, chunks=None)
        return opened.drop_vars(MANIFEST, errors="ignore")

    @cached_property
    def columns(self) -> dict[str, tuple[Any, ...]]:
        """Coordinates along prompts, and those of other dimensions."""
        return {str(n): tuple(c.values.tolist()) for n, c in self.data.coords.items() if c.dims != (CHECKPOINT,)}

    def read(self, variable: str, index: int) -> np.ndarray:
        """One checkpoint of a variable."""
        values: np.ndarray = self.data[variable].isel({CHECKPOINT: index}).values
        return values


def others_of(path: Path, name: str, *, place: str = "", mine: bool = False) -> list[Other]:
    """The groups of this name in a trace, listed first.

    Args:
        path: the trace.
        name: of the group.
        place: where the group is that is to be filled, if it is in that trace.
        mine: whether the trace is the one that is written.
    """
    shelved = [f"{SHELF}/{p.name}" for p in sorted((path / SHELF).glob(f"{name}.*"))] if mine else []
    there = [p for p in (name, *shelved) if p != place and (path / p / "zarr.json").is_file()]
    return [Other(path, p, mine=mine) for p in there]


@dataclass(frozen=True)
class _Piece:
    """A block of a variable that one group has: where it goes, where it is, one index array per dimension."""

    other: Other
    to: tuple[np.ndarray, ...]
    of: tuple[np.ndarray, ...]


@dataclass
class _Plan:
    pieces: dict[str, list[_Piece]] = field(default_factory=dict)
    covered: dict[str, np.ndarray] = field(default_factory=dict)
    left: list[tuple[tuple[Measurement, ...], np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True)
class Taken:
    """What can be taken of one group at one checkpoint.

    Attributes:
        values: variable to its values; what was not taken is missing.
        covered: variable to which of them were taken.
        left: what is still to be measured: measurements, and the places of the prompts.
        prompts: how many the probe has.
        traces: names of the traces from which something was taken; "" for the trace itself.
    """

    values: dict[str, np.ndarray]
    covered: Mapping[str, np.ndarray]
    left: list[tuple[tuple[Measurement, ...], np.ndarray]]
    prompts: int
    traces: tuple[str, ...] = ()

    def put(self, rows: np.ndarray, measured: Mapping[str, np.ndarray]) -> None:
        """Add what was measured on some prompts; what was taken stays as it is."""
        for name, block in measured.items():
            target, taken = self.values[name], self.covered[name]
            if len(rows) == self.prompts:  # also of what has no prompts, or has them behind other dimensions
                at: tuple[Any, ...] = tuple(slice(n) for n in block.shape)
            else:
                at = np.ix_(rows, *(np.arange(n) for n in block.shape[1:]))
            target[at] = np.where(taken[at], target[at], block.astype(target.dtype))


class Takeover:
    """Of one probe's group: what others have of it.

    Args:
        resolved: the run.
        plan: the probe and its measurements.
        probe: its prompts.
        others: groups from which values may be taken, the first first.
    """

    def __init__(self, resolved: Resolved, plan: ProbePlan, probe: TokenizedProbe, others: Sequence[Other]) -> None:
        self._declaration = resolved.declaration
        self._shape = resolved.model.architecture.shape
        self._plan, self._probe = plan, probe
        (self._group,) = (g for g in resolved.declaration.groups if g.name == plan.probe.name)
        self._others = [other for other in others if self._fits(other)]
        self._made: dict[tuple[int, ...], _Plan] = {}

    def at(self, digest: str) -> Taken | None:
        """What can be taken of the checkpoint with these weights; None if nothing."""
        there = tuple(n for n, other in enumerate(self._others) if other.whole(digest))
        if not there:
            return None
        if there not in self._made:
            self._made[there] = self._planned([self._others[n] for n in there])
        plan = self._made[there]
        if not any(plan.pieces.values()):
            return None
        values = {}
        for variable in self._group.variables:
            dtype = np.dtype(self._declaration.dtype(variable))
            filled = np.full(variable.shape, -1 if dtype.kind == "i" else np.nan, dtype)
            for piece in plan.pieces.get(variable.name, ()):
                block = piece.other.read(variable.name, piece.other.records[digest][0])
                filled[np.ix_(*piece.to)] = block[np.ix_(*piece.of)]
            values[variable.name] = filled
        used = {"" if p.other.mine else p.other.trace for pieces in plan.pieces.values() for p in pieces}
        return Taken(values, plan.covered, plan.left, len(self._probe.ids), tuple(sorted(used)))

    def some(self, digest: str) -> bool:
        """Whether another group has a checkpoint with these weights at all."""
        return any(digest in other.records for other in self._others)

    def whole(self, digest: str) -> bool:
        """Whether all of the checkpoint with these weights can be taken, as far as can be told without reading it."""
        there = [other for other in self._others if digest in other.records]
        return bool(there) and not self._planned(there).left

    def _fits(self, other: Other) -> bool:
        """Whether values of another group were computed as those of this one."""
        mine = self._declaration.attributes
        same = other.mine or json.dumps([mine.get(k) for k in _SAME]) == json.dumps([other.root.get(k) for k in _SAME])
        same = same and other.about.get("template") == self._group.settings.get("template")
        return same and other.about.get("dtype", other.root.get("dtype")) == mine.get("dtype")

    def _planned(self, others: Sequence[Other]) -> _Plan:
        plan = _Plan()
        watching: tuple[Measurement, ...] = ()
        watched = np.array([], dtype=int)
        for measurement in self._plan.measurements:
            declared = measurement.declare(self._probe, self._shape)
            covered = {v.name: np.zeros(v.shape, dtype=bool) for v in declared}
            plan.covered |= covered
            for other in others:
                if not self._holds(other, measurement):
                    continue
                for variable in declared:
                    if (piece := self._piece(other, variable, measurement)) is None:
                        continue
                    mask = covered[variable.name]
                    if not mask[np.ix_(*piece.to)].all():
                        mask[np.ix_(*piece.to)] = True
                        # those that come first are written last
                        plan.pieces.setdefault(variable.name, []).insert(0, piece)
            if not all(mask.all() for mask in covered.values()):
                rows = self._rows(measurement, covered)
                if isinstance(measurement, Intervention):
                    plan.left.append(((measurement,), rows))
                else:  # they share their passes
                    watching = (*watching, measurement)
                    watched = np.union1d(watched, rows)
        if watching:
            plan.left.insert(0, (watching, watched))
        return plan

    def _rows(self, measurement: Measurement, covered: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which prompts a measurement has to run on for what was not taken."""
        every = np.arange(len(self._probe.ids))
        if not getattr(measurement, "each_prompt", False):
            return every
        lacking = np.zeros(len(every), dtype=bool)
        for mask in covered.values():
            lacking |= ~mask.reshape(len(every), -1).all(axis=1)
        return np.flatnonzero(lacking)

    def _holds(self, other: Other, measurement: Measurement) -> bool:
        """Whether another group has this measurement, of prompts that can be told to be the same."""
        said = [str(m) for m in other.about.get("measurements", ())]
        if isinstance(measurement, Activations):
            return any(m.startswith(f"Activations(site={measurement.site!r}, ") for m in said)
        if isinstance(measurement, Answers):
            return any(m.startswith("Answers(") for m in said)
        if repr(measurement) not in said:
            return False
        if getattr(measurement, "each_prompt", False):
            return True
        mine, theirs = self._columns, other.columns
        labels = {*mine} & {*theirs} | {"text"} | ({"answer", "foil"} & ({*mine} | {*theirs}))
        if any(mine.get(name) != theirs.get(name) for name in labels):
            return False
        positions, before = self._group.settings.get("positions", {}), other.about.get("positions", {})
        same = all(before.get(name) == list(index) for name, index in positions.items())
        # the first version did not note twins
        return same and other.about.get("twins", self._group.settings.get("twins")) == self._group.settings.get("twins")

    @cached_property
    def _columns(self) -> dict[str, tuple[Any, ...]]:
        return {
            name: tuple(np.asarray(v).tolist() if not isinstance(v[0], str) else v)
            for name, v in self._group.prompts.items()
        }

    def _piece(self, other: Other, variable: Variable, measurement: Measurement) -> _Piece | None:
        """The block of a variable that another group has; None where it has none."""
        if variable.name not in slabs_in(other.folder):
            return None
        theirs = other.data[variable.name]
        dims = (CHECKPOINT, *variable.dims)
        if theirs.dims != dims or theirs.dtype != np.dtype(self._declaration.dtype(variable)):
            return None
        to, of = [], []
        for dim, size, found in zip(variable.dims, variable.shape, theirs.shape[1:], strict=True):
            if dim == PROMPT:
                mine, there = self._same_prompts(other)
            elif dim in (POSITION, "candidate"):
                mine, there = _matched(variable.coords.get(dim, ()), other.columns.get(dim, ()))
            elif dim in _COUNTED:
                mine = there = np.arange(min(size, found))
            elif size != found or (dim in variable.coords and tuple(variable.coords[dim]) != other.columns.get(dim)):
                return None
            else:
                mine = there = np.arange(size)
            if not len(mine):
                return None
            to.append(mine)
            of.append(there)
        whole = all(len(mine) == size for mine, size in zip(to, variable.shape, strict=True))
        if not whole and not getattr(measurement, "each_prompt", False):
            return None
        return _Piece(other, tuple(to), tuple(of))

    def _same_prompts(self, other: Other) -> tuple[np.ndarray, np.ndarray]:
        """Places of the prompts that both have, here and there."""
        mine = self._keys(self._columns, self._group.settings.get("positions", {}), other)
        theirs = self._keys(other.columns, other.about.get("positions", {}), other)
        return _matched(mine, theirs)

    def _keys(self, columns: Mapping[str, Any], positions: Mapping[str, Any], other: Other) -> list[tuple[Any, ...]]:
        common = sorted({*self._group.settings.get("positions", {})} & {*other.about.get("positions", {})})
        told = [columns.get(name) for name in ("text", "answer", "foil")]
        count = len(columns["text"])
        parts = [list(c) if c is not None else [None] * count for c in (*told, *(positions[p] for p in common))]
        return list(zip(*parts, strict=True))


def _matched(mine: Iterable[Any], theirs: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Places of what both have; of what occurs more often, the first that is left."""
    places: dict[Any, list[int]] = {}
    for place, key in enumerate(theirs):
        places.setdefault(key, []).append(place)
    pairs = [(i, places[key].pop(0)) for i, key in enumerate(mine) if places.get(key)]
    return np.array([i for i, _ in pairs], dtype=int), np.array([j for _, j in pairs], dtype=int)
