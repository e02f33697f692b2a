"""The command line: nonsense gets exit code 2 and one clear message, and every verb does what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import zarr
from safetensors.torch import load_file, save_file

from dynamics.cli import main
from dynamics.store import writer_lock


class Said(NamedTuple):
    """What one command did."""

    code: int
    out: str
    err: str


Dynamics = Callable[..., Said]

RUNS = """
mine:
  description: "a <b>bold</b> run"
  series: {{kind: folder, path: {series}}}
  analyses: [{{name: induction, options: {{prompts: 8, period: 4}}}}]
  device: cpu
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _one_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamics.resolve.provenance", lambda: {"versions": {}, "commit": None, "dirty": None})


@pytest.fixture
def dynamics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dynamics:
    """``dynamics(*arguments)`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def project(tmp_path: Path, tiny_series: Path) -> Path:
    """A folder with a runs file and a series of its own."""
    shutil.copytree(tiny_series, tmp_path / "series")
    (tmp_path / "runs.yaml").write_text(RUNS.format(series="series"))
    return tmp_path


@pytest.fixture(scope="module")
def _collected(tiny_series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import dynamics as program
    from dynamics.config import Run

    folder = tmp_path_factory.mktemp("collected")
    run = Run.model_validate(
        {
            "series": {"kind": "folder", "path": str(tiny_series)},
            "analyses": [{"name": "induction", "options": {"prompts": 8, "period": 4}}],
            "device": "cpu",
        }
    )
    program.collect("mine", run=run, traces=folder / "traces")
    return folder


@pytest.fixture
def collected(_collected: Path, tmp_path: Path, tiny_series: Path) -> Path:
    """A folder with a runs file and a complete trace."""
    shutil.copytree(_collected / "traces", tmp_path / "traces")
    (tmp_path / "runs.yaml").write_text(RUNS.format(series=tiny_series))
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(said: Said, *parts: str) -> None:
    """Exit code 2, one message, no traceback, nothing on standard output."""
    assert said.code == 2, said
    assert said.err.startswith("error: ") and said.err.count("error: ") == 1, said.err
    assert "Traceback" not in said.err and said.out == ""
    for part in parts:
        assert part in said.err, said.err


VERBS = ("collect", "status", "analyse", "report")


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
    refused(dynamics("collect", "mine"), "no usable tokenizer in")
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
    zarr.open_group(collected / "traces/mine.zarr", mode="r+").attrs["format_version"] = 99
    for verb in (*VERBS, "verify"):
        refused(dynamics(verb, "mine"), "trace format version 99", "version 1 or older", "newer circuit-dynamics")


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
    assert "error: the report cannot be written to" in said.err and "--reports" in said.err


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


def test_a_dry_run_writes_nothing_and_says_how_much(dynamics: Dynamics, project: Path) -> None:
    before = files(project)
    said = dynamics("collect", "mine", "--dry-run", "--schedule", "log")
    assert said.code == 0 and "6 of 6 checkpoints, 6 still to do, 116 prompts each" in said.out
    assert "GB" in said.out and "time for collecting" in said.out
    assert files(project) == before and not (project / "traces").exists()


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


def test_other_analyses_than_the_traces_are_named(dynamics: Dynamics, project: Path) -> None:
    assert dynamics("collect", "./series", "--analyses", "induction").code == 0
    refused(
        dynamics("collect", "./series", "--analyses", "addition,induction"),
        "it was collected for induction, and now addition, induction is asked for",
    )


def test_a_report_without_analyses_says_so(dynamics: Dynamics, project: Path) -> None:
    (project / "p.jsonl").write_text('{"text": "2 + 3 =", "answer": " 5"}\n')
    (project / "runs.yaml").write_text("own: {series: {kind: folder, path: series}, probes: {p: {file: p.jsonl}}}\n")
    assert dynamics("collect", "own").code == 0
    said = dynamics("report", "own")
    assert said.code == 0 and "no curves, because the run names no analyses" in said.out
    assert "when circuits emerged" not in said.out


def test_a_schedule_from_the_command_line_is_recorded_and_counts(dynamics: Dynamics, project: Path) -> None:
    with (project / "runs.yaml").open("a") as stream:
        stream.write("  schedule: log\n  checkpoints: 3\n")
    assert dynamics("collect", "mine").code == 0
    root = zarr.open_group(project / "traces/mine.zarr", mode="r")
    config: Any = root.attrs["run_config"]
    assert config["schedule"] == "log"
    assert "not scheduled    3" in dynamics("status", "mine").out
    (project / "series/step2/model.safetensors").write_bytes(b"cut off")
    assert dynamics("collect", "mine", "--schedule", "dense", "--keep-going").code == 1
    config = zarr.open_group(project / "traces/mine.zarr", mode="r").attrs["run_config"]
    assert (config["schedule"], config["checkpoints"]) == ("dense", 3)
    assert zarr.open_group(project / "traces/mine.zarr", mode="r").metadata.consolidated_metadata is not None
    said = dynamics("status", "mine").out
    assert "not scheduled" not in said and "failed           1  steps 2" in said


def test_verify_finds_a_damaged_coordinate(dynamics: Dynamics, collected: Path) -> None:
    trace = collected / "traces/mine.zarr"
    for place, name in (("induction_repeats", "text"), ("", "tokens"), ("", "label")):
        (file,) = [p for p in (trace / place / name / "c").rglob("*") if p.is_file()]
        whole = file.read_bytes()
        for content in (whole[:9] + bytes([whole[9] ^ 1]) + whole[10:], None):
            file.unlink() if content is None else file.write_bytes(content)
            said = dynamics("verify", "mine")
            assert said.code == 1 and "Traceback" not in said.err, said
            assert f"  {place}/{name}: ".replace(" /", " ") in said.out, said.out
            assert "1 damaged; collect it anew" in said.out
        file.write_bytes(whole)
    assert dynamics("verify", "mine").code == 0


def test_a_good_run_goes_from_collect_to_report_with_exit_code_zero(dynamics: Dynamics, project: Path) -> None:
    said = dynamics("status", "mine")
    assert said.code == 0 and "not started" in said.out and "dynamics collect mine" in said.out
    said = dynamics("collect", "mine")
    assert said.code == 0 and "6 checkpoints complete (6 now" in said.out and "0 failed, 0 masked" in said.out
    assert "collecting mine: 6/6 checkpoints" in said.err
    said = dynamics("collect", "mine")
    assert said.code == 0 and "6 checkpoints complete (0 now" in said.out
    said = dynamics("status", "mine")
    assert said.code == 0 and "complete         6  steps 0, 1, 2, 3, 6, 12" in said.out and "pending" not in said.out
    said = dynamics("analyse", "mine")
    assert said.code == 0 and "induction.prefix_matching" in said.out
    said = dynamics("report", "mine")
    assert said.code == 0 and "when circuits emerged" in said.out and "reports/mine/index.html" in said.out
    content = json.loads((project / "reports/mine/report.json").read_text())
    assert content["run"] == "mine" and content["counts"] == {"complete": 6}
    figures = {p.suffix for p in (project / "reports/mine/figures").iterdir()}
    assert figures == {".svg", ".png"} and not list(project.rglob("*.partial"))
    said = dynamics("verify", "mine")
    assert said.code == 0 and "intact" in said.out
    said = dynamics("runs")
    assert said.code == 0 and said.out.startswith("mine  folder") and "[induction]" in said.out


def test_status_tells_pending_failed_masked_and_time_left(dynamics: Dynamics, collected: Path) -> None:
    root: Any = zarr.open_group(collected / "traces/mine.zarr", mode="r+")
    for index, state, reason in ((1, "pending", ""), (2, "failed", "truncated"), (3, "masked", "left out")):
        root["status"][index] = state
        root["reason"][index] = reason
    said = dynamics("status", "mine")
    assert said.code == 0
    for line in ("complete         3  steps 0, 6, 12", "pending          1  steps 1", "failed           1  steps 2"):
        assert line in said.out
    assert "step 2: truncated" in said.out and "step 3: left out" in said.out and "s a checkpoint" in said.out


@pytest.mark.parametrize("layout", ["local", "sharded"])
def test_verify_finds_what_is_damaged_and_repair_restores_the_same_bytes(
    dynamics: Dynamics, project: Path, layout: str
) -> None:
    with (project / "runs.yaml").open("a") as stream:
        stream.write(f"  layout: {layout}\n  probes: {{p: {{file: p.jsonl, sites: [resid_post]}}}}\n")
    (project / "p.jsonl").write_text('{"text": "2 + 3 =", "answer": " 5"}\n{"text": "4 + 5 =", "answer": " 9"}\n')
    assert dynamics("collect", "mine").code == 0
    trace = project / "traces/mine.zarr"
    before = files(trace)

    def chunk(probe: str, variable: str, index: int) -> Path:
        return next(p for p in sorted((trace / probe / variable / "c" / str(index)).rglob("*")) if p.is_file())

    def flip(file: Path, at: int) -> None:
        content = bytearray(file.read_bytes())
        content[at] ^= 1
        file.write_bytes(bytes(content))

    chunk("p", "answer_logprob", 1).unlink()
    flip(chunk("p", "resid_post", 2), 5)  # a value
    flip(chunk("p", "predicted", 3), -1)  # a checksum
    cut = chunk("induction_repeats", "token_loss", 4)
    cut.write_bytes(cut.read_bytes()[:-3])
    chunk("induction_control", "prefix_matching", 5).write_bytes(b"")
    said = dynamics("verify", "mine")
    assert said.code == 1 and "Traceback" not in said.err and "5 damaged" in said.out and "--repair" in said.out
    for line in (
        "step 1 p/answer_logprob: 1 of 1 chunks are missing or empty",
        "step 2 p/resid_post: ",
        "step 3 p/predicted: ",
        "step 6 induction_repeats/token_loss: ",
        "step 12 induction_control/prefix_matching: ",
    ):
        assert line in said.out, said.out
    said = dynamics("verify", "mine", "--repair")
    assert said.code == 0 and "measured 5 checkpoints again" in said.out
    assert files(trace) == before
    assert "intact" in dynamics("verify", "mine").out


def test_a_prompt_is_never_executed_as_html(dynamics: Dynamics, project: Path) -> None:
    words = ("<", "script", ">", "alert", "(", ")", "/")
    for file in (project / "series").glob("*/tokenizer.json"):
        content = json.loads(file.read_text())
        vocabulary = content["model"]["vocab"]
        kept = [w for w in words if w not in vocabulary]
        victims = [k for k in vocabulary if k.isalpha() and len(k) > 2 and k not in words][: len(kept)]
        renamed = dict(zip(victims, kept, strict=True))
        content["model"]["vocab"] = {renamed.get(k, k): v for k, v in vocabulary.items()}
        file.write_text(json.dumps(content))
    evil = "<script>alert(1)</script>"
    (project / "p.yaml").write_text(
        json.dumps({"description": evil, "prompts": [{"text": evil, "answer": " 1", "labels": {"kind": evil}}]})
    )
    name = "<script>run[b]"
    run = {
        "description": evil,
        "series": {"kind": "folder", "path": "series"},
        "probes": {"p": {"file": "p.yaml"}},
        "exclude": [3],
    }
    (project / "runs.yaml").write_text(json.dumps({name: run}))
    assert dynamics("collect", name).code == 0
    said = dynamics("report", name)
    assert said.code == 0 and name in said.out.replace("\n", "")
    page = (project / "reports" / name / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "excluded" in page


def test_interrupting_says_how_to_go_on(dynamics: Dynamics, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dynamics.forward.measure", interrupt)
    said = dynamics("collect", "mine")
    assert said.code == 130 and "Run the same command again" in said.err and "Traceback" not in said.err
    monkeypatch.undo()
    monkeypatch.chdir(project)
    assert dynamics("collect", "mine").code == 0


def test_help_and_version_need_no_run(dynamics: Dynamics) -> None:
    said = dynamics("--help")
    assert said.code == 0 and all(verb in said.out for verb in (*VERBS, "verify"))
    assert dynamics("--version").out.startswith("dynamics, version ")
    for verb in (*VERBS, "verify"):
        assert "RUN" in dynamics(verb, "--help").out


def test_the_module_is_the_command_and_passes_its_exit_code_on(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "dynamics", "status", "x"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 2 and found.stderr.startswith("error: the runs file runs.yaml cannot be read")
