"""Writing one checkpoint at a time, group by group: slabs first, then what is noted of them, the mark that means done last."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.paths import replace_bytes

from ..names import CHECKPOINT
from .create import create_trace, grow_trace, put_attributes
from .declaration import FORMAT_VERSION, Group, TraceDeclaration, require_declared
from .derived import sweep_derived
from .format import check_format, open_group
from .groups import (
    delete,
    exchange,
    finish_exchange,
    listed_groups,
    note_text,
    prepare_group,
    raise_version,
    records_of,
    shelf,
    sums_of,
)
from .manifest import FLAGS, MANIFEST, ROOT_COPY, consolidated, record_of, rewrite, slab_entry
from .recorder import Recorder

__all__ = ["TraceWriter"]

_VISITS = ("schedule", "checkpoints", "budget", "exclude", "include_masked")
"""What a run may change from one collection to the next: which checkpoints are visited, not what is measured on them."""

_OF_GROUPS = ("run_config", "dtype", "chat_templates")
"""Attributes of the root that are those of the declaration whose groups are listed."""

_FLOAT16_MAX = float(np.finfo(np.float16).max)


class TraceWriter(Recorder):
    """Creates a trace or goes on with one; the caller holds its lock.

    Groups that the trace lacks, or holds with other settings, are written on its shelf, and listed when they are whole at
    every complete checkpoint (:meth:`exchange`).

    Args:
        path: the trace.
        declaration: what it is to hold; an existing trace must be of the same model and checkpoints, or of fewer
            checkpoints at its end, and then grows.
        durable: flush to disk before a checkpoint is marked complete.
        gains: whether the trace may gain groups and lose others; one in an object store may not.

    Raises:
        UserError: when the trace that is there is of another model or other checkpoints (or has other groups, if it may not
            gain any), is newer, or cannot be written.
    """

    def __init__(self, path: Path, declaration: TraceDeclaration, *, durable: bool = False, gains: bool = True) -> None:
        super().__init__(path, declaration, durable=durable)
        self._gains = gains and self._remote is None  # a store has no rename, by which groups come and go
        self._counts: dict[tuple[int, str], tuple[int, int]] = {}
        self._prepare()
        if self._remote is not None:
            self._remote.publish()

    def _prepare(self) -> None:
        """Make the trace one that can hold what was declared, and find where its groups are written."""
        path, declaration = self.path, self._declaration
        if not path.exists():
            create_trace(path, declaration)
        root = open_group(path, mode="r+")
        check_format(dict(root.attrs), path)
        if "exchange" in root.attrs:
            finish_exchange(path)
            root = open_group(path, mode="r+")
        attributes = dict(root.attrs)
        noted = MANIFEST in root
        require_declared(path, attributes, declaration, groups=not (self._gains and noted))
        if attributes["format_version"] != FORMAT_VERSION and noted:
            raise_version(path, declaration, FORMAT_VERSION)
        if declaration.longer(attributes):
            grow_trace(path, declaration)
        self._open()
        self._find_places(noted)
        if noted:
            growing = {group.name: declaration.asked(group) for group in self._shelved()}
            for group in self._shelved():
                prepare_group(path, group, declaration)
            if growing != self.attributes.get("growing", {}):
                rewrite(
                    path, attributes={"growing": growing} if growing else {}, without=() if growing else ["growing"]
                )
                self._open()
        self._record_run()
        self._sweep()
        self.exchange()

    def _find_places(self, noted: bool) -> None:
        """Where each group is written: on the shelf, where the trace does not list what is asked for."""
        listed, declared = listed_groups(self.path), self._declaration.groups
        wanted = {group.name: self._declaration.asked(group) for group in declared}
        self._places = {
            name: name if not noted or listed.get(name) == asked else shelf(name, asked)
            for name, asked in wanted.items()
        }
        self._gone = [name for name in listed if name not in self._places]

    def _shelved(self) -> list[Group]:
        return [group for group in self._declaration.groups if self._places[group.name] != group.name]

    @property
    def growing(self) -> list[str]:
        """The groups of the declaration that the trace does not list yet."""
        return [name for name, place in self._places.items() if place != name]

    @property
    def places(self) -> dict[str, str]:
        """Group to where it is written, in the trace."""
        return dict(self._places)

    def lacking(self, index: int, digest: str) -> list[str]:
        """The groups that are to be measured at a checkpoint; what others there are was measured on these weights.

        Args:
            index: of the checkpoint.
            digest: of its weights.
        """
        return [name for name in self._places if not self._whole(index, name, digest)]

    def owed(self, index: int) -> bool:
        """Whether a checkpoint that was measured lacks a group that the trace is to gain."""
        digest = self.digest(index)
        return bool(digest) and any(not self._whole(index, name, digest) for name in self.growing)

    def waits(self, index: int) -> bool:
        """Whether a pending checkpoint has all its groups, of the same weights, and waits for the trace to list them."""
        if not self.growing or self._entry("status", index) != "pending":
            return False
        records = [self._record(index, name) for name in self._places]
        return all(r.get("slabs") for r in records) and len({r.get("weights_digest") for r in records}) == 1

    def _whole(self, index: int, name: str, digest: str) -> bool:
        """Whether a group is there at a checkpoint, measured on these weights."""
        record = self._record(index, name)
        return bool(record.get("slabs")) and record.get("weights_digest") == digest

    def _record(self, index: int, name: str, place: str | None = None) -> dict[str, Any]:
        place = self._places[name] if place is None else place
        if not (self.path / place / MANIFEST / "c" / str(index)).is_file():
            return {}
        try:
            return record_of(str(self._array(f"{place}/{MANIFEST}")[index]))
        except Exception:  # whatever reading a damaged chunk raises: it is measured again
            return {}

    def exchange(self) -> list[str]:
        """List the groups that the trace is to gain, if each is there at every complete checkpoint; returns their names.

        What they replace, and what is not asked for any more, is kept on the shelf.
        """
        entering = self.growing
        if not entering and not self._gone:
            return []
        digests = self.digests()
        for index, state in reversed([*enumerate(self.status())]):  # the first ones are measured first
            if state == "complete" and not all(self._whole(index, name, digests[index]) for name in entering):
                return []
        wanted = {group.name: self._declaration.asked(group) for group in self._declaration.groups}
        replaced = [name for name in listed_groups(self.path) if name in (*self._gone, *entering)]
        about: dict[str, Any] = {
            "fingerprint": self._declaration.fingerprint(),
            "declared": self._declaration.summary(),
        }
        about |= {k: v for k, v in self._declaration.attributes.items() if k in _OF_GROUPS}
        gone = [key for key in _OF_GROUPS if key in self.attributes and key not in about]
        exchange(self.path, replaced, {name: wanted[name] for name in entering}, about, gone)
        self._places |= {name: name for name in entering}
        self._gone = []
        self._open()
        self._settle()
        return entering

    def _settle(self) -> None:
        """Make the root say of each checkpoint what its groups say, after they were exchanged."""
        records = {name: records_of(self.path / name) for name in self._places}
        digests, counts = self.digests(), {key: self._column(key).tolist() for key in ("nonfinite", "overflowed")}
        for index, state in enumerate(self.status()):
            mine = [of.get(index, {}) for of in records.values()]
            found = {r.get("weights_digest") for r in mine}
            if state == "pending" and len(found) == 1 and all(r.get("slabs") for r in mine) and mine:
                self._complete(index, mine)
            elif digests[index] and found == {digests[index]}:
                sums = sums_of(mine)
                changed = {
                    key: value for key, value in sums.items() if value is not None and value != counts[key][index]
                }
                if changed:
                    self._note(index, **changed)
                    for key, value in changed.items():
                        self._put(key, index, value)

    def write(self, index: int, group: str, values: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """Write every variable of one probe at one checkpoint; returns (non-finite values, overflowed values).

        Raises:
            ValueError: when the arrays are not exactly those that were declared (our bug, not the user's).
        """
        declared = {v.name: v for g in self._declaration.groups if g.name == group for v in g.variables}
        if values.keys() != declared.keys():
            raise ValueError(f"{group}: measured {sorted(values)}, declared {sorted(declared)}")
        nonfinite = overflowed = 0
        for name, value in values.items():
            variable = declared[name]
            if value.shape != variable.shape:
                raise ValueError(f"{group}/{name}: measured shape {value.shape}, declared {variable.shape}")
            dtype = np.dtype(self._declaration.dtype(variable))
            if dtype.kind == "f" and not variable.padded:
                nonfinite += int(value.size - np.isfinite(value).sum())
            if dtype == np.float16:
                overflowed += int((np.isfinite(value) & (np.abs(value) > _FLOAT16_MAX)).sum())
            with np.errstate(over="ignore"):
                self._array(f"{self._places[group]}/{name}")[index] = value.astype(dtype)
        self._counts[index, group] = (nonfinite, overflowed)
        return nonfinite, overflowed

    def note(self, index: int, group: str, *, digest: str, stored_dtype: str) -> None:
        """Note that a group is whole at a checkpoint, after all of it was written: a writer that is killed goes on after it."""
        if not self._keeps_records:
            return
        place = self._places[group]
        nonfinite, overflowed = self._counts.pop((index, group), (0, 0))
        variables = next(g.variables for g in self._declaration.groups if g.name == group)
        slabs = {v.name: slab_entry(self.path / place / v.name, index) for v in variables}
        if self._durable:
            os.sync()
        if self._remote is not None:
            self._remote.put_slabs(place, [*slabs], index)
        text = note_text(
            {"stored_dtype": stored_dtype, "weights_digest": digest},
            {"nonfinite": nonfinite, "overflowed": overflowed, "slabs": slabs}
            | {"revision": self._declaration.checkpoints[index].revision},
        )
        self._put(f"{place}/{MANIFEST}", index, text)

    def commit(self, index: int, *, digest: str, stored_dtype: str) -> int:
        """Mark a checkpoint complete, after everything else of it is written, unless the trace is still to gain groups.

        Returns how many values of it are not finite because the model said so.
        """
        for group in [g for i, g in self._counts if i == index]:
            if self._keeps_records:
                self.note(index, group, digest=digest, stored_dtype=stored_dtype)
        if self._keeps_records:
            records = [self._record(index, name) for name in self._places]
        else:
            counts = [self._counts.pop(key) for key in list(self._counts) if key[0] == index]
            about = {"weights_digest": digest, "stored_dtype": stored_dtype}
            records = [about | {"nonfinite": n, "overflowed": o} for n, o in counts]
        if not self.growing and not self._gone:
            self._complete(index, records)
        return int(sums_of(records)["nonfinite"] or 0)

    def _complete(self, index: int, records: Sequence[Mapping[str, Any]]) -> None:
        """What was noted when the groups were measured counts: the source may list another revision by now."""
        noted = [str(record["revision"]) for record in records if record.get("revision")]
        self._pin(index, noted[0] if noted else self._declaration.checkpoints[index].revision)
        flags = {key: records[0][key] for key in ("weights_digest", "stored_dtype")}
        flags |= {key: count for key, count in sums_of(records).items() if count is not None}  # not known: as it was
        for name, value in flags.items():
            self._put(name, index, value)
        self._mark(index, "complete", "", **flags)

    def unmask(self, index: int) -> None:
        """A checkpoint that was masked is complete again, or to be measured where it lacks something."""
        digest = self.digest(index)
        listed = listed_groups(self.path) if self._keeps_records else []
        whole = all(self._record(index, name, name).get("weights_digest") == digest for name in listed)
        self.mark(index, "complete" if digest and whole else "pending")

    def clear(self, index: int) -> None:
        """Delete whatever there is of one checkpoint, or a killed writer left of it."""
        status, _, digest = self.recorded(index)
        if digest or self.digest(index):
            if "complete" in (status, self._entry("status", index)):  # who reads it meanwhile shall not miss them
                self._mark(index, "pending", "")
            self._note(index, weights_digest="")
            self._put("weights_digest", index, "")  # it says that there are slabs
        for group in self._folders():
            self._clear(index, group)

    def clear_group(self, index: int, group: str) -> None:
        """Delete whatever there is of one group at one checkpoint."""
        self._counts.pop((index, group), None)
        self._clear(index, self._places[group])

    def _clear(self, index: int, place: str) -> None:
        if self._remote is not None:
            self._remote.drop_record(place, index)
        delete(self.path / place / MANIFEST, index)
        for variable in self._slabs(place):
            delete(self.path / variable, index)

    def forget(self, index: int) -> None:
        """Delete all that is said of one checkpoint, readable or not, and what there is of it."""
        for name in ("weights_digest", "status", MANIFEST, *FLAGS[1:], "reason"):
            delete(self.path / name, index)
        self._columns.clear()
        for group in self._folders():
            self._clear(index, group)

    def _folders(self) -> list[str]:
        """Where the groups are that are written, or listed."""
        return list(dict.fromkeys([*self._places.values(), *listed_groups(self.path)]))

    def _slabs(self, place: str) -> list[str]:
        """Paths of a group's variables."""
        declared = [g for g in self._declaration.groups if self._places[g.name] == place]
        if declared:
            return [f"{place}/{variable.name}" for variable in declared[0].variables]
        nodes = consolidated(self.path).items()
        arrays = {
            n for n, node in nodes if node["node_type"] == "array" and node["dimension_names"][:1] == [CHECKPOINT]
        }
        return sorted(n for n in arrays if n.startswith(f"{place}/") and n.partition("/")[2] not in ("step", MANIFEST))

    def _record_run(self) -> None:
        """The run as it is now; while the trace is to gain groups, or may not, only what it visits."""
        before, now = self.attributes.get("run_config"), self._declaration.attributes.get("run_config")
        if not isinstance(before, Mapping) or not isinstance(now, Mapping):
            return
        whole = self._gains and not self.growing and not self._gone
        wanted = dict(now) if whole else {**before, **{key: now[key] for key in _VISITS if key in now}}
        if wanted != before:
            self.attributes["run_config"] = wanted
            put_attributes(self.path, {"run_config": wanted})

    def _sweep(self) -> None:
        for orphan in self.path.rglob("*.partial"):
            if orphan.is_file():
                orphan.unlink()
            else:  # an older version of this program wrote features there
                shutil.rmtree(orphan, ignore_errors=True)
        root, copy = (self.path / "zarr.json").read_bytes(), self.path / ROOT_COPY
        if self._keeps_records and not (copy.is_file() and copy.read_bytes() == root):
            copy.parent.mkdir(exist_ok=True)
            replace_bytes(copy, root)  # the last writer was killed between the two
        self._align()
        sweep_derived(self.path)

    def _align(self) -> None:
        """Make the arrays say what was recorded, where a writer was killed between the two.

        What says complete is believed only if every slab is what it says.
        """
        said = ("status", "reason", "weights_digest")
        try:
            columns = [self._column(name).copy() for name in (MANIFEST, *said) if self._keeps_records]
        except UserError:  # what is damaged is left to a repair
            return
        for index, (text, *values) in enumerate(zip(*columns, strict=True)):
            record, there = record_of(str(text)), dict(zip(said, map(str, values), strict=True))
            if "slabs" in record:  # as version 1 had it
                record.pop("slabs")
                self._put(MANIFEST, index, json.dumps(record, ensure_ascii=False, sort_keys=True))
            if there | {name: record[name] for name in said if name in record} != there:
                if record.get("status") != "complete" or self._intact(index):
                    for name in (*FLAGS, "reason", "status"):
                        if (
                            name in record and there.get(name) != record[name]
                        ):  # no chunk that would not have been written
                            self._put(name, index, record[name])
            elif there["status"] == "pending" and not self.growing and not self._gone and self._intact(index):
                self._complete(index, [self._record(index, name) for name in self._places])

    def _intact(self, index: int) -> bool:
        """Whether all groups that are listed are there at a checkpoint, as they were written, on the same weights."""
        digests = set()
        for name in listed_groups(self.path):
            record = self._record(index, name, name)
            slabs = record.get("slabs") or {}
            if {f"{name}/{v}" for v in slabs} != {*self._slabs(name)}:
                return False
            if any(slab_entry(self.path / name / v, index) != entry for v, entry in slabs.items()):
                return False
            digests.add(record.get("weights_digest"))
        return len(digests) == 1
