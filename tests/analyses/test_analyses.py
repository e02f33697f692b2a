"""The analyses against truth: what was in the data emerges, what was not does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import dynamics
from analyses.induction.summary import _largest
from checkpoints.organism import OrganismConfig, WorldEntry
from dynamics.analyser import analyse
from dynamics.analysis.findings import Finding
from dynamics.analysis.section import Summary
from dynamics.runs.config import AnalysisEntry, Run
from tests.conftest import MadeOnce

pytestmark = pytest.mark.slow  # a calibration: a model is trained and traced
NAMES = ("addition", "shared_concepts", "induction")
ENGLISH_ONLY = OrganismConfig(
    steps=120,
    checkpoints=9,
    layers=2,
    d_model=64,
    heads=2,
    batch=48,
    curriculum={"english": WorldEntry(share=1, from_step=0)},
)
"""Nothing but English antonyms: French, German, sums and repeats never occur."""


@pytest.fixture(scope="module")
def english(made_once: MadeOnce) -> tuple[Path, Run]:
    run = Run(series=ENGLISH_ONLY, analyses=tuple(AnalysisEntry(name=n) for n in NAMES))

    def make(folder: Path) -> None:
        dynamics.collect("english", run=run, traces=folder)
        analyse("english", run=run, traces=folder)

    return made_once("english", make), run


@pytest.fixture(scope="module")
def summaries(english: tuple[Path, Run]) -> dict[str, Summary]:
    folder, run = english
    return dict(analyse("english", run=run, traces=folder))


def state(summary: Summary, key: str) -> str:
    return summary.finding(key).emergence.state


def test_what_was_in_the_data_emerges(summaries: dict[str, Summary]) -> None:
    found = summaries["shared_concepts"].finding("accuracy.english")
    assert found.emergence.state == "emerged"
    assert found.values[-1] > 0.8
    assert found.emergence.onset is not None
    assert found.emergence.onset.after is not None  # not at step 0


@pytest.mark.parametrize(
    "key", ["accuracy.french", "accuracy.german", "transfer.french", "transfer.german", "transfer"]
)
def test_languages_that_never_occurred_do_not_emerge(summaries: dict[str, Summary], key: str) -> None:
    assert state(summaries["shared_concepts"], key) in ("not emerged", "not measurable")


@pytest.mark.parametrize("key", ["accuracy", "digit.tens", "digit.ones", "ones_across", "shared_neurons"])
def test_addition_that_never_occurred_does_not_emerge(summaries: dict[str, Summary], key: str) -> None:
    assert state(summaries["addition"], key) in ("not emerged", "not measurable")


@pytest.mark.parametrize("key", ["prefix_matching", "copying"])
def test_induction_that_was_never_needed_does_not_emerge(summaries: dict[str, Summary], key: str) -> None:
    assert state(summaries["induction"], key) in ("not emerged", "not measurable")


def test_every_headline_carries_its_definitions_and_the_thresholded_ones_their_twin(
    summaries: dict[str, Summary],
) -> None:
    for summary in summaries.values():
        for finding in summary.findings:
            assert len(finding.onsets) >= 4, finding.key
            assert finding.onsets[0].between == finding.emergence.onset
    twins = {f.key: f.twin for s in summaries.values() for f in s.findings if f.twin}
    assert twins == {
        "addition.accuracy": "addition.logprob",
        "addition.exchange_said": "addition.exchange",
        "addition.exchange_own_said": "addition.exchange_own",
        "shared_concepts.exchange": "shared_concepts.exchange.gain",
        "shared_concepts.exchange_own": "shared_concepts.exchange_own.gain",
        "shared_concepts.exchange.word": "shared_concepts.exchange.word.gain",
        "shared_concepts.transfer": "shared_concepts.transfer.logprob",
        "shared_concepts.accuracy": "shared_concepts.accuracy.logprob",
        "shared_concepts.retrieval": "shared_concepts.cosine",
        "shared_concepts.retrieval.word": "shared_concepts.cosine.word",
    }
    assert all(f.mirage is not None for s in summaries.values() for f in s.findings if f.twin)


def test_what_was_measured_on_the_same_prompts_has_one_sample(summaries: dict[str, Summary]) -> None:
    def sample(key: str) -> str:
        return summaries[key.split(".")[0]].finding(key.partition(".")[2]).sample

    assert sample("addition.accuracy") == sample("addition.digit.ones") == sample("addition.ones_across") != ""
    assert sample("addition.accuracy") not in (sample("addition.accuracy.plain"), sample("addition.magnitude"))
    assert sample("induction.prefix_matching") == sample("induction.copying") != ""
    assert sample("shared_concepts.retrieval") == sample("shared_concepts.cosine") != sample("shared_concepts.accuracy")


def test_heads_that_were_never_needed_are_not_found(summaries: dict[str, Summary]) -> None:
    data = summaries["induction"].data
    assert data["heads_found"].values[-1] <= 1
    assert any("false discovery rate 5%" in note for note in summaries["induction"].notes)


def test_every_finding_has_a_null_and_survives_json(summaries: dict[str, Summary]) -> None:
    for summary in summaries.values():
        text = json.dumps(summary.to_json(), allow_nan=False)
        again = Summary.from_json(json.loads(text), summary.data)
        for one, other in zip(summary.findings, again.findings, strict=True):
            assert one.emergence == other.emergence
            assert (one.onsets, one.onset_by, one.mirage) == (other.onsets, other.onset_by, other.mirage)
            assert one.emergence.null
            np.testing.assert_array_equal(one.values, other.values)
            assert isinstance(one, Finding)


@pytest.mark.usefixtures("laid_out")
def test_a_report_is_made_again_from_stored_results_without_weights(english: tuple[Path, Run], tmp_path: Path) -> None:
    folder, run = english
    first = dynamics.report("english", run=run, traces=folder, reports=tmp_path / "a")
    second = dynamics.report("english", run=run, traces=folder, reports=tmp_path / "b")
    assert first.content == second.content
    pages = [(where / "english" / "index.html").read_bytes() for where in (tmp_path / "a", tmp_path / "b")]
    assert pages[0] == pages[1]
    names = {p.stem for p in (tmp_path / "a/english/figures").glob("*.svg")}
    assert names == {p.stem for p in (tmp_path / "a/english/figures").glob("*.png")}
    assert {"timeline", "definitions", "addition-behaviour", "induction-heads", "shared_concepts-sharing"} <= names
    assert first.content["format"] == 4
    assert set(first.content["order"]) == {"false_discovery_rate", "circuits", "pairs", "unresolved", "left_out"}
    assert first.content["definitions"]["found"] > 0
    page = pages[0].decode()
    assert "Do the definitions of emergence agree?" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert not re.search(r"<(script|link|img)\b[^>]*\b(src|href)=[\"']?(https?:)?//", page)


def test_stored_predictions_are_greedy_choices(english: tuple[Path, Run]) -> None:
    """What the trace says the model predicts is what plain transformers would say next."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from checkpoints.organism import organism_folder

    folder, _ = english
    trace = dynamics.Trace(folder / "english.zarr")
    last = organism_folder("english", ENGLISH_ONLY) / f"step{trace.steps[-1]}"
    model = AutoModelForCausalLM.from_pretrained(last, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(last)
    texts, answers = trace.label("concept_antonyms", "text"), trace.probe("concept_antonyms")["answer_id"].values
    language = trace.label("concept_antonyms", "language")
    rows = np.flatnonzero(language == "english")[:20]
    with torch.no_grad():
        greedy = [int(model(**tokenizer(str(texts[r]), return_tensors="pt")).logits[0, -1].argmax()) for r in rows]
    stored = trace.values("concept_antonyms", "predicted")[-1, rows]
    assert stored.tolist() == greedy
    assert (stored == answers[rows]).mean() > 0.5


def test_the_largest_head_is_taken_of_every_resample() -> None:
    values = np.zeros((2, 30, 1, 2))
    values[0, :, 0, 1] = 0.5
    drawn = _largest(values, seed=0)
    np.testing.assert_allclose(drawn[0], 0.5)
    np.testing.assert_allclose(drawn[1], 0.0)


def test_heads_are_found_by_their_own_control_and_not_by_a_threshold() -> None:
    """Two heads look back where there is a repeat, one only weakly; a third looks back always, and is not one."""
    from analyses.induction.prompts import CONTROL, REPEATS
    from analyses.induction.summary import _heads_found

    rng = np.random.default_rng(0)
    checkpoints, prompts = 12, 40
    scores = {name: 0.05 + 0.01 * rng.normal(size=(checkpoints, prompts, 2, 4)) for name in (REPEATS, CONTROL)}
    scores[REPEATS][7:, :, 1, 2] += 0.6
    scores[REPEATS][9:, :, 0, 1] += 0.05
    for values in scores.values():
        values[:, :, 0, 3] += 0.5
    scores[REPEATS][3] = np.nan  # a checkpoint that failed

    class Made:
        steps = np.arange(12) * 10

        def values(self, probe: str, name: str) -> np.ndarray:
            return scores[probe]

    found, text = _heads_found(Made())  # type: ignore[arg-type]
    expected = np.array([0, 0, 0, np.nan, 0, 0, 0, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(found, expected)
    assert text.startswith("2 of 8 heads match prefixes beyond their own score")
    assert "half of them did by (60, 70]" in text


def test_induction_resamples_prompts_as_the_engine_does() -> None:
    """The draws of attention curves and of loss curves are paired: the same prompts, draw by draw."""
    from dynamics.emergence import unit_bootstrap

    values = np.random.default_rng(0).random((3, 30, 1, 1))
    np.testing.assert_allclose(_largest(values, seed=0), unit_bootstrap(values[:, :, 0, 0], draws=400)[:, :200])


def test_knowing_the_digits_before_is_not_adding() -> None:
    """A model that says the most frequent tens digit given the carry, and nothing of the operands, follows the null."""
    from analyses.addition.prompts import ORGANISM, sum_probe
    from analyses.addition.summary import _asked_alike
    from dynamics.emergence import assess, shuffled_match_null

    probe = sum_probe(ORGANISM, 120, 0)
    labels = {k: np.array(v) for k, v in probe.labels.items()}
    rows = labels["digit"] == "tens"
    tens, carry = labels["total"][rows] // 10 % 10, labels["total"][rows] // 100
    best = {c: np.bincount(tens[carry == c]).argmax() for c in (0, 1)}
    said = np.tile([best[c] for c in carry], (8, 1))
    null = shuffled_match_null(said, tens, groups=_asked_alike(labels)[rows])
    found = assess(range(8), (said == tens).mean(1), null=null, null_name="alike", limits=(0, 1))
    assert found.state == "not emerged"
    assert (said == tens).mean() > 1.5 / 10  # though it is well above one in ten


def test_two_templates_answered_alike_are_dealt_one_answer() -> None:
    from dynamics.emergence import shuffled_match_null

    rng = np.random.default_rng(0)
    answers = np.repeat(np.arange(36), 2)
    said = np.repeat(rng.integers(36, size=(1, 36)), 2, axis=1)
    narrow = shuffled_match_null(said, answers, draws=2000)
    wide = shuffled_match_null(said, answers, questions=np.repeat(np.arange(36), 2), draws=2000)
    assert wide.std() == pytest.approx(np.sqrt(2) * narrow.std(), rel=0.15)
    with pytest.raises(ValueError, match="two answers"):
        shuffled_match_null(said, np.arange(72), questions=np.repeat(np.arange(36), 2))


@pytest.mark.slow
def test_a_series_of_broken_models_is_not_measurable(tiny_series: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    from checkpoints.local import FolderConfig

    few = shutil.ignore_patterns("step1", "step2", "step6")
    shutil.copytree(tiny_series, tmp_path / "nan", ignore=few)
    for file in (tmp_path / "nan").glob("step*/model.safetensors"):
        save_file({k: v * np.nan for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    small = {"addition": {"per_context": 20}, "shared_concepts": {}, "induction": {"prompts": 8, "pairs": 20}}
    entries = tuple(AnalysisEntry(name=name, options=options) for name, options in small.items())
    run = Run(series=FolderConfig(path=tmp_path / "nan"), analyses=entries)
    done = dynamics.collect("nan", run=run, traces=tmp_path)
    assert len(done.nonfinite) == len(done.collected) == 3
    written = dynamics.report("nan", run=run, traces=tmp_path, reports=tmp_path / "reports")
    assert {row["state"] for row in written.content["emergence"]} == {"not measurable"}
