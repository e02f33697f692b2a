"""Probes of the user's own are an analysis by themselves: what is planted in them is found, and nothing where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dynamics
from checkpoints import UserError
from dynamics.analyser import OWN_PROBES, analyse
from dynamics.analysis import own_probes
from dynamics.analysis.base import Analysis, AnalysisOptions
from dynamics.analysis.section import Summary

STEPS = np.array([0, 10, 100, 1000, 10000])
PROMPTS, LAYERS, WIDTH = 48, 2, 6
KNOWN_FROM, CODED_FROM = 2, 1
ANSWERS = np.arange(PROMPTS) % 4


class Planted:
    """A trace in which answers are known from one checkpoint on, and the label ``side`` is in layer 1 from another."""

    def __init__(self, *, answers: np.ndarray = ANSWERS, foil: bool = True, knows: bool = True) -> None:
        rng = np.random.default_rng(0)
        side = np.array(["left", "right"])[np.arange(PROMPTS) // 2 % 2]
        when = np.arange(len(STEPS))[:, None] >= KNOWN_FROM if knows else np.zeros((len(STEPS), 1), bool)
        noise = rng.normal(scale=0.3, size=(len(STEPS), PROMPTS, 5))
        right = np.arange(5) == answers[:, None]
        logprob = np.where(when[..., None] & right, -0.2, -2.0) + noise
        guesses = rng.integers(0, 4, size=(len(STEPS), PROMPTS))
        self.steps, self.tokens, self.path = STEPS, np.full(len(STEPS), np.nan), Path("planted")
        self.complete = np.ones(len(STEPS), dtype=bool)
        self.attributes = {"run_config": {"probes": {"own": {}, "gone": {}}}}
        self.probes = ["own", "ioi_pairs"]
        self._values = {
            "answer_logprob": logprob[:, np.arange(PROMPTS), answers],
            "predicted": np.where(when, answers, guesses),
            "candidate_logprob": logprob,
            **({"foil_logprob": logprob[:, np.arange(PROMPTS), (answers + 1) % 4]} if foil else {}),
        }
        stream = rng.normal(size=(len(STEPS), PROMPTS, LAYERS, WIDTH))
        stream[CODED_FROM:, :, 1, 0] += 6.0 * (side == "right")
        self._stream = stream
        self._labels: dict[str, Any] = {
            "text": np.array([f"prompt {i}" for i in range(PROMPTS)]),
            "answer": answers.astype(str),
            "side": side,
            "each": np.arange(PROMPTS),
        }
        self._dataset = xr.Dataset(
            {"resid_post": (("checkpoint", "prompt", "position", "layer", "d_model"), stream[:, :, None]), **{
                name: (("checkpoint", "prompt", "candidate")[: values.ndim], values) for name, values in self._values.items()
            }},
            {
                "answer_id": ("prompt", answers),
                "candidate": [str(i) for i in range(5)],
                "position": ["last"],
                **{name: ("prompt", values) for name, values in self._labels.items()},
            },
        )  # fmt: skip

    def probe(self, name: str) -> xr.Dataset:
        assert name == "own"
        return self._dataset

    def values(self, probe: str, variable: str) -> np.ndarray:
        return self._values[variable].copy()

    def label(self, probe: str, name: str) -> np.ndarray:
        return np.asarray(self._labels[name])

    def each(self, probe: str, variable: str, *, position: str | None = None) -> Any:
        values = self._stream if variable == "resid_post" else self._values[variable]
        yield from enumerate(values)


def summary_of(trace: Any) -> Summary:
    return Analysis(OWN_PROBES, own_probes).summary(trace, AnalysisOptions())


def test_planted_answers_preference_and_label_are_dated_between_their_checkpoints() -> None:
    summary = summary_of(Planted())
    onsets = {key: str(f.emergence.onset) for key, f in summary.by_key.items() if f.emergence.state == "emerged"}
    assert onsets == {
        "own.accuracy": "(10, 100]",
        "own.logprob": "(10, 100]",
        "own.foil": "(10, 100]",
        "own.side.last": "(0, 10]",
    }
    assert {f.key.partition(".")[2] for f in summary.findings if f.headline} == {
        "own.accuracy",
        "own.foil",
        "own.side.last",
    }
    assert summary.finding("own.accuracy").mirage is not None
    layers = summary.data["own.side.last"].values
    assert layers[-1, 1] > 0.95 and layers[-1, 0] < 0.75
    assert any("'each' is not decoded: it has 48 values" in note for note in summary.notes)


def test_nothing_emerges_where_nothing_was_planted() -> None:
    summary = summary_of(Planted(knows=False, foil=False))
    states = {key: f.emergence.state for key, f in summary.by_key.items()}
    assert states == {"own.accuracy": "not emerged", "own.logprob": "not emerged", "own.side.last": "emerged"}


def test_a_single_answer_is_no_knowledge() -> None:
    summary = summary_of(Planted(answers=np.zeros(PROMPTS, dtype=int), foil=False))
    assert summary.finding("own.accuracy").emergence.state == "not measurable"
    assert any("all prompts have the same answer" in note for note in summary.notes)


def test_figures_show_curves_and_layers_of_each_probe() -> None:
    drawn = own_probes.figures(summary_of(Planted()))
    assert set(drawn) == {"own", "own_layers"}


def test_a_run_with_probes_and_nothing_else_gets_curves(tmp_path: Path, tiny_series: Path) -> None:
    lines = [{"text": f"{a} + 3 =", "answer": f" {a}", "labels": {"odd": bool(a % 2)}} for a in range(1, 10)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "runs.yaml").write_text(
        f"mine: {{series: {{kind: folder, path: {tiny_series}}}, probes: {{own: {{file: p.jsonl, sites: [resid_post]}}}}}}\n"
    )
    where: dict[str, Any] = {"runs": tmp_path / "runs.yaml", "traces": tmp_path / "traces"}
    dynamics.collect("mine", **where)
    (summary,) = analyse("mine", **where).values()
    assert {"own.accuracy", "own.logprob"} <= set(summary.by_key)
    (again,) = analyse("mine", [OWN_PROBES], fresh=False, **where).values()
    assert again.findings == summary.findings
    with pytest.raises(UserError, match="has no analysis 'ioi'"):
        analyse("mine", ["ioi"], **where)


def test_probes_that_the_trace_does_not_have_yet_are_left_for_later() -> None:
    assert own_probes.probes_of(Planted()) == ["own"]  # type: ignore[arg-type]
    bare: Any = SimpleNamespace(attributes={}, probes=["own"])
    assert own_probes.probes_of(bare) == []
