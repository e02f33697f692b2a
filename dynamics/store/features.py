"""Features beside the raw slabs: ``features/<dictionary>`` and, for each probe read through it, a group in that.

Chunked along the first dimension, so that one checkpoint's, or some features', values can be read alone. Dimensions: docs/trace-format.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from checkpoints.errors import UserError, nearest
from checkpoints.foreign import parse_json
from checkpoints.paths import StrPath

from .attributes import check_dictionary
from .create import put_dataset
from .declaration import FEATURES
from .derived import put_derived, whole
from .reader import Trace

__all__ = ["FeatureTable", "dictionaries_in", "write_features"]


def write_features(
    trace: Path, name: str, about: xr.Dataset, probes: Mapping[str, xr.Dataset], settings: Mapping[str, Any]
) -> None:
    """Replace ``features/NAME``; the caller holds the trace's lock.

    Args:
        trace: the trace.
        name: of the dictionary.
        about: arrays over ``feature``, ``snapshot`` and so on.
        probes: arrays of each probe that was read through it.
        settings: kept as the attribute ``dictionary`` (JSON).
    """

    def fill(group: zarr.Group) -> None:
        put_dataset(group, about, {"dictionary": json.dumps(dict(settings), ensure_ascii=False)})
        for probe, dataset in probes.items():
            put_dataset(group.create_group(probe), dataset, {})

    put_derived(trace, f"{FEATURES}/{name}", fill)


def dictionaries_in(trace: Trace) -> list[str]:
    """The dictionaries whose features a trace holds."""
    there = sorted(trace.tree[FEATURES].children) if FEATURES in trace.tree.children else []
    return [name for name in there if whole(trace.path, f"{FEATURES}/{name}")]


def _settings(text: Any) -> Any:
    """What the attribute of a dictionary holds; None where it is no JSON."""
    try:
        return parse_json(text) if isinstance(text, str) else None
    except ValueError:
        return None


class FeatureTable:
    """One dictionary's features in a trace; needs no torch.

    Args:
        trace: the trace, or its path.
        name: of the dictionary.

    Raises:
        UserError: when the trace has no such dictionary.

    Attributes:
        about: dataset over ``feature``, ``snapshot`` and so on (docs/trace-format.md).
        settings: how it was made: ``method``, ``site``, ``layer``, ``joint`` and so on.
        steps: (snapshot,) optimizer steps that it covers.
    """

    def __init__(self, trace: Trace | StrPath, name: str) -> None:
        if isinstance(trace, str | os.PathLike):
            trace = Trace(trace)
        if not isinstance(trace, Trace):
            raise UserError(
                f"features are read from a {type(trace).__name__}",
                expected="dynamics.Trace(path), or the path",
                remedy="FeatureTable(dynamics.Trace(path), name)",
            )
        known = dictionaries_in(trace)
        if name not in known:
            raise UserError(
                f"{trace.path} has no dictionary {name!r}",
                expected=f"one of {', '.join(known)}" if known else "a run whose dictionaries were learned",
                remedy=" ".join([nearest(name, known), "or dynamics learn RUN"]) if known else "dynamics learn RUN",
            )
        self.name = name
        self._node = trace.tree[FEATURES][name]
        self.about: xr.Dataset = self._node.to_dataset()
        self.settings: dict[str, Any] = _settings(self.about.attrs.get("dictionary"))
        check_dictionary(self.settings, trace.path, name)
        self.steps: np.ndarray = self.about["snapshot"].values

    @property
    def probes(self) -> list[str]:
        """The probes that were read through it."""
        return list(self._node.children)

    @property
    def features(self) -> int:
        """How many features it has."""
        return int(self.about.sizes["feature"])

    def read(self, probe: str) -> xr.Dataset:
        """``index`` and ``activation`` of a probe's prompts, lazily."""
        if probe not in self._node.children:
            raise UserError(
                f"probe {probe!r} was not read through dictionary {self.name!r}",
                remedy=nearest(probe, self.probes),
                expected=f"one of {', '.join(self.probes) or 'none'}",
            )
        return self._node[probe].to_dataset()

    def activations(self, probe: str, position: str, snapshot: int) -> np.ndarray:
        """(prompt, feature) float32 at one snapshot (its index): how strongly features answer; 0 where they do not."""
        dataset = self.read(probe).sel(position=position)
        index = dataset["index"]
        which = (index.isel(snapshot=snapshot) if "snapshot" in index.dims else index).values
        values = dataset["activation"].isel(snapshot=snapshot).values
        result = np.zeros((len(which), self.features), dtype=np.float32)
        row = np.broadcast_to(np.arange(len(which))[:, None], which.shape)
        there = which >= 0
        result[row[there], which[there]] = values[there]
        return result

    def of_features(self, probe: str, position: str, features: np.ndarray) -> np.ndarray:
        """(snapshot, prompt, feature) float32 of some features, one snapshot in memory at a time besides the result.

        For dictionaries whose features keep their number through training (not for a chain).
        """
        dataset = self.read(probe).sel(position=position)
        index = dataset["index"]
        fixed = None if "snapshot" in index.dims else index.values
        result = np.zeros((len(self.steps), dataset.sizes["prompt"], len(features)), dtype=np.float32)
        for snapshot in range(len(self.steps)):
            which = index.isel(snapshot=snapshot).values if fixed is None else fixed
            values = dataset["activation"].isel(snapshot=snapshot).values
            for column, feature in enumerate(features):
                result[snapshot, :, column] = np.where(which == feature, values, 0.0).sum(axis=1)
        return result
