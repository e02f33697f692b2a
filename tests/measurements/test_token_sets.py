"""Probabilities of sets of tokens against plain softmax, and what a broken model does not say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from checkpoints import UserError
from dynamics.measurements import TokenSets
from dynamics.measurements.forward import measure
from dynamics.models.architecture import architecture, model_shape
from tests.measurements.measured import VOCAB, broken, model, probe_of

IDS = [np.array([3, 5, 7]), np.array([2, 9]), np.array([4, 4, 4]), np.array([11, 12])]
SETS = TokenSets((("some", (1, 2, 3)), ("more", (3, 20, 21, 22)), ("rest", tuple(range(4, 20)))))


def test_probabilities_add_up_as_softmax_says() -> None:
    found = measure(model(), probe_of(IDS), [SETS], architecture=architecture(model().config))
    for row, ids in enumerate(IDS):
        logits = model()(torch.from_numpy(ids)[None]).logits[0, -1]
        p = torch.softmax(logits, -1).detach().numpy()
        for index, (_, tokens) in enumerate(SETS.sets):
            assert np.exp(found["set_logprob"][row, index]) == pytest.approx(p[list(tokens)].sum(), rel=1e-4)
        assert np.exp(found["choice_logprob"][row]) == pytest.approx(p.max(), rel=1e-4)
        holding = [i for i, (_, tokens) in enumerate(SETS.sets) if p.argmax() in tokens]
        assert found["choice_set"][row] == (holding[0] if holding else -1)


def test_a_broken_model_is_sure_of_nothing() -> None:
    found = measure(broken(), probe_of(IDS), [SETS], architecture=architecture(model().config))
    assert np.isnan(found["choice_logprob"]).all() and np.isnan(found["set_logprob"]).all()
    assert (found["choice_set"] == -1).all()


def test_a_choice_among_tokens_that_are_not_padding_is_a_choice() -> None:
    padded = model()

    def without_last(_module: object, _args: object, output: object) -> object:
        output.logits[..., 23:] = -torch.inf  # type: ignore[attr-defined]
        return output

    handle = padded.register_forward_hook(without_last)
    try:
        found = measure(padded, probe_of(IDS), [SETS], architecture=architecture(model().config))
    finally:
        handle.remove()
    assert np.isfinite(found["choice_logprob"]).all() and (found["choice_set"] >= 0).any()


@pytest.mark.parametrize(
    "sets", [(), (("empty", ()),), (("beyond", (VOCAB,)),), (("twice", (3, 3)),), (("below", (-1,)),)]
)
def test_sets_that_make_no_sense_are_refused(sets: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
    with pytest.raises(UserError, match="token"):
        TokenSets(sets).declare(probe_of(IDS), model_shape(model().config))


def test_what_is_declared_is_what_is_measured() -> None:
    found = measure(model(), probe_of(IDS), [SETS], architecture=architecture(model().config))
    declared = SETS.declare(probe_of(IDS), model_shape(model().config))
    assert {v.name: v.shape for v in declared} == {k: v.shape for k, v in found.items()}
