"""Checkpoints that appear between those that were measured: refused, with a way that measures nothing twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dynamics
from checkpoints.errors import UserError
from dynamics.runs.config import Run
from dynamics.store import Trace


def test_what_the_error_says_takes_over_what_is_there_and_measures_the_rest(tiny_series: Path, tmp_path: Path) -> None:
    series, traces = tmp_path / "series", tmp_path / "traces"
    for step in (0, 12):
        shutil.copytree(tiny_series / f"step{step}", series / f"step{step}")
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps({"text": f"{a} + 3 =", "answer": f" {a + 3}"}) for a in (2, 4)))

    def run(**more: Any) -> Run:
        settings = {"series": {"kind": "folder", "path": str(series)}, "probes": {"a": {"file": str(prompts)}}}
        return Run.model_validate({**settings, "device": "cpu", **more})

    dynamics.collect("t", run=run(), traces=traces)
    before = Trace(traces / "t.zarr").values("a", "answer_logprob")
    for step in (1, 3):
        shutil.copytree(tiny_series / f"step{step}", series / f"step{step}")
    with pytest.raises(
        UserError, match=r"no place for step 1, step 3: a trace gains checkpoints at its end"
    ) as refused:
        dynamics.collect("t", run=run(), traces=traces)
    assert "t-before.zarr" in str(refused.value.remedy) and "reuse: [t-before]" in str(refused.value.remedy)

    (traces / "t.zarr").rename(traces / "t-before.zarr")
    done = dynamics.collect("t", run=run(reuse=["t-before"]), traces=traces)
    assert done.taken == {"t-before": [0, 12]} and done.collected == [0, 1, 3, 12]
    np.testing.assert_array_equal(Trace(traces / "t.zarr").values("a", "answer_logprob")[[0, 3]], before)
