"""Effects and shifts on planted designs, and what is said where nothing can be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from checkpoints import UserError
from dynamics.comparing.configs import ABSENT, design_of, flattened
from dynamics.comparing.content import compare_content
from dynamics.comparing.effects import contrasts_of, effects, spreads
from dynamics.comparing.frames import effects_frame, onsets_frame
from dynamics.comparing.loading import ComparedRun
from dynamics.comparing.planning import plan
from dynamics.comparing.shifts import shifts
from dynamics.emergence.types import Interval
from dynamics.validating.designs import NOTHING, DesignScore, PlantedDesign, judge_pairs, judged, plant

FEW = {"sum 1": (0.9, 0.0), "third language 1": (0.0, 1.2), "other 1": (0.0, 0.0)}
SMALL = PlantedDesign(circuits=FEW)


@pytest.fixture(scope="module")
def runs() -> list[ComparedRun]:
    """Two choices, two seeds of each combination; share 0.34 then 0.17, german at 0 then at 400."""
    return plant(replace(SMALL, seeds=2), np.random.default_rng(0))


def changed(run: ComparedRun, **series: object) -> ComparedRun:
    return replace(run, config={**run.config, "series": {**run.config["series"], **series}})


def test_exactly_the_planted_effects_are_found() -> None:
    score, rng = DesignScore(), np.random.default_rng(1)
    for _ in range(2):
        judged(SMALL, score, rng)
    assert (score.exact, score.missed, score.false) == (2, 0, 0)
    assert score.covered >= score.judged - 2


def test_nothing_is_found_where_nothing_differs() -> None:
    score, rng = DesignScore(), np.random.default_rng(2)
    nothing = replace(SMALL, circuits=dict.fromkeys(FEW, (0.0, 0.0)), seeds=2)
    judged(nothing, score, rng)
    judge_pairs(replace(nothing, seeds=1, spread=0.0), score, rng)
    assert score.exact == 2 and score.covered >= score.judged - 1


@pytest.mark.slow
def test_nine_in_ten_designs_and_intervals_are_right() -> None:
    """The full figures are those of ``benchmarks/compare.py``."""
    score, rng = DesignScore(), np.random.default_rng(3)
    for _ in range(10):
        judged(PlantedDesign(), score, rng)
    assert score.exact >= 8 and score.missed == 0
    assert score.covered / score.judged > 0.92
    nothing = DesignScore()
    for _ in range(10):
        judged(replace(PlantedDesign(), circuits=NOTHING, seeds=2), nothing, rng)
    assert nothing.exact >= 8


def test_runs_that_differ_in_their_seed_alone_are_a_group(runs: list[ComparedRun]) -> None:
    design = design_of(runs)
    assert [f.label for f in design.factors] == ["french.share", "german.from_step"]
    assert design.groups == ((0, 1), (2, 3), (4, 5), (6, 7)) and design.repeated
    assert design.group_label(1) == "french.share 0.34, german.from_step 400"
    assert [d.kind for d in design.differences] == ["seed", "training", "training"]
    alone = design_of(runs[:2])
    assert alone.factors == () and alone.groups == ((0, 1),)


def test_choices_that_change_together_are_one(runs: list[ComparedRun]) -> None:
    design = design_of([runs[0], runs[7]])
    (factor,) = design.factors
    assert set(factor.keys) == {"series.curriculum.french.share", "series.curriculum.german.from_step"}
    assert any("always change together" in remark for remark in compare_content([runs[0], runs[7]], design)["remarks"])


def test_how_runs_were_measured_is_no_choice_about_training(runs: list[ComparedRun]) -> None:
    other = replace(runs[1], config={**runs[1].config, "dtype": "bfloat16", "description": "x", "device": "cuda"})
    one = replace(runs[0], config={**runs[0].config, "dtype": "float32"})
    design = design_of([one, other])
    assert [(d.key, d.kind) for d in design.differences] == [("series.seed", "seed"), ("dtype", "measuring")]
    said = " ".join(compare_content([one, other], design)["remarks"])
    assert "not measured alike: dtype (float32, bfloat16)" in said


def test_repeats_can_be_folders(runs: list[ComparedRun]) -> None:
    pair = [changed(runs[0], kind="folder", path=path) for path in ("/a", "/b")]
    alone = design_of(pair)
    assert alone.factors == () and not alone.repeated and [d.kind for d in alone.differences] == ["reading"]
    told = design_of(pair, ["series.path"])
    assert told.groups == ((0, 1),) and told.repeated
    both = [changed(one, seed=seed) for one, seed in zip([*pair, pair[1]], (0, 0, 1), strict=True)]
    assert design_of(both, ["series.path"]).trainings == (3,)  # beside the seed, not instead of it


def test_a_misspelt_key_of_repeats_is_refused_with_the_nearest(runs: list[ComparedRun]) -> None:
    with pytest.raises(UserError, match=r"series\.sede") as caught:
        design_of(runs, ["series.sede"])
    assert caught.value.remedy == "did you mean 'series.seed'?"


def test_a_run_measured_twice_is_one_training(runs: list[ComparedRun]) -> None:
    again = [replace(r, name=f"{r.name} again", config={**r.config, "dtype": "bfloat16"}) for r in runs[::2]]
    one_seed = [run for pair in zip(runs[::2], again, strict=True) for run in pair]
    design = design_of(one_seed)
    assert not design.repeated and design.trainings == (1, 1, 1, 1)
    content = compare_content(one_seed, design)
    assert content["effects"] == [] and any("count as one training" in remark for remark in content["remarks"])
    more = [*runs, *again]
    alone, with_copies = (effects(rows, design_of(rows), list(FEW))[0] for rows in (runs, more))
    for one, other in zip(alone, with_copies, strict=True):
        assert (one.freedom, one.estimate, one.emerged) == (other.freedom, pytest.approx(other.estimate), other.emerged)
    assert compare_content(more, design_of(more))["circuits"][0]["spread"]["freedom"] == 4
    without = replace(runs[0], findings={k: f for k, f in runs[0].findings.items() if k != "sum 1"})
    stand_in = [without, *more[1:]]  # what the first did not measure, the copy did
    (spread,) = spreads(stand_in, design_of(stand_in), ["sum 1"])
    assert spread.freedom == 4


def test_where_a_series_lies_and_how_it_is_read_is_no_choice_about_training(runs: list[ComparedRun]) -> None:
    def staged(path: str, name: str) -> dict[str, object]:
        parts = [
            {"stage": "pre", "series": {"kind": "folder", "path": path}, "starts": None},
            {"stage": "sft", "series": {"kind": "hub", "name": name, "keep": False}, "starts": 5},
        ]
        return {"kind": "staged", "parts": parts, "tokenizer": path}

    pair = [replace(runs[0], config={"series": staged(*names)}) for names in (("/a", "x"), ("/b", "y"))]
    design = design_of(pair)
    assert {d.key: d.kind for d in design.differences} == {
        "series.parts.pre.series.path": "reading",
        "series.parts.sft.series.name": "training",
        "series.tokenizer": "reading",
    }
    assert any("where their series lies" in remark for remark in compare_content(pair, design)["remarks"])
    longer = design_of([changed(runs[0], steps=10), changed(runs[0], steps=20)])
    assert longer.factors[0].label == "steps"  # of an organism, how long it is trained
    wide = [
        replace(changed(runs[0], kind="folder", path=p), model={"hidden_size": n}) for p, n in (("/a", 1), ("/b", 2))
    ]
    assert [f.keys for f in design_of(wide).factors] == [("model.hidden_size",)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "configurations of these runs do not differ"),
        ({"seed": 1}, "2 runs that differ in their seed alone"),
        ({"kind": "folder"}, "differ in no seed"),
    ],
)
def test_the_story_of_runs_without_a_choice(runs: list[ComparedRun], change: dict[str, object], said: str) -> None:
    pair = [runs[0], replace(changed(runs[0], **change), name="other")]
    (sentence,) = compare_content(pair, design_of(pair))["story"]
    assert said in sentence


def test_a_key_that_a_run_does_not_have_is_a_level(runs: list[ComparedRun]) -> None:
    config = {"series": {**runs[0].config["series"], "curriculum": {"german": {"share": 0.2, "from_step": 0}}}}
    design = design_of([runs[0], replace(runs[0], config=config)])
    assert design.factors[0].levels == ("0.34", ABSENT)
    assert flattened({"analyses": [{"name": "a"}, {"name": "b", "options": {"n": 1}}]}) == {
        "analyses.a": True,
        "analyses.b.options.n": 1,
    }


def test_without_repeats_no_effect_is_told_and_it_is_said_why(runs: list[ComparedRun]) -> None:
    single = runs[::2]
    content = compare_content(single, design_of(single))
    assert content["effects"] == [] and content["next"]["seeds_narrow"] == 3
    assert any("nothing is known of how far seeds lie apart" in remark for remark in content["remarks"])
    assert "further seeds" in content["next"]["text"][0]
    assert len(content["circuits"][0]["shifts"]) == 3  # measuring alone tells trainings apart


def test_a_combination_that_is_missing_leaves_effects_that_add_up(runs: list[ComparedRun]) -> None:
    design = design_of(runs[:6])
    matrix, contrasts, additive = contrasts_of(design)
    assert additive and matrix.shape == (6, 3) and [len(c.factors) for c in contrasts] == [1, 1]
    found = {(e.key, e.factors[0]): e for e in effects(runs[:6], design, list(FEW))[0]}
    assert found["sum 1", "french.share"].low < -0.9 < found["sum 1", "french.share"].high
    assert any("taken to add up" in remark for remark in compare_content(runs[:6], design)["remarks"])


def test_a_circuit_that_one_side_did_not_measure_cannot_be_told(runs: list[ComparedRun]) -> None:
    without = [replace(r, findings={k: f for k, f in r.findings.items() if k != "sum 1"}) for r in runs[4:]]
    found, _ = effects([*runs[:4], *without], design_of(runs), list(FEW))
    told = {(e.key, e.factors): e for e in found}
    effect = told["sum 1", ("french.share",)]
    assert np.isnan(effect.low) and "not measured" in effect.reason and effect.verdict == "cannot be told"
    assert not np.isnan(told["other 1", ("french.share",)].low)


def test_a_factor_that_is_never_varied_alone_cannot_be_told(runs: list[ComparedRun]) -> None:
    """Of three factors the third follows from the first two."""
    level = {0: 1, 1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 3, 7: 3}
    confounded = [changed(run, batch=level[n]) for n, run in enumerate(runs)]
    found, additive = effects(confounded, design_of(confounded), ["other 1"])
    assert additive and {e.reason for e in found if "batch" in e.factors} == {
        "these runs do not vary it apart from the other choices, or one of its sides was not measured"
    }


def test_onsets_that_never_came_count_as_later_than_the_last_checkpoint(runs: list[ComparedRun]) -> None:
    def never(run: ComparedRun) -> ComparedRun:
        finding = run.findings["other 1"]
        last = finding.steps[-1]
        gone = replace(finding.emergence, state="not emerged", onset=Interval(last, None), onset_range=None)
        missed = replace(finding, emergence=gone, onset_by=(np.inf,) * len(finding.onset_by))
        return replace(run, findings={**run.findings, "other 1": missed})

    half = [never(run) if n >= 4 else run for n, run in enumerate(runs)]
    found = {e.factors[0]: e for e in effects(half, design_of(half), ["other 1"])[0] if len(e.factors) == 1}
    effect = found["french.share"]  # 0.34 against 0.17, of which the latter never emerged: earlier by at least so much
    assert effect.low == -np.inf and effect.high < 0 and effect.emerged == ((4, 4), (0, 4))
    (shift,) = shifts([half[0], half[4]], ["other 1"])
    assert shift.interval[1] == np.inf and shift.interval[0] > 0 and shift.later == 1.0


def test_the_same_prompts_are_compared_draw_by_draw(runs: list[ComparedRun]) -> None:
    assert all(s.paired for s in shifts(runs[:2], list(FEW)))
    other = replace(runs[1], prompts={"planted": "others"})
    apart = shifts([runs[0], other], list(FEW))
    assert not any(s.paired for s in apart)
    assert not any(s.paired for s in shifts([runs[0], replace(runs[1], prompts={})], list(FEW)))
    widths = [sum(s.interval[1] - s.interval[0] for s in found) for found in (shifts(runs[:2], list(FEW)), apart)]
    assert widths[0] <= widths[1] + 1e-9


def test_schedules_need_not_be_the_same(runs: list[ComparedRun]) -> None:
    steps = runs[1].steps * 2
    findings = {
        key: replace(f, steps=tuple(2 * s for s in f.steps), onset_by=tuple(2 * b for b in f.onset_by))
        for key, f in runs[0].findings.items()
    }
    for key, f in findings.items():
        onset = f.emergence.onset
        assert onset is not None and onset.after is not None and onset.by is not None
        doubled = Interval(2 * onset.after, 2 * onset.by)
        findings[key] = replace(f, emergence=replace(f.emergence, onset=doubled))
    later = replace(runs[0], name="later", steps=steps, findings=findings)
    for shift in shifts([runs[0], later], list(FEW)):
        assert shift.interval[0] < 1.0 < shift.interval[1] and abs(sum(shift.between) / 2 - 1.0) < 0.05


def test_tokens_are_told_apart_where_a_step_has_not_the_same_number(runs: list[ComparedRun]) -> None:
    assert compare_content(runs, design_of(runs))["effects_tokens"] == []
    doubled = [changed(run, batch=192) for run in runs[:4]]
    doubled = [replace(run, tokens=run.tokens * 2, name=f"{run.name}b") for run in doubled]
    both = [*runs[:4], *doubled]
    content = compare_content(both, design_of(both))
    steps, tokens = (
        next(e for e in content[name] if e["key"] == "other 1" and e["factors"] == ["batch"])
        for name in ("effects", "effects_tokens")
    )
    assert tokens["estimate"] - steps["estimate"] == pytest.approx(1.0, abs=0.2)
    assert any("different numbers of tokens" in remark for remark in content["remarks"])


def test_tokens_of_other_schedules_and_of_warm_ups_are_compared_at_the_same_step(runs: list[ComparedRun]) -> None:
    grown = [replace(run, tokens=np.round(run.steps**1.1 * 100.0)) for run in runs[:2]]  # batches grow, in both alike
    assert compare_content(grown, design_of(grown))["circuits"][0]["shifts"][0]["interval_tokens"] is None
    half = replace(runs[1], tokens=runs[1].tokens * 0.5)
    assert compare_content([runs[0], half], design_of([runs[0], half]))["circuits"][0]["shifts"][0]["interval_tokens"]
    rounded = replace(runs[1], tokens=np.round(runs[1].tokens * 1.0003))
    assert (
        compare_content([runs[0], rounded], design_of(runs[:2]))["circuits"][0]["shifts"][0]["interval_tokens"] is None
    )


def test_tokens_of_the_first_checkpoint_are_finite(runs: list[ComparedRun]) -> None:
    finding = runs[0].findings["other 1"]
    early = replace(finding, emergence=replace(finding.emergence, onset=Interval(0, 1)), onset_by=(1.0,) * 200)
    run = replace(runs[0], findings={"other 1": early})
    known = run.known("other 1", "tokens")
    assert known is not None and known.low == pytest.approx(np.log2(2304.0)) and np.isfinite(known.draws).all()
    steps = run.known("other 1")
    assert steps is not None and known.high - known.low == pytest.approx(steps.high - steps.low)


def test_frames_have_a_row_for_every_circuit_and_run(runs: list[ComparedRun]) -> None:
    content = compare_content(runs, design_of(runs))
    frame = onsets_frame(content)
    assert len(frame) == 8 * 3 and set(frame["french.share"]) == {"0.34", "0.17"}
    assert frame["by"].dtype == float and (frame["high"] > frame["low"]).all()
    told = effects_frame(content)
    assert len(told) == 3 * 3 and {"estimate", "low", "high", "verdict"} <= set(told.columns)
    assert effects_frame({**content, "effects": []}).empty


def test_the_next_contrast_is_the_most_uncertain_one(runs: list[ComparedRun]) -> None:
    content = compare_content(runs, design_of(runs))
    told = content["next"]
    open_ones = [e for e in content["effects"] if e["verdict"] == "cannot be told" and len(e["factors"]) == 1]
    widest = max(open_ones, key=lambda e: e["interval"][1] - e["interval"][0])
    assert (told["key"], told["contrast"]) == (widest["key"], widest["contrast"])
    assert told["seeds_now"] == 2 and told["seeds_power_cautious"] >= told["seeds_power"] >= 2


def test_nothing_is_planned_where_the_spread_of_seeds_is_not_known(runs: list[ComparedRun]) -> None:
    design = design_of(runs)
    found, _ = effects(runs, design, ["other 1"])
    (spread,) = spreads(runs, design, ["other 1"])
    unknown = plan(design, found, [replace(spread, seeds=float("nan"), freedom=0)], {"other 1": "other"})
    assert unknown.seeds_power is None and "not known" in unknown.text[0]
    assert plan(design, found, [spread], {"other 1": "other"}).key == "other 1"
