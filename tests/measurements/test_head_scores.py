"""What heads attend to, copy and count on, against models whose weights were set by hand and the definitions written out."""

from __future__ import annotations

from itertools import product
from math import log

import numpy as np
import pytest
import torch

from checkpoints import UserError
from dynamics.measurements import HeadAttention, HeadCopying, HeadSuccession, HeadWeights, attention_scores, heads
from dynamics.models.architecture import architecture
from tests.measurements.handmade_heads import VOCAB, WORDS, found, gpt2, set_output, tokens
from tests.models.families import CONFIGS, model_of


def naive_scores(pattern: np.ndarray, ids: list[int], delimiters: set[int]) -> dict[str, float]:
    """The definitions for one head and prompt, token by token."""
    parts: dict[str, list[float]] = {name: [] for name in heads.ATTENTION_SCORES}
    for t in range(2, len(ids)):
        row = pattern[t]
        parts["attention_entropy"].append(-sum(p * log(p) for p in row[: t + 1] if p > 0) / log(t + 1))
        parts["attention_first"].append(row[0])
        parts["attention_previous"].append(row[t - 1])
        parts["attention_current"].append(row[t])
        before = [k for k in range(t) if ids[k] == ids[t]]
        if before:
            parts["attention_occurrence"].append(row[before[-1]])
            if before[-1] + 1 < t:
                parts["attention_after_occurrence"].append(row[before[-1] + 1])
        marks = [k for k in range(1, t) if ids[k] in delimiters]
        if marks:
            parts["attention_delimiter"].append(sum(row[k] for k in marks))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in parts.items()}


def test_scores_are_what_the_definitions_say_token_by_token() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4, (5, 9))
    ids[4] = np.arange(9) + 10  # nothing repeats, and no delimiter
    pattern = np.tril(rng.random((5, 3, 9, 9)))
    pattern /= pattern.sum(-1, keepdims=True)
    scores = attention_scores(torch.from_numpy(pattern), torch.from_numpy(ids), torch.tensor([1, 3]))
    for row, head in product(range(5), range(3)):
        for name, value in naive_scores(pattern[row, head], ids[row].tolist(), {1, 3}).items():
            np.testing.assert_allclose(scores[name][row, head], value, rtol=1e-6, err_msg=name)
    for name in ("attention_occurrence", "attention_after_occurrence", "attention_delimiter"):
        assert torch.isnan(scores[name][4]).all()


def test_attention_that_knows_one_place_and_attention_that_knows_none() -> None:
    length = 6
    ids = torch.tensor([[7, 8, 9, 7, 8, 9]])
    previous = torch.zeros(length, length)
    previous[0, 0] = 1
    previous[torch.arange(1, length), torch.arange(length - 1)] = 1
    induction = torch.eye(length)
    induction[3:] = torch.eye(length)[1:4]  # the token after the previous occurrence
    uniform = torch.ones(length, length).tril() / torch.arange(1, length + 1)[:, None]
    scores = attention_scores(torch.stack([previous, induction, uniform])[None], ids, torch.tensor([8]))
    assert scores["attention_previous"][0, 0] == 1 and scores["attention_entropy"][0, 0] == 0
    assert scores["attention_after_occurrence"][0].tolist()[:2] == [0, 1]
    assert scores["attention_occurrence"][0, 1] == 0
    torch.testing.assert_close(scores["attention_entropy"][0, 2], torch.tensor(1.0))
    torch.testing.assert_close(scores["attention_first"][0, 2], torch.tensor([1 / 3, 1 / 4, 1 / 5, 1 / 6]).mean())
    # token 8 at 1 and 4; the query at 4 does not count itself
    torch.testing.assert_close(scores["attention_delimiter"][0, 2], torch.tensor([1 / 3, 1 / 4, 1 / 5, 2 / 6]).mean())


def test_prompts_of_unequal_length_and_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gpt2")
    rows = [[5, 6, 5, 7, 6, 5, 7], [8, 9, 10], [5, 5, 5, 6, 7, 6, 5], [11, 12, 13, 11, 12]]
    together = found(model, tokens(*rows), HeadAttention((6, 12)))
    monkeypatch.setattr(heads, "_CHUNK", 1)
    chunked = found(model, tokens(*rows), HeadAttention((6, 12)))
    for i, row in enumerate(rows):
        alone = found(model, tokens(row), HeadAttention((6, 12)))
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][i], value[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(chunked[name][i], value[0], rtol=1e-5, atol=1e-6)


def test_a_head_made_to_look_at_the_token_before_does_so() -> None:
    """Queries of position t are the keys of position t - 1: a previous-token head out of position embeddings."""
    model, positions = gpt2(d_model=32), 8
    with torch.no_grad():
        model.transformer.wpe.weight[:, VOCAB : VOCAB + positions] = torch.eye(positions)
        matrix = model.transformer.h[0].attn.c_attn.weight  # (d_model, 3 * d_model), heads of 16
        for t in range(1, positions):
            matrix[VOCAB + t, t - 1] = 40.0
        for t in range(positions):
            matrix[VOCAB + t, 32 + t] = 1.0
    values = found(model, tokens([3, 4, 5, 6, 7, 8, 9, 10], [3, 3, 3, 4, 4]), HeadAttention())
    assert (values["attention_previous"][:, 0, 0] > 0.99).all()
    assert (values["attention_entropy"][:, 0, 0] < 0.05).all()
    np.testing.assert_allclose(values["attention_entropy"][:, 0, 1], 1.0, rtol=1e-5)  # the other head does nothing


def test_attention_needs_three_tokens_and_a_causal_model() -> None:
    shape = architecture(CONFIGS["gpt2"]()).shape
    with pytest.raises(UserError, match="a prompt of 2 tokens"):
        HeadAttention().declare(tokens([1, 2, 3], [1, 2]), shape)
    bert = architecture(CONFIGS["bert"]()).shape
    for measurement in (HeadAttention(), HeadCopying(), HeadSuccession(), HeadWeights()):
        with pytest.raises(UserError, match="fills in masks"):
            measurement.declare(tokens([1, 2, 3], [1, 2, 4], series=("a", "a"), place=(0, 1)), bert)


@pytest.mark.parametrize("layer", [0, 1])
def test_heads_that_copy_and_that_copy_negatively(layer: int) -> None:
    model = gpt2(layers=2)
    set_output(model, layer, 0, torch.eye(VOCAB))
    set_output(model, layer, 1, -torch.eye(VOCAB))
    values = found(model, WORDS, HeadCopying(top=1), HeadWeights())
    np.testing.assert_array_equal(values["copying"][:, layer], [[1, 0]] * VOCAB)
    np.testing.assert_array_equal(values["negative_copying"][:, layer], [[0, 1]] * VOCAB)
    assert (values["copying_control"][:, layer, 0] == 0).all()
    np.testing.assert_allclose(values["copying_positivity"][layer], [1, -1], atol=1e-4)
    other = 1 - layer  # heads that write nothing copy nothing, though all logits are equal
    for name in ("copying", "negative_copying", "copying_control", "negative_control"):
        assert (values[name][:, other] == 0).all()
    assert np.isnan(values["copying_positivity"][other]).all()


def test_the_control_counts_other_tokens() -> None:
    """A head that always raises the words 0, 1 and 2 copies these, and raises them for the others as much."""
    model = gpt2()
    moved = torch.zeros(VOCAB, VOCAB)
    moved[:, :3] = torch.tensor([3.0, 2.0, 1.0])
    set_output(model, 0, 0, moved)
    with torch.no_grad():  # what is attended to shows in every word alike
        model.transformer.h[0].attn.c_attn.weight[:VOCAB, 64 : 64 + VOCAB] = 0
        model.transformer.h[0].attn.c_attn.weight[20, 64] = 1.0
        model.transformer.h[0].attn.c_proj.weight[0, :3] = torch.tensor([3.0, 2.0, 1.0])
        model.transformer.h[0].attn.c_proj.weight[1:] = 0
        model.transformer.wte.weight[:, 20] = 1.0
    values = found(model, WORDS, HeadCopying(top=3))
    assert values["copying"][:, 0, 0].tolist() == [1, 1, 1] + [0] * 9
    np.testing.assert_allclose(values["copying_control"][:, 0, 0], [2 / 11] * 3 + [3 / 11] * 9, rtol=1e-6)


def test_a_head_that_counts_on_raises_the_successor() -> None:
    model = gpt2(layers=2)
    set_output(model, 1, 1, torch.eye(VOCAB).roll(1, dims=1))  # word t raises word t + 1
    # two lists, their prompts out of order: words 3, 4, 5, 6 and words 8, 9
    probe = tokens([5], [8], [3], [6], [4], [9], series=tuple("abaaab"), place=(2, 0, 0, 3, 1, 1))
    values = found(model, probe, HeadSuccession())["raised"]
    # the last member's successor is in no list: all members are raised alike, by nothing
    assert values[:, 1, 1].tolist() == [3, 1, 1, -1, 2, -1]
    assert (values[:, 0] == -1).all()


def test_probes_that_do_not_fit_are_refused() -> None:
    shape = architecture(CONFIGS["gpt2"]()).shape
    with pytest.raises(UserError, match="ends in 1 different tokens in 2 prompts"):
        HeadCopying().declare(tokens([1, 2], [3, 2]), shape)
    with pytest.raises(UserError, match="have gaps"):
        HeadSuccession().declare(tokens([1], [2], series=("a", "a"), place=(0, 2)), shape)
    with pytest.raises(UserError, match="have gaps"):
        HeadSuccession().declare(tokens([1], [2]), shape)
