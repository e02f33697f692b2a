"""Every example runs and does what it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import dynamics
from tests.conftest import runs_file

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples.{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_custom_analysis_reads_a_trace(tiny_series: Path, tmp_path: Path) -> None:
    runs = runs_file(tmp_path, tiny_series, analyses="[addition]")
    trace = dynamics.collect("mine", runs=runs, traces=tmp_path).trace
    example = load("custom_analysis_on_a_trace")
    rows = example.confidence_and_accuracy(trace)
    assert [step for step, _, _ in rows] == dynamics.Trace(trace).steps.tolist()
    assert all(0 < certainty <= 1 and 0 <= accuracy <= 1 for _, certainty, accuracy in rows)
    assert example.onset_of_certainty(trace).startswith("not emerged")


def test_own_series_of_another_architecture_is_traced(tmp_path: Path) -> None:
    example = load("own_series")
    example.train(tmp_path / "run")
    tree = dynamics.open_trace(example.trace(tmp_path / "run", tmp_path))
    assert tree["step"].values.tolist() == [0, 2, 4, 6, 8]
    prompts = tree["prompts"].to_dataset()
    assert prompts.resid_post.dims == ("checkpoint", "prompt", "position", "layer", "d_model")
    assert prompts.position.values.tolist() == ["last", "operand_b"]
    plain = prompts.answer_logprob.isel(prompt=int(np.flatnonzero(prompts.kind.values == "plain")[0]))
    assert plain.values[-1] > plain.values[0]  # that very sum is what it was trained on


def test_own_analysis_makes_a_report(tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("own_analysis")
    runs = tmp_path / "runs.yaml"
    runs.write_text(
        f"mine:\n  series: {{kind: folder, path: {tiny_series}}}\n  analyses: [examples.own_analysis]\n"
        f"  probes: {{prompts: {{file: {EXAMPLES / 'prompts.jsonl'}}}}}\n"
    )
    dynamics.collect("mine", runs=runs, traces=tmp_path)
    written = dynamics.report("mine", runs=runs, traces=tmp_path, reports=tmp_path / "reports")
    assert [row["key"] for row in written.content["emergence"]] == ["own_analysis.preference"]
    assert "Answer against foil" in (written.folder / "index.html").read_text(encoding="utf-8")
