"""What differs between runs, which of it is a choice about training, and which runs differ in their seed alone.

A configuration is flattened to keys such as ``series.curriculum.addition.share``. Keys of ``series`` are choices about training;
the others say how the run was measured. Choices that always change together are one factor: no comparison can tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runs.sweeps import shortened
from ..wording import listed
from .loading import ComparedRun

__all__ = ["ABSENT", "Design", "Difference", "Factor", "design_of", "flattened"]

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
        kind: ``"training"`` (a choice whose effect is asked for), ``"seed"``, or ``"measuring"``.
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
        groups: runs that differ in nothing but the seed, as indices; in the order of their first run.
        repeated: whether any group has two runs: without, the spread between seeds is not known.
    """

    runs: tuple[str, ...]
    differences: tuple[Difference, ...]
    factors: tuple[Factor, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def repeated(self) -> bool:
        return any(len(group) > 1 for group in self.groups)

    def group_label(self, group: int) -> str:
        """A group by its levels."""
        first = self.groups[group][0]
        return ", ".join(f"{f.label} {f.levels[f.level[first]]}" for f in self.factors) or "all runs"


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """A configuration as keys with dots; lists of mappings with a name by that name.

    >>> flattened({"series": {"seed": 1}, "analyses": [{"name": "a", "options": {"n": 2}}], "exclude": []})
    {'series.seed': 1, 'analyses.a.options.n': 2, 'exclude': []}
    """
    if isinstance(config, list) and config and all(isinstance(entry, dict) and "name" in entry for entry in config):
        config = {entry["name"]: {k: v for k, v in entry.items() if k != "name"} or True for entry in config}
    if not isinstance(config, Mapping) or not config:
        return {prefix: config} if prefix else {}
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def design_of(runs: Sequence[ComparedRun], repeats: Sequence[str] = ("series.seed",)) -> Design:
    """What differs between runs, and which are repeats of one another.

    Args:
        runs: the runs.
        repeats: keys in which repeats of one training differ.

    Returns:
        Factors have their levels in the order of their values where those are numbers, else as the runs come.
    """
    flat = [{k: v for k, v in flattened(dict(run.config)).items() if k.split(".")[0] not in _UNREAD} for run in runs]
    for one, run in zip(flat, runs, strict=True):
        one |= {f"model.{key}": run.model[key] for key in _MODEL if key in run.model}
    keys = [
        key for key in dict.fromkeys(key for one in flat for key in one) if _differs([one.get(key) for one in flat])
    ]
    # a model's size follows from an organism's configuration: said once, as what was written
    if any(key.startswith("series.") and key not in repeats for key in keys):
        keys = [key for key in keys if not key.startswith("model.")]
    short = shortened(keys)
    differences = tuple(
        Difference(
            key, short[key], tuple(_text(one[key]) if key in one else ABSENT for one in flat), _kind(key, repeats)
        )
        for key in keys
    )
    factors = _factors(differences, flat)
    signature = [tuple(factor.level[run] for factor in factors) for run in range(len(runs))]
    groups = [tuple(i for i, s in enumerate(signature) if s == one) for one in dict.fromkeys(signature)]
    return Design(tuple(run.name for run in runs), differences, factors, tuple(groups))


def _differs(values: Sequence[Any]) -> bool:
    return len({json.dumps(value, sort_keys=True, default=str) for value in values}) > 1


def _kind(key: str, repeats: Sequence[str]) -> str:
    if key in repeats:
        return "seed"
    return "training" if key.startswith(("series.", "model.")) and key != "series.checkpoints" else "measuring"


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
