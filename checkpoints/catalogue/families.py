"""Reading the catalogue's data: one YAML file per family, expanded to one entry per series.

A family file writes each fact once::

    family: Pythia
    defaults:                                  # of every member
      revisions: step(?P<step>\\d+)
    members:
      - each: {size: [70m, 160m]}              # one entry for each combination; {size} is replaced in all texts
        name: pythia-{size}
        repo: EleutherAI/{name}
    particulars:                               # of single entries, by name
      pythia-70m:
        notes: [...]

Lists of remarks (:data:`_ADDED`) add up from defaults, member and particulars; of everything else the last one counts.
``repositories`` may be one text with ``{step}``, which stands for the expected steps in units of ``step_unit``.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from ..errors import UserError, nearest
from .entry import Entry

__all__ = ["Family", "catalogue", "find_entry"]

_ADDED = ("equal_by_design", "known_faults", "notes", "sources", "unsure")
_SIZE = re.compile(r"(\d+)(?:\.(\d+))?([mb])(\d*)", re.IGNORECASE)  # 410m, 1.4b, and 1b7 for 1.7b


class Family(BaseModel):
    """One data file.

    >>> family = Family(family="X", members=[{"each": {"n": [1, 2]}, "name": "x-{n}", "size": "1b",
    ...                                       "repo": "o/{name}", "revisions": r"step(?P<step>\\d{1,6})"}],
    ...                 particulars={"x-2": {"notes": ["second"]}})
    >>> [(e.name, e.repo, e.notes) for e in family.entries()]
    [('x-1', 'o/x-1', ()), ('x-2', 'o/x-2', ('second',))]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str
    defaults: dict[str, Any] = {}
    members: tuple[dict[str, Any], ...]
    particulars: dict[str, dict[str, Any]] = {}

    def entries(self) -> tuple[Entry, ...]:
        """All members, in the file's order.

        Raises:
            ValueError: when the file is malformed: a field that entries do not have, a remark on no series, a size that
                is not one.
        """
        found = []
        for member in self.members:
            fields = dict(member)
            axes: dict[str, list[Any]] = fields.pop("each", {})
            for values in product(*axes.values()):
                replaced = {axis: str(value) for axis, value in zip(axes, values, strict=True)}
                name = _fill(fields["name"], replaced).lower()
                merged = _merge(self.defaults, fields, self.particulars.get(name, {}))
                merged = _fill({**merged, "family": self.family, "name": name}, {**replaced, "name": name})
                found.append(_entry(merged))
        if strangers := self.particulars.keys() - {e.name for e in found}:
            raise ValueError(f"{self.family} remarks on {', '.join(sorted(strangers))}, which it does not have")
        return tuple(sorted(found, key=lambda e: _parameters(e.size)))


def catalogue() -> dict[str, Entry]:
    """All known series by name, ordered by family, size and the family's own order."""
    return dict(_catalogue())


def find_entry(name: str) -> Entry:
    """The entry of one series.

    Raises:
        UserError: when there is none of this name.
    """
    known = _catalogue()
    try:
        return known[name.lower()]
    except KeyError:
        raise UserError(
            f"the catalogue has no series {name!r}",
            expected=f"one of the {len(known)} that `dynamics series` lists",
            remedy=nearest(name.lower(), known),
        ) from None


@cache
def _catalogue() -> dict[str, Entry]:
    folder = files(__package__) / "data"
    read = [
        Family.model_validate(yaml.safe_load(f.read_text(encoding="utf-8")))
        for f in folder.iterdir()
        if f.name.endswith(".yaml")
    ]
    found: dict[str, Entry] = {}
    for family in sorted(read, key=lambda f: f.family.lower()):
        for entry in family.entries():
            if entry.name in found:
                raise ValueError(f"there are two series {entry.name}: {found[entry.name].repo} and {entry.repo}")
            found[entry.name] = entry
    return found


def _merge(*layers: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            merged[key] = [*merged.get(key, ()), *value] if key in _ADDED else value
    return merged


def _fill(value: Any, by: dict[str, str]) -> Any:
    """Replace ``{axis}`` in all texts; other braces (a pattern's ``{3}``) stay."""
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda m: by.get(m[1], m[0]), value)
    if isinstance(value, dict):
        return {key: _fill(part, by) for key, part in value.items()}
    return [_fill(part, by) for part in value] if isinstance(value, list) else value


def _entry(fields: dict[str, Any]) -> Entry:
    repositories = fields.pop("repositories", ())
    entry = Entry.model_validate(fields)
    if isinstance(repositories, str):
        steps = (str(step // entry.step_unit) for step in entry.expected_steps)
        repositories = [_fill(repositories, {"step": step}) for step in steps]
    return Entry.model_validate({**fields, "repositories": repositories})


def _parameters(size: str) -> float:
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"{size!r} is not a number of parameters, as 410m, 1.4b or 1b7 are")
    whole, decimals, unit, after = match.groups()
    return float(f"{whole}.{decimals or after or 0}") * {"m": 1e6, "b": 1e9}[unit.lower()]
