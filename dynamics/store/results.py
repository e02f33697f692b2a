"""Derived results beside the raw slabs: ``results/<analysis>``, rewritten whenever an analysis runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from ..names import CHECKPOINT
from .create import consolidate, put_coordinate
from .writer import open_group

__all__ = ["read_result", "write_result"]


def write_result(trace: Path, analysis: str, dataset: xr.Dataset, summary: dict[str, Any]) -> None:
    """Replace ``results/<analysis>``; the caller holds the trace's lock.

    Args:
        trace: the trace.
        analysis: name of the analysis.
        dataset: arrays over ``checkpoint`` with their coordinates.
        summary: findings as JSON values, kept as the attribute ``summary``.
    """
    root = open_group(trace, mode="r+")
    results = root.require_group("results")
    shutil.rmtree(trace / "results" / analysis, ignore_errors=True)
    node = results.create_group(analysis)
    coords = []
    for name, array in dataset.coords.items():
        if array.ndim == 1:
            put_coordinate(node, str(name), str(array.dims[0]), array.values.tolist())
            coords.append(str(name))
    for name, array in dataset.data_vars.items():
        values = np.asarray(array.values)
        stored = node.create_array(
            str(name),
            shape=values.shape,
            chunks=tuple(max(1, n) for n in values.shape),
            dtype=values.dtype,
            fill_value=np.nan if values.dtype.kind == "f" else None,
            dimension_names=[str(d) for d in array.dims],
            attributes={k: str(v) for k, v in array.attrs.items()},
        )
        stored[...] = values
    node.attrs.update({"summary": json.dumps(summary, ensure_ascii=False), "coordinates": " ".join(coords)})
    consolidate(trace)


def read_result(trace: Path, analysis: str) -> tuple[xr.Dataset, dict[str, Any]] | None:
    """The arrays and findings of one analysis, or None when it has not run (or was cut off while writing)."""
    folder = trace / "results" / analysis
    if not (folder / "zarr.json").is_file():
        return None
    group = zarr.open_group(folder, mode="r", zarr_format=3)
    text = group.attrs.get("summary")
    if not isinstance(text, str):
        return None
    dataset = xr.open_dataset(folder, engine="zarr", consolidated=False).load()
    if "step" in dataset.coords and CHECKPOINT in dataset.dims:
        dataset = dataset.set_xindex("step")
    return dataset, json.loads(text)
