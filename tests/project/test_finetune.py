"""The fine-tuning of the examples, with a tiny model of random weights: the same code, what it asks, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import dynamics
from dynamics.probes import read_probe, tokenize
from dynamics.probes.words import FIRST_NAMES
from tests.project.test_examples import load


def english(whole: bool) -> Any:
    """A byte-level tokenizer of the words that are asked about; numbers below 100 are one token, or every digit is."""
    example = load("finetune")
    digits = [] if whole else [pre_tokenizers.Digits(individual_digits=True)]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    core.decoder = decoders.ByteLevel()
    names = [f" {name}" for names in FIRST_NAMES.values() for name in names]
    words = [f" {word}" for word in [*example.JOBS, *example.CAPITALS.replace(":", " ").split()]]
    texts = [*names, *words, *map(str, range(100))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(texts, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.fixture(scope="module", params=[True, False], ids=["numbers", "digits"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return english(request.param)


def test_sums_end_before_their_last_token_and_nothing_new_was_shown(tokenizer: Any, tmp_path: Path) -> None:
    example = load("finetune")
    rng = np.random.default_rng(3)
    people, pairs = example.people(tokenizer, rng), example.sums(rng)
    assert len(dict(people)) == example.PEOPLE and len({frozenset(pair) for pair in pairs}) == len(pairs) > 1000
    assert 0.4 < np.mean([a > b for a, b in pairs]) < 0.6, "both orders are taught, each sum in one of them"
    assert {[job for _, job in people].count(job) for _, job in people} == {example.PEOPLE // example.KINDS}
    found = example.write_probes(tmp_path, tokenizer, people, pairs[:60], pairs[-60:])
    probes = {name: tokenize(read_probe(name, entry.file), tokenizer).probe for name, entry in found.items()}
    assert not set(probes["sums_shown"].text) & set(probes["sums_new"].text)
    asked = {
        of: {frozenset(text.partition("=")[0].split("+")) for text in probes[of].text}
        for of in ("sums_shown", "sums_new")
    }
    assert not asked["sums_shown"] & asked["sums_new"], "b + a gives a + b away"
    for text, answer in zip(probes["sums_new"].text, probes["sums_new"].answer or (), strict=True):
        question, _, total = f"{text}{answer}".partition("=")
        assert sum(map(int, question.split("+"))) == int(total)
    assert len(probes["capitals"]) == len(example.CAPITALS.split())
    assert probes["facts"].answer == probes["facts_reworded"].answer
    assert not set(probes["facts"].text) & set(probes["facts_reworded"].text)


def tuned(folder: Path, ioi_prompts: int) -> tuple[Any, dict[str, Any], Path]:
    """The model, its weights as they were, and the trace."""
    import torch

    pytest.importorskip("accelerate")
    example, tokenizer = load("finetune"), english(False)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"steps": 8, "checkpoints": 4, "blocks": 1, "ioi_prompts": ioi_prompts}
    return model, before, example.finetune(model, tokenizer, "tuned", folder, **settings)


def test_a_tiny_model_is_taught_in_its_last_blocks_and_measured_meanwhile(tmp_path: Path) -> None:
    model, before, trace = tuned(tmp_path, 0)
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed and all(name.startswith("model.layers.1.") for name in changed)
    read = dynamics.Trace(trace)
    assert read.steps.tolist() == [0, 1, 4, 8] and read.complete.all()
    assert set(read.probes) == {"facts", "facts_reworded", "sums_shown", "sums_new", "capitals"}
    logprob = read.values("facts", "answer_logprob").mean(1)
    assert logprob[-1] > logprob[0], "what is taught becomes more likely"


@pytest.mark.slow
def test_the_circuit_of_a_fine_tuning_is_measured_and_reported(tmp_path: Path) -> None:
    _, _, trace = tuned(tmp_path, 20)
    assert "ioi" in dynamics.Trace(trace).probes
    written = dynamics.report("tuned", traces=tmp_path / "traces", reports=tmp_path / "reports")
    keys = {row["key"] for row in written.content["emergence"]}
    assert {"own_probes.facts.accuracy", "own_probes.capitals.accuracy", "ioi.done"} <= keys
