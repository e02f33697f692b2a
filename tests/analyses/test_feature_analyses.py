"""What the analyses say of made dictionaries: planted features are found with their births, others are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dynamics
from analyses import feature_census
from analyses.addition.feature_figures import feature_figures as addition_figures
from analyses.addition.features import feature_section
from analyses.addition.prompts import ORGANISM as SUMS
from analyses.addition.prompts import grid_probe, ones_probe
from analyses.feature_census import Options, figures, plan
from analyses.feature_census.census import census_notes
from analyses.feature_census.gallery import plain
from analyses.shared_concepts import features as concepts
from analyses.shared_concepts.feature_figures import feature_figures as concept_figures
from analyses.shared_concepts.prompts import ORGANISM as QUESTIONS
from analyses.shared_concepts.prompts import word_probe
from dynamics.analysis import Analysis, Context, Summary
from dynamics.analysis.features import FeatureReader
from dynamics.runs.config import AnalysisEntry, Run
from dynamics.store import Trace
from tests.analyses.feature_traces import STEPS, add_dictionary, made_trace

ONES, GRID, WORDS = ones_probe(SUMS), grid_probe(SUMS), word_probe(QUESTIONS)
FEATURES = 12
BORN = 3
OTHERS = [pytest.param(method, marks=pytest.mark.slow) for method in ("chain", "published")]
"""Kinds of dictionaries that the fast tests leave out: they differ in what is read, not in what is computed."""
"""Place of the checkpoint at which planted features are there."""


def noise(prompts: int, seed: int, rate: float = 0.15) -> np.ndarray:
    """(snapshot, prompt, feature) answers that have nothing to do with the prompts."""
    rng = np.random.default_rng(seed)
    one = np.where(rng.random((prompts, FEATURES)) < rate, rng.exponential(size=(prompts, FEATURES)), 0.0)
    return np.repeat(one[None], len(STEPS), axis=0)


def labels(probe: object, name: str) -> np.ndarray:
    return np.array(probe.labels[name])  # type: ignore[attr-defined]


def grown() -> np.ndarray:
    """(feature, snapshot) all there from the start but feature 0, which is born."""
    strength = np.ones((FEATURES, len(STEPS)))
    strength[0, :BORN] = 0.05
    return strength


def adding(folder: Path, method: str = "crosscoder", planted: bool = True) -> Trace:
    """A dictionary with a feature for sums that end in 5 and one that grows with the sum, or with neither."""
    ones, grid = noise(len(ONES.text), 1), noise(len(GRID.text), 2)
    if planted:
        # the code knows all checkpoints: which prompts it answers is right even where the decoder is not there yet
        for x, probe in ((ones, ONES), (grid, GRID)):
            x[:, :, 0] = 2.0 * (labels(probe, "ones") == 5)
            if method != "crosscoder":
                x[:BORN, :, 0] = 0.0
        grid[:, :, 1] = labels(GRID, "total") / 20.0
    probes = {"ones": (ONES, {"last": ones}), "grid": (GRID, {"last": grid})}
    born = {0: (STEPS[BORN - 1], STEPS[BORN])} if planted else {}
    return add_dictionary(made_trace(folder), "made", probes, grown(), method=method, born=born)


def added(trace: Trace) -> Summary:
    return feature_section(trace).summary(trace, analysis="addition", title="", question="")


def shared(trace: Trace) -> Summary:
    return concepts.feature_section(trace).summary(trace, analysis="shared_concepts", title="", question="")


@pytest.mark.parametrize("method", ["crosscoder", *OTHERS])
def test_a_planted_lookup_feature_is_found_since_its_birth(tmp_path: Path, method: str) -> None:
    trace = adding(tmp_path, method)
    found = added(trace)
    (finding,), (note,) = found.findings, found.notes
    assert finding.headline and finding.emergence.state == "emerged"
    onset = finding.emergence.onset
    assert onset is not None and (onset.after, onset.by) == (STEPS[BORN - 1], STEPS[BORN])
    assert finding.values[-1] > 0.9 and max(finding.values[:BORN]) < 0.2
    assert "Lookup-table features for ones digits in all contexts: 1: 0 (sum ends in 5;" in note
    assert ("born in (20, 40]" in note) == (method == "crosscoder")
    assert "1 magnitude feature follows the sum" in note and "1 (R² 1.00" in note
    drawn = addition_figures(found)
    assert list(drawn) == ["features", "features_made_digits", "features_made_grid"]
    for figure in drawn.values():
        figure.canvas.draw()
    tables = found.data["made_tables"].values  # (feature, time, context, i, j)
    assert tables[0, -1, :, 6, 9].min() > 1.9 and np.abs(tables[0, -1, :, 6, 8]).max() < 1e-6


def test_without_planted_features_nothing_is_found(tmp_path: Path) -> None:
    (finding,), (note,) = (lambda f: (f.findings, f.notes))(added(adding(tmp_path, planted=False)))
    assert finding.emergence.state == "not emerged"
    assert "No feature is for ones digits with 25% of its variance in all contexts" in note
    assert "For one pair of digits in all contexts: none." in note and "No feature grows with the sum" in note


def test_a_feature_of_one_context_is_none_of_all(tmp_path: Path) -> None:
    x = noise(len(ONES.text), 1)
    x[:, :, 0] = 2.0 * ((labels(ONES, "ones") == 5) & (labels(ONES, "context") == "plain"))
    x[:, :, 1] = 2.0 * ((labels(ONES, "operand_a") % 10 == 6) & (labels(ONES, "operand_b") % 10 == 9))
    trace = add_dictionary(made_trace(tmp_path), "made", {"ones": (ONES, {"last": x})}, np.ones((FEATURES, len(STEPS))))
    found = added(trace)
    assert found.findings[0].emergence.state == "not emerged"
    assert "No feature is for ones digits" in found.notes[0]
    assert "For one pair of digits in all contexts: 1 (6 + 9)." in found.notes[0]


def speaking(folder: Path, planted: bool = True, method: str = "crosscoder") -> Trace:
    """Features 0 and 1 answer the same few concepts in every language; 2 answers one language."""
    answers = {}
    for position in ("word", "last"):
        x = noise(len(WORDS.text), 4, rate=0.1)
        if planted and position == "last":
            concept = labels(WORDS, "concept")
            for feature, some in ((0, (3, 11, 20)), (1, (5, 30))):
                x[:, :, feature] = 3.0 * np.isin(concept, some)
                if method != "crosscoder":
                    x[:BORN, :, feature] = 0.0
            x[:, :, 2] = 3.0 * (labels(WORDS, "language") == "french")
        answers[position] = x
    strength = grown()
    strength[1] = strength[0]
    born = dict.fromkeys((0, 1), (STEPS[BORN - 1], STEPS[BORN])) if planted else {}
    return add_dictionary(made_trace(folder), "made", {"words": (WORDS, answers)}, strength, method=method, born=born)


@pytest.mark.parametrize("method", ["crosscoder", OTHERS[0]])
def test_planted_concept_features_are_found_in_all_languages_since_their_birth(tmp_path: Path, method: str) -> None:
    trace = speaking(tmp_path, method=method)
    found = shared(trace)
    answer, word = found.findings
    assert answer.emergence.state == "emerged" and answer.headline and not word.headline
    onset = answer.emergence.onset
    assert onset is not None and (onset.after, onset.by) == (STEPS[BORN - 1], STEPS[BORN])
    assert word.emergence.state == "not emerged"
    assert found.data["made_last_concept"].values.tolist() == [f in (0, 1) for f in range(FEATURES)]
    assert not found.data["made_word_concept"].values.any()
    assert (
        "2 answer the same words in all of them" in found.notes[0] and "none answers the same words" in found.notes[1]
    )
    assert ("2 of them are born during training, the first by step 40" in found.notes[0]) == (method == "crosscoder")
    drawn = concept_figures(found)
    assert list(drawn) == ["features", "features_made_last"]
    for figure in drawn.values():
        figure.canvas.draw()


def test_languages_that_share_nothing_are_not_found_to(tmp_path: Path) -> None:
    found = shared(speaking(tmp_path, planted=False))
    assert [f.emergence.state for f in found.findings] == ["not emerged"] * 2


def test_shuffled_concepts_keep_what_opposites_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature for one side of every concept is none of a concept; false finds are as rare as stated."""
    monkeypatch.setattr(concepts, "_DEALS", 199)
    concept, side = np.repeat(np.arange(40), 2), np.tile([0.0, 1.0], 40)
    rng = np.random.default_rng(0)
    x = np.where(rng.random((3, 80, 400)) < 0.1, rng.exponential(size=(3, 80, 400)), 0.0)
    x[:, :, 0] = side + 0.1 * rng.random((3, 80))
    least, p, found = concepts.concept_features(x, concept)
    assert least[0] > 0.9 and p[0] > 0.05
    assert (p[1:] <= 0.05).mean() < 0.08 and found.sum() <= 2


def summarise(trace: Trace, options: Options) -> Summary:
    return Analysis("feature_census", feature_census).summary(trace, options)


def test_the_census_counts_births_turning_points_and_labels(tmp_path: Path) -> None:
    trace = adding(tmp_path)
    summary = summarise(trace, Options(draws=99, gallery=4))
    (finding,) = summary.findings
    assert finding.key == "feature_census.made.present" and finding.values[0] == pytest.approx(11 / 12)
    text = "\n".join(summary.notes)
    assert "1 are born, 0 die, 12 are present in the end, 11 of them from the start" in text
    assert "1 pairs split, 0 merge" in text and "Most births, 1, lie in (20, 40]" in text
    assert "features move together most in (20, 40], by 0.50" in text and "In no other transition" in text
    assert "the loss at step 160 would rise most, per token, without feature 0, 0.110 ± 0.022 nats" in text
    assert "born in (20, 40]; feature 1, 0.100 ± 0.020 nats" in text and "4 of 12 features carry half" in text
    assert "none was held against this count" in text
    assert "made by hand" in text
    data = summary.data
    found = dict(zip(data["made_label"].values.tolist(), data["made_enriched"].values.tolist(), strict=True))
    assert found["ones (addition_ones, last)"] >= 1 and found["context (addition_ones, last)"] <= 1
    assert found["total (addition_grid, last)"] >= 1
    assert "Feature 0: ones = 5 in addition_" in text and "Fires on: $x_1$ cat↵«5»" in text
    again = Summary.from_json(json.loads(json.dumps(summary.to_json())), data)
    drawn = figures(again)
    assert set(drawn) == {"present", "made_census", "made_effects", "made_labels", "made_gallery"}
    for figure in drawn.values():
        figure.canvas.draw()


@pytest.mark.parametrize("method", OTHERS)
def test_the_census_of_other_dictionaries(tmp_path: Path, method: str) -> None:
    summary = summarise(adding(tmp_path, method), Options(draws=99, gallery=2))
    text = "\n".join(summary.notes)
    if method == "chain":
        assert "4 tracks; 2 begin after the first checkpoint, 1 end before the last, 1 run through" in text
        assert "the tokens of 1 were another feature's before" in text and "the tokens of 0 are another's after" in text
        assert "Shown to be born are 1, to die 1; most births, 1, lie in (20, 40]" in text
        assert "no second training, and no series of untrained models, was held against" in text
        assert "feature 0, 0.110 ± 0.022 nats (makes $x_1$, cat↵ likelier), born in (20, 40]" in text
        assert "there from step 0 on" in text and "followed from step 40 on, its tokens were another feature's" in text
        assert summary.findings[0].values[0] == pytest.approx(1 / 3)
        np.testing.assert_allclose(summary.data["made_top_strength"][:, 0], [0, 0, 0, 1, 1, 1])
    else:
        assert not summary.findings and "trained elsewhere" in text
    assert "Unexplained variance 30.0% at step 0, 10.0% at step 160" in text
    for figure in figures(summary).values():
        figure.canvas.draw()


@pytest.mark.parametrize("method", ["crosscoder", *OTHERS])
def test_what_an_older_version_learned_is_reported_without_effects(tmp_path: Path, method: str) -> None:
    x = noise(len(ONES.text), 1)
    x[:, :, 0] = 2.0 * (labels(ONES, "ones") == 5)
    probes = {"ones": (ONES, {"last": x})}
    trace = add_dictionary(made_trace(tmp_path), "made", probes, grown(), method=method, older=True)
    summary = summarise(trace, Options(draws=99, gallery=2))
    assert "Effects" not in "".join(summary.notes) and "effect" not in "".join(map(str, summary.data))
    for figure in figures(summary).values():
        figure.canvas.draw()


@pytest.mark.parametrize(
    ("beyond", "said"),
    [
        ([2], "In no other transition does it exceed that"),
        ([1, 2], "It exceeds that in (10, 40]."),
        (
            [0, 1, 2, 3],
            "It does not in 4 of 5 transitions, (0, 80]: change is spread over most of the series, no single",
        ),
        ([], "none beyond features that move each at a time of its own"),
    ],
)
def test_turning_points_are_a_moment_or_are_said_not_to_be(tmp_path: Path, beyond: list[int], said: str) -> None:
    trace = adding(tmp_path)
    reader = FeatureReader(trace, "made")
    change = np.full(5, 0.1)
    change[beyond] = 0.3
    change[2] += 0.1 * (2 in beyond)
    reader.table.about["change"] = ("transition", change)
    (note,) = (n for n in census_notes(reader) if n.startswith("Turning points"))
    assert said in note
    assert ("most in (20, 40], by 0.40" in note) == bool(beyond)


def test_a_dictionary_that_answers_nothing_is_said_to(tmp_path: Path) -> None:
    probes = {p.name: (p, {at: np.zeros((len(STEPS), len(p.text), FEATURES)) for at in ats})
              for p, ats in ((ONES, ("last",)), (GRID, ("last",)), (WORDS, ("word", "last")))}  # fmt: skip
    trace = add_dictionary(made_trace(tmp_path), "dead", probes, np.zeros((FEATURES, len(STEPS))))
    sums, words = added(trace), shared(trace)
    for found in (sums, words):
        assert {f.emergence.state for f in found.findings} <= {"not emerged", "not measurable"}
    assert "explains 0% of the variance" in sums.notes[0]
    assert "of 0 features that answer in all languages none answers" in words.notes[0]
    for drawn in (addition_figures(sums), concept_figures(words)):
        assert list(drawn) == ["features"]
        drawn["features"].canvas.draw()
    census = summarise(trace, Options(draws=99))
    assert "0 of 0" in "".join(census.notes)
    assert "dead_gallery" not in figures(census)


def test_without_dictionaries_there_is_a_note_and_no_crash(tmp_path: Path) -> None:
    trace = Trace(made_trace(tmp_path))
    summary = summarise(trace, Options())
    assert not summary.findings and not figures(summary)
    for notes in (summary.notes, added(trace).notes, shared(trace).notes):
        assert len(notes) == 1 and "dynamics learn RUN" in notes[0]
    assert plan(Context(None), Options()) == []


@pytest.mark.slow
def test_an_analysis_that_plans_nothing_is_collected_and_reported(tiny_series: Path, tmp_path: Path) -> None:
    from checkpoints.local import FolderConfig

    entries = tuple(AnalysisEntry(name=n) for n in ("induction", "feature_census"))
    run = Run(series=FolderConfig(path=tiny_series), analyses=entries)
    dynamics.collect("tiny", run=run, traces=tmp_path)
    written = dynamics.report("tiny", run=run, traces=tmp_path, reports=tmp_path / "reports")
    page = (written.folder / "index.html").read_text(encoding="utf-8")
    assert "No dictionaries were learned" in page


def test_answers_are_weighted_by_decoders_and_only_a_chain_has_no_features_through_training(tmp_path: Path) -> None:
    reader = FeatureReader(adding(tmp_path), "made")
    assert reader.at(ONES.name, "last", -1)[:, 0].max() == pytest.approx(2.0)
    assert reader.at(ONES.name, "last", 0)[:, 0].max() == pytest.approx(0.1)
    np.testing.assert_allclose(reader.of(ONES.name, "last", [0])[0, :, 0], reader.at(ONES.name, "last", 0)[:, 0])
    assert reader.since(0) == "born in (20, 40]" and reader.since(1) == "there from step 0 on"
    assert reader.spread(np.ones(len(STEPS))).tolist() == [1.0] * len(STEPS)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="others at every checkpoint"):
        FeatureReader(adding(tmp_path / "other", "chain"), "made").of(ONES.name, "last", [0])


def test_tokens_are_shown_as_they_read() -> None:
    assert [plain(t) for t in ("Ġcat", "▁dog", "Ċ", "日")] == [" cat", " dog", "↵", "□"]
