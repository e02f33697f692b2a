"""The command line: every verb does what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zarr

import dynamics as program
from tests.cli.commands import Dynamics
from tests.cli.conftest import VERBS, files


def test_a_dry_run_writes_nothing_and_says_how_much(dynamics: Dynamics, project: Path) -> None:
    before = files(project)
    said = dynamics("collect", "mine", "--dry-run", "--schedule", "log")
    assert said.code == 0 and "6 of 6 checkpoints, 6 still to do, 36 prompts each" in said.out
    assert "GB" in said.out and "time for collecting" in said.out
    assert files(project) == before and not (project / "traces").exists()


def test_a_dry_run_of_an_adaptive_run_says_the_most_that_it_can_take(dynamics: Dynamics, project: Path) -> None:
    with (project / "runs.yaml").open("a") as runs:
        runs.write("  schedule: adaptive\n  checkpoints: 3\n  budget: 5\n")
    said = dynamics("collect", "mine", "--dry-run").out
    assert "mine: at most 5 of 6 checkpoints, 5 still to do" in said and "\n  3 first, then round by round" in said
    assert dynamics("collect", "mine").code == 0
    assert "mine: at most 5 of 6 checkpoints, 2 still to do" in dynamics("collect", "mine", "--dry-run").out


@pytest.mark.slow
def test_what_a_verb_writes_lies_beside_the_traces_folder_unless_another_is_named(
    dynamics: Dynamics, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sound:
        sound = True

    monkeypatch.setattr("dynamics.validating.validate.validate", lambda **_: Sound())
    monkeypatch.setattr("dynamics.validating.page.write_validation", lambda _: "a page")
    before = files(project)
    away = ("--traces", "away/steps")
    question = ("explain", "mine", "46+39=08", "--checkpoints", "1")
    for verb in (("collect", "mine"), ("analyse", "mine"), ("report", "mine"), question, ("validate",)):
        said = dynamics(*verb, *away)
        assert said.code == 0, said
    shutil.copytree("away/steps", "again/traces")
    program.report("mine", traces=Path("again/traces"))
    program.explain("mine", "46+39=08", checkpoints=1, traces=Path("again/traces"))
    assert len(list((project / "again").glob("reports/mine/**/index.html"))) == 2
    assert {name: text for name, text in files(project).items() if not name.startswith(("away/", "again/"))} == before
    written = {path.parent.name for path in (project / "away").glob("reports/mine/**/index.html")}
    assert len(written) == 2 and "mine" in written, written
    page = (project / "away/reports/mine/index.html").read_text()
    assert "onset, steps" in page and "onset, tokens" not in page and "?]" not in page  # tokens are not known
    assert (project / "away/docs/validation.md").read_text() == "a page"
    assert dynamics("report", "mine", *away, "--reports", "here").code == 0
    assert (project / "here/mine/index.html").is_file()
    for verb, option in (("report", "reports"), ("explain", "reports"), ("validate", "docs/validation.md")):
        help_text = " ".join(dynamics(verb, "--help").out.split())
        assert f"[default: {option}, beside the folder of traces]" in help_text


def test_a_report_without_anything_to_chart_says_so(dynamics: Dynamics, project: Path) -> None:
    (project / "p.jsonl").write_text('{"text": "2 + 3 ="}\n')
    (project / "runs.yaml").write_text(
        "own: {series: {kind: folder, path: series}, probes: {p: {file: p.jsonl, sites: [resid_post]}}}\n"
    )
    assert dynamics("collect", "own").code == 0
    said = dynamics("report", "own")
    assert said.code == 0 and "no curves: the run names no analyses" in said.out
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


def test_verify_finds_a_damaged_coordinate_and_repair_writes_it_again(dynamics: Dynamics, collected: Path) -> None:
    trace = collected / "traces/mine.zarr"
    for place, name in (("induction_repeats", "text"), ("", "tokens"), ("", "label")):
        (file,) = [p for p in (trace / place / name / "c").rglob("*") if p.is_file()]
        whole = file.read_bytes()
        for content in (whole[:9] + bytes([whole[9] ^ 1]) + whole[10:], None):
            file.unlink() if content is None else file.write_bytes(content)
            said = dynamics("verify", "mine")
            assert said.code == 1 and "Traceback" not in said.err, said
            assert f"  {place}/{name}: ".replace(" /", " ") in said.out, said.out
            assert "1 damaged; `dynamics verify mine --repair` mends" in said.out
        assert dynamics("verify", "mine", "--repair").code == 0
        assert file.read_bytes() == whole
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


@pytest.mark.parametrize("layout", ["local", pytest.param("sharded", marks=pytest.mark.slow)])
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
    assert (
        "<script>alert" not in page
        and "<script>run" not in page
        and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        and "excluded" in page
    )


def test_interrupting_says_how_to_go_on(dynamics: Dynamics, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dynamics.measurements.forward.Together", interrupt)
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


def test_the_list_of_verbs_says_each_in_a_whole_line(dynamics: Dynamics) -> None:
    listed = dynamics("--help").out.partition("Commands:")[2].split("\n")
    assert len(listed) > 10 and not any(line.endswith("...") for line in listed)
