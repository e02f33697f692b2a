"""After any edits of its runs file, a trace is that of the last file alone."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import dynamics
from benchmarks.fault_writes import Died, dying, watched
from dynamics.store import Trace
from dynamics.store.damage import trace_damage
from dynamics.store.groups import SHELF, shelved
from tests.collecting.grown import STEPS, collect, counted, run_of, same


@pytest.fixture(autouse=True)
def _one_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamics.runs.resolve.provenance", lambda: {"versions": {}, "commit": None, "dirty": None})


@pytest.mark.slow
def test_after_any_edit_the_trace_is_that_of_the_last_file_alone(few: Path, tmp_path: Path) -> None:
    edits: dict[str, dict[str, Any]] = {
        "first": {"a": {"prompts": 3, "sites": ["resid_post"]}},
        "more prompts": {"a": {"prompts": 5, "sites": ["resid_post"]}},
        "one more": {"a": {"prompts": 6, "sites": ["resid_post"]}},
        "a label": {"a": {"prompts": 6, "sites": ["resid_post"], "labels": ["parity"]}},
        "a site and a position": {
            "a": {
                "prompts": 6,
                "sites": ["resid_post", "mlp_out"],
                "labels": ["parity"],
                "positions": ["last", "first"],
            }
        },
        "fewer prompts, another probe": {"a": {"prompts": 2, "sites": ["mlp_out"]}, "b": {"prompts": 4}},
        "gone": {"b": {"prompts": 4}},
        "back": {"a": {"prompts": 3, "sites": ["resid_post"]}},
    }
    path = tmp_path / "traces/t.zarr"
    passed = {}
    for name, probes in edits.items():
        run = run_of(few, tmp_path, probes)
        with counted() as tokens:
            done = collect(tmp_path, run)
        passed[name] = len(tokens) / len(STEPS)
        assert done.waiting == [] and Trace(path).complete.all(), name
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        collect(tmp_path / "other", run)
        same(path, tmp_path / "other/traces/t.zarr")
        assert trace_damage(path) == [], name
    # a prompt is a pass here: what was there was not measured again, and what was measured before was found again
    assert passed == {
        "first": 3,
        "more prompts": 5,  # their answers are new: each prompt is held against them
        "one more": 1,
        "a label": 0,
        "a site and a position": 5,  # one prompt is there twice
        "fewer prompts, another probe": 4,
        "gone": 0,
        "back": 0,
    }
    assert len(shelved(path)) == 6


SEQUENCES = int(os.environ.get("DYNAMICS_SEQUENCES", "4"))


@pytest.mark.slow
def test_random_edits_of_a_runs_file_with_deaths_between_end_in_the_trace_of_the_last_file(
    few: Path, tmp_path: Path
) -> None:
    """``DYNAMICS_SEQUENCES=100`` tries a hundred of them."""
    series = tmp_path / "two"
    for step in (0, 12):
        shutil.copytree(few / f"step{step}", series / f"step{step}")
    died = 0
    for seed in range(SEQUENCES):
        draw = random.Random(seed)
        folder = tmp_path / str(seed)
        for _ in range(draw.randint(1, 4)):
            run = run_of(series, folder, _drawn(draw))
            at = draw.choice([None, draw.randint(1, 60), draw.randint(1, 400)])
            try:
                with watched(dying(at, within=draw.random() < 0.5)) if at else nullcontext():
                    collect(folder, run)
            except Died:
                died += 1
        path, last = folder / "traces/t.zarr", run_of(series, folder, _drawn(draw))
        done = collect(folder, last)
        assert done.waiting == [] and done.failed == {}, seed
        collect(folder / "other", last)
        same(path, folder / "other/traces/t.zarr")
        assert trace_damage(path) == [], seed
        assert dynamics.verify("t", traces=folder / "traces", prune=True) == []
        assert not (path / SHELF).exists()
        shutil.rmtree(folder)
    assert died >= SEQUENCES / 2


def _drawn(draw: random.Random) -> dict[str, dict[str, Any]]:
    """Probes of a runs file."""
    found = {}
    for name in draw.sample(["a", "b", "c"], draw.randint(1, 2)):
        found[name] = {
            "prompts": draw.randint(1, 4),
            "shift": draw.choice([0, 0, 1]),
            "sites": draw.choice([[], ["resid_post"], ["resid_post", "mlp_out"]]),
            "positions": draw.choice([["last"], ["last", "first"], ["first"]]),
            "labels": draw.choice([[], ["parity"], ["long", "parity"]]),
        }
    return found
