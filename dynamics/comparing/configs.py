"""What differs between runs, which of it is a choice about training, and which runs repeat one another.

A configuration is flattened to keys such as ``series.curriculum.addition.share``. Keys of ``series`` are choices about training, but for
those that say only where and how it is read (:attr:`checkpoints.series.SeriesConfig.reading`); keys outside it say how the run was
measured. Choices that always change together are one factor: no comparison can tell them apart.

Runs of equal choices are a group. In a group, repeats are those that differ in a key of ``repeats``, such as the seed; runs that differ in
none of these count as one training, as a copy of a run says nothing of how far seeds lie apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from checkpoints.errors import UserError, nearest

from ..runs.config import KINDS
from ..runs.sweeps import shortened
from ..wording import listed
from .loading import ComparedRun

__all__ = ["ABSENT", "SEED", "Design", "Difference", "Factor", "design_of", "flattened"]

T = TypeVar("T")

SEED = "series.seed"
"""The key in which repeats differ, whatever else they do."""

ABSENT = "–"
"""Value of a key that a run does not have."""

_UNREAD = ("description", "device", "reuse", "durable", "layout", "batch_tokens", "budget", "sweep", "dictionaries")
"""Keys that neither change the training nor what is measured of it."""

_MODEL = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")


@dataclass(frozen=True)
class Difference:
    """A key in which the runs differ.

    Attributes:
        key: of the flattened configuration.
        label: its end, as short as it is unique among the differences.
        values: (run,) as text.
        kind: ``"training"`` (a choice whose effect is asked for), ``"seed"`` (repeats differ in it), ``"reading"`` (where the series lies
            and how it is read), or ``"measuring"``.
    """

    key: str
    label: str
    values: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Factor:
    """A choice about training with two levels or more.

    Attributes:
        label: what it is called.
        keys: the keys that change with it, and only with one another.
        levels: its values as text, the first of them the one that others are compared with.
        level: (run,) index into ``levels``.
    """

    label: str
    keys: tuple[str, ...]
    levels: tuple[str, ...]
    level: tuple[int, ...]


@dataclass(frozen=True)
class Design:
    """How the runs differ.

    Attributes:
        runs: their names.
        differences: every key in which they differ.
        factors: the choices about training.
        groups: runs of equal choices, as indices; in the order of their first run.
        training: (run,) index of the first run that is of the same training, as far as the configurations say: of its group, with
            the same values of the keys in which repeats differ.
        repeated: whether any group has two trainings: without, the spread between seeds is not known.
    """

    runs: tuple[str, ...]
    differences: tuple[Difference, ...]
    factors: tuple[Factor, ...]
    groups: tuple[tuple[int, ...], ...]
    training: tuple[int, ...]

    @property
    def repeated(self) -> bool:
        return any(count > 1 for count in self.trainings)

    @property
    def trainings(self) -> tuple[int, ...]:
        """(group,) how many trainings it has."""
        return tuple(len({self.training[run] for run in group}) for group in self.groups)

    def once(self, known: Sequence[T | None]) -> list[T | None]:
        """Of every training only the first run (run,) of which something is known."""
        seen: set[int] = set()
        found: list[T | None] = []
        for one, training in zip(known, self.training, strict=True):
            found.append(None if training in seen else one)
            if one is not None:
                seen.add(training)
        return found

    def group_label(self, group: int) -> str:
        """A group by its levels."""
        first = self.groups[group][0]
        return ", ".join(f"{f.label} {f.levels[f.level[first]]}" for f in self.factors) or "all runs"


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """A configuration as keys with dots; lists of mappings with a name, or a stage, by that.

    >>> flattened({"series": {"seed": 1}, "analyses": [{"name": "a", "options": {"n": 2}}], "exclude": []})
    {'series.seed': 1, 'analyses.a.options.n': 2, 'exclude': []}
    """
    for called in ("name", "stage"):
        if isinstance(config, list) and config and all(isinstance(entry, dict) and called in entry for entry in config):
            config = {entry[called]: {k: v for k, v in entry.items() if k != called} or True for entry in config}
    if not isinstance(config, Mapping) or not config:
        return {prefix: config} if prefix else {}
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def design_of(runs: Sequence[ComparedRun], repeats: Sequence[str] = ()) -> Design:
    """What differs between runs, and which are repeats of one another.

    Args:
        runs: the runs.
        repeats: keys in which repeats of one configuration differ, beside :data:`SEED`.

    Returns:
        Factors have their levels in the order of their values where those are numbers, else as the runs come.

    Raises:
        UserError: for a key of ``repeats`` that no run has.
    """
    flat = [{k: v for k, v in flattened(dict(run.config)).items() if k.split(".")[0] not in _UNREAD} for run in runs]
    for one, run in zip(flat, runs, strict=True):
        one |= {f"model.{key}": run.model[key] for key in _MODEL if key in run.model}
    known = {key for one in flat for key in one}
    for key in repeats:
        if key not in known:
            raise UserError(
                f"repeats cannot differ in {key!r}: no run that is compared has such a key",
                expected="a key of the runs with dots, such as series.path",
                remedy=nearest(key, known),
            )
    repeats = (SEED, *repeats)
    keys = [
        key for key in dict.fromkeys(key for one in flat for key in one) if _differs([one.get(key) for one in flat])
    ]
    kinds = {key: _kind(key, repeats, [run for run, one in zip(runs, flat, strict=True) if key in one]) for key in keys}
    # a model's size follows from an organism's configuration: said once, as what was written
    if any(key.startswith("series.") and kinds[key] == "training" for key in keys):
        keys = [key for key in keys if not key.startswith("model.")]
    short = shortened(keys)
    differences = tuple(
        Difference(key, short[key], tuple(_text(one[key]) if key in one else ABSENT for one in flat), kinds[key])
        for key in keys
    )
    factors = _factors(differences, flat)
    signature = [tuple(factor.level[run] for factor in factors) for run in range(len(runs))]
    groups = [tuple(i for i, s in enumerate(signature) if s == one) for one in dict.fromkeys(signature)]
    seeds = [(one, *(d.values[run] for d in differences if d.kind == "seed")) for run, one in enumerate(signature)]
    return Design(
        tuple(run.name for run in runs), differences, factors, tuple(groups), tuple(seeds.index(s) for s in seeds)
    )


def _differs(values: Sequence[Any]) -> bool:
    return len({json.dumps(value, sort_keys=True, default=str) for value in values}) > 1


def _kind(key: str, repeats: Sequence[str], runs: Sequence[ComparedRun]) -> str:
    """What a key in which runs differ says, given those that have it."""
    if key in repeats:
        return "seed"
    top, *path = key.split(".")
    if top == "series" and all(_reads(run.config.get("series"), path) for run in runs):
        return "reading"
    return "training" if top in ("series", "model") else "measuring"


def _reads(series: Any, path: Sequence[str]) -> bool:
    """Whether a key says only where a series lies and how it is read; keys of a stage are those of its own series."""
    kind = KINDS.get(str(series.get("kind"))) if isinstance(series, Mapping) else None
    if kind is None or not path:
        return False
    if path[0] == "parts" and len(path) > 2:
        part: Mapping[str, Any] = next((p for p in series.get("parts", ()) if p.get("stage") == path[1]), {})
        return path[2] == "starts" or _reads(part.get("series"), path[3:])
    return path[0] in kind.reading


def _factors(differences: Sequence[Difference], flat: Sequence[Mapping[str, Any]]) -> tuple[Factor, ...]:
    together: dict[tuple[int, ...], list[Difference]] = {}
    for difference in differences:
        if difference.kind == "training":
            together.setdefault(_partition(difference.values), []).append(difference)
    factors = []
    for members in together.values():
        numeric = [d for d in members if all(_number(one.get(d.key)) is not None for one in flat)]
        shown = (numeric or members)[0]
        order = list(dict.fromkeys(shown.values))
        if numeric:
            by_number = {t: _number(one.get(shown.key)) for t, one in zip(shown.values, flat, strict=True)}
            order.sort(key=lambda text: by_number[text] or 0.0)
        label = (
            shown.label
            if len(members) == 1
            else listed([d.label for d in members])
            if len(members) < 3
            else (f"{shown.label} (with {len(members) - 1} more)")
        )
        levels = (
            tuple(order)
            if len(members) == 1 or len(members) > 2
            else tuple(", ".join(d.values[shown.values.index(text)] for d in members) for text in order)
        )
        factors.append(Factor(label, tuple(d.key for d in members), levels, tuple(map(order.index, shown.values))))
    return tuple(factors)


def _partition(values: Sequence[str]) -> tuple[int, ...]:
    """Which runs have equal values, whatever these are."""
    seen = list(dict.fromkeys(values))
    return tuple(map(seen.index, values))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
