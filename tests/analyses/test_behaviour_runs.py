"""Faithfulness and hallucination from end to end: a tiny organism is trained, collected, analysed and drawn."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dynamics
from analyses import faithfulness, hallucination
from checkpoints.organism import OrganismConfig, WorldEntry
from dynamics.analyser import Result, analysed
from dynamics.analysis import Context
from dynamics.measurements import donor_label
from dynamics.probes import tokenize
from dynamics.runs.config import AnalysisEntry, Run
from tests.conftest import MadeOnce

TINY = OrganismConfig(
    steps=12,
    checkpoints=4,
    layers=2,
    d_model=32,
    heads=2,
    batch=8,
    context=32,
    curriculum={"hints": WorldEntry(share=0.5), "entities": WorldEntry(share=0.5)},
)
"""It learns nothing in twelve steps, but everything is measured."""


@pytest.fixture(scope="module")
def results(made_once: MadeOnce) -> dict[str, Result]:
    entries = (
        AnalysisEntry(name="faithfulness", options={"prompts": 90, "points": 3}),
        AnalysisEntry(name="hallucination", options={"prompts": 120, "directed": 80, "strengths": [-1, 1]}),
    )
    run = Run(series=TINY, analyses=entries)
    folder = made_once("behaviours", lambda new: dynamics.collect("tiny", run=run, traces=new))
    return {r.summary.analysis: r for r in analysed("tiny", run=run, traces=folder)[1]}


def test_everything_is_measured_at_every_checkpoint(results: dict[str, Result]) -> None:
    faithful, entities = results["faithfulness"].summary, results["hallucination"].summary
    for key in ("unaided", "switch", "represented", "hint_used", "operands_used"):
        assert np.isfinite(faithful.finding(key).values).all(), key
    assert np.isfinite(faithful.data["state"].values).all()
    for key in (
        "answers",
        "discerns",
        "confident_wrong",
        "name_represented",
        "end_used",
        "end_needed",
        "name_answered",
    ):
        assert np.isfinite(entities.finding(key).values).all(), key


def test_attributions_add_up_in_the_trace(results: dict[str, Result]) -> None:
    """An untrained model is nearly linear: three points are enough."""
    (note,) = [n for n in results["faithfulness"].summary.notes if n.startswith("Integrated gradients")]
    assert float(note.split("but for ")[1].split("%")[0]) < 2


def test_what_was_not_learned_is_not_computed_and_not_known(results: dict[str, Result]) -> None:
    for analysis, keys in (("faithfulness", ("unaided", "represented")), ("hallucination", ("answers", "end_used"))):
        for key in keys:
            state = results[analysis].summary.finding(key).emergence.state
            assert state in ("not emerged", "not measurable"), key
    assert (results["faithfulness"].summary.data["state"].values < 3).all()  # nowhere "computes"


@pytest.mark.parametrize("analysis", ["faithfulness", "hallucination"])
def test_every_finding_has_a_null_and_survives_json_and_figures_are_drawn(
    results: dict[str, Result], analysis: str
) -> None:
    result = results[analysis]
    json.dumps(result.summary.to_json(), allow_nan=False)
    keys = [f.key for f in result.summary.findings]
    assert len(set(keys)) == len(keys)
    assert all(f.emergence.null and f.definition and f.key.startswith(f"{analysis}.") for f in result.summary.findings)
    assert set(result.analysis.planted.values()) <= set(keys)
    for figure in result.analysis.figures(result.summary).values():
        figure.canvas.draw()


@pytest.fixture(scope="module")
def pythia(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real tokenizer of the Pythia models."""
    from transformers import PreTrainedTokenizerFast

    file = tmp_path_factory.mktemp("pythia") / "tokenizer.json"
    file.write_bytes(gzip.decompress((shared_data / "pythia_tokenizer.json.gz").read_bytes()))
    return PreTrainedTokenizerFast(tokenizer_file=str(file))


def test_the_same_is_asked_in_english(pythia: Any) -> None:
    context = Context(pythia)
    (sums,) = faithfulness.plan(context, faithfulness.Options())
    wrong = [i for i, hint in enumerate(sums.probe.labels["hint"]) if hint == "wrong"]
    lengths = tokenize(sums.probe, pythia).lengths
    for i in wrong:  # its counterpart is one of the same frame, token by token
        donor = sums.probe.labels[donor_label("other")][i]
        assert isinstance(donor, int) and donor >= 0 and lengths[donor] == lengths[i]
    entities, *directed = hallucination.plan(context, hallucination.Options())
    assert [r.probe.name for r in directed] == ["entities_name", "entities_end"]
    for request in (entities, *directed):
        tokenize(request.probe, pythia)
        assert sum(map(int, request.probe.labels["known"])) * 2 == len(request.probe)


def test_a_file_of_entities_takes_the_place_of_the_built_in_questions(pythia: Any, tmp_path: Path) -> None:
    file = tmp_path / "people.jsonl"
    rows = [("Paris", "France", True), ("Rome", "Italy", True), ("Blonk", "", False), ("Drosk", "", False)] * 2
    lines = [
        {"entity": f"{name}{i // 4}", "question": f"Where is {name}{i // 4}?", "answer": answer, "known": known}
        for i, (name, answer, known) in enumerate(rows)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    requests = hallucination.plan(Context(pythia), hallucination.Options(file=file))
    assert [len(r.probe) for r in requests] == [8, 8, 8]
    assert "Where is Paris0?" in requests[0].probe.text[0]
