"""Curves of one circuit from planted effects: which prompts may speak of its use, and when noise makes no circuit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr

from dynamics.analysis.circuit import CircuitTask, circuit_section
from dynamics.analysis.circuit_identity import checking_half, with_circuit
from dynamics.measurements.pairs import discovery_half

PROMPTS, CHECKPOINTS, SOURCES = 40, 40, 4
RANKING = discovery_half(PROMPTS, 0)
NAMES = ["embed", "L0H0", "L0H1", "L0M"]


class Planted:
    """A trace of one probe, in memory."""

    def __init__(self, **values: np.ndarray) -> None:
        self.steps, self.tokens, self.probes = np.arange(CHECKPOINTS) * 10, None, ["task"]
        edges, sizes = np.ones((SOURCES, 2)), np.array([1, SOURCES * 2])
        kept = np.where(np.arange(SOURCES)[:, None] == 1, 1, 0) * np.ones((1, 2), dtype=np.int64)
        rng = np.random.default_rng(0)
        per_size = np.ones((CHECKPOINTS, PROMPTS, len(sizes)))
        self._values = {
            "edge_score": edges + 0.1 * rng.random((CHECKPOINTS, 2, SOURCES, 2)),
            "edge_kept": np.repeat(kept[None], CHECKPOINTS, axis=0),
            "circuit_difference": per_size,
            "complement_difference": per_size,
            "found_difference": per_size[..., 0],
            "direct_effect": np.zeros((CHECKPOINTS, PROMPTS, SOURCES)),
            **values,
        }
        self._about = xr.Dataset(
            coords={"prompt": np.arange(PROMPTS), "source": NAMES, "reader": ["L0M", "logits"], "size": sizes}
        )

    def probe(self, name: str) -> Any:
        return self._about

    def each(self, probe: str, variable: str) -> Iterator[tuple[int, np.ndarray]]:
        return enumerate(self._values[variable])

    def values(self, probe: str, variable: str) -> np.ndarray:
        return self._values[variable]


def differences(size: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    noise = rng.standard_normal((2, CHECKPOINTS, PROMPTS))
    return {"clean_difference": size + noise[0], "corrupted_difference": noise[1] - size}


@pytest.mark.parametrize(("where", "state"), [(RANKING, "not emerged"), (~RANKING, "emerged")])
def test_prompts_that_chose_the_circuit_do_not_say_that_it_is_used(where: np.ndarray, state: str) -> None:
    rng = np.random.default_rng(1)
    effect = 0.3 * rng.standard_normal((CHECKPOINTS, PROMPTS, SOURCES))
    effect[CHECKPOINTS // 2 :, where, 1] += 3.0
    trace: Any = Planted(source_effect=effect, **differences(2.0, rng))
    units = "shared item"
    trace.label = lambda probe, label: np.arange(PROMPTS) // 2
    for task in (CircuitTask("task", "planted"), CircuitTask("task", "planted", units=units)):
        assert circuit_section(trace, task).assessed(trace)["used"].emergence.state == state


def test_noise_at_many_checkpoints_makes_a_circuit_in_few_series() -> None:
    """Each checkpoint by itself passes three standard errors in 0.5% here, so that about one series in six would have one."""
    found = alone = 0
    for seed in range(60):
        values = differences(0.0, np.random.default_rng(seed))
        apart = (values["clean_difference"] - values["corrupted_difference"])[:, ~RANKING]
        alone += bool((np.abs(apart.mean(1)) >= 3 * apart.std(1, ddof=1) / np.sqrt(apart.shape[1])).any())
        trace: Any = Planted(source_effect=np.zeros((CHECKPOINTS, PROMPTS, SOURCES)), **values)
        found += bool(with_circuit(trace, "task"))
    assert alone > 2 * found and found <= 7  # 5% of 60, and two standard errors
    strong: Any = Planted(**differences(2.0, np.random.default_rng(0)))
    assert with_circuit(strong, "task") == list(range(CHECKPOINTS))
    strong.probe("task").attrs["measurements"] = ["Circuit(steps=5, threshold=0.8, points=12, seed=1)"]
    assert np.array_equal(checking_half(strong, "task"), ~discovery_half(PROMPTS, 1))
