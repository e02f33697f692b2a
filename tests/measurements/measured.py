"""A tiny random model, probes made by hand, and what is measured of one on the other."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import transformers as hf

from dynamics.measurements import Measurement
from dynamics.measurements.forward import measure
from dynamics.models.architecture import architecture, model_shape
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


def repeats(n: int = 6, period: int = 5, seed: int = 0) -> TokenizedProbe:
    """A separator and two copies of a random sequence."""
    rng = np.random.default_rng(seed)
    firsts = [1 + rng.permutation(VOCAB - 1)[:period] for _ in range(n)]
    return probe_of([np.concatenate([[0], first, first]) for first in firsts], period=[period] * n)
