"""A variable: one array that a measurement declares and the trace holds, before any of it is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Kind", "Variable"]

Kind = Literal["activation", "float", "int"]
"""activation: floats in the run's ``trace_dtype``; float: float32; int: int32 with fill value -1."""


@dataclass(frozen=True)
class Variable:
    """One array of a probe's group, without its leading ``checkpoint`` dimension.

    Attributes:
        name: name in the trace.
        dims: dimension names (see :mod:`dynamics.names`).
        shape: sizes, one per dimension.
        kind: what is stored.
        long_name: what it is, in words, for people who open the trace.
        units: units, ``"1"`` for ratios and probabilities.
        padded: NaN is also used as padding (prompts of different lengths), so NaN does not mean a broken model.
        coords: dimension name to its values, for dimensions that are not just counted.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind
    long_name: str
    units: str = "1"
    padded: bool = False
    coords: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
