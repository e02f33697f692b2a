"""The command line: nonsense gets exit code 2 and one clear message, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import zarr
from safetensors.torch import load_file, save_file

from dynamics.store import Trace, writer_lock
from dynamics.store.manifest import ROOT_COPY
from tests.cli.commands import Dynamics
from tests.cli.conftest import VERBS, files, refused


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_run_suggests_the_nearest(dynamics: Dynamics, project: Path, verb: str) -> None:
    refused(dynamics(verb, "mien"), "there is no run 'mien'", "did you mean 'mine'")


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_key_in_the_runs_file_suggests_the_nearest(dynamics: Dynamics, project: Path, verb: str) -> None:
    with (project / "runs.yaml").open("a") as stream:
        stream.write("  shedule: log\n")
    refused(dynamics(verb, "mine"), "unknown key 'shedule'", "did you mean 'schedule'")


@pytest.mark.parametrize("verb", VERBS)
def test_a_runs_file_that_is_missing_or_no_yaml_is_named(dynamics: Dynamics, tmp_path: Path, verb: str) -> None:
    refused(dynamics(verb, "mine"), "runs.yaml cannot be read", "--runs")
    refused(dynamics(verb, "mine", "--runs", "elsewhere.yaml"), "elsewhere.yaml cannot be read")
    (tmp_path / "runs.yaml").write_text("mine: [")
    refused(dynamics(verb, "mine"), "runs.yaml is not YAML")


def test_an_unknown_analysis_is_refused_before_any_training(dynamics: Dynamics, tmp_path: Path) -> None:
    (tmp_path / "runs.yaml").write_text("mine: {series: {kind: organism}, analyses: [inducton]}\n")
    for arguments in (("collect", "mine"), ("collect", "mine", "--dry-run"), ("analyse", "mine"), ("report", "mine")):
        refused(dynamics(*arguments), "there is no analysis 'inducton'", "did you mean 'induction'")
    assert not list((tmp_path / "traces").glob("*.zarr"))


def test_analysing_what_the_run_does_not_list_is_refused(dynamics: Dynamics, collected: Path) -> None:
    refused(dynamics("analyse", "mine", "addition"), "run 'mine' has no analysis 'addition'", "add it to the run")
    refused(dynamics("analyse", "mine", "inducton"), "did you mean 'induction'")


def test_an_unknown_option_of_an_analysis_is_refused(dynamics: Dynamics, project: Path) -> None:
    text = (project / "runs.yaml").read_text().replace("prompts: 8", "promts: 8")
    (project / "runs.yaml").write_text(text)
    refused(dynamics("collect", "mine"), "analysis 'induction' has no option 'promts'", "did you mean 'prompts'")


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "other", "no config"])
def test_a_folder_that_is_no_series_is_refused(dynamics: Dynamics, project: Path, kind: str) -> None:
    series = project / "series"
    if kind == "no config":
        for file in series.glob("*/config.json"):
            file.unlink()
    else:
        shutil.rmtree(series)
        if kind == "file":
            series.write_text("x")
        elif kind != "missing":
            series.mkdir()
            if kind == "other":
                (series / "holidays").mkdir()
    texts = {
        "missing": ("there is no", "series.path"),
        "file": ("cannot be read as weights", "save this checkpoint again"),
    }
    for arguments in (("collect", "mine"), ("collect", "mine", "--dry-run")):
        refused(dynamics(*arguments), *texts.get(kind, ("is not a series of checkpoints", "series.path")), "expected:")


def remove_a_tensor(series: Path, step: int) -> None:
    file = series / f"step{step}/model.safetensors"
    tensors = load_file(file)
    del tensors["gpt_neox.final_layer_norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_checkpoint_with_a_missing_tensor_is_refused_or_failed(dynamics: Dynamics, project: Path) -> None:
    remove_a_tensor(project / "series", 3)
    refused(dynamics("collect", "mine"), "step 3", "'gpt_neox.final_layer_norm.weight' is missing", "--keep-going")
    said = dynamics("collect", "mine", "--keep-going")
    assert said.code == 1 and "Traceback" not in said.err
    assert "5 checkpoints complete" in said.out and "1 failed" in said.out and "  step 3 failed: " in said.out
    said = dynamics("status", "mine")
    assert said.code == 0 and "final_layer_norm.weight' is missing" in said.out


def test_a_tensor_missing_in_every_checkpoint_is_never_invented(dynamics: Dynamics, project: Path) -> None:
    for step in (0, 1, 2, 3, 6, 12):
        remove_a_tensor(project / "series", step)
    said = dynamics("collect", "mine")
    assert said.code == 1 and "0 checkpoints complete" in said.out and "6 failed" in said.out
    assert "tensors 1 missing (gpt_neox.final_layer_norm.weight)" in said.out
    refused(dynamics("report", "mine"), "no checkpoint of", "is complete")


def test_a_tokenizer_that_does_not_fit_is_refused(dynamics: Dynamics, project: Path) -> None:
    file = project / "series/step0/tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {k: v if v < 3 else v + len(vocabulary) for k, v in vocabulary.items()}
    other = project / "other"
    shutil.copytree(project / "series/step0", other, ignore=shutil.ignore_patterns("*.safetensors"))
    (other / "tokenizer.json").write_text(json.dumps(content))
    (project / "p.jsonl").write_text('{"text": "2 + 3 ="}\n{"text": "4 + 5 ="}\n')
    (project / "runs.yaml").write_text(
        "mine:\n  series: {kind: folder, path: series, tokenizer: other}\n"
        "  probes: {p: {file: p.jsonl, sites: [resid_post]}}\n"
    )
    refused(dynamics("collect", "mine"), "probe 'p'", "prompt 1 ('4 + 5 =')", "the tokenizer does not fit")
    (other / "tokenizer.json").write_text("{")
    refused(dynamics("collect", "mine"), "tokenizer.json cannot be read", "not JSON")
    shutil.rmtree(other)
    refused(dynamics("collect", "mine"), "there is no folder")


def test_probes_that_do_not_fit_are_refused_with_every_mistake(dynamics: Dynamics, project: Path) -> None:
    (project / "p.jsonl").write_text('{"text": "2 + 3 =", "answer": " 12"}\n{"text": "qwertz", "answer": " 1"}\n')
    with (project / "runs.yaml").open("a") as stream:
        stream.write("  probes: {p: {file: p.jsonl}}\n")
    refused(dynamics("collect", "mine"), "answer ' 12' is 2 tokens", "'qwertz' is unknown", "in 2 places")
    (project / "p.jsonl").write_text('{"text": "2 + 3 ="}\n')
    refused(dynamics("collect", "mine"), "nothing is measured on probe 'p'")
    text = (project / "runs.yaml").read_text()
    (project / "runs.yaml").write_text(text.replace("{file: p.jsonl}", "{file: p.jsonl, sites: [resid_pots]}"))
    refused(dynamics("collect", "mine"), "there is no site 'resid_pots'", "did you mean 'resid_post'")
    (project / "runs.yaml").write_text(
        text.replace("{file: p.jsonl}", "{file: p.jsonl, sites: [resid_post], positions: [lst]}")
    )
    refused(dynamics("collect", "mine"), "has no position 'lst'", "did you mean 'last'")


def test_a_trace_of_a_newer_format_version_is_refused_by_every_verb(dynamics: Dynamics, collected: Path) -> None:
    trace = collected / "traces/mine.zarr"
    zarr.open_group(trace, mode="r+").attrs["format_version"] = 99
    refused(
        dynamics("status", "mine"), "zarr.json", "is damaged", "another program"
    )  # the copy says the version that was
    shutil.copyfile(trace / "zarr.json", trace / ROOT_COPY)
    for verb in (*VERBS, "verify"):
        refused(dynamics(verb, "mine"), "trace format version 99", "version 2 or older", "newer circuit-dynamics")


def test_what_is_no_trace_is_refused_by_every_verb(dynamics: Dynamics, collected: Path) -> None:
    shutil.rmtree(collected / "traces/mine.zarr")
    (collected / "traces/mine.zarr").write_text("a file")
    for verb in (*VERBS, "verify"):
        refused(dynamics(verb, "mine"), "mine.zarr is not a trace")


@pytest.mark.parametrize("traces", ["taken", "taken/below", "/proc/nothing"])
def test_a_traces_folder_that_cannot_be_written_is_refused(dynamics: Dynamics, project: Path, traces: str) -> None:
    if traces.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("there is no /proc")
    (project / "taken").write_text("a file")
    refused(dynamics("collect", "mine", "--traces", traces), "cannot be written", "--traces")
    assert (project / "taken").read_text() == "a file"


@pytest.mark.parametrize("reports", ["taken", "/proc/nothing"])
def test_a_reports_folder_that_cannot_be_written_is_refused(dynamics: Dynamics, collected: Path, reports: str) -> None:
    if reports.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("there is no /proc")
    (collected / "taken").write_text("a file")
    said = dynamics("report", "mine", "--reports", reports)
    assert said.code == 2 and "Traceback" not in said.err and said.out == ""
    assert "error: the report in" in said.err and "--reports" in said.err


def test_a_device_that_does_not_exist_is_refused(dynamics: Dynamics, project: Path) -> None:
    for extra in ((), ("--dry-run",)):
        refused(dynamics("collect", "mine", "--device", "gpu9", *extra), "device 'gpu9' cannot be used", "cuda:N")
    assert not (project / "traces").exists()


@pytest.mark.parametrize("verb", ["analyse", "report", "verify"])
def test_reading_what_was_never_collected_names_the_command(dynamics: Dynamics, project: Path, verb: str) -> None:
    refused(dynamics(verb, "mine"), "run 'mine' has no trace in traces", "dynamics collect mine")


@pytest.mark.parametrize(
    "arguments",
    [("colect", "mine"), ("collect",), ("collect", "mine", "--schedul", "log"), ("collect", "mine", "--schedule", "x")],
)
def test_a_mistyped_command_line_exits_with_two(dynamics: Dynamics, arguments: tuple[str, ...]) -> None:
    said = dynamics(*arguments)
    assert said.code == 2 and "Usage: dynamics" in said.err and "Traceback" not in said.err


def test_a_trace_that_another_process_writes_is_refused(dynamics: Dynamics, collected: Path) -> None:
    with writer_lock(collected / "traces/mine.zarr"):
        refused(dynamics("collect", "mine"), "is being written by another process")
        assert "being collected now" in dynamics("status", "mine").out
    assert "being collected now" not in dynamics("status", "mine").out


@pytest.mark.parametrize("option", [("--until", "5"), ("--patience", "1"), ("--poll", "2")])
def test_options_of_watching_are_refused_without_it(dynamics: Dynamics, project: Path, option: tuple[str, str]) -> None:
    refused(dynamics("collect", "mine", *option), f"{option[0]} without --watch")
    refused(dynamics("collect", "--watch", "job", "--dry-run"), "--dry-run and --watch together")
    assert not (project / "job").exists() and not (project / "traces").exists()


def test_a_refused_collection_leaves_no_file(dynamics: Dynamics, project: Path) -> None:
    (project / "series/step3/model.safetensors").write_bytes(b"cut off")
    before = files(project)
    refused(dynamics("collect", "mine"), "cannot be used")
    assert files(project) == before


def test_a_trace_gains_what_other_analyses_ask_for(dynamics: Dynamics, project: Path) -> None:
    assert dynamics("collect", "./series", "--analyses", "induction").code == 0
    assert dynamics("collect", "./series", "--analyses", "shared_concepts,induction").code == 0
    assert {"concept_antonyms", "induction_repeats"} <= {*Trace(project / "traces/series.zarr").probes}
