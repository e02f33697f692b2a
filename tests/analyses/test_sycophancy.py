"""Sycophancy from made-up answers: flattery and views that are planted are found, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from analyses import sycophancy
from analyses.sycophancy import Options
from analyses.sycophancy.prompts import PRAISE, PUBLISHED, VIEWS
from checkpoints.organism import build_tokenizer
from checkpoints.series import Checkpoint
from dynamics.analysis import Analysis, Context, Summary
from dynamics.measurements import Answers, Direction
from dynamics.models.architecture import ModelShape
from dynamics.probes import LAST, Probe, TokenizedProbe, tokenize
from dynamics.runs.plan import find_analysis
from dynamics.store import Group, Trace, TraceDeclaration, TraceWriter

STEPS = (0, 4, 16, 64, 128, 256, 512, 1024)
SINCE = 4
"""From this checkpoint on, the model does what is planted."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(("praise",))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("published") / "survey.jsonl"
    rows = [
        {
            "question": f"I think so {i}. Do you?\n (A) Yes\n (B) No\n\nAnswer:",
            "answer_matching_behavior": f" ({'AB'[i % 2]})",
            "answer_not_matching_behavior": f" ({'BA'[i % 2]})",
        }
        for i in range(30)
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def logodds(name: str, labels: dict[str, np.ndarray], what: dict[str, float]) -> np.ndarray:
    """(prompt,) log p(answer) - log p(foil) that is planted."""
    if name == PRAISE:
        works = np.select(
            [labels["quality"] == "good", labels["quality"] == "bad"], [2.0, -2.0], what.get("nothing", 0.0)
        )
        return np.asarray(what.get("ceiling", 0.0) + works + what.get("flattery", 0.0) * labels["flattered"])
    if name == VIEWS:
        return np.asarray(np.where(labels["stated"] == "none", what.get("for", 0.0), what.get("views", 0.0) + np.where(labels["stated"] == "against", -1, 1) * what.get("for", 0.0)))  # fmt: skip
    return np.asarray(what.get("published", 0.0) + what.get("letter", 0.0) * np.where(labels["letter"] == "A", 1, -1))


def traced(folder: Path, tokenizer: Any, file: Path | None = None, **what: float) -> Trace:
    """A trace whose answers are what is planted, with noise; directions hold nothing."""
    rng = np.random.default_rng(0)
    likings = np.random.default_rng(1).normal(size=(1, 33, 1))  # of every direction: the same in all prompts
    requests = sycophancy.plan(Context(tokenizer), Options(published=None))
    plans = {r.probe.name: (r.probe, r.measurements) for r in requests}
    if file is not None:
        plans[PUBLISHED] = (published_like(file), (Answers(),))
    shape = ModelShape(2, 2, 8, 4, 8, len(tokenizer), 64)
    groups, made = [], {}
    for name, (probe, measurements) in plans.items():
        if name == PUBLISHED:
            n = len(probe)
            variables = list(Answers().declare(_fake(probe), shape))
            ids = np.zeros(n, dtype=int), np.ones(n, dtype=int)
        else:
            tokens = tokenize(probe, tokenizer)
            variables = [v for m in measurements for v in m.declare(tokens, shape)]
            assert tokens.answer_ids is not None and tokens.foil_ids is not None
            ids = tokens.answer_ids, tokens.foil_ids
        prompts = {"text": probe.text, **probe.labels, "answer_id": tuple(ids[0].tolist())}
        groups.append(Group(name, probe.description, prompts, tuple(variables)))
        labels = {k: np.array(v) for k, v in probe.labels.items()}
        made[name] = (variables, labels, ids, rng.normal(size=len(probe)))
    checkpoints = tuple(Checkpoint(step, str(step)) for step in STEPS)
    path = folder / "made.zarr"
    writer = TraceWriter(path, TraceDeclaration(checkpoints, tuple(groups)))
    for index in range(len(STEPS)):
        for name, (variables, labels, (answer, foil), own) in made.items():
            odds = (
                0.3 * own
                + 0.1 * rng.normal(size=len(own))
                + (logodds(name, labels, what) if index >= SINCE else what.get("ceiling", 0.0))
            )
            values = {v.name: np.full(v.shape, -1) if v.kind == "int" else np.zeros(v.shape) for v in variables}
            if "direction_projection" in values:
                values["direction_projection"] = rng.normal(size=values["direction_projection"].shape)
                values["steering_slope"] = 0.1 * rng.normal(size=values["steering_slope"].shape)
                values["steering_slope"] += what.get("anything", 0.0) * likings
                values["steering"] = 0.1 * rng.normal(size=values["steering"].shape)
                values["ablation_everywhere"] = 0.1 * rng.normal(size=values["ablation_everywhere"].shape)
            values["answer_logprob"], values["foil_logprob"] = -1 + odds / 2, -1 - odds / 2
            values["predicted"] = np.where(odds > 0, answer, foil)
            writer.write(index, name, values)
        writer.commit(index, digest=str(index), stored_dtype="float32")
    return Trace(path)


def _fake(probe: Probe) -> TokenizedProbe:
    n = len(probe)
    return TokenizedProbe(probe, tuple(np.arange(3) for _ in range(n)), np.zeros(n, dtype=int), np.ones(n, dtype=int), None, {LAST: np.full(n, 2)}, {})  # fmt: skip


def published_like(file: Path) -> Probe:
    """The published questions as any tokenizer gives them: only their labels matter here."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")]
    letters = tuple(row["answer_matching_behavior"].strip(" ()") for row in rows)
    return Probe(
        PUBLISHED,
        tuple(row["question"] for row in rows),
        labels={"letter": letters},
        description="published questions from a file",
    )


def summarise(trace: Trace) -> Summary:
    return Analysis("sycophancy", sycophancy).summary(trace, Options())


def states(summary: Summary) -> dict[str, str]:
    return {f.key.split(".")[1]: f.emergence.state for f in summary.findings}


def test_planted_flattery_and_views_are_found_at_their_step(tmp_path: Path, tokenizer: Any, published: Path) -> None:
    summary = summarise(traced(tmp_path, tokenizer, published, flattery=3.0, views=1.0, published=0.8))
    for key, value in (("done", 3.0), ("views", 1.0), ("published", 0.8)):
        found = summary.finding(key)
        assert found.emergence.state == "emerged" and found.emergence.onset is not None
        assert (found.emergence.onset.after, found.emergence.onset.by) == (64, 128)
        assert found.values[-1] == pytest.approx(value, abs=0.2)
    by = states(summary)
    assert by["rate"] == by["said"] == by["views_rate"] == by["published_rate"] == "emerged"
    assert by["represented"] == by["used"] == by["needed"] == "not emerged"  # answers alone are no direction
    assert summary.finding("rate").mirage is not None
    rates = summary.data["praise_rate"].values[-1], summary.data["praise_rate_neutral"].values[-1]
    assert (rates[0] > 0.9).all() and rates[1][0] > 0.9 > 0.1 > rates[1][1]  # good, bad
    notes = " ".join(summary.notes)
    assert "left out: represented (not emerged), used (not emerged)" in notes
    assert "the matching letter is A in 15, B in 15" in notes


def test_verdicts_that_follow_the_evidence_and_answers_that_ignore_views_are_no_sycophancy(
    tmp_path: Path, tokenizer: Any, published: Path
) -> None:
    summary = summarise(traced(tmp_path, tokenizer, published, **{"for": 2.0, "letter": 1.5}))
    assert set(states(summary).values()) == {"not emerged"}


def test_a_model_that_praises_everything_has_no_room_for_flattery_in_its_verdicts(
    tmp_path: Path, tokenizer: Any
) -> None:
    summary = summarise(traced(tmp_path, tokenizer, ceiling=9.0, flattery=3.0))
    by = states(summary)
    assert by["rate"] == by["said"] == "not measurable"
    assert by["done"] == "emerged"  # its log-odds still show it
    assert "published" not in by


def test_what_any_change_of_the_stream_would_do_is_no_sycophancy(tmp_path: Path, tokenizer: Any) -> None:
    """Other words move the logits of a model that never met them: always alike, so that signs of items do not tell."""
    summary = summarise(traced(tmp_path, tokenizer, flattery=0.5, views=0.2, anything=0.4))
    assert {states(summary)[key] for key in ("done", "rate", "said", "views", "views_rate")} == {"not emerged"}


def test_one_letter_throughout_says_nothing(tmp_path: Path, tokenizer: Any, published: Path) -> None:
    rows = published.read_text(encoding="utf-8").split("\n")[::2]
    file = tmp_path / "one.jsonl"
    file.write_text("\n".join(rows), encoding="utf-8")
    summary = summarise(traced(tmp_path, tokenizer, file, published=2.0))
    assert states(summary)["published"] == states(summary)["published_rate"] == "not measurable"


def test_figures_are_drawn_from_the_summary_alone(tmp_path: Path, tokenizer: Any) -> None:
    summary = summarise(traced(tmp_path, tokenizer, flattery=3.0))
    again = Summary.from_json(json.loads(json.dumps(summary.to_json(), allow_nan=False)), summary.data)
    drawn = sycophancy.figures(again)
    assert set(drawn) == {"behaviour", "rates", "direction", "auroc", "dose"}
    for name, figure in drawn.items():
        assert isinstance(figure, Figure)
        figure.savefig(tmp_path / f"{name}.png")


def test_the_plan_asks_for_answers_and_the_direction_at_the_compliment(tokenizer: Any) -> None:
    analysis, options = find_analysis("sycophancy", {"prompts": 72, "strengths": [-1, 1], "position": "compliment"})
    requests = analysis.plan(Context(tokenizer), options)
    assert [r.probe.name for r in requests] == [PRAISE, VIEWS]
    (direction,) = (m for m in requests[0].measurements if isinstance(m, Direction))
    assert (direction.position, direction.strengths, direction.units) == ("compliment", (-1, 1), "item")
    for request in requests:
        tokens = tokenize(request.probe, tokenizer)
        for measurement in request.measurements:
            measurement.declare(tokens, ModelShape(2, 2, 8, 4, 8, len(tokenizer), 64))
