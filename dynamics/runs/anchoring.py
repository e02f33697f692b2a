"""Relative paths of a run made absolute: they are relative to its runs file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoints.paths import beside

from .dictionaries import DatasetCorpus, DictionaryConfig, TextCorpus

__all__ = ["whole_paths"]


def whole_paths(run: Any, base: Path) -> dict[str, Any]:
    """The parts of a run that hold paths, with those made absolute."""
    options = [{key: _relative(value, base) for key, value in entry.options.items()} for entry in run.analyses]
    return {
        "probes": {key: e.model_copy(update={"file": beside(base, e.file)}) for key, e in run.probes.items()},
        "analyses": tuple(e.model_copy(update={"options": o}) for e, o in zip(run.analyses, options, strict=True)),
        "dictionaries": {key: _anchored(entry, base) for key, entry in run.dictionaries.items()},
        "series": run.series.anchored(base),
        "reuse": tuple(str(beside(base, name)) if name.startswith((".", "~", "/")) else name for name in run.reuse),
    }


def _relative(value: Any, base: Path) -> Any:
    """An option that is a path because it begins like one, made absolute."""
    if isinstance(value, str) and value.startswith(("./", "../", "~/")):
        return str(beside(base, value))
    return value


def _anchored(entry: DictionaryConfig, base: Path) -> DictionaryConfig:
    """A dictionary with its relative paths absolute; a name without a separator in front is one of the hub."""
    changes: dict[str, Any] = {}
    if entry.place is not None and entry.place.startswith((".", "~", "/")):
        changes["place"] = str(beside(base, entry.place))
    if isinstance(entry.corpus, TextCorpus):
        changes["corpus"] = entry.corpus.model_copy(update={"file": beside(base, entry.corpus.file)})
    if isinstance(entry.corpus, DatasetCorpus) and entry.corpus.name.startswith((".", "~", "/")):
        changes["corpus"] = entry.corpus.model_copy(update={"name": str(beside(base, entry.corpus.name))})
    return entry.model_copy(update=changes)
