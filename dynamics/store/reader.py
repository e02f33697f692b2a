"""Reading a trace: labelled, lazy, without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from checkpoints.errors import UserError, first_line, nearest
from checkpoints.paths import StrPath, as_path, as_text
from checkpoints.series import Checkpoint

from ..names import CHECKPOINT, POSITION, PROMPT
from ..notebook import box, details, facts, status_strip, table
from .declaration import FEATURES, WEIGHTS
from .derived import DERIVED
from .format import damaged, require_steps, trace_attributes
from .groups import asked_of, listed_groups
from .manifest import MANIFEST, parsed, sealed_files, unlike
from .mirror import FetchingStore, located, place_of

__all__ = ["Trace", "open_trace"]


def open_trace(path: StrPath, *, chunks: Any = None) -> xr.DataTree:
    """Open a trace as an :class:`xarray.DataTree`, lazily, with ``step`` as the index of dimension ``checkpoint``.

    ``xr.open_datatree(path)`` gives the same data; this function also checks the format version, makes
    ``.sel(step=1000)`` work, and raises a UserError where a file of a complete checkpoint is missing, which Zarr itself
    takes for values that were never measured.

    Args:
        path: the trace: a folder, or its URL in an object store (``s3://``, ``gs://``, ``az://``), of which is fetched what is
            read, and kept in the cache.
        chunks: passed to xarray; ``{}`` gives dask arrays chunked as stored, None plain lazy arrays.

    Raises:
        UserError: when it is no trace, of a newer format version, or its metadata are damaged.

    Example::

        tree = dynamics.open_trace("traces/organism.zarr")
        tree["addition_sums"].ds.answer_logprob.sel(step=1270).groupby("context").mean()
    """
    path = located(as_path(path, "path"))
    trace_attributes(path)
    with _readable(path, "a coordinate, or the metadata"):
        return _opened(path, chunks)


def _opened(path: Path, chunks: Any) -> xr.DataTree:
    whole = _WholeStore(path)
    # first: of an exchange meanwhile, what is read next says so; version 1 listed groups without it
    whole.asked = {name: asked or asked_of(path / name) for name, asked in listed_groups(path).items()}
    whole.files = sealed_files(path)
    measured: dict[str, xr.Dataset] = {}
    derived: dict[str, dict[str, Any]] = {}
    for name, store in xr.backends.ZarrStore.open_store(whole, group="/", consolidated=None).items():
        parts = name.strip("/").split("/")
        if parts[0] not in DERIVED:
            measured[name] = _index_by_step(xr.open_dataset(store, chunks=chunks))
        elif len(parts) > 1:
            derived.setdefault("/".join(parts[:2]), {})["/".join(parts[2:]) or "/"] = store
    whole.steps = measured["/"]["step"].values
    require_steps(
        path, measured["/"].attrs, {name.strip("/"): found["step"].values for name, found in measured.items()}
    )
    tree = xr.DataTree.from_dict(measured)
    for folder, stores in derived.items():
        if (path / folder / "zarr.json").is_file():
            with suppress(Exception):  # whatever is wrong with what is derived, it counts as absent
                if folder.startswith(f"{FEATURES}/"):  # read when it is asked for; results are read whole
                    whole.files |= {f"{folder}/{file}": known for file, known in sealed_files(path / folder).items()}
                opened = {name: _index_by_step(xr.open_dataset(store, chunks=chunks)) for name, store in stores.items()}
                tree[folder] = xr.DataTree.from_dict(opened)
    return tree


_CHUNK = re.compile(r"(.+)/c/(\d+)(?:/\d+)*")


class _WholeStore(FetchingStore):
    """The files of a trace, of which none that has to be there is taken for values that were not measured.

    Nor are values of a group for those of another, which took its place after the trace was opened.
    """

    asked: dict[str, str] = {}
    files: dict[str, str] = {}
    steps: np.ndarray | None = None

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root)
        self._complete: dict[int, bool] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return self._checked(key, await super().get(key, prototype, byte_range))

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return self._checked(key, super().get_sync(key, prototype=prototype, byte_range=byte_range))

    def _checked(self, key: str, found: Buffer | None) -> Buffer | None:
        if (group := key.partition("/")[0]) in self.asked:
            self._require_same(group)  # after it was read, so that nothing comes between
        if key in self.files:
            growing = key.count("/") == 2 or "/step/c/" in key  # written before the seal: it is there, no more
            if (problem := unlike(self.root / key, self.files[key])) and not (growing and found):
                raise damaged(self.root, key.partition("/c/")[0] if key.startswith(FEATURES) else key, problem)
        elif not found and (match := _CHUNK.fullmatch(key)):  # an empty shard is read as if nothing had been written
            variable, index = match[1], int(match[2])
            group = variable.partition("/")[0]
            missing = "a chunk is missing or empty"
            if group == FEATURES and self.files:  # earlier versions left out what is all fill
                raise damaged(self.root, variable, missing)
            if group not in (variable, FEATURES, "results") and self._is_complete(index):
                step = index if self.steps is None else self.steps[index]
                raise damaged(self.root, f"step {step} of {variable}", missing)
        return found

    def _require_same(self, group: str) -> None:
        """Refuse a group that is another than the one that was opened, or is listed no more."""
        folder, state = self.root / group, (0, 0, 0)
        with suppress(OSError):
            about = (folder / "zarr.json").stat()
            state = (about.st_ino, about.st_mtime_ns, about.st_size)
        if state == self._seen.get(group):
            return
        said = asked_of(folder) or listed_groups(self.root).get(group, "")  # what lacks its metadata is damaged
        if said != self.asked[group]:
            raise UserError(
                f"probe {group!r} of {self.root} changed while it was read: it is another by now, or not listed any more",
                expected="the probe that was there when the trace was opened",
                remedy="open the trace again",
            )
        self._seen[group] = state

    def _is_complete(self, index: int) -> bool:
        if index not in self._complete:
            file = self.root / "status" / "c" / str(index)
            self._complete[index] = file.is_file() and b"complete" in file.read_bytes()
        return self._complete[index]


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """What zarr says of a damaged chunk, as an error that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever reading damaged files raises
        raise damaged(path, what, first_line(error)) from error


def _index_by_step(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.set_xindex("step") if "step" in dataset.coords and "step" not in dataset.xindexes else dataset


_AT_ONCE = 2**24
"""Bytes of checkpoints that are read together."""

_SMALL = 2**20
"""Bytes of a variable that is read once and kept: what analyses read again and again is smaller than what reading it takes."""

_ROOT = ("step", "tokens", "stage", "revision", "label", "status", "reason", "weights_digest")
"""Arrays that every trace has, one entry per checkpoint."""

_MOST = 10_000_000
"""More checkpoints than this no training had: metadata that say so are damaged, and would be read for hours."""


class Trace:
    """What an analysis reads: one trace, with incomplete checkpoints as missing values.

    Attributes:
        path: where its files are; of a trace in an object store the folder of the cache with what was fetched.
        tree: the labelled data (see :func:`open_trace`).
        attributes: those of the root: the run's configuration, versions, the model's configuration.
        steps: (checkpoint,) optimizer steps.
        tokens: (checkpoint,) tokens seen; NaN where they were not recorded.
        status: (checkpoint,) ``pending``, ``complete``, ``failed`` or ``masked``.
        reasons: (checkpoint,) why one failed or is masked; else empty.
        digests: (checkpoint,) digests of the weights; empty while nothing was measured.
        complete: (checkpoint,) whether it is complete.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = located(as_path(path, "path"))
        self.tree = open_trace(self.path)
        root = self.tree.to_dataset()
        lacking = [name for name in _ROOT if name not in root or root[name].dims != (CHECKPOINT,)]
        if lacking or root.sizes[CHECKPOINT] > _MOST or root["step"].dtype.kind not in "iu":
            array = lacking[0] if lacking else "step"
            raise damaged(self.path, f"the array {array}", "it is missing or of another form")
        with _readable(self.path, "an array of the root"):
            root = root.drop_vars(MANIFEST, errors="ignore").load()
        self.attributes: dict[str, Any] = dict(root.attrs)
        self.steps: np.ndarray = root["step"].values
        self.tokens: np.ndarray = root["tokens"].values
        self.status: list[str] = [str(s) for s in root["status"].values]
        self.reasons: list[str] = [str(s) for s in root["reason"].values]
        self.digests: list[str] = [str(s) for s in root["weights_digest"].values]
        self.complete: np.ndarray = np.array([s == "complete" for s in self.status])
        self._small: dict[tuple[str, str], np.ndarray] = {}  # what was read of small variables

    def __repr__(self) -> str:
        return f"Trace({place_of(self.path)!r}: {self.complete.sum()} of {len(self.steps)} checkpoints complete)"

    def _repr_html_(self) -> str:
        rows = []
        for name in self.probes:
            dataset = self.probe(name)
            measured = [f"{v} ({', '.join(str(d) for d in a.dims)})" for v, a in dataset.data_vars.items()]
            labels = ", ".join(self._labels(dataset))
            rows.append(
                [
                    name,
                    dataset.sizes.get(PROMPT, ""),
                    labels,
                    details(
                        f"{len(measured)} {'variable' if len(measured) == 1 else 'variables'}",
                        table([], [[m] for m in measured]),
                    ),
                ]
            )
        steps = f"{self.steps[0]} to {self.steps[-1]}" if len(self.steps) else ""
        reasons = sorted({reason for reason in self.reasons if reason})
        known = {
            "steps": steps,
            "checkpoints": ", ".join(f"{self.status.count(s)} {s}" for s in dict.fromkeys(self.status)),
            "weights": self.attributes.get("origin"),
        }
        return box(
            place_of(self.path),
            status_strip(self.status),
            facts(known),
            details(f"why {len(reasons)} kinds of checkpoints are missing", table([], [[r] for r in reasons]))
            if reasons
            else "",
            table(["probe", "prompts", "labels", "measured"], rows) if rows else "",
        )

    def steps_of(self, status: str) -> set[int]:
        """The steps of the checkpoints with this status."""
        return {int(step) for step, state in zip(self.steps, self.status, strict=True) if state == status}

    @property
    def changed(self) -> bool:
        """Whether the trace lists other probes by now than when it was opened."""
        about = parsed((self.path / "zarr.json").read_bytes()).get("attributes", {})
        return bool(about.get("fingerprint") != self.attributes.get("fingerprint"))

    @property
    def probes(self) -> list[str]:
        """The probes that were collected."""
        return [name for name in self.tree.children if name not in (*DERIVED, WEIGHTS)]

    def probe(self, name: str) -> xr.Dataset:
        """One probe's group, lazily.

        Raises:
            UserError: when the trace has no such probe.
        """
        if as_text(name, "probe") not in self.probes:
            if "exchange" in self.attributes:
                raise UserError(
                    f"{self.path} has no probe {name!r}: an exchange of its probes was interrupted",
                    expected="a trace that a collection has ended",
                    remedy=f"dynamics collect {self.path.name.removesuffix('.zarr')} (it ends the exchange first)",
                )
            raise UserError(
                f"{self.path} has no probe {name!r}",
                expected=f"one of {', '.join(self.probes)}" if self.probes else "a run with analyses or `probes`",
                remedy=nearest(name, self.probes),
            )
        return self.tree[name].to_dataset().drop_vars(MANIFEST, errors="ignore")

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The series as the trace recorded it."""
        root = self.tree.to_dataset()
        columns = (root[name].values for name in ("step", "revision", "tokens", "stage", "label"))
        return tuple(
            Checkpoint(int(step), str(revision), None if np.isnan(tokens) else int(tokens), str(stage), str(label))
            for step, revision, tokens, stage, label in zip(*columns, strict=True)
        )

    def label(self, probe: str, name: str) -> np.ndarray:
        """(prompt,) values of one label; text as Python strings.

        Raises:
            UserError: when the trace has no such probe, or the probe no such label.
        """
        dataset = self.probe(probe)
        if as_text(name, "label") not in dataset or dataset[name].dims != (PROMPT,):
            measured = name in dataset.data_vars
            raise UserError(
                f"probe {probe!r} in {self.path} has no label {name!r}" + (": it was measured" if measured else ""),
                expected="a label that its prompts were given",
                remedy=f"trace.values({probe!r}, {name!r})" if measured else nearest(name, self._labels(dataset)),
            )
        values: np.ndarray = dataset[name].values
        return np.array([str(v) for v in values]) if values.dtype.kind not in "biuf" else values

    def values(self, probe: str, variable: str) -> np.ndarray:
        """A whole variable (checkpoint, ...) as numpy; floats of incomplete checkpoints are NaN, integers -1."""
        array = self._variable(probe, variable)
        values = self._small.get((probe, variable))
        if values is None:
            with _readable(self.path, f"{probe}/{variable}"):
                values = array.values
            if array.nbytes <= _SMALL:
                self._small[probe, variable] = values
        values = values.astype(np.float32) if values.dtype == np.float16 else values.copy()
        values[~self.complete] = -1 if values.dtype.kind in "iu" else np.nan
        return values

    def each(self, probe: str, variable: str, *, position: str | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(checkpoint index, values at that checkpoint) for complete checkpoints, of large variables one in memory at a time.

        With ``position`` only that named position, without its dimension: which positions are stored, and in which
        order, depends on every request for some.
        """
        array = self._variable(probe, variable)
        if array.nbytes <= _SMALL and (probe, variable) not in self._small:
            with suppress(Exception):  # what is wrong is found below, and at which checkpoint
                self._small[probe, variable] = array.values
        if (probe, variable) in self._small:
            array = array.copy(data=self._small[probe, variable])
        if position is not None:
            array = self._at(array, position)
        left, count = np.flatnonzero(self.complete), 1
        most = max(1, _AT_ONCE // max(1, array[:1].nbytes))
        while len(left):
            some, left = left[:count], left[count:]
            for index, values in zip(some, self._slabs(array, some, f"{probe}/{variable}"), strict=True):
                yield int(index), values.astype(np.float32) if values.dtype == np.float16 else values
            count = min(2 * count, most)  # who wants the first alone reads no other

    def _slabs(self, array: xr.DataArray, some: np.ndarray, name: str) -> Iterator[np.ndarray]:
        """Values at some checkpoints, read together, or one by one where something is wrong with them: to say with which."""
        together: np.ndarray | None = None
        if len(some) > 1:
            with suppress(Exception):
                together = array.isel({CHECKPOINT: some}).values
        for place, index in enumerate(some):
            if together is not None:
                yield together[place]
                continue
            with _readable(self.path, f"step {self.steps[index]} of {name}"):
                values = np.array(array.isel({CHECKPOINT: int(index)}).values)
            yield values

    def _at(self, array: xr.DataArray, position: str) -> xr.DataArray:
        stored = [str(name) for name in array[POSITION].values] if POSITION in array.dims else []
        if position not in stored:
            raise UserError(
                f"{array.name} in {self.path} is not stored at the position {position!r}",
                expected="a position that the measurement asked for",
                remedy=nearest(position, stored) if stored else "leave the position out",
            )
        return array.sel(position=position)

    def _variable(self, probe: str, variable: str) -> xr.DataArray:
        dataset = self.probe(probe)
        if as_text(variable, "variable") not in dataset.data_vars:
            label = variable in self._labels(dataset)
            raise UserError(
                f"probe {probe!r} in {self.path} has no variable {variable!r}"
                + (": it is a label of the prompts" if label else ""),
                expected="one that was measured on it",
                remedy=f"trace.label({probe!r}, {variable!r})"
                if label
                else nearest(variable, map(str, dataset.data_vars)),
            )
        return dataset[variable]

    @staticmethod
    def _labels(dataset: xr.Dataset) -> list[str]:
        """Names of what its prompts were given: text, answer, labels."""
        return [str(name) for name, values in dataset.coords.items() if values.dims == (PROMPT,)]
