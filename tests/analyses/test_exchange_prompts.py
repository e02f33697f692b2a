"""Prompts of the causal halves: twins change the ones digit alone, donors change what they are for and nothing else."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.addition import Options as AdditionOptions
from analyses.addition import plan as plan_addition
from analyses.addition.pairs import CONTEXTS, EXCHANGE, exchange_probe, pair_probes
from analyses.addition.prompts import ENGLISH, ORGANISM
from analyses.shared_concepts import causal
from analyses.shared_concepts import plan as plan_concepts
from checkpoints.errors import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.organism.worlds import addition, concepts
from checkpoints.tokenizing import word_tokenizer
from dynamics.analysis import AnalysisOptions, Context
from dynamics.probes import Probe, tokenize

seeds = st.integers(0, 1000)


@pytest.fixture(scope="module")
def pythia(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real tokenizer of the Pythia models."""
    from transformers import PreTrainedTokenizerFast

    file = tmp_path_factory.mktemp("pythia") / "tokenizer.json"
    file.write_bytes(gzip.decompress((shared_data / "pythia_tokenizer.json.gz").read_bytes()))
    return PreTrainedTokenizerFast(tokenizer_file=str(file))


@settings(max_examples=15, deadline=None)
@given(seed=seeds, organism=st.booleans())
def test_a_twin_changes_the_ones_digit_of_the_sum_and_nothing_that_is_written(seed: int, organism: bool) -> None:
    used: set[tuple[int, int]] = set()
    for probe in pair_probes(ORGANISM if organism else ENGLISH, 20, seed):
        assert probe.answer and probe.foil and probe.corrupted
        columns = (probe.labels["operand_a"], probe.labels["operand_b"], probe.labels["operand_twin"])
        for i, row in enumerate(zip(*columns, strict=True)):
            a, b, twin = (int(x) for x in row)
            assert (a + b) // 10 == (a + twin) // 10  # carry and tens stay right
            assert b // 10 == twin // 10 and b != twin
            assert int(probe.answer[i]) % 10 == (a + b) % 10 == probe.labels["ones"][i]
            assert int(probe.foil[i]) % 10 == (a + twin) % 10  # the foil is the twin's answer
            assert sum(x != y for x, y in zip(probe.text[i], probe.corrupted[i], strict=True)) == 1
            for other in (b, twin):
                assert not organism or (a, other) in addition.held_out_pairs()
                pair = (min(a, other), max(a, other))
                assert pair not in used  # no sum in two contexts, nor twice
                used.add(pair)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, organism=st.booleans(), sums=st.integers(4, 30))
def test_donors_of_sums_are_what_they_are_called(seed: int, organism: bool, sums: int) -> None:
    probe = exchange_probe(ORGANISM if organism else ENGLISH, sums, seed)
    labels = {k: np.array(v) for k, v in probe.labels.items()}
    assert probe.answer is not None
    answer = np.array(probe.answer)
    assert len(set(labels["pair"])) * len(CONTEXTS) == len(answer)
    context, ones, pair = labels["context"], labels["ones"], labels["pair"]
    own, other, same = (labels[f"{d}_donor"] for d in ("own", "other", "same"))
    assert (context[own] == context).all() and (context[other] != context).all() and (context[same] != context).all()
    assert (pair[own] == pair[other]).all() and (pair[same] != pair).all() and (pair[other] != pair).all()
    assert (ones[same] == ones).all()
    if organism:
        assert (ones[other] != ones).all()
    for donor in ("own", "other", "same"):
        target = labels[f"{donor}_target"]
        assert (context[target] == context).all() and (pair[target] == pair[other]).all()
        assert (answer[target] != answer).all()
    for one in CONTEXTS:  # every context takes from both others
        assert set(context[other[context == one]]) == set(CONTEXTS) - {one}


def test_the_organisms_prompts_have_one_length_in_a_context_and_fit() -> None:
    tokenizer = build_tokenizer()
    for probe in pair_probes(ORGANISM, 32, 0):
        assert len(set(tokenize(probe, tokenizer).lengths)) == 1
    assert len(set(tokenize(exchange_probe(ORGANISM, 12, 0), tokenizer).lengths)) == 3


def test_natural_sums_and_concepts_fit_the_tokenizer_of_pythia(pythia: Any) -> None:
    for probe in (*pair_probes(ENGLISH, 32, 0), exchange_probe(ENGLISH, 12, 0)):
        assert len(tokenize(probe, pythia).ids) in (32, 36)
    probe = causal.exchange_probe(pythia)
    assert probe is None or len(tokenize(probe, pythia).ids) % 3 == 0


def test_more_sums_than_there_are_is_an_error() -> None:
    with pytest.raises(UserError, match=r"sums with twins were asked for.*"):
        pair_probes(ORGANISM, 5000, 0)
    with pytest.raises(UserError, match="sums to exchange were asked for"):
        exchange_probe(ORGANISM, 5000, 0)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, number=st.integers(2, 36))
def test_donors_of_concepts_are_what_they_are_called(seed: int, number: int) -> None:
    probe = causal.exchange_probe(build_tokenizer(), number, seed)
    assert probe is not None and probe.answer is not None
    labels = {k: np.array(v) for k, v in probe.labels.items()}
    language, concept, side = labels["language"], labels["concept"], labels["side"]
    own, other, same = (labels[f"{d}_donor"] for d in causal.DONORS)
    assert (language[own] == language).all() and (language[other] != language).all()
    assert (language[same] == language[other]).all() and (concept[same] == concept).all()
    assert (concept[own] == concept[other]).all() and (concept[own] != concept).all()
    for donor in causal.DONORS:
        np.testing.assert_array_equal(labels[f"{donor}_target"], own)  # the same answer is looked for
    for i, (text, mark) in enumerate(zip(probe.text, probe.positions["word"], strict=True)):
        assert not isinstance(mark, str)
        pair = concepts.PAIRS[str(language[i])][int(concept[i])]
        assert text[mark[0] : mark[1]] == pair[int(side[i])]
        assert probe.answer[i] == f" {pair[1 - int(side[i])]}"


def test_too_few_one_token_answers_leave_concepts_out() -> None:
    assert causal.exchange_probe(word_tokenizer(["big"])) is None


@pytest.mark.parametrize("wired", [True, False])
def test_what_cannot_be_patched_is_left_out(wired: bool) -> None:
    context = Context(build_tokenizer(), wired=wired)
    asked: list[Probe] = [r.probe for r in plan_addition(context, AdditionOptions())]
    asked += [r.probe for r in plan_concepts(context, AnalysisOptions())]
    assert ({EXCHANGE, causal.EXCHANGE, "addition_pairs_words"} <= {p.name for p in asked}) == wired
    assert len(asked) == (9 if wired else 4)
