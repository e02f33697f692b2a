"""Is what a function of an analysis returned, or what a curve was made of, what belongs there?

Analyses are written by users. What does not fit is refused where it is handed over, by the names that the user gave:
the error that numpy would raise further on says neither which analysis nor which curve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from checkpoints.errors import UserError, shown

__all__ = ["array_of", "instance_of", "instances_of"]

T = TypeVar("T")


def instance_of(kind: type[T], value: object, what: str, *, remedy: str) -> T:
    """``value``, which has to be of one type.

    Args:
        kind: the type.
        value: what was given.
        what: the beginning of the message: ``"`spec` of the curve is"``.
        remedy: what to do about it.

    Raises:
        UserError: when it is of another type.
    """
    if isinstance(value, kind):
        return value
    raise UserError(f"{what} {shown(value)}", expected=f"a {kind.__name__}", remedy=remedy)


def instances_of(kinds: tuple[type[T], ...], values: object, what: str, *, remedy: str) -> list[T]:
    """``values`` as a list, every one of which has to be of one of the types; arguments as of :func:`instance_of`.

    Raises:
        UserError: when it is no list, or something else is in it.
    """
    expected = f"a list of {' or '.join(kind.__name__ for kind in kinds)}"
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise UserError(f"{what} {shown(values)}", expected=expected, remedy=remedy)
    result: list[T] = []
    for index, value in enumerate(values):
        if not isinstance(value, kinds):
            raise UserError(f"{what} a list whose entry {index} is {shown(value)}", expected=expected, remedy=remedy)
        result.append(value)
    return result


def array_of(given: Any, what: str, axes: tuple[str, ...], *, checkpoints: int | None = None) -> np.ndarray:
    """What was given as an array of real numbers with these axes, none of which but the last may be empty.

    Args:
        given: an array, or lists.
        what: what it is, for the message.
        axes: the names of its dimensions.
        checkpoints: how many checkpoints there are, where that is known.

    Raises:
        UserError: when it is something else, or of another shape.
    """
    try:
        array = np.asarray(given)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        seen = shown(given) if array.dtype.kind in "OUST" or array.ndim == 0 else f"of type {array.dtype}"
    elif array.ndim != len(axes) or checkpoints not in (None, array.shape[0]):
        seen = f"of shape {array.shape}"
    else:
        return array
    shape = ", ".join(axes) + ("," if len(axes) == 1 else "")
    raise UserError(
        f"{what}: {seen}",
        expected=f"numbers ({shape})" + ("" if checkpoints is None else f", for {checkpoints} checkpoints"),
        remedy="give one row per checkpoint of the trace, as `trace.values` does; NaN where nothing was measured",
    )
