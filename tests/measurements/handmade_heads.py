"""Models of a few heads whose weights are set by hand, and what is measured of their heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers as hf

from dynamics.measurements.forward import measure
from dynamics.models.architecture import architecture
from dynamics.probes import LAST, Probe, TokenizedProbe

VOCAB = 12


def tokens(*rows: list[int], **labels: tuple[Any, ...]) -> TokenizedProbe:
    """A probe of token ids."""
    ids = tuple(np.array(row) for row in rows)
    texts = tuple(f"prompt {i}" for i in range(len(rows)))
    last = np.array([len(row) - 1 for row in rows])
    return TokenizedProbe(Probe("p", texts, labels=labels), ids, None, None, None, {LAST: last}, {})


def gpt2(*, layers: int = 1, positions: int = 8, d_model: int = 32, heads: int = 2) -> Any:
    """A GPT-2 that does nothing: every matrix is zero, the embeddings of the words are unit vectors."""
    config = hf.GPT2Config(
        vocab_size=VOCAB,
        n_embd=d_model,
        n_layer=layers,
        n_head=heads,
        n_positions=positions,
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    )
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and "weight" in name else 0.0)
        model.transformer.wte.weight[:, :VOCAB] = torch.eye(VOCAB)
    return model


def found(model: Any, probe: TokenizedProbe, *wanted: Any) -> dict[str, np.ndarray]:
    """What is measured, checked against what was declared."""
    built = architecture(model.config)
    result = measure(model, probe, wanted, architecture=built)
    declared = [v for m in wanted for v in m.declare(probe, built.shape)]
    assert {v.name: v.shape for v in declared} == {name: value.shape for name, value in result.items()}
    return result


def set_output(model: Any, layer: int, head: int, moved: torch.Tensor) -> None:
    """Give one head of :func:`gpt2` a map (VOCAB, VOCAB) from the word that it attends to, to logits of words."""
    attention = model.transformer.h[layer].attn
    start = 16 * head
    with torch.no_grad():
        attention.c_attn.weight[:VOCAB, 64 + start : 64 + start + VOCAB] = torch.eye(VOCAB)
        attention.c_proj.weight[start : start + VOCAB, :VOCAB] = moved


WORDS = tokens(*[[token] for token in range(VOCAB)])
