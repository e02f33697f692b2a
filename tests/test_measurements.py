"""Measurements against brute force, and against attention and logits that were made by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import UserError
from dynamics.architecture import architecture, model_shape
from dynamics.forward import measure
from dynamics.measurements import (
    Activations,
    Answers,
    Batch,
    Measurement,
    RepeatAttention,
    Selectivity,
    TokenLoss,
    repeat_scores,
)
from dynamics.names import DIMENSIONS
from dynamics.probes import LAST, Probe, TokenizedProbe

VOCAB, LAYERS, HEADS = 30, 2, 4


def probe_of(
    ids: list[np.ndarray],
    *,
    answers: np.ndarray | None = None,
    foils: np.ndarray | None = None,
    positions: dict[str, np.ndarray] | None = None,
    **labels: Any,
) -> TokenizedProbe:
    """A tokenized probe, made by hand."""
    n = len(ids)
    probe = Probe(
        "p",
        tuple(f"prompt {i}" for i in range(n)),
        answer=None if answers is None else tuple(f"w{a}" for a in answers),
        labels={k: tuple(v) for k, v in labels.items()},
    )
    candidates = {} if answers is None else {int(a): f"w{a}" for a in sorted(set(answers.tolist()))}
    where = {LAST: np.array([len(row) - 1 for row in ids])} | (positions or {})
    return TokenizedProbe(probe, tuple(np.asarray(i) for i in ids), answers, foils, None, where, candidates)


@cache
def model() -> Any:
    """A tiny random model, sharp enough that its answers differ."""
    torch.manual_seed(0)
    config = hf.GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=12,
        max_position_embeddings=32,
    )
    made = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return made


def broken() -> Any:
    """A copy of the model, one of whose weights is NaN."""
    made = hf.AutoModelForCausalLM.from_config(model().config, attn_implementation="eager").eval()
    made.load_state_dict(model().state_dict())
    with torch.no_grad():
        made.gpt_neox.layers[0].mlp.dense_h_to_4h.weight[0, 0] = torch.nan
    return made


def run(probe: TokenizedProbe, *measurements: Measurement, of: Any = None, batch_tokens: int = 8192) -> dict[str, Any]:
    of = of or model()
    shape = model_shape(of.config)
    result = measure(of, probe, measurements, architecture=architecture(of.config), batch_tokens=batch_tokens)
    for measurement in measurements:  # what is declared is what is written
        for variable in measurement.declare(probe, shape):
            assert result[variable.name].shape == variable.shape
            assert set(variable.dims) <= set(DIMENSIONS)
            assert np.issubdtype(result[variable.name].dtype, np.integer) == (variable.kind == "int")
    assert set(result) == {v.name for m in measurements for v in m.declare(probe, shape)}
    return result


def random_probe(n: int = 12, seed: int = 0, lengths: tuple[int, ...] = (4, 6, 9)) -> TokenizedProbe:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(VOCAB, size=rng.choice(lengths)) for _ in range(n)]
    middle = np.array([rng.integers(len(row)) for row in ids])
    return probe_of(ids, answers=rng.integers(0, 8, n), foils=rng.integers(8, 16, n), positions={"middle": middle})


def output(row: np.ndarray, of: Any = None) -> Any:
    with torch.no_grad():
        return (of or model())(input_ids=torch.from_numpy(row)[None], output_attentions=True)


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


# --- attention on repeats


def one_hot_pattern(offset: int, length: int) -> torch.Tensor:
    """Attention of every query to the token ``offset`` before it, or to itself where there is none."""
    pattern = torch.zeros(length, length)
    for query in range(length):
        pattern[query, query - offset if query >= offset else query] = 1
    return pattern


@pytest.mark.parametrize("period", [3, 5, 8])
@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_perfect_head_has_score_one_and_only_in_its_own_score(period: int, before: int) -> None:
    length = 2 * period + before  # ``before``: a separator, say, in front of the first copy
    for offset, perfect in {period - 1: "prefix_matching", period: "duplicate_token", 1: "previous_token"}.items():
        scores = repeat_scores(one_hot_pattern(offset, length), period)
        assert {name: float(value) for name, value in scores.items()} == {
            name: float(name == perfect) for name in ("prefix_matching", "duplicate_token", "previous_token")
        }
    nothing = repeat_scores(one_hot_pattern(0, length), period)
    assert all(float(value) == 0 for value in nothing.values())


def test_scores_are_means_over_the_second_copy_alone() -> None:
    pattern = torch.zeros(2, 7, 7)  # a separator, then a b c a b c
    pattern[0, 4, 2] = 0.5  # second a -> first b
    pattern[0, 5, 3] = 0.25  # second b -> first c
    pattern[0, 3, 1] = 0.9  # not a query of the second copy
    pattern[1, 6, 3] = 0.6  # second c -> first c
    scores = repeat_scores(pattern, 3)
    np.testing.assert_allclose(scores["prefix_matching"], [0.25, 0.0], rtol=1e-6)
    np.testing.assert_allclose(scores["duplicate_token"], [0.0, 0.2], rtol=1e-6)
    np.testing.assert_allclose(scores["previous_token"], [0.0, 0.0], rtol=1e-6)


def test_uniform_attention_has_the_score_of_its_row_lengths() -> None:
    length, period = 12, 5
    pattern = torch.tril(torch.ones(length, length))
    pattern /= pattern.sum(-1, keepdim=True)
    expected = np.mean([1 / (t + 1) for t in range(length - period, length)])
    for score in repeat_scores(pattern, period).values():
        assert float(score) == pytest.approx(expected)


def repeats(n: int = 6, period: int = 5, seed: int = 0) -> TokenizedProbe:
    """A separator and two copies of a random sequence."""
    rng = np.random.default_rng(seed)
    firsts = [1 + rng.permutation(VOCAB - 1)[:period] for _ in range(n)]
    return probe_of([np.concatenate([[0], first, first]) for first in firsts], period=[period] * n)


def test_head_scores_are_those_of_brute_force() -> None:
    probe, period = repeats(), 5
    found = run(probe, RepeatAttention())
    for i, row in enumerate(probe.ids):
        for layer, attention in enumerate(output(row).attentions):
            for head in range(HEADS):
                sums = {"prefix_matching": 0.0, "duplicate_token": 0.0, "previous_token": 0.0}
                for query in range(1 + period, 1 + 2 * period):
                    earlier = [k for k in range(query) if row[k] == row[query]]
                    assert len(earlier) == 1
                    sums["prefix_matching"] += float(attention[0, head, query, earlier[0] + 1])
                    sums["duplicate_token"] += float(attention[0, head, query, earlier[0]])
                    sums["previous_token"] += float(attention[0, head, query, query - 1])
                for name, value in sums.items():
                    assert found[name][i, layer, head] == pytest.approx(value / period, abs=1e-6)


def test_scores_of_a_broken_model_are_missing_behind_the_break() -> None:
    found = run(repeats(), RepeatAttention(), of=broken())
    assert np.isfinite(found["prefix_matching"][:, 0]).all()  # its first attention is still whole
    assert np.isnan(found["prefix_matching"][:, 1]).all()


@pytest.mark.parametrize(
    ("periods", "lengths", "message"),
    [
        ([3, 4], [9, 9], "is not made of repeats"),
        ([3, 3], [9, 8], "is not made of repeats"),
        (["3", "3"], [9, 9], "is not made of repeats"),
        ([5, 5], [9, 9], "two periods of 5 do not fit its 9 tokens"),
        ([0, 0], [9, 9], "period of 0"),
        ([-2, -2], [9, 9], "period of -2"),
    ],
)
def test_a_probe_that_is_not_made_of_repeats_is_refused(periods: list[Any], lengths: list[int], message: str) -> None:
    probe = probe_of([np.arange(n) for n in lengths], period=periods)
    with pytest.raises(UserError, match=message):
        RepeatAttention().declare(probe, model_shape(model().config))


def test_a_probe_without_the_label_is_refused() -> None:
    with pytest.raises(UserError, match="label 'period' has values"):
        RepeatAttention().declare(probe_of([np.arange(8)]), model_shape(model().config))


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


# --- selectivity


def labelled(n: int = 60, seed: int = 0) -> TokenizedProbe:
    """Prompts of several lengths in two contexts, with a label that the last token carries, and a second label."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(VOCAB, size=rng.choice([3, 5])) for _ in range(n)]
    return probe_of(
        ids,
        kind=[int(row[-1]) % 3 for row in ids],
        context=[str(c) for c in rng.choice(["one", "two"], n)],
        part=[str(c) for c in rng.choice(["asked", "other"], n)],
    )


def eta_squared(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """SS between / SS total of every column."""
    between = sum((labels == k).sum() * (x[labels == k].mean(0) - x.mean(0)) ** 2 for k in sorted(set(labels.tolist())))
    return np.asarray(between / ((x - x.mean(0)) ** 2).sum(0))


@pytest.mark.parametrize("site", ["mlp_post"])
@pytest.mark.parametrize("where", [None, ("part", "asked")])
def test_selectivity_is_the_share_of_variance_between_classes(site: str, where: tuple[str, str] | None) -> None:
    probe = labelled()
    found = run(
        probe, Selectivity("kind", by="context", where=where, site=site, permutations=3, top=0.25), Activations(site)
    )
    x = found[site][:, 0].astype(np.float64)  # (prompt, layer, unit)
    labels = {k: np.array(v) for k, v in probe.probe.labels.items()}
    contexts = list(dict.fromkeys(labels["context"].tolist()))
    for c, context in enumerate(contexts):
        used = labels["context"] == context
        if where is not None:
            used &= labels["part"] == "asked"
        expected = eta_squared(x[used].reshape(used.sum(), -1), labels["kind"][used])
        np.testing.assert_allclose(found["selectivity"][c].reshape(-1), expected, atol=1e-5)
        best = np.argsort(-expected)[: round(0.25 * expected.size)]
        assert found["selectivity_top"][c, 0].tolist() == best.tolist()
    assert found["selectivity_top"].shape == (2, 4, 6)
    assert found["selectivity_top"].min() >= 0
    assert found["selectivity_top"].max() < LAYERS * 12


def planted(labels: list[int], context: list[str], x: np.ndarray, **more: Any) -> dict[str, np.ndarray]:
    """Selectivity of activations (prompt, unit) made by hand, one layer."""
    probe = probe_of([np.zeros(1, dtype=int)] * len(x), kind=labels, context=context)
    shape = model_shape(
        hf.GPTNeoXConfig(
            num_hidden_layers=1, intermediate_size=x.shape[1], hidden_size=4, num_attention_heads=1, vocab_size=2
        )
    )
    accumulator = Selectivity("kind", by="context", **more).start(probe, shape)
    batch = Batch(np.arange(len(x)), torch.zeros(len(x), 1, dtype=torch.long))
    accumulator.observe("mlp_post", 0, torch.from_numpy(x)[:, None], batch)
    accumulator.finish(batch)
    return accumulator.result()


def test_a_unit_that_is_the_label_has_selectivity_one_and_a_dead_or_unrelated_one_none() -> None:
    labels = [0, 1, 2, 0, 1, 2] * 2
    context = ["a"] * 6 + ["b"] * 6
    value = np.array(labels, dtype=np.float64)
    unrelated = np.array([1.0, 1, 1, -1, -1, -1] * 2)
    in_a_only = np.where(np.array(context) == "a", value, unrelated)
    x = np.stack([value, np.full(12, 3.0), unrelated, in_a_only], axis=1)
    found = planted(labels, context, x, top=0.25)
    np.testing.assert_allclose(found["selectivity"][:, 0], [[1, 0, 0, 1], [1, 0, 0, 0]], atol=1e-12)
    assert found["selectivity_top"][:, 0].tolist() == [[0], [0]]


def test_shuffled_labels_are_shuffled_within_their_context_and_mostly_unselective() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    x = rng.normal(size=(400, 50))
    x[:, 7] += 3 * labels
    found = planted(labels.tolist(), ["a", "b"] * 200, x, top=0.02, permutations=40)
    assert (found["selectivity_top"][:, 0] == 7).all()
    assert (found["selectivity_top"][:, 1:] == 7).mean() < 0.2
    np.testing.assert_allclose(np.delete(found["selectivity"], 7, axis=-1).mean(), 3 / 199, atol=0.006)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_selectivity_does_not_depend_on_the_scale_or_offset_of_a_unit(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    labels, x = rng.integers(3, size=30).tolist(), rng.normal(size=(30, 5))
    one, other = (planted(labels, ["a"] * 30, v)["selectivity"] for v in (x, scale * x + shift))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert ((one >= -1e-9) & (one <= 1 + 1e-9)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_unit_that_is_not_finite_has_no_selectivity_and_ranks_nowhere(bad: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5))
    x[3, 2] = bad
    found = planted([0, 1, 2] * 10, ["a"] * 30, x)
    assert np.isnan(found["selectivity"][0, 0, 2])
    assert np.isfinite(np.delete(found["selectivity"], 2, axis=-1)).all()
    assert (found["selectivity_top"] == -1).all()


def test_selectivity_of_a_broken_model_is_missing() -> None:
    found = run(labelled(), Selectivity("kind", by="context"), of=broken())
    assert np.isnan(found["selectivity"][:, 1]).all()
    assert (found["selectivity_top"] == -1).all()


def test_a_context_in_which_nothing_was_asked_has_no_selectivity() -> None:
    probe = probe_of(
        [np.array([1, 2, i]) for i in range(8)],
        kind=[0, 1] * 4,
        context=["a"] * 4 + ["b"] * 4,
        part=["asked"] * 4 + ["other"] * 4,
    )
    found = run(probe, Selectivity("kind", by="context", where=("part", "asked")))
    assert np.isfinite(found["selectivity"][0]).all()
    assert np.isnan(found["selectivity"][1]).all()
    assert (found["selectivity_top"][0] >= 0).all()
    assert (found["selectivity_top"][1] == -1).all()


def test_a_label_that_does_not_exist_is_refused_with_the_nearest_one() -> None:
    for wrong in (Selectivity("kin", by="context"), Selectivity("kind", by="kontext")):
        with pytest.raises(UserError, match="has no label") as refused:
            wrong.declare(labelled(), model_shape(model().config))
        assert "did you mean" in str(refused.value)


# --- running a probe


EVERYTHING: tuple[Measurement, ...] = (
    Answers(candidates=True),
    TokenLoss(),
    Activations("resid_post", (LAST, "middle")),
    Activations("pattern", (LAST, "middle")),
    Activations("z"),
    Activations("logits", ("middle", LAST)),
    Activations("ln_final", ("middle",)),
    Selectivity("kind", by="context"),
)
FREE = {"selectivity_top"}  # near ties may change places with the last bit


def everything_probe(order: np.ndarray | None = None) -> TokenizedProbe:
    rng = np.random.default_rng(3)
    ids = [rng.integers(VOCAB, size=n) for n in (4, 6, 6, 1, 9, 4, 4, 9, 6, 4, 2, 6)]
    middle = np.array([rng.integers(len(row)) for row in ids])
    answers, foils = rng.integers(0, 8, len(ids)), rng.integers(8, 16, len(ids))
    kind, context = [int(row[-1]) % 2 for row in ids], ["a", "b"] * 6
    order = np.arange(len(ids)) if order is None else order
    return probe_of(
        [ids[i] for i in order],
        answers=answers[order],
        foils=foils[order],
        positions={"middle": middle[order]},
        kind=[kind[i] for i in order],
        context=[context[i] for i in order],
    )


@pytest.mark.parametrize("batch_tokens", [1, 7, 9, 20, 10_000])
def test_what_is_measured_does_not_depend_on_batching(batch_tokens: int) -> None:
    expected = run(everything_probe(), *EVERYTHING)
    found = run(everything_probe(), *EVERYTHING, batch_tokens=batch_tokens)
    for name in expected.keys() - FREE:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, rtol=1e-5, err_msg=name)


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(12)))
def test_what_is_measured_does_not_depend_on_the_order_of_prompts(order: list[int]) -> None:
    by_prompt = [m for m in EVERYTHING if not isinstance(m, Selectivity)]
    expected = run(everything_probe(), *by_prompt)
    found = run(everything_probe(np.array(order)), *by_prompt)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values[order], atol=1e-5, rtol=1e-5, err_msg=name)


def test_what_is_measured_does_not_depend_on_what_else_is_measured() -> None:
    together = run(everything_probe(), *EVERYTHING)
    for measurement in EVERYTHING:
        for name, values in run(everything_probe(), measurement).items():
            np.testing.assert_allclose(together[name], values, atol=1e-5, rtol=1e-5, err_msg=name)


def test_prompts_of_different_lengths_are_measured_as_each_alone() -> None:
    probe = everything_probe()
    found = run(probe, *EVERYTHING)
    for i, row in enumerate(probe.ids):
        alone = output(row)
        logits = alone.logits[0].numpy()
        middle = probe.positions["middle"][i]
        np.testing.assert_allclose(found["logits"][i], logits[[middle, -1]], atol=1e-5)
        for layer, attention in enumerate(alone.attentions):
            np.testing.assert_allclose(found["pattern"][i, 0, layer, :, : len(row)], attention[0, :, -1], atol=1e-5)


def test_batches_hold_prompts_of_one_length_and_every_prompt_once() -> None:
    probe = everything_probe()
    for tokens in (1, 8, 12, 1000):
        batches = probe.batches(tokens)
        assert sorted(int(i) for rows in batches for i in rows) == list(range(12))
        for rows in batches:
            lengths = set(probe.lengths[rows].tolist())
            assert len(lengths) == 1
            assert len(rows) == 1 or len(rows) * lengths.pop() <= tokens


def test_logits_are_kept_only_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    forward = model().lm_head.forward
    monkeypatch.setattr(model().lm_head, "forward", lambda x: (widths.append(x.shape[1]), forward(x))[1])
    run(repeats(), Activations("resid_post"))
    run(repeats(), Activations("logits"))
    assert set(widths) == {1}
    widths.clear()
    run(repeats(), TokenLoss())
    assert set(widths) == {11}


def test_measurements_with_equal_settings_are_the_same_measurement() -> None:
    assert Activations("z", (LAST,)) == Activations("z")
    assert len({Selectivity("a", by="b"), Selectivity("a", by="b"), Selectivity("a", by="c")}) == 2


def test_logits_of_a_large_vocabulary_come_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every position's logits are asked for: the batch shrinks until they fit, and the numbers stay the same."""
    import dynamics.forward

    ids = tuple(np.array([0, 5, 6, 7, 5, 6, 7]) + i for i in range(4))
    probe = TokenizedProbe(Probe("p", ("a",) * 4), ids, None, None, None, {"last": np.full(4, 6)}, {})
    needed = TokenLoss().logits(probe)
    monkeypatch.setattr(dynamics.forward, "LOGITS", 2 * 7 * 100)
    sizes = [len(rows) for rows, kept in dynamics.forward._batches(probe, needed, 8192, 100, False) if len(kept) == 7]
    assert sizes == [2, 2]
    monkeypatch.setattr(dynamics.forward, "LOGITS", 1)  # one prompt is always allowed
    assert [len(rows) for rows, _ in dynamics.forward._batches(probe, needed, 8192, 100, False)] == [1, 1, 1, 1]
