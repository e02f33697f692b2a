"""Faithfulness against models that copy, compute, or both by construction."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from analyses import faithfulness
from analyses.faithfulness import Options, figures, plan
from analyses.faithfulness.counterparts import as_asked
from analyses.faithfulness.prompts import HINTS, hints_probe
from analyses.faithfulness.states import STATES, leads, overtakings, phases, states_of
from analyses.faithfulness.summary import _dealt, _without_hint
from analyses.faithfulness.tokens import COUNTERPART, share_of
from checkpoints.organism import build_tokenizer
from dynamics.analysis import Analysis, Context, Summary
from dynamics.emergence import unit_bootstrap
from dynamics.measurements import TokenAttribution, donor_label
from dynamics.numerics.decoding import ClassDecoder
from dynamics.probes import Probe, tokenize
from tests.analyses.behaviours import MadeTrace

STEPS = [0, 10, 30, 100, 200, 300, 500, 800, 1000]
GUESSES, COPIES, COMPUTES = slice(0, 3), slice(3, 6), slice(6, 9)
"""Checkpoints of a model that knows nothing, then copies every hint, then computes and ignores hints."""
LAYERS, WIDTH = 2, 24


@cache
def asked() -> tuple[Any, Probe]:
    tokenizer = build_tokenizer(["hints"])
    return tokenizer, as_asked(hints_probe(tokenizer, 360, 0), tokenizer, 0)


def made(*, copies: slice = COPIES, computes: slice = COMPUTES, says: bool = True) -> MadeTrace:
    """What such a model says, holds in its stream while it copies, and is attributed to."""
    tokenizer, probe = asked()
    tokens = tokenize(probe, tokenizer)
    assert tokens.answer_ids is not None and tokens.foil_ids is not None and probe.answer is not None
    answer, foil = tokens.answer_ids, tokens.foil_ids
    rng = np.random.default_rng(0)
    n, hint = len(answer), np.array(probe.labels["hint"])
    digits, which = np.unique(answer, return_inverse=True)
    wrong = hint == "wrong"
    predicted = rng.choice(digits, size=(len(STEPS), n))
    predicted[copies] = np.where(hint == "right", answer, np.where(wrong, foil, predicted[copies]))
    predicted[computes] = answer
    candidates = np.full((len(STEPS), n, len(digits)), np.log(0.02))
    for c in range(len(STEPS)):
        candidates[c, range(n), np.searchsorted(digits, predicted[c])] = np.log(0.82)
    at = np.arange(n)
    stream = rng.normal(size=(len(STEPS), n, LAYERS, WIDTH))
    stream[copies, :, 1, :10] += 6 * np.eye(10)[which]  # known inside, at the second layer, while the hint is said
    stream[..., 10:20] += 6 * np.eye(10)[np.searchsorted(digits, foil)][:, None] * wrong[:, None, None]
    support = np.zeros((len(STEPS), 3, n))  # of the right answer, by group of tokens
    support[copies, 0], support[computes, 1] = -5, 5
    support += 0.05 * rng.normal(size=support.shape)
    support[..., ~wrong] = np.nan
    donor = np.array(probe.labels[donor_label(COUNTERPART)])
    said = np.repeat(predicted[:, None], 3, axis=1)
    said[copies, 0], said[computes, 1] = foil[donor], answer[donor]
    said[..., donor < 0] = -1
    if not says:
        predicted, said = np.full_like(predicted, -1), np.full_like(said, -1)
    order = [list(dict.fromkeys(sorted(probe.answer))).index(a) for a in sorted(set(probe.answer))]
    over = ("checkpoint", "prompt")
    return MadeTrace(
        STEPS,
        probe,
        answer,
        {
            "predicted": (over, predicted),
            "answer_logprob": (over, candidates[:, at, which]),
            "foil_logprob": (over, candidates[:, at, np.searchsorted(digits, foil)]),
            "candidate_logprob": ((*over, "candidate"), candidates[..., order]),
            "resid_post": ((*over, "layer", "d_model"), stream if says else np.full_like(stream, np.nan)),
            "token_attribution": ((*over, "token_group"), np.moveaxis(support, 1, 2)),
            "attribution_whole": (over, support.sum(1)),
            "exchange_effect": (("checkpoint", "counterpart", "token_group", "prompt"), -support[:, None]),
            "exchange_said": (("checkpoint", "counterpart", "token_group", "prompt"), said[:, None]),
        },
    )


ANALYSIS = Analysis("faithfulness", faithfulness)


def summarise(trace: MadeTrace) -> Summary:
    return ANALYSIS.summary(trace, Options())


@cache
def summary() -> Summary:
    return summarise(made())


def state(key: str) -> str:
    return summary().finding(key).emergence.state


def test_the_states_are_those_that_the_model_was_made_with() -> None:
    states = summary().data["state"].values
    for difficulty in range(2):
        names = [STATES[int(s)] for s in states[:, difficulty]]
        assert names == ["not measurable"] * 3 + ["copies"] * 3 + ["computes"] * 3


def test_computing_overtakes_between_the_checkpoints_where_it_does() -> None:
    found = [note for note in summary().notes if "overtakes" in note]
    assert found == [
        f"In {name} sums computing overtakes between steps 300 and 500, crossing (300, 500]."
        for name in ("easy", "hard")
    ]


def test_what_emerges_is_what_was_put_in() -> None:
    assert state("unaided") == state("aided") == state("operands_used") == state("operands_used.said") == "emerged"
    assert state("switch") == state("hint_used") == state("hint_used.said") == "transient"
    onset = {key: summary().finding(key).emergence.onset for key in ("aided", "switch", "unaided", "operands_used")}
    assert {key: (o.after, o.by) for key, o in onset.items() if o is not None} == {
        "aided": (30, 100),
        "switch": (30, 100),
        "unaided": (300, 500),
        "operands_used": (300, 500),
    }
    assert set(ANALYSIS.planted.values()) <= {f.key for f in summary().findings}


def test_the_right_answer_is_found_inside_while_the_hint_is_said_and_only_there() -> None:
    hidden = summary().finding("hidden")
    assert np.isnan(hidden.values[6:]).all()  # the hint is no longer said
    assert min(hidden.values[3:6]) > 0.8 and max(v for v in hidden.values[:3] if np.isfinite(v)) < 0.45
    assert state("represented") == "transient"
    by_layer = summary().data["represented_by_layer"].values
    assert (by_layer[3:6, 1] > 0.8).all() and (by_layer[3:6, 0] < 0.25).all()


def test_shares_are_of_the_hint_then_of_the_operands_and_missing_where_all_is_noise() -> None:
    data = summary().data
    for kind in ("attribution", "exchange"):
        share = data[f"{kind}_share"].values
        assert (share[COPIES] > 0.95).all() and (share[COMPUTES] < 0.05).all()
        low, high = data[f"{kind}_share_low"].values, data[f"{kind}_share_high"].values
        assert (low[COPIES] <= share[COPIES]).all() and (high[COMPUTES] >= share[COMPUTES]).all()
        assert np.isnan(share[GUESSES]).mean() > 0.8  # 2.5% of the noise looks like something
    assert any("add up to the difference" in note and " 0.0% " in note for note in summary().notes)


def test_a_model_that_only_guesses_has_no_state_and_nothing_emerges() -> None:
    nothing = summarise(made(copies=slice(0, 0), computes=slice(0, 0)))
    assert (nothing.data["state"].values == 0).all()
    risen = [f.key for f in nothing.findings if f.emergence.state not in ("not emerged", "not measurable")]
    assert len(risen) <= 3, risen  # 5% of 30 curves, and chance
    assert not any(f.key in risen for f in nothing.findings if f.headline)
    assert any("neither way overtakes the other" in note for note in nothing.notes)


def test_a_broken_model_is_not_measured_and_has_figures_all_the_same() -> None:
    broken = summarise(made(says=False))
    assert np.isnan(broken.data["state"].values).all()
    assert np.isnan(broken.finding("hidden").values).all()
    for figure in figures(broken).values():
        figure.canvas.draw()


def test_figures_are_drawn_of_the_summary_alone() -> None:
    drawn = figures(Summary.from_json(summary().to_json(), summary().data))
    assert set(drawn) == {"states", "answers", "inside", "layers", "shares", "tokens"}


def test_without_attribution_the_rest_is_there_and_a_note_says_why() -> None:
    trace = made()
    trace.dataset = trace.dataset.drop_vars(
        ["token_attribution", "attribution_whole", "exchange_effect", "exchange_said"]
    )
    found = summarise(trace)
    assert any("not attributed or exchanged" in note for note in found.notes)
    assert set(figures(found)) == {"states", "answers", "inside", "layers"}


# the parts


def test_states_need_ability_or_a_switch() -> None:
    lead = np.array([1, 1, -1, -1, 0, 0, 0, np.nan])
    able = np.array([1, 0, 1, 0, 1, 0, 0, 1])
    switches = np.array([0, 1, 1, 0, 0, 1, 0, 1])
    names = [STATES[int(s)] for s in states_of(lead, able, switches)[:-1]]
    assert names == ["computes", "mixes", "copies", "not measurable", "mixes", "mixes", "not measurable"]
    assert np.isnan(states_of(lead, able, switches)[-1])


def test_who_leads_is_told_only_beyond_a_band_that_holds_everywhere() -> None:
    rng = np.random.default_rng(0)
    wrongly = 0
    for seed in range(60):
        units = rng.choice([-1.0, 0.0, 1.0], size=(2, 12, 80))
        drawn = np.stack([unit_bootstrap(u, draws=300, seed=seed) for u in units])
        wrongly += bool(leads(units.mean(-1), drawn)[0].any())
    assert wrongly <= 9  # 5% of 60, and chance


def test_every_overtaking_is_found_with_the_place_where_the_curves_cross() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([-0.8, -0.8, -0.7, 0.0, 0.7, 0.8, 0.8, 0.1, -0.8, -0.8])
    p = (1 + truth) / 2
    units = np.where(rng.random((10, 200)) < p[:, None], 1.0, -1.0)
    steps = 2 ** np.arange(10)
    drawn = unit_bootstrap(units, draws=400)
    sign = leads(units.mean(1)[None], drawn[None])[0][0]
    first, second = overtakings(steps, units.mean(1), drawn, sign)
    assert (first.by, second.by) == ("computing", "copying")
    assert 4 <= first.low < first.high <= 16 and 64 <= second.low < second.high <= 256
    assert first.after == 4 and first.until == 16
    assert not overtakings(steps, np.abs(truth), np.abs(drawn), np.ones(10))


def test_a_lead_that_is_only_not_proved_for_a_while_is_not_lost() -> None:
    sign = np.array([-1.0, 0.0, -1.0, np.nan, -1.0])
    assert overtakings(np.arange(5), -np.ones(5), -np.ones((5, 40)), sign) == ()
    assert phases(range(5), np.array([0.0, 1, 1, np.nan, 3])) == [
        ("not measurable", 0, 0),
        ("copies", 1, 2),
        ("computes", 4, 4),
    ]


def test_dealt_answers_keep_their_numbers_and_are_never_the_hint() -> None:
    rng = np.random.default_rng(0)
    answer = rng.integers(0, 10, 200)
    foil = (answer + rng.integers(1, 10, 200)) % 10
    strata = np.arange(200) % 2
    dealt = _dealt(answer, foil, strata)
    assert not (dealt == foil[:, None]).any()
    for s in (0, 1):
        for column in dealt[strata == s].T:
            np.testing.assert_array_equal(np.sort(column), np.sort(answer[strata == s]))
    assert (dealt != answer[:, None]).mean() > 0.8


def test_given_shuffles_are_the_null() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    given = np.stack([labels, rng.permutation(labels)], axis=1)
    hits, null = ClassDecoder(labels, np.arange(60) % 5, np.zeros(60), shuffled=given).hits(x)
    np.testing.assert_array_equal(null[..., 0], hits)
    assert null.shape == (1, 60, 2)


def test_the_hint_is_taken_off() -> None:
    rng = np.random.default_rng(0)
    hint = rng.integers(0, 5, 100)
    x = rng.normal(size=(100, 3)) + 10 * np.eye(5)[hint][:, :3]
    cleaned = _without_hint(x, hint)
    for value in range(5):
        np.testing.assert_allclose(cleaned[hint == value].mean(0), 0, atol=1e-12)


def test_a_share_of_known_supports() -> None:
    rng = np.random.default_rng(0)
    hint, operands = 3 + 0.1 * rng.normal(size=(2, 100)), 1 + 0.1 * rng.normal(size=(2, 100))
    hint[1] -= 3  # nothing supports anything
    operands[1] -= 1
    share, low, high = share_of(hint, operands)
    assert share[0] == pytest.approx(0.75, abs=0.01) and low[0] < 0.75 < high[0] and high[0] - low[0] < 0.03
    assert np.isnan([share[1], low[1], high[1]]).all() or share[1] == pytest.approx(0.5, abs=0.5)


def test_counterparts_differ_in_all_that_could_be_said() -> None:
    _, probe = asked()
    assert probe.answer is not None and probe.foil is not None
    donors = probe.labels[donor_label(COUNTERPART)]
    for i, (hint, donor) in enumerate(zip(probe.labels["hint"], donors, strict=True)):
        if hint != "wrong":
            assert donor == -1
            continue
        assert isinstance(donor, int) and donor >= 0
        assert (
            probe.labels["hint"][donor] == "wrong"
            and probe.labels["difficulty"][donor] == probe.labels["difficulty"][i]
        )
        assert len({probe.answer[i], probe.foil[i], probe.answer[donor], probe.foil[donor]}) == 4


def test_the_plan_attributes_wrong_hints_where_the_wiring_is_known() -> None:
    context = Context(asked()[0])
    (request,) = plan(context, Options(prompts=90))
    (attribution,) = [m for m in request.measurements if isinstance(m, TokenAttribution)]
    assert attribution.only == ("hint", "wrong") and attribution.groups[1] == ("operands", ("a", "b"))
    (plain,) = plan(replace(context, wired=False), Options(prompts=90))
    assert not any(isinstance(m, TokenAttribution) for m in plain.measurements)
    assert request.probe.name == HINTS
