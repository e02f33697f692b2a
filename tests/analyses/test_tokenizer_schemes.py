"""Sums and years for every tokenizer: as one token where numbers are, digit by digit where they are split, never refused."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import dynamics
from analyses import addition
from analyses.addition.prompts import SUMS, sums_for
from analyses.faithfulness.prompts import hints_probe
from analyses.greater_than.prompts import greater_than_probe
from checkpoints import FolderConfig
from dynamics.analyser import analyse
from dynamics.analysis.base import Context, Request
from dynamics.probes import TokenizedProbe, tokenize
from dynamics.runs.config import AnalysisEntry, Run
from dynamics.runs.plan import built_in, find_analysis
from tests import real
from tests.schemes import SCHEMES, build

SPLIT = ("Llama 2", "Mistral", "Gemma", "Qwen", "SmolLM", "bytes")
"""In which every digit is a token."""


@cache
def made(name: str) -> Any:
    return build(name)


def checked(request: Request, name: str) -> TokenizedProbe:
    """The probe as the program checks it."""
    return tokenize(request.probe, made(name), vocab=len(made(name)), causal=name != "BERT")


@pytest.mark.parametrize("name", SCHEMES)
def test_sums_are_asked_as_the_tokenizer_writes_numbers(name: str) -> None:
    plan = addition.plan(Context(made(name)), addition.Options(per_context=20, pairs_per_context=8, exchanged=4))
    probes = {request.probe.name: checked(request, name) for request in plan}
    assert len(probes) == 6, "twins and donors fit, too"
    probe = probes[SUMS].probe
    digits = set(probe.labels["digit"])
    assert digits == ({"tens", "ones"} if name in SPLIT else {"sum"})
    whole = dict.fromkeys(probe.labels["pair"], "")
    for pair, answer in zip(probe.labels["pair"], probe.answer or (), strict=True):
        whole[pair] += answer.strip()
    for pair, total in zip(probe.labels["pair"], probe.labels["total"], strict=True):
        assert whole[pair][-2:] == f"{total:02d}"
    for text, digit, total, answer in zip(probe.text, probe.labels["digit"], probe.labels["total"], probe.answer or (), strict=True):  # fmt: skip
        assert digit != "ones" or (text.endswith(str(total // 10)) and answer == str(total % 10))


@pytest.mark.parametrize("name", SCHEMES)
def test_years_and_hints_are_asked_as_the_tokenizer_writes_numbers(name: str) -> None:
    tokenizer = made(name)
    found = tokenize(greater_than_probe(tokenizer, 40, 0), tokenizer, causal=name != "BERT")
    probe, size = found.probe, 1 if name in SPLIT else 2
    assert {len(answer) for answer in probe.answer or ()} == {size}
    for i, (answer, foil) in enumerate(zip(probe.answer or (), probe.foil or (), strict=True)):
        start = int(probe.labels["decade" if size == 1 else "start"][i])
        assert int(answer) - start == start - int(foil) == probe.labels["distance"][i] > 0
        assert tokenizer.decode([found.ids[i][found.positions["year"][i]]]).strip() == f"{start:0{size}d}"
    hints = tokenize(hints_probe(tokenizer, 60, 0), tokenizer, causal=name != "BERT").probe
    assert {len(answer.strip()) for answer in hints.answer or ()} == {size}


def test_a_sum_that_a_tokenizer_has_no_token_for_is_not_asked() -> None:
    content = json.loads(made("GPT-2").backend_tokenizer.to_str())
    merges = content["model"]["merges"]
    content["model"]["merges"] = [merge for merge in merges if "".join(merge).removeprefix("Ġ") != "95"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))
    operands = sums_for(tokenizer).operands
    assert 95 not in {a + b for a, b in operands} and len(operands) > 2000


def test_every_built_in_analysis_takes_a_tokenizer_that_puts_a_space_before_every_text() -> None:
    name = "Llama 2"
    for analysis in set(built_in()) - {"addition", "greater_than", "faithfulness"}:
        module, options = find_analysis(analysis)
        for request in module.plan(Context(made(name)), options):
            assert len(checked(request, name).ids) > 0, analysis


@pytest.mark.slow
@pytest.mark.skipif(bool(real.why_not()), reason=real.why_not() or "there is one")
def test_every_built_in_analysis_takes_the_real_tokenizer_of_smollm2() -> None:
    from checkpoints.tokenizing import load_tokenizer

    tokenizer = load_tokenizer(real.model_folder())
    for analysis in built_in():
        module, options = find_analysis(analysis)
        for request in module.plan(Context(tokenizer), options):
            assert np.all(tokenize(request.probe, tokenizer, vocab=len(tokenizer)).lengths > 0)


@pytest.mark.slow
def test_sums_digit_by_digit_and_languages_apart_are_collected_and_reported(tmp_path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = made("SmolLM")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=8, n_layer=1, n_head=1))
    for step in (0, 10):
        model.save_pretrained(tmp_path / "job" / f"step{step}")
    tokenizer.save_pretrained(tmp_path / "job")
    entries = (
        AnalysisEntry(name="addition", options={"per_context": 20, "pairs_per_context": 8, "exchanged": 4}),
        AnalysisEntry(name="shared_concepts"),
    )
    run = Run(series=FolderConfig(kind="folder", path=tmp_path / "job"), analyses=entries)
    dynamics.collect("r", run=run, traces=tmp_path / "traces")
    found = analyse("r", run=run, traces=tmp_path / "traces")
    assert any("may occur in training" in note for note in found["addition"].notes)
    assert found["addition"].finding("digit.tens").headline and found["addition"].finding("digit.ones").headline
    headlines = {f.key for f in found["shared_concepts"].findings if f.headline and ".accuracy" in f.key}
    assert headlines == {f"shared_concepts.accuracy.{language}" for language in ("english", "french", "german")}
    assert any("english 100% (not emerged)" in note for note in found["shared_concepts"].notes)
