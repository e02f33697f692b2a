"""Is it the same circuit in two runs: by name where both began alike, by layer where heads are in no common order."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import dynamics
from dynamics.analysis.circuit_identity import values_at
from dynamics.comparing.identity import circuit_overlap
from dynamics.store import Trace

SOURCES = ["embed", *(f"L{layer}H{head}" for layer in range(2) for head in range(4)), "L0M", "L1M"]
READERS = [
    *(f"L{layer}H{head}.{part}" for layer in range(2) for part in "qkv" for head in range(4)),
    "L0M",
    "L1M",
    "logits",
]


def circuit(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of which few are large, and those."""
    rng = np.random.default_rng(seed)
    scores = rng.exponential(size=(len(SOURCES), len(READERS))) ** 4
    scores[-1, :6] = np.nan  # no such edges
    return scores, scores > np.nanquantile(scores, 0.9)


def test_a_circuit_is_the_same_as_itself_and_another_is_not_beyond_chance() -> None:
    scores, kept = circuit(0)
    same = circuit_overlap(scores, 3.0 * scores, kept, kept, SOURCES, READERS, named=True)
    assert (round(same.weighted, 6), same.edges) == (1.0, 1.0) and same.weighted_null < 0.4 and same.edges_null < 0.4
    beyond = 0
    for seed in range(1, 11):
        other, kept_other = circuit(seed)
        found = circuit_overlap(scores, other, kept, kept_other, SOURCES, READERS, named=True)
        beyond += found.weighted > found.weighted_null
    assert beyond <= 3


def test_another_order_of_heads_is_the_same_circuit_by_layer_only() -> None:
    scores, kept = circuit(0)
    order = np.arange(len(SOURCES))
    order[1:5] = [3, 1, 4, 2]
    readers = np.arange(len(READERS))
    for part in range(3):
        readers[4 * part : 4 * part + 4] = 4 * part + (np.array([3, 1, 4, 2]) - 1)
    mixed, kept_mixed = (array[order][:, readers] for array in (np.nan_to_num(scores), kept))
    by_name = circuit_overlap(scores, mixed, kept, kept_mixed, SOURCES, READERS, named=True)
    by_layer = circuit_overlap(np.nan_to_num(scores), mixed, kept, kept_mixed, SOURCES, READERS, named=False)
    assert by_name.weighted < 0.9 and round(by_layer.weighted, 6) == 1.0 and by_layer.weighted_null < 1.0
    assert np.isnan(by_layer.edges) and not by_layer.named


def test_a_trace_and_its_copy_have_the_same_circuits_by_name(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strongest(trace: Trace, probe: str, variable: str, checkpoint: int) -> np.ndarray:
        scores = values_at(trace, probe, "edge_score", checkpoint)
        return (
            scores if variable == "edge_score" else np.abs(scores.mean(0)) > np.nanquantile(np.abs(scores.mean(0)), 0.9)
        )

    # a model of 12 steps has edges with scores, and no circuit: its strongest edges stand for one
    monkeypatch.setattr("dynamics.comparing.identity.with_circuit", lambda trace, probe: [len(trace.steps) - 1])
    monkeypatch.setattr("dynamics.comparing.identity.values_at", strongest)
    for name in ("mine", "copy"):
        shutil.copytree(reported / "traces/mine.zarr", tmp_path / f"traces/{name}.zarr")
    content = dynamics.compare(["mine", "copy"], traces=tmp_path / "traces").content
    assert content["identity"]
    for entry in content["identity"]:
        assert entry["by_name"] and entry["same_prompts"] and (entry["weighted"], entry["edges"]) == (1.0, 1.0)
    assert content["features"] == []
