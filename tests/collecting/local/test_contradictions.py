"""What lies beside the checkpoints, or contradicts its label, is said by every verb and kept out of every curve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from checkpoints import FolderConfig
from dynamics.auditing.audit import audit
from dynamics.cli import cli
from dynamics.store import Trace
from tests.collecting.local.tiny import STEPS, make_run, run_collect


def test_what_is_left_out_is_said_once_by_every_verb(series: Path, tmp_path: Path) -> None:
    (series / "step99").mkdir()
    shutil.copytree(series / "step12", series / "step1k")
    content = make_run(tmp_path, series, exclude=STEPS[2:]).model_dump(mode="json", exclude_defaults=True)
    content["series"]["kind"] = "folder"
    runs = tmp_path / "runs.yaml"
    runs.write_text(yaml.safe_dump({"mine": content}))
    for verb in (["collect", "--dry-run"], ["status"], ["collect"], ["status"], ["audit"]):
        arguments = [*verb, "mine", "--runs", str(runs), "--traces", str(tmp_path / "traces")]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        for line in ("step99 is left out: it is an empty folder", "step1k is left out: its name says no step"):
            assert result.output.count(line) == 1, (verb, result.output)


def contradict(series: Path, how: str) -> str:
    """Make step 6 contradict its label; what is said of it."""
    if how == "step":
        (series / "step6" / "trainer_state.json").write_text('{"global_step": 3}')
        return "its trainer_state.json says step 3"
    content = json.loads((series / "step0" / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (series / "step6" / "tokenizer.json").write_text(json.dumps(content))
    return "it carries another tokenizer than the one in step0 (tokenizer.json)"


@pytest.mark.parametrize("how", ["step", "tokenizer"])
def test_a_checkpoint_that_says_otherwise_is_masked_unless_the_run_says_which_holds(
    series: Path, tmp_path: Path, how: str
) -> None:
    said = contradict(series, how)
    exclude = {"exclude": [1, 2, 3]}
    done = run_collect(tmp_path, make_run(tmp_path, series, **exclude))
    assert done.collected == [0, 12] and said in done.masked[6]
    found = audit("mine", run=make_run(tmp_path, series), traces=tmp_path / "traces")
    assert [(f.step, f.kind, f.mask) for f in found.findings if said in f.reason] == [(6, "says otherwise", True)]
    if how == "step":
        holds = FolderConfig(path=series, pattern=r"step(?P<step>\d+)")
    else:
        holds = FolderConfig(path=series, tokenizer=series / "step0")
    run = make_run(tmp_path, series, **exclude).model_copy(update={"series": holds})
    assert run_collect(tmp_path, run).collected == [6]
    assert Trace(tmp_path / "traces/mine.zarr").status[4] == "complete"
    other = run_collect(tmp_path, make_run(tmp_path, series, **exclude, include_masked=True), "all")
    assert other.collected == [0, 6, 12]
