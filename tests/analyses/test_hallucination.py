"""Hallucination against a model whose answers, confidence and direction are made up."""

from __future__ import annotations

import gzip
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from analyses import hallucination
from analyses.hallucination import Options, figures, plan, texts
from analyses.hallucination.gap import gap_between
from analyses.hallucination.knowing import DIRECTIONS
from analyses.hallucination.prompts import DECLINE, entities_probe
from analyses.hallucination.questions import SETS, as_asked, read_questions, token_sets, with_aliases
from checkpoints.organism import build_tokenizer
from dynamics.analysis import Analysis, Context, CurveSpec, Finding, Null, Summary, from_units
from dynamics.measurements import Direction
from dynamics.probes import Probe, tokenize
from tests.analyses.behaviours import MadeTrace


@pytest.fixture(scope="module")
def pythia(shared_data: Path) -> Any:
    """The real tokenizer of the Pythia models."""
    content = gzip.decompress((shared_data / "pythia_tokenizer.json.gz").read_bytes())
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_buffer(content))


STEPS = [0, 10, 30, 100, 200, 300, 500, 800, 1000]
ANSWERS, KNOWS = 3, 6
"""Checkpoints from which the model answers what it knows, and from which it declines the rest; before, it declines all,
and in between it answers everything and is sure of it."""


@cache
def asked() -> tuple[Any, Probe]:
    tokenizer = build_tokenizer(["entities"])
    return tokenizer, as_asked(entities_probe(tokenizer, 240, 0))


def made(*, says: bool = True, learns: bool = True) -> MadeTrace:
    """What such a model says. Unless it ``learns``, it says any attribute to all with a probability of one eighth."""
    tokenizer, probe = asked()
    assert probe.answer is not None
    tokens = tokenize(probe, tokenizer)
    assert tokens.answer_ids is not None
    rng = np.random.default_rng(0)
    answer, known = tokens.answer_ids, np.array(probe.labels["known"]) == 1
    decline = answer[~known][0]
    n, shape = len(answer), (len(STEPS), len(answer))
    attributes = np.unique(answer[known])
    guesses = rng.choice(attributes, size=shape)
    predicted, confidence = guesses.copy(), np.full(shape, 1 / 8)
    if learns:
        predicted[:ANSWERS], confidence[:ANSWERS] = decline, 0.5
        predicted[ANSWERS:, known], confidence[ANSWERS:] = answer[known], 0.95
        predicted[KNOWS:, ~known] = decline
    words = np.unique(answer)
    logp = np.full((*shape, len(words)), np.log(0.05 / len(words)))
    np.put_along_axis(logp, np.searchsorted(words, predicted)[..., None], np.log(confidence)[..., None], axis=2)
    declined = predicted == decline
    sets = np.where(declined, confidence, 0.02), np.where(declined, 0.98 - confidence, 0.97)
    order = [list(words).index(answer[list(probe.answer).index(text)]) for text in sorted(set(probe.answer))]
    over = ("checkpoint", "prompt")
    own = np.searchsorted(words, answer)
    nothing = np.full_like(predicted, -1)
    return MadeTrace(
        STEPS,
        probe,
        answer,
        {
            "predicted": (over, predicted if says else nothing),
            "answer_logprob": (over, logp[:, np.arange(n), own] if says else np.full(shape, np.nan)),
            "candidate_logprob": ((*over, "candidate"), logp[..., order] if says else np.full_like(logp, np.nan)),
            "choice_logprob": (over, np.log(confidence) if says else np.full(shape, np.nan)),
            "choice_set": (
                over,
                np.where(declined, SETS.index("decline"), SETS.index("attributes")) if says else nothing,
            ),
            "set_logprob": ((*over, "token_set"), np.log(np.stack(sets, -1)) if says else np.full((*shape, 2), np.nan)),
        },
    )


ANALYSIS = Analysis("hallucination", hallucination)


def summarise(trace: MadeTrace) -> Summary:
    return ANALYSIS.summary(trace, Options())


@cache
def summary() -> Summary:
    return summarise(made())


def onset(key: str) -> tuple[int | None, int | None]:
    found = summary().finding(key).emergence
    assert found.state == "emerged" and found.onset is not None
    return found.onset.after, found.onset.by


def test_answering_and_knowing_what_it_knows_have_the_onsets_that_were_put_in() -> None:
    answers, knows = (30, 100), (300, 500)
    assert onset("answers") == onset("answers.frequent") == onset("answers.rare") == onset("answers.logprob") == answers
    assert onset("discerns") == onset("discerns.odds") == knows
    assert set(ANALYSIS.planted.values()) <= {f.key for f in summary().findings}


def test_always_declining_is_not_knowing() -> None:
    values = summary().finding("discerns").values
    assert values[:ANSWERS] == (0.0,) * ANSWERS and values[KNOWS:] == (1.0,) * (len(STEPS) - KNOWS)


def test_the_gap_is_between_the_onsets() -> None:
    (note,) = [n for n in summary().notes if n.startswith("Gap from the onset of answering to that of declining")]
    assert "between 200 and 470 steps" in note  # (300, 500] less (30, 100]
    assert "answering came first with a probability of 100%" in note


def test_both_misfires_are_where_they_were_put() -> None:
    wrong, declined = (summary().finding(key) for key in ("confident_wrong", "declines_known"))
    assert wrong.values == (0.0,) * 3 + (1.0,) * 3 + (0.0,) * 3
    assert wrong.emergence.state == "transient"
    assert declined.values == (1.0,) * 3 + (0.0,) * 6
    assert declined.emergence.state == "transient"  # half sure and never right


def test_the_calibration_error_is_that_of_the_made_confidence() -> None:
    error = summary().finding("ece").values
    np.testing.assert_allclose(error[:3], 0.0, atol=1e-9)  # declines all with 0.5, and half are unknown
    np.testing.assert_allclose(error[3:6], 0.45, atol=1e-9)  # 0.95 sure and half right
    np.testing.assert_allclose(error[6:], 0.05, atol=1e-9)
    assert summary().finding("ece").emergence.state in ("transient", "emerged")
    accuracy, count = (summary().data[f"reliability_{k}"].values for k in ("accuracy", "count"))
    assert count[4, 9] == 240 and accuracy[4, 9] == 0.5 and np.isnan(accuracy[4, :9]).all()


def test_a_model_that_only_guesses_emerges_in_nothing_but_by_chance() -> None:
    nothing = summarise(made(learns=False))
    risen = [f.key for f in nothing.findings if f.emergence.state not in ("not emerged", "not measurable")]
    assert len(risen) <= 2, risen
    assert not any(f.key in risen for f in nothing.findings if f.headline)
    assert any("is not measurable" in note for note in nothing.notes)  # the gap


def test_what_is_not_answered_in_kind_is_not_calibrated() -> None:
    trace = made()
    trace.dataset["set_logprob"] = trace.dataset["set_logprob"] + np.log(0.4)  # mostly something else entirely
    found = summarise(trace)
    assert np.isnan(found.finding("ece").values).all()
    assert found.finding("ece").emergence.state == "not measurable"
    assert "reliability" not in figures(found)


def test_a_broken_model_is_not_measured_and_has_figures_all_the_same() -> None:
    broken = summarise(made(says=False))
    assert all(f.emergence.state == "not measurable" for f in broken.findings)
    for figure in figures(broken).values():
        figure.canvas.draw()


def test_figures_are_drawn_of_the_summary_alone() -> None:
    again = Summary.from_json(summary().to_json(), summary().data)
    assert set(figures(again)) == {"answers", "misfires", "calibration", "reliability"}
    assert any("is not measured on this architecture" in note for note in summary().notes)


def test_another_word_that_is_as_right_is_right_and_no_others_is() -> None:
    trace, plain = made(), made()
    answer, known = trace.dataset["answer_id"].values, trace.dataset["known"].values == 1
    other = int(answer.max()) + 1
    predicted = trace.dataset["predicted"].values
    predicted[:, known] = np.where(predicted[:, known] == answer[known], other, predicted[:, known])
    assert not (read_questions(trace).right[-1, known]).any()
    accepted = np.where(known, f"{other + 1} {other}", "")
    trace.dataset = trace.dataset.assign_coords(accepted=("prompt", accepted))
    np.testing.assert_array_equal(read_questions(trace).right, read_questions(plain).right)


def test_what_is_said_first_in_prose_does_not_decide_which_answer_is_the_likeliest() -> None:
    trace = made()
    known = trace.dataset["known"].values == 1
    trace.dataset["predicted"][:] = int(trace.dataset["answer_id"].values.max()) + 1  # "The", say
    asked_ = read_questions(trace)
    assert not asked_.right.any()
    np.testing.assert_array_equal(
        (asked_.picked == asked_.answer_picked)[:, known].all(1), np.arange(len(STEPS)) >= ANSWERS
    )
    plain = summarise(trace)
    assert plain.finding("answers").headline and not plain.finding("answers.picked").headline
    trace.dataset.attrs["template"] = "digest of a chat template"
    chat = summarise(trace).finding("answers.picked")
    assert chat.headline and chat.emergence.onset is not None
    assert (chat.emergence.onset.after, chat.emergence.onset.by) == (30, 100)


def test_accepted_words_are_single_tokens_in_place(pythia: Any) -> None:
    probe = with_aliases(as_asked(entities_probe(pythia, 480, 0)), pythia)
    said = {
        text: {pythia.decode([int(token)]) for token in str(ids).split()}
        for text, ids in zip(probe.text, probe.labels["accepted"], strict=True)
    }
    (pasteur,) = [words for text, words in said.items() if "Louis Pasteur" in text]
    assert {" chemistry", " medicine"} <= pasteur
    assert any(" Holland" in words for words in said.values())
    assert all(not words for (text, words), known in zip(said.items(), probe.labels["known"], strict=True) if not known)
    assert all(f" {word}" not in probe.answer for words in texts.SYNONYMS.values() for word in words)
    sets = dict(token_sets(probe, pythia))
    assert all(int(token) in sets["attributes"] for ids in probe.labels["accepted"] for token in str(ids).split())


def test_foils_decline_what_is_known_and_sets_hold_every_answer() -> None:
    tokenizer, probe = asked()
    assert probe.answer is not None and probe.foil is not None
    for known, answer, foil in zip(probe.labels["known"], probe.answer, probe.foil, strict=True):
        assert (foil if known else answer) == f" {DECLINE}"
        assert (answer if known else foil) != f" {DECLINE}"
    sets = dict(token_sets(probe, tokenizer))
    tokens = tokenize(probe, tokenizer)
    assert tokens.answer_ids is not None and tokens.foil_ids is not None
    assert {*tokens.answer_ids.tolist(), *tokens.foil_ids.tolist()} == {*sets["decline"], *sets["attributes"]}
    assert len(sets["decline"]) == 1 and not set(sets["decline"]) & set(sets["attributes"])


def test_log_odds_of_what_is_nearly_certain_are_finite() -> None:
    trace = made()
    trace.dataset["set_logprob"] = trace.dataset["set_logprob"] * 0.0
    assert np.isfinite(read_questions(trace).decline_odds).all()


def test_the_plan_asks_fewer_questions_of_the_directions() -> None:
    context = Context(asked()[0])
    requests = plan(context, Options())
    assert [r.probe.name for r in requests] == ["entities", "entities_name", "entities_end"]
    assert [len(r.probe) for r in requests] == [480, 240, 240]
    for request, (position, task) in zip(requests[1:], DIRECTIONS.values(), strict=True):
        (direction,) = [m for m in request.measurements if isinstance(m, Direction)]
        assert (direction.contrast, direction.position, direction.units) == ("known", position, "entity")
        assert request.probe.name == task.probe
    assert len(plan(replace(context, wired=False), Options())) == 1


# the gap alone


def finding(rises: int, *, sample: str = "s", seed: int = 0) -> Finding:
    rng = np.random.default_rng(seed)
    units = (rng.random((len(STEPS), 80)) < np.where(np.arange(len(STEPS)) >= rises, 0.9, 0.1)[:, None]).astype(float)
    null = rng.binomial(80, 0.1, size=(len(STEPS), 200)) / 80
    spec = CurveSpec("share", "units", clusters=np.arange(80), sample=sample, limits=(0.0, 1.0))
    trace: Any = SimpleNamespace(steps=np.array(STEPS), tokens=None)
    return from_units(f"x.{rises}", "x", units, Null(null, "chance"), spec).assessed(trace)


@pytest.mark.parametrize("other", ["s", "another"])
def test_gaps_of_known_onsets(other: str) -> None:
    found = gap_between(finding(3), finding(6, sample=other, seed=1))
    assert found is not None and (found.low, found.high) == (200.0, 470.0)
    assert found.first == 1.0 and found.missing == 0.0
    back = gap_between(finding(6, sample=other, seed=1), finding(3))
    assert back is not None and (back.low, back.high) == (-470.0, -200.0) and back.second == 1.0


def test_there_is_no_gap_to_what_never_emerged() -> None:
    assert gap_between(finding(3), finding(99)) is None
    assert gap_between(finding(99), finding(3)) is None
