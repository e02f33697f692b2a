"""Sweeps: one run of the runs file that stands for many, which differ in the keys that it sweeps over.

``sweep: {series.seed: [0, 1], series.curriculum.addition.share: [0.17, 0.34]}`` makes four runs, its *cells*: every value of the one
with every value of the other, the last key changing fastest. A cell is a run of its own, with a name such as
``mine@seed=0,addition.share=0.17``, by which its trace and its report are called.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from checkpoints.errors import UserError, short

__all__ = ["MOST", "SWEEP", "cell_names", "cells", "one_cell", "shortened"]

SWEEP = "sweep"
"""The key of a run in the runs file."""

MOST = 1000
"""Cells of one sweep."""

_LONGEST = 180
"""Characters of a cell's name: it is a file's name, with an ending."""

R = TypeVar("R", bound=BaseModel)


def cell_names(name: str, body: Any) -> list[str]:
    """The names of a sweep's cells, in order; none where the run is no sweep, or a wrong one.

    >>> cell_names("mine", {"sweep": {"series.seed": [0, 1], "series.curriculum.addition.share": [0.17]}})
    ['mine@seed=0,addition.share=0.17', 'mine@seed=1,addition.share=0.17']
    """
    sweep = body.get(SWEEP) if isinstance(body, Mapping) else None
    if not isinstance(sweep, Mapping) or not all(isinstance(v, list) and v for v in sweep.values()):
        return []
    if not all(isinstance(key, str) for key in sweep) or prod(map(len, sweep.values())) > MOST:
        return []
    short_keys = shortened(list(sweep))
    texts = [[f"{short_keys[key]}={text}" for text in _texts(values)] for key, values in sweep.items()]
    return [f"{name}@{','.join(parts)}" for parts in product(*texts)]


def cells(name: str, body: Mapping[str, Any], file: Path, parse: Callable[[str, Any, Path], R]) -> dict[str, R]:
    """Every cell of a sweep, by its name.

    Args:
        name: of the run.
        body: what the runs file says of it, with its ``sweep``.
        file: the runs file, for messages.
        parse: makes a run of a name, a body and the file.

    Raises:
        UserError: for a sweep that is none, with the key at which it is wrong; for a run that is wrong without it.
    """
    sweep = body[SWEEP]
    _check(name, sweep, file)
    rest = {key: value for key, value in body.items() if key != SWEEP}
    whole = parse(name, rest, file)
    base = whole.model_dump(mode="json", exclude={SWEEP})
    for key, values in sweep.items():
        for value in values:
            _one(name, base, {key: value}, file, parse)
    made = {}
    for cell, chosen in zip(cell_names(name, body), product(*sweep.values()), strict=True):
        if len(cell) > _LONGEST:
            raise UserError(
                f"cell {short(cell)!r} of the sweep of run {name!r} in {file} has a name of {len(cell)} characters",
                expected=f"at most {_LONGEST}: it names files",
                remedy="sweep over fewer keys, or shorter values",
            )
        made[cell] = _one(cell, base, dict(zip(sweep, chosen, strict=True)), file, parse)
    return made


def one_cell(cell: str, name: str, body: Any, file: Path, parse: Callable[[str, Any, Path], R]) -> R | None:
    """One cell of a sweep by its name, which is all that is read beside what the cells share; None where it has none of that name.

    Raises:
        UserError: as :func:`cells`, for this cell.
    """
    names = cell_names(name, body)
    if cell not in names:
        return None
    sweep = body[SWEEP]
    _check(name, sweep, file)
    base = parse(name, {key: value for key, value in body.items() if key != SWEEP}, file)
    chosen = next(values for other, values in zip(names, product(*sweep.values()), strict=True) if other == cell)
    return _one(cell, base.model_dump(mode="json", exclude={SWEEP}), dict(zip(sweep, chosen, strict=True)), file, parse)


def _one(
    name: str, base: Mapping[str, Any], values: Mapping[str, Any], file: Path, parse: Callable[[str, Any, Path], R]
) -> R:
    body = copy.deepcopy(dict(base))
    where = ", ".join(f"{key}: {value}" for key, value in values.items())
    for key, value in values.items():
        _put(body, key, value, f"the sweep of run {name!r} in {file}")
    try:
        return parse(name, body, file)
    except UserError as error:
        said = error.observed.partition("\n")
        raise UserError(
            f"the sweep of run {name!r} in {file} is wrong at {where}: {(said[2] or said[0]).strip()}",
            expected=error.expected,
            remedy=error.remedy,
        ) from error


def _put(body: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a key with dots; entries of a list of analyses go by their names."""
    inner: Any = body
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        if isinstance(inner, list):
            inner = next((entry for entry in inner if isinstance(entry, dict) and entry.get("name") == part), None)
        elif isinstance(inner, dict):
            inner = inner.setdefault(part, {})
        if not isinstance(inner, dict | list):
            raise UserError(
                f"{where} is wrong at {key}: {'.'.join(parents[: depth + 1])!r} holds no keys",
                expected="a key of the run, with dots, such as series.seed",
                remedy="the reference lists every key (docs/reference/runs-file.md)",
            )
    if isinstance(inner, list):
        raise UserError(
            f"{where} is wrong at {key}: it names a whole entry of a list",
            expected="a key of an entry, such as analyses.induction.options.prompts",
            remedy="name a key of that entry",
        )
    inner[last] = value


def _check(name: str, sweep: Any, file: Path) -> None:
    def wrong(observed: str) -> UserError:
        return UserError(
            f"the sweep of run {name!r} in {file} {observed}",
            expected="keys of the run with lists of values: {series.seed: [0, 1, 2], series.learning_rate: [0.001, 0.003]}",
            remedy="correct it there",
        )

    if not isinstance(sweep, Mapping) or not sweep:
        raise wrong(f"is {short(repr(sweep))}")
    for key, values in sweep.items():
        if not isinstance(key, str) or not all(key.split(".")) or key.split(".")[0] == SWEEP:
            raise wrong(f"has the key {key!r}")
        if not isinstance(values, list) or not values:
            raise wrong(f"is wrong at {key}: {short(repr(values))} is no list of values")
        if any(
            values[i] == values[j] and type(values[i]) is type(values[j]) for i in range(len(values)) for j in range(i)
        ):
            raise wrong(f"is wrong at {key}: a value is there twice")
    if (count := prod(map(len, sweep.values()))) > MOST:
        raise wrong(f"has {count} cells, and at most {MOST} are made")


def _texts(values: Sequence[Any]) -> list[str]:
    """Values as they stand in a name: safe for a file's, and one for each, also where case makes no difference between files."""
    texts = []
    for number, value in enumerate(values):
        if isinstance(value, str):
            text = re.sub(r"[^A-Za-z0-9._+-]+", "-", value).strip("-")
        else:  # a number keeps its sign
            text = str(value) if value is None or isinstance(value, int | float) else ""
        texts.append(text if text and len(text) <= 40 else f"v{number}")
    folded = [text.casefold() for text in texts]
    return [text if folded.count(text.casefold()) == 1 else f"{text}-v{number}" for number, text in enumerate(texts)]


def shortened(keys: Sequence[str]) -> dict[str, str]:
    """Keys with dots by their ends, as short as they are unique among one another; of two parts where there are more than three.

    >>> found = shortened(["series.seed", "series.curriculum.addition.share", "series.curriculum.german.share"])
    >>> list(found.values())
    ['seed', 'addition.share', 'german.share']
    """
    found = {}
    for key in keys:
        parts = key.split(".")
        for count in range(2 if len(parts) > 3 else 1, len(parts) + 1):
            end = ".".join(parts[-count:])
            if sum(other == end or other.endswith("." + end) for other in keys) == 1:
                break
        found[key] = end
    return found
