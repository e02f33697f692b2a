"""A model that fills in masks (BERT): asked at its mask, and refused what only a causal model has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import dynamics
from checkpoints import FolderConfig, UserError
from dynamics.probes import Probe, tokenize
from dynamics.runs.config import AnalysisEntry, ProbeEntry, Run
from dynamics.store import Trace

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "the", "capital", "of", "france", "italy", "is", "paris", "rome"]  # fmt: skip
WORDS += [f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


def word_piece() -> hf.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        pad_token="[PAD]",
    )


def saved(folder: Path) -> list[hf.BertForMaskedLM]:
    """Two checkpoints, saved for both of BERT's tasks as the published ones are."""
    config = hf.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    result = []
    for step in (0, 20):
        torch.manual_seed(step)
        hf.BertForPreTraining(config).save_pretrained(folder / f"step{step}")
        word_piece().save_pretrained(folder / f"step{step}")
        result.append(hf.AutoModelForMaskedLM.from_pretrained(folder / f"step{step}").eval())
    return result


def test_the_answer_is_read_at_the_mask(tmp_path: Path) -> None:
    reference = saved(tmp_path / "series")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"text": "The capital of France is", "answer": " Paris", "foil": " Rome"}\n'
        '{"text": "[MASK] is the capital of Italy.", "answer": "Rome", "foil": "Paris"}\n'
    )
    run = Run(
        series=FolderConfig(path=tmp_path / "series"),
        probes={"capitals": ProbeEntry(file=prompts, sites=("resid_post", "pattern"))},
    )
    trace = Trace(dynamics.collect("bert", run=run, traces=tmp_path).trace)
    assert trace.status == ["complete", "complete"]
    found = trace.values("capitals", "answer_logprob")
    texts = ("the capital of france is [MASK]", "[MASK] is the capital of italy.")
    for row, model in enumerate(reference):
        for column, (text, answer) in enumerate(zip(texts, ("paris", "rome"), strict=True)):
            ids = torch.tensor([word_piece()(text)["input_ids"]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, ids[0].tolist().index(4)]
            expected = logits.log_softmax(-1)[WORDS.index(answer)].item()
            assert found[row, column] == pytest.approx(expected, abs=1e-5)


def test_what_needs_a_causal_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "series")
    run = Run(
        series=FolderConfig(path=tmp_path / "series"),
        analyses=(AnalysisEntry(name="induction", options={"period": 5}),),
    )
    with pytest.raises(UserError, match="fills in masks"):
        dynamics.collect("bert", run=run, traces=tmp_path)


def test_a_prompt_needs_exactly_one_mask() -> None:
    words = word_piece()
    ids = tokenize(Probe("p", ("the capital",)), words, causal=False)
    assert ids.ids[0].tolist() == [2, 6, 7, 4, 3]
    assert ids.positions["last"].tolist() == [3]
    with pytest.raises(UserError, match=r"needs exactly one \[MASK\]"):
        tokenize(Probe("p", ("[MASK] is [MASK]",)), words, causal=False)
    words.mask_token = None
    with pytest.raises(UserError, match="no mask token"):
        tokenize(Probe("p", ("the capital",)), words, causal=False)
