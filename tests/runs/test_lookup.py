"""What a name on the command line means."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import dynamics
from checkpoints import FolderConfig, UserError
from checkpoints.hub import HubConfig
from dynamics.cli import cli
from dynamics.runs.lookup import find_run, trace_name
from dynamics.runs.plan import built_in
from dynamics.store import Trace
from tests.conftest import runs_file


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_published_series_needs_no_runs_file() -> None:
    name, run = find_run("pythia-70m")
    assert name == "pythia-70m"
    assert run.series == HubConfig(name="pythia-70m")
    assert [entry.name for entry in run.analyses] == built_in()
    assert all(entry.optional for entry in run.analyses)


def test_a_run_of_the_file_goes_before_a_series_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "runs.yaml").write_text("pythia-70m:\n  series: pythia-160m\n  analyses: [induction]\n")
    _, run = find_run("pythia-70m")
    assert run.series == HubConfig(name="pythia-160m")


@pytest.mark.slow
def test_a_folder_is_collected_analysed_and_reported_by_its_path(tiny_series: Path, tmp_path: Path) -> None:
    series = tmp_path / "elsewhere/tiny"
    shutil.copytree(tiny_series, series, ignore=shutil.ignore_patterns("step1", "step2", "step6"))
    (tmp_path / "my-training").symlink_to(series)
    for verb in ("collect", "status", "analyse", "report", "verify"):
        result = CliRunner().invoke(cli, [verb, "./my-training"], catch_exceptions=False)
        assert result.exit_code == 0, (verb, result.output)
    assert trace_name("./my-training") == series.name
    trace = Trace(tmp_path / "traces" / f"{series.name}.zarr")
    planned = [entry["name"] for entry in trace.attributes["run_config"]["analyses"]]
    # their words are not in this organism's vocabulary
    without = {"agreement", "faithfulness", "gender", "greater_than", "hallucination", "ioi", "sycophancy"}
    assert planned == [name for name in built_in() if name not in without]
    found, run = find_run(series.name)  # by the name of its trace, too
    assert isinstance(run.series, FolderConfig)
    assert found == series.name


def test_analyses_that_do_not_fit_are_left_out_with_a_remark(tmp_path: Path) -> None:
    import transformers as hf

    from checkpoints.tokenizing import word_tokenizer

    words = word_tokenizer([f"w{i}" for i in range(100)])
    config = hf.GPT2Config(
        vocab_size=100, n_positions=128, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    for step in (0, 1):
        hf.GPT2LMHeadModel(config).save_pretrained(tmp_path / "series" / f"step{step}")
        words.save_pretrained(tmp_path / "series" / f"step{step}")
    said: list[str] = []
    name, run = find_run("./series")

    class Listens(dynamics.progress.Reporter):  # type: ignore[name-defined,misc]
        def say(self, text: str) -> None:
            said.append(text)

    done = dynamics.collect(name, run=run, reporter=Listens(quiet=True))
    planned = [entry["name"] for entry in Trace(done.trace).attributes["run_config"]["analyses"]]
    fits = ["feature_census", "induction"]  # of which the first asks for no prompts
    assert planned == fits
    assert {text.split("'")[1] for text in said if "left out" in text} == set(built_in()) - set(fits)
    assert list(dynamics.analyse(name, run=run)) == fits


def test_a_name_that_means_nothing_is_told_what_there_is(tiny_series: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the runs file runs.yaml cannot be read(.|\n)*--runs"):
        find_run("nonsense")
    runs_file(tmp_path, tiny_series)
    with pytest.raises(UserError, match=r"no run 'pythia-71m'(.|\n)*did you mean 'pythia-7"):
        find_run("pythia-71m")
    with pytest.raises(UserError, match=r"there is nothing at \./nowhere"):
        find_run("./nowhere")


def test_the_catalogue_is_listed_and_described() -> None:
    listed = CliRunner().invoke(cli, ["series"])
    assert listed.exit_code == 0
    assert "EleutherAI/pythia-410m-deduped" in listed.output
    one = CliRunner().invoke(cli, ["series", "pythia-2.8b"])
    assert "known faults" in one.output and "issues/205" in one.output
    wrong = CliRunner().invoke(cli, ["series", "pythia-3b"])
    assert "did you mean" in str(wrong.exception)
