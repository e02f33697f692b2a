"""Answers and loss against brute force, and against logits that were made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import UserError
from dynamics.measurements import Answers, Batch, TokenLoss
from dynamics.models.architecture import model_shape
from tests.measurements.measured import VOCAB, broken, model, output, probe_of, random_probe, repeats, run


def answers_from(logits: np.ndarray, answers: list[int], *, foils: list[int] | None = None) -> dict[str, np.ndarray]:
    """What Answers makes of given last-position logits."""
    n = len(logits)
    probe = probe_of(
        [np.zeros(1, dtype=int)] * n,
        answers=np.array(answers),
        foils=None if foils is None else np.array(foils),
    )
    shape = model_shape(hf.GPTNeoXConfig(vocab_size=logits.shape[1]))
    accumulator = Answers(candidates=True).start(probe, shape)
    rows = np.arange(n)
    accumulator.finish(Batch(rows, torch.zeros(n, 1, dtype=torch.long), (0,), torch.from_numpy(logits)[:, None]))
    return accumulator.result()


# --- answers


def test_answers_are_those_of_brute_force() -> None:
    probe = random_probe()
    found = run(probe, Answers(candidates=True))
    assert probe.answer_ids is not None and probe.foil_ids is not None
    for i, row in enumerate(probe.ids):
        logits = output(row).logits[0, -1].double().numpy()
        p = np.exp(logits - logits.max())
        p /= p.sum()
        answer = probe.answer_ids[i]
        assert found["answer_logprob"][i] == pytest.approx(np.log(p[answer]), abs=1e-5)
        assert found["foil_logprob"][i] == pytest.approx(np.log(p[probe.foil_ids[i]]), abs=1e-5)
        assert found["answer_rank"][i] == sum(p[t] > p[answer] for t in range(VOCAB))
        assert found["predicted"][i] == max(range(VOCAB), key=lambda t: p[t])
        assert found["entropy"][i] == pytest.approx(-sum(q * np.log(q) for q in p), abs=1e-5)
        expected = [np.log(p[c]) for c in sorted(set(probe.answer_ids.tolist()))]
        np.testing.assert_allclose(found["candidate_logprob"][i], expected, atol=1e-5)


def test_candidates_are_labelled_with_the_answers_in_the_order_of_their_values() -> None:
    probe = random_probe()
    assert probe.answer_ids is not None and probe.probe.answer is not None
    (variable,) = [v for v in Answers(candidates=True).declare(probe, model_shape(model().config)) if "cand" in v.name]
    found = run(probe, Answers(candidates=True))
    names = variable.coords["candidate"]
    for i, word in enumerate(probe.probe.answer):
        assert found["candidate_logprob"][i, names.index(word)] == found["answer_logprob"][i]


def test_without_foils_and_candidates_nothing_is_written_about_them() -> None:
    ids = [np.array([1, 2, 3])]
    assert set(run(probe_of(ids, answers=np.array([4])), Answers())) == {
        "answer_logprob",
        "answer_rank",
        "predicted",
        "entropy",
    }


def test_ties_count_against_the_model() -> None:
    found = answers_from(np.array([[1.0, 1, 1, 0], [0, 0, 0, 0], [5, 1, 1, 1]], dtype=np.float32), [2, 0, 0])
    assert found["answer_rank"].tolist() == [2, 3, 0]


@given(
    logits=st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=1, max_size=6),
    answer=st.integers(0, 4),
    shift=st.integers(-50, 50),
)
def test_ranks_count_the_tokens_that_are_at_least_as_likely_and_do_not_depend_on_a_shift(
    logits: list[list[int]], answer: int, shift: int
) -> None:
    values = np.array(logits, dtype=np.float32)
    found = answers_from(values, [answer] * len(values))
    assert found["answer_rank"].tolist() == [sum(v >= row[answer] for v in row) - 1 for row in logits]
    moved = answers_from(values + shift, [answer] * len(values))
    assert moved["answer_rank"].tolist() == found["answer_rank"].tolist()
    np.testing.assert_allclose(moved["answer_logprob"], found["answer_logprob"], atol=1e-4)
    np.testing.assert_allclose(np.exp(found["candidate_logprob"][:, 0]), np.exp(found["answer_logprob"]))
    assert (found["entropy"] <= np.log(5) + 1e-5).all()


def test_a_model_that_says_nothing_has_no_answer() -> None:
    logits = np.array([[0, 1, 2.0], [np.nan, 1, 2], [np.inf, 1, 2], [np.nan] * 3], dtype=np.float32)
    found = answers_from(logits, [2, 2, 2, 2], foils=[1, 1, 1, 1])
    assert found["predicted"].tolist() == [2, -1, -1, -1]
    assert found["answer_rank"].tolist() == [0, -1, -1, -1]
    for name in ("answer_logprob", "foil_logprob", "entropy", "candidate_logprob"):
        assert np.isfinite(found[name][0]).all()
        assert np.isnan(found[name][1:]).all(), name


@given(
    padding=st.sets(st.integers(0, 5), min_size=1, max_size=4),
    broken=st.sampled_from([np.nan, np.inf, None]),
)
def test_tokens_that_only_pad_the_vocabulary_are_impossible_and_no_more_than_that(
    padding: set[int], broken: float | None
) -> None:
    left = sorted({*range(6)} - padding)
    logits = np.full((2, 6), -np.inf, dtype=np.float32)
    logits[0, left] = np.arange(len(left))
    if broken is not None:  # all are -inf otherwise
        logits[1, left[0]] = broken
    found = answers_from(logits, [left[0], left[0]], foils=[min(padding)] * 2)
    alone = answers_from(logits[:1, left], [0])
    for name in ("answer_logprob", "answer_rank", "entropy"):
        assert found[name][0] == pytest.approx(alone[name][0], abs=1e-6), name
    assert found["predicted"].tolist() == [left[-1], -1] and found["answer_rank"][1] == -1
    assert found["foil_logprob"][0] == -np.inf
    assert np.isnan(found["answer_logprob"][1]) and np.isnan(found["entropy"][1])


def test_a_broken_models_answers_are_missing_and_not_wrong() -> None:
    found = run(random_probe(), Answers(candidates=True), of=broken())
    assert (found["predicted"] == -1).all()
    assert (found["answer_rank"] == -1).all()
    assert np.isnan(found["answer_logprob"]).all()
    assert np.isnan(found["candidate_logprob"]).all()


def test_certainty_has_no_entropy_and_indifference_the_most() -> None:
    found = answers_from(np.array([[500.0, 0, 0, 0], [1, 1, 1, 1]], dtype=np.float32), [0, 0])
    np.testing.assert_allclose(found["entropy"], [0, np.log(4)], atol=1e-6)


def test_a_probe_without_answers_is_refused() -> None:
    with pytest.raises(UserError, match="'p' has no answers to measure") as refused:
        Answers().declare(probe_of([np.array([1])]), model_shape(model().config))
    assert "give every prompt an `answer`" in str(refused.value)


# --- loss


def test_the_loss_at_a_token_is_its_cross_entropy() -> None:
    probe = random_probe()
    found = run(probe, TokenLoss())["token_loss"]
    assert found.shape == (12, 9)
    for i, row in enumerate(probe.ids):
        logits = output(row).logits[0]
        expected = torch.nn.functional.cross_entropy(logits[:-1], torch.from_numpy(row[1:]), reduction="none")
        np.testing.assert_allclose(found[i, 1 : len(row)], expected, atol=1e-5)
        assert np.isnan(found[i, 0])
        assert np.isnan(found[i, len(row) :]).all()


def test_prompts_of_one_token_have_no_loss() -> None:
    found = run(probe_of([np.array([3]), np.array([3, 4])]), TokenLoss())["token_loss"]
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1, 1])


def test_the_mean_loss_is_the_one_that_transformers_trains_on() -> None:
    probe = repeats()
    found = run(probe, TokenLoss())["token_loss"]
    ids = torch.from_numpy(np.stack(probe.ids))
    with torch.no_grad():
        assert np.nanmean(found) == pytest.approx(float(model()(input_ids=ids, labels=ids).loss), abs=1e-5)
