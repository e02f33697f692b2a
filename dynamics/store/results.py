"""Derived results beside the raw slabs: ``results/<analysis>``, replaced whenever an analysis runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from ..names import CHECKPOINT
from .create import put_dataset
from .derived import RESULTS, put_derived, whole
from .manifest import unlike_seal

__all__ = ["FINDINGS", "read_result", "stored_results", "write_result"]

FINDINGS = "findings"
"""The group in an analysis's results with its curves and onsets as arrays."""


def write_result(
    trace: Path, analysis: str, dataset: xr.Dataset, summary: dict[str, Any], findings: xr.Dataset | None = None
) -> None:
    """Replace ``results/<analysis>``; the caller holds the trace's lock.

    Args:
        trace: the trace.
        analysis: name of the analysis.
        dataset: arrays over ``checkpoint`` with their coordinates.
        summary: findings as JSON values, kept as the attribute ``summary``, from which they are read again.
        findings: their curves and onsets as arrays, made of them, for who opens the trace without this program; ``checkpoint``
            is as long in it as in the trace.
    """
    text = json.dumps(summary, ensure_ascii=False)

    def fill(group: zarr.Group) -> None:
        put_dataset(group, dataset, {"summary": text})
        if findings is not None:
            put_dataset(group.create_group(FINDINGS), findings, {})

    put_derived(trace, f"{RESULTS}/{analysis}", fill)


def read_result(trace: Path, analysis: str) -> tuple[xr.Dataset, dict[str, Any]] | None:
    """The arrays and findings of one analysis, or None when it has not run, or what it stored is not whole."""
    folder = f"{RESULTS}/{analysis}"
    if not whole(trace, folder) or unlike_seal(trace / folder):
        return None
    try:
        dataset = xr.open_dataset(trace / folder, engine="zarr", consolidated=False).load()
        summary = json.loads(dataset.attrs["summary"])
        if "step" in dataset.coords and CHECKPOINT in dataset.dims:
            dataset = dataset.set_xindex("step")
    except Exception:  # whatever is wrong with it: it can be derived again
        return None
    return (dataset, summary) if isinstance(summary, dict) else None


def stored_results(trace: Path) -> list[str]:
    """Names of the analyses of which a trace has results, whole or not."""
    return sorted(folder.name for folder in (trace / RESULTS).glob("*") if (folder / "zarr.json").is_file())
