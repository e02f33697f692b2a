"""Scores of attention by what wrote query and key: held against the model's own scores, and against a circuit by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dynamics.circuits.looking import LookedAt, looks, weights
from tests.circuits.test_circuits_wired import WIRED
from tests.circuits.test_circuits_wired import wired as wired_family
from tests.explaining.toys import wired_toy

IDS = torch.tensor([[3, 9, 4, 7, 5]])
NOT_PRODUCTS = ("bloom", "gemma2", "falcon sequential", "olmo", "stablelm parallel")
"""Families whose scores are not products of queries and keys alone: a bias by distance, a cap, clipping, norms of queries and keys
with a bias."""


@pytest.mark.parametrize("family", WIRED)
def test_parts_add_up_to_the_score_that_the_pattern_says(family: str) -> None:
    wired = wired_family(family)
    places = [LookedAt(layer, head, 3, token) for layer, head, token in ((1, 0, 3), (2, 3, 2), (2, 3, 1))]
    found = looks(wired, IDS, wired.run(IDS), places)
    pattern = weights(wired, IDS, places)[0]
    for at, look, weight in zip(places, found, pattern, strict=True):
        row = torch.stack([weights(wired, IDS, [LookedAt(at.layer, at.head, 3, t)])[0, 0] for t in range(4)])
        logs = row[row > 0].log()
        if look is None:
            assert float(weight) == 0  # behind a sliding window
            continue
        assert look.parts is not None and look.rest is not None
        assert look.weight == pytest.approx(float(weight), abs=1e-6)
        assert look.score == pytest.approx(math.log(look.weight) - float(logs.mean()), abs=1e-5)
        off = 1e-4 + 1e-3 * float(look.parts.abs().sum())
        assert abs(look.rest) <= (math.inf if family in NOT_PRODUCTS else off), family
        seen = wired.graph.seen_by(wired.graph.attention_readers(at.layer))
        assert not look.parts[seen:-1].any() and not look.parts[:, seen:-1].any()


def test_a_part_is_what_its_own_query_and_key_score_in_a_model_without_positions() -> None:
    wired = wired_family("gpt2")
    run = wired.run(IDS)
    at = LookedAt(2, 1, 4, 1)
    (look,) = looks(wired, IDS, run, [at])
    assert look is not None and look.parts is not None
    block, sources = wired.blocks[2], wired.sources(run)[:, 0]
    stream = wired.entering(run, 2)[0]
    scale = torch.sqrt(stream.var(-1, unbiased=False, keepdim=True) + block.ln_1.eps)
    linear = (sources - sources.mean(-1, keepdim=True)) / scale * block.ln_1.weight
    matrix = block.attn.c_attn.weight.detach()
    q, k = (linear @ matrix[:, start + 8 : start + 16] for start in (0, 32))
    score = torch.einsum("ad,btd->abt", q[:, 4], k) / math.sqrt(8)
    alone = score[..., 1] - score.mean(-1)
    seen = wired.graph.seen_by(wired.graph.attention_readers(2))
    torch.testing.assert_close(look.parts[:seen, :seen], alone[:seen, :seen], atol=1e-5, rtol=1e-4)


def test_the_parts_of_a_circuit_made_by_hand_are_those_that_were_put_there() -> None:
    wired = wired_toy()
    ids = torch.tensor([[0, 1, 2, 3, 4, 5, 2]])
    names = [source.name for source in wired.graph.sources]
    before, after = looks(wired, ids, wired.run(ids), [LookedAt(0, 1, 3, 2), LookedAt(1, 0, 6, 3)])
    for look, pair in ((before, ("embed", "embed")), (after, ("embed", "L0H1"))):
        assert look is not None and look.parts is not None and look.rest is not None
        assert look.weight > 0.99
        strongest = int(look.parts.abs().argmax())
        assert (names[strongest // len(look.parts)], names[strongest % len(look.parts)]) == pair
        assert float(look.parts.max()) == pytest.approx(look.score, rel=1e-3)
        assert abs(look.rest) < 1e-2
