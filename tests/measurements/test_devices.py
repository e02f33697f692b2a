"""Every measurement on a device that is not the CPU, of every family, and in half precision."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from dynamics.measurements import (
    Activations,
    Answers,
    Circuit,
    Direction,
    EdgeGroups,
    HeadAttention,
    HeadCopying,
    HeadSuccession,
    HeadWeights,
    Interchange,
    Measurement,
    RepeatAttention,
    Selectivity,
    SourceEffects,
    TokenAttribution,
    TokenLoss,
    TokenSets,
)
from dynamics.measurements import __all__ as NAMES
from dynamics.measurements.forward import measure
from dynamics.models.architecture import architecture
from dynamics.models.sites import site_table
from dynamics.probes import LAST, Probe, TokenizedProbe

from ..models.families import CONFIGS, MORE, OTHERS, VOCAB, model_of
from .pretended import GPU, PretendedGPU

N = 8
COUNTED = ("copying", "copying_control", "negative_copying", "negative_control", "found_difference", "found_complement")
"""What depends on a choice, which rounding may turn."""
FAST = ("gpt_neox",)
kinds = pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in CONFIGS]
)
EVERYWHERE: tuple[Measurement, ...] = (Answers(candidates=True), TokenSets((("some", (2, 3)), ("others", (4, 5)))))
"""Of masked models too."""


@cache
def probe() -> TokenizedProbe:
    """Prompts that end in two copies of a sequence, with all that any measurement asks for."""
    rng = np.random.default_rng(0)
    once = np.stack([rng.permutation(np.arange(2, VOCAB))[:3] for _ in range(N)])
    once[:, -1] = 2 + np.arange(N)  # different last tokens
    ids = np.concatenate([once, once], axis=1)
    twins = ids.copy()
    twins[:, 1:3] = rng.integers(2, VOCAB, (N, 2))
    answers = rng.integers(2, VOCAB, N)
    following = tuple((np.arange(N) + 1) % N)
    labels: dict[str, tuple[Any, ...]] = {
        "period": (3,) * N,
        "class": (0, 1) * (N // 2),
        "held_out": (0,) * (N // 2) + (1,) * (N // 2),
        "context": ("a",) * N,
        "series": ("list",) * N,
        "place": tuple(range(N)),
        "next_donor": tuple(int(i) for i in following),
        "next_target": tuple(int(i) for i in following),
    }
    return TokenizedProbe(
        Probe("p", tuple(map(str, range(N))), answer=tuple(f"w{a}" for a in answers), labels=labels),
        tuple(ids),
        answers,
        (answers - 1) % 40 + 2,
        tuple(twins),
        {LAST: np.full(N, 5), "early": np.full(N, 1)},
        {int(a): f"w{a}" for a in sorted(set(answers.tolist()))},
    )


def measurements(kind: str) -> list[Measurement]:
    """One of every kind, and every site."""
    table = site_table(CONFIGS[kind]())
    found: list[Measurement] = [*EVERYWHERE, *(Activations(site, (LAST, "early")) for site in table.sites)]
    if kind in OTHERS:
        return found
    return [
        *found,
        Circuit(points=3, steps=2),
        Direction("class", shuffled=1, random=1, steered_shuffled=1, steered_random=1),
        EdgeGroups(steps=2),
        HeadAttention((3,)),
        HeadCopying(),
        HeadSuccession(),
        HeadWeights(),
        Interchange(("next",)),
        RepeatAttention(),
        *([Selectivity("class", "context", permutations=2, top=0.2)] if "mlp_post" in table.sites else []),
        SourceEffects(("early",), steps=2),
        TokenAttribution((("start", ("early",)),), ("next",), points=2),
        TokenLoss(),
    ]


def measured(kind: str, model: Any) -> dict[str, np.ndarray]:
    return measure(model, probe(), measurements(kind), architecture=architecture(model.config))


@cache
def on_the_cpu(kind: str) -> dict[str, np.ndarray]:
    return measured(kind, model_of(kind))


def test_every_measurement_is_tried() -> None:
    tried = {type(m).__name__ for m in measurements("gpt_neox")}
    public = {name for name in NAMES if name[0].isupper()} - {
        "Accumulator",
        "Batch",
        "Intervention",
        "Measurement",
        "Observation",
    }
    assert tried == public


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        if values.dtype.kind == "f":
            scale = float(np.nanmax(np.abs(values), initial=0.0))
            np.testing.assert_allclose(found[name], values, atol=tolerance * max(scale, 1e-6), rtol=0, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)


@kinds
def test_no_measurement_mixes_devices_and_all_give_what_they_give_on_the_cpu(kind: str) -> None:
    expected = on_the_cpu(kind)
    with PretendedGPU():
        model = copy.deepcopy(model_of(kind)).to(GPU)
        assert {p.device for p in model.parameters()} == {GPU}
        found = measured(kind, model)
    same(found, expected, 1e-5)


def test_the_pretended_device_refuses_what_a_real_one_refuses() -> None:
    with PretendedGPU():
        there, here = torch.ones(3, device=GPU), torch.ones(3)
        assert there.device == GPU and here.device.type == "cpu"
        with pytest.raises(RuntimeError, match="pretended:0 and on cpu"):
            there + here
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        assert (there + here.to(GPU)).cpu().numpy().tolist() == [2.0, 2.0, 2.0]
        assert float((there * torch.tensor(2.0)).sum()) == 6.0  # a number may come from anywhere
        there[torch.tensor([1])] = 5.0
        assert there.tolist() == [1.0, 5.0, 1.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@kinds
def test_a_gpu_gives_what_the_cpu_gives(kind: str) -> None:
    model = copy.deepcopy(model_of(kind)).to("cuda")
    found, expected = measured(kind, model), on_the_cpu(kind)
    for name, values in expected.items():
        if values.dtype.kind == "f":
            scale = float(np.nanmax(np.abs(values), initial=0.0))
            np.testing.assert_allclose(found[name], values, atol=1e-3 * max(scale, 1e-6), rtol=0, err_msg=name)


def error_in(dtype: torch.dtype, kind: str) -> dict[str, float]:
    """Each measurement's largest difference from single precision, in its largest value."""
    found, errors = measured(kind, copy.deepcopy(model_of(kind)).to(dtype)), {}
    for name, values in on_the_cpu(kind).items():
        if values.dtype.kind == "f" and np.isfinite(values).any() and name not in COUNTED:
            assert (np.isnan(found[name]) == np.isnan(values)).all(), name
            errors[name] = float(np.nanmax(np.abs(found[name] - values)) / np.nanmax(np.abs(values)))
    return errors


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 0.05), (torch.bfloat16, 0.3)], ids=str)
@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in MORE])
def test_half_precision_gives_about_the_same(kind: str, dtype: torch.dtype, most: float) -> None:
    """The docs state these bounds: of the largest value, the worst is a small effect that is a difference of large numbers."""
    if kind == "olmoe":  # rounding turns which experts a token is sent to
        most = max(most, 0.3)
    errors = error_in(dtype, kind)
    assert errors.pop("selectivity", 0.0) <= 0.5  # a share of the variance over eight prompts
    assert max(errors.values()) <= most and np.median(list(errors.values())) <= most / 8


if __name__ == "__main__":
    for given in (torch.bfloat16, torch.float16):
        for each in CONFIGS:
            worst = sorted(error_in(given, each).items(), key=lambda item: -item[1])[:8]
            print(given, each, *(f"{name} {error:.3f}" for name, error in worst), flush=True)
