"""What a trace will hold, declared in full before any compute; every write is checked against it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from checkpoints.errors import UserError, short
from checkpoints.series import Checkpoint

from ..names import DIMENSIONS, LAYER, POSITION, PROMPT
from .manifest import MANIFEST
from .variable import Variable

__all__ = [
    "FEATURES",
    "FORMAT",
    "FORMAT_VERSION",
    "ROOT_NAMES",
    "WEIGHTS",
    "Group",
    "TraceDeclaration",
    "chunk_shape",
    "fingerprint_of",
    "require_declared",
]

FORMAT = "circuit-dynamics-trace"
FORMAT_VERSION = 2

WEIGHTS = "weights"
"""The group of what was measured on the weights alone; it has no prompts."""

FEATURES = "features"
"""The group of what dictionaries say of the run's prompts (``dynamics.store.features``)."""

ROOT_NAMES = (
    *("step", "tokens", "stage", "revision", "label", "status", "reason"),
    *("weights_digest", "stored_dtype", "nonfinite", "overflowed", MANIFEST, "results", FEATURES, WEIGHTS),
)
"""Arrays and groups of the root, which no probe may be called after."""

_NOTED = ("status", "weights_digest", "stored_dtype", "nonfinite", "overflowed", MANIFEST)
"""Arrays of the root that have a file for each checkpoint that is complete."""

_CHUNK_BYTES = 2**20
_COMPUTED = ("dtype", "tokenizer_digest", "model_config", "series")
_KEPT = ("checkpoints, ", "tokenizer_digest", "model_config", "series")
"""Beginnings of the differences that no trace can grow over."""
_LATER = ("asked", "twins")
"""What the first version did not say of a group."""


def chunk_shape(variable: Variable, itemsize: int) -> tuple[int, ...]:
    """Chunk sizes without the checkpoint dimension: activations one layer a chunk, at most about 1 MiB by prompts.

    Chunks share the prompts out evenly: the last one is stored whole, however few prompts are in it.

    >>> chunk_shape(Variable("r", ("prompt", "position", "layer", "d_model"), (900, 2, 24, 1024), "activation", ""), 2)
    (225, 2, 1, 1024)
    """
    sizes = [
        1 if d == LAYER and variable.kind == "activation" else n
        for d, n in zip(variable.dims, variable.shape, strict=True)
    ]
    for dim in (PROMPT, POSITION):
        if dim in variable.dims and prod(sizes) * itemsize > _CHUNK_BYTES:
            at = variable.dims.index(dim)
            rest = prod(sizes) // sizes[at] * itemsize
            parts = ceil(sizes[at] / max(1, _CHUNK_BYTES // rest))
            sizes[at] = ceil(sizes[at] / parts)
    return tuple(sizes)


@dataclass(frozen=True)
class Group:
    """One probe's group, or the group of the weights.

    Attributes:
        name: of the probe.
        description: what the probe is for.
        prompts: prompt coordinates: name to one value per prompt.
        variables: of all measurements on it.
        settings: what else decides the meaning of the variables, as JSON values: ``measurements`` with all their
            parameters, ``positions`` as token indices. Kept as attributes of the group.
    """

    name: str
    description: str
    prompts: Mapping[str, tuple[Any, ...]]
    variables: tuple[Variable, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name in ROOT_NAMES and not (self.name == WEIGHTS and not self.prompts):
            raise UserError(
                f"a probe cannot be called {self.name!r}: the trace uses that name itself",
                remedy="rename the probe",
                expected="a name of your own",
            )
        names = [v.name for v in self.variables]
        if MANIFEST in (*names, *self.prompts):
            raise UserError(
                f"probe {self.name!r}: {MANIFEST!r} is a name that the trace uses itself",
                remedy="rename the label",
                expected="a name of your own",
            )
        for label, values in self.prompts.items():
            if any(isinstance(value, str) and value.endswith("\0") for value in values):
                raise UserError(
                    f"probe {self.name!r}: a text of {label!r} ends with a NUL character, which arrays of text do not keep",
                    remedy="leave it out",
                    expected="text without it at its end",
                )
        taken = sorted(set(names) & set(self.prompts))
        if taken:
            raise UserError(
                f"probe {self.name!r}: label {taken[0]!r} is also the name of a measured variable",
                remedy="rename the label",
                expected="a name of your own",
            )
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"probe {self.name!r}: two measurements with different settings both write {name!r}",
                    remedy="use one of them, or a probe of its own for the other",
                    expected="each variable once",
                )
        axes: dict[str, dict[str, Any]] = {}  # dimension: variable: what it says of it
        for variable in self.variables:
            for dim, size in zip(variable.dims, variable.shape, strict=True):
                assert dim in DIMENSIONS, f"undeclared dimension {dim!r}"
                axes.setdefault(dim, {})[variable.name] = size
                if dim in variable.coords:
                    axes.setdefault(f"values of {dim}", {})[variable.name] = tuple(variable.coords[dim])
        for axis, said in axes.items():
            (one, first), *others = said.items()
            for other, second in others:
                # A group of the trace has one axis of each name: two would mislabel one of the variables.
                if second != first:
                    raise UserError(
                        f"probe {self.name!r}: {one!r} and {other!r} have different {axis}: "
                        f"{short(str(first))} and {short(str(second))}",
                        expected="one axis of each name for all that is measured on a probe",
                        remedy="measure one of them on a probe of its own (the same prompts under another name)",
                    )

    def coords(self) -> dict[str, tuple[str, tuple[Any, ...]]]:
        """Coordinate name to (dimension, values)."""
        result = {name: (PROMPT, tuple(values)) for name, values in self.prompts.items()}
        for variable in self.variables:
            for dim, values in variable.coords.items():
                result[dim] = (dim, tuple(values))
        for dim in (LAYER, "head"):
            sizes = [v.shape[v.dims.index(dim)] for v in self.variables if dim in v.dims]
            if sizes:
                result[dim] = (dim, tuple(range(sizes[0])))
        return result


@dataclass(frozen=True)
class TraceDeclaration:
    """The whole trace.

    Attributes:
        checkpoints: the series, by increasing step.
        groups: one per probe.
        trace_dtype: dtype in which activations are stored.
        attributes: provenance and the resolved run, as JSON values.
        bfloat16: activations come from bfloat16 compute (they compress, unlike others).
        layout: ``local`` (one file a chunk) or ``sharded`` (one shard per checkpoint and variable).
    """

    checkpoints: tuple[Checkpoint, ...]
    groups: tuple[Group, ...]
    trace_dtype: Literal["float16", "float32"] = "float32"
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bfloat16: bool = False
    layout: Literal["local", "sharded"] = "local"

    def __post_init__(self) -> None:
        for checkpoint in self.checkpoints:
            if not 0 <= checkpoint.step < 2**63:
                raise UserError(
                    f"the step of {short(checkpoint.label or checkpoint.revision)!r} is {short(str(checkpoint.step), 40)}",
                    expected="an optimizer step from 0 to 2^63 - 1, which is what a trace can hold",
                    remedy="name this checkpoint after its step, or move it away",
                )

    def dtype(self, variable: Variable) -> str:
        """numpy name of the dtype in which a variable is stored."""
        return {"activation": self.trace_dtype, "float": "float32", "int": "int32"}[variable.kind]

    def bytes_per_checkpoint(self) -> int:
        """Uncompressed size of one checkpoint's slabs."""
        return sum(prod(v.shape) * np.dtype(self.dtype(v)).itemsize for group in self.groups for v in group.variables)

    def objects_per_checkpoint(self) -> int:
        """Files of one checkpoint, or objects in a store: its chunks (or shards), and what is noted of it."""
        slabs = 0
        for variable in (v for group in self.groups for v in group.variables):
            chunks = chunk_shape(variable, np.dtype(self.dtype(variable)).itemsize)
            counts = (ceil(size / chunk) for size, chunk in zip(variable.shape, chunks, strict=True))
            slabs += 1 if self.layout == "sharded" else prod(counts)
        return slabs + len(self.groups) + len(_NOTED)

    def fingerprint(self) -> str:
        """Changes with anything that decides what the arrays mean; two traces with equal ones hold the same data."""
        return fingerprint_of(self.summary(), self.attributes)

    def asked(self, group: Group) -> str:
        """Digest of all that decides what a group holds, but for its checkpoints."""
        content = [
            *(group.name, group.description, [[name, list(values)] for name, values in group.prompts.items()]),
            [[*_describe(v), v.long_name, v.units] for v in group.variables],
            *(dict(group.settings), self.attributes.get("dtype"), self.trace_dtype, self.bfloat16),
        ]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]

    def differences(self, attributes: Mapping[str, Any]) -> list[str]:
        """Sentences on how this differs from an existing trace, whose root attributes these are."""
        mine = self.summary() | {key: self.attributes.get(key) for key in _COMPUTED}
        other = dict(attributes.get("declared") or {}) | {key: attributes.get(key) for key in _COMPUTED}
        return _differences("", other, json.loads(json.dumps(mine, default=str)))

    def longer(self, attributes: Mapping[str, Any]) -> bool:
        """Whether this has the checkpoints of the trace with these root attributes, and more at their end."""
        before = list(((attributes.get("declared") or {}).get("checkpoints") or {}).items())
        mine = list(self.summary()["checkpoints"].items())
        return len(before) < len(mine) and mine[: len(before)] == before

    def same_group(self, group: Group, attributes: Mapping[str, Any]) -> bool:
        """Whether a trace of version 1 with these root attributes, which noted no ``asked``, holds this group."""
        said = attributes.get("declared") or {}
        mine = json.loads(json.dumps(self.summary(), default=str))
        name = f"probe {group.name}"
        kept = {key: value for key, value in mine[name].items() if key not in _LATER}
        return said.get(name) == kept and all(
            (said | {"dtype": attributes.get("dtype")}).get(key)
            == (mine | {"dtype": self.attributes.get("dtype")})[key]
            for key in ("trace_dtype", "bfloat16", "dtype")
        )

    def summary(self) -> dict[str, Any]:
        """The parts of the declaration that a person can compare, as JSON values."""
        result: dict[str, Any] = {
            "checkpoints": {
                f"step {c.step}": f"tokens {c.tokens}" + (f", stage {c.stage}" if c.stage else "")
                for c in self.checkpoints
            },
            "trace_dtype": self.trace_dtype,
            "bfloat16": self.bfloat16,
        }
        for group in self.groups:
            text = json.dumps({k: list(v) for k, v in group.prompts.items()}, sort_keys=True, default=str)
            result[f"probe {group.name}"] = {
                "asked": self.asked(group),
                "prompts": hashlib.sha256(text.encode()).hexdigest()[:12],
                **{k: hashlib.sha256(json.dumps(v).encode()).hexdigest()[:12] for k, v in group.settings.items()},
                **{v.name: _describe(v)[1:] for v in group.variables},
            }
        return result


def _describe(variable: Variable) -> list[Any]:
    coords = {k: list(v) for k, v in variable.coords.items()}
    return [variable.name, list(variable.dims), list(variable.shape), variable.kind, coords]


def _differences(where: str, other: Any, mine: Any) -> list[str]:
    """One sentence for each innermost key whose value is not the same."""
    if isinstance(other, Mapping) and isinstance(mine, Mapping):
        keys = sorted(other.keys() | mine.keys())
        return [d for k in keys for d in _differences(f"{where}, {k}" if where else k, other.get(k), mine.get(k))]
    if other == mine:
        return []
    return [f"{where}: the trace has {_short(other)}, the run now asks for {_short(mine)}"]


def _short(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(map(str, value))
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."


def fingerprint_of(declared: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    """Changes with anything that decides what the arrays of a trace mean.

    Args:
        declared: what it holds, as :meth:`TraceDeclaration.summary` says.
        attributes: of its root.
    """
    content = [dict(declared), {key: attributes.get(key) for key in _COMPUTED}]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def require_declared(
    path: Path, attributes: Mapping[str, Any], declaration: TraceDeclaration, *, groups: bool = False
) -> None:
    """Refuse to go on with a trace of other checkpoints or another model.

    Args:
        path: the trace.
        attributes: of its root.
        declaration: what it is to hold.
        groups: refuse also where other groups are asked for, or with other settings.

    Raises:
        UserError: with the differences.
    """
    longer = declaration.longer(attributes)
    differences = [
        line
        for line in declaration.differences(attributes)
        if not (longer and line.startswith("checkpoints, ")) and (groups or line.startswith(_KEPT))
        if not re.match("|".join(f"probe [^,]*, {key}: the trace has none" for key in _LATER), line)
    ]
    if not differences:
        return
    between = [re.fullmatch(r"checkpoints, (step \d+): the trace has none, .*", line) for line in differences]
    if all(between):
        steps = [found[1] for found in between if found is not None]
        raise UserError(
            f"{path} has no place for {', '.join(steps[:6])}{', ...' if len(steps) > 6 else ''}: a trace gains checkpoints at its "
            "end only",
            expected="checkpoints after the last one of the trace",
            remedy=f"rename it to {path.stem}-before{path.suffix}, say `reuse: [{path.stem}-before]` in the run, and collect "
            "again: what it holds is taken over, and only the others are measured",
        )
    shown = [line for line in differences if ", asked: " not in line] or ["its prompts are others"]
    raise UserError(
        f"{path} was collected with other settings:\n    " + "\n    ".join(shown[:6]),
        expected="the settings that the trace was declared with",
        remedy="undo the change (a trace gains checkpoints at its end only), or move the trace away and collect again "
        "(nothing was deleted)",
    )
