"""Repairing a trace: every byte is as it was, or it is said why not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import dynamics
from checkpoints.errors import UserError
from dynamics.progress import Reporter
from dynamics.runs.config import Run
from dynamics.store import (
    Trace,
)
from dynamics.store.manifest import MANIFEST
from tests.collecting.damaging import damages, put
from tests.conftest import MadeOnce
from tests.store.declared import snapshot


def run_of(series: Path) -> Run:
    return Run.model_validate(
        {
            "series": {"kind": "folder", "path": str(series)},
            "analyses": [{"name": "induction", "options": {"prompts": 8, "period": 4, "pairs": 20}}],
            "device": "cpu",
        }
    )


@pytest.fixture
def collected(made_once: MadeOnce, tiny_series: Path, tmp_path: Path) -> Path:
    """A folder with a series of its own and a complete trace of it."""
    run = run_of(tiny_series)
    made = made_once("collected", lambda folder: dynamics.collect("mine", run=run, traces=folder / "traces"))
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tiny_series, tmp_path / "series")
    return tmp_path


def test_a_repair_writes_measures_and_derives_again_until_every_byte_is_as_it_was(collected: Path) -> None:
    path, run = collected / "traces/mine.zarr", run_of(collected / "series")
    dynamics.analyse("mine", run=run, traces=collected / "traces")
    before = snapshot(path)
    results = [n for n in before if n.startswith("results/induction/")]
    chosen = [
        *("zarr.json", "status/zarr.json", "induction_repeats/zarr.json", "induction_repeats/token_loss/zarr.json"),
        *("weights/step/zarr.json", "results/zarr.json", "tokens/c/0", "induction_repeats/text/c/0", "step/c/0"),
        *("status/c/1", "weights_digest/c/2", "nonfinite/c/3", f"{MANIFEST}/c/4", "weights/sketch/c/5/0"),
        *(results[3], results[-1]),
    ]
    for number, name in enumerate(chosen):
        put(path / name, list(damages(before, name))[number % 5][1])
    assert [d.variable for d in dynamics.verify("mine", run=run, traces=collected / "traces")] == ["zarr.json"]
    damage = dynamics.verify("mine", run=run, traces=collected / "traces", repair=True)
    assert len(damage) > 12 and all(d.repaired for d in damage)
    assert dynamics.verify("mine", run=run, traces=collected / "traces") == []
    after = snapshot(path)
    assert {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)} == set()


def test_results_of_probes_that_no_analysis_names_are_derived_again(tiny_series: Path, tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text('{"text": "36+59=", "answer": "0"}\n{"text": "12+34=", "answer": "0"}\n')
    series = {"kind": "folder", "path": str(tiny_series)}
    probes = {"sums": {"file": str(tmp_path / "sums.jsonl"), "sites": ["resid_post"]}}
    run = Run.model_validate({"series": series, "probes": probes, "device": "cpu", "exclude": [1, 2, 3, 6]})
    dynamics.collect("own", run=run, traces=tmp_path)
    dynamics.analyse("own", run=run, traces=tmp_path)
    before = snapshot(tmp_path / "own.zarr")
    (tmp_path / "own.zarr/results/own_probes/step/c/0").write_bytes(b"")
    assert [d.repaired for d in dynamics.verify("own", run=run, traces=tmp_path, repair=True)] == [True]
    assert snapshot(tmp_path / "own.zarr") == before


def test_a_checkpoint_whose_weights_are_others_by_now_is_not_mixed_in(
    collected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = collected / "traces/mine.zarr", run_of(collected / "series")
    shutil.copy(collected / "series/step6/model.safetensors", collected / "series/step3/model.safetensors")
    (collected / "series/step2/model.safetensors").write_bytes(b"cut off")
    for index in (1, 2, 3):  # steps 1, 2 and 3
        (path / "weights/norm/c" / str(index)).write_bytes(b"")
    before = snapshot(path)
    damage = dynamics.verify("mine", run=run, traces=collected / "traces", repair=True, reporter=Reporter())
    assert {d.step: d.repaired for d in damage} == {1: True, 2: False, 3: False}
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"step 3 stays as it is: the weights at \S+ are not those .* Give them back", said), said
    assert "step 2 cannot be measured again, and stays as it is" in said
    after = snapshot(path)
    changed = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
    assert changed == {"weights/norm/c/1"}


def test_what_a_job_has_deleted_does_not_stand_in_the_way_of_a_repair(
    collected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = collected / "traces/mine.zarr", run_of(collected / "series")
    for step in (0, 1, 3):
        shutil.rmtree(collected / f"series/step{step}")
    before = snapshot(path)
    for index in (1, 2):  # steps 1 and 2
        name = f"weights/sketch/c/{index}/0"
        put(path / name, dict(damages(before, name))["flipped"])
    checkpoints = dynamics.audit("mine", run=run, traces=collected / "traces").checkpoints
    assert checkpoints == len(Trace(path).steps) - 3  # a sketch that is damaged is missing, and no more
    for name in ("tokens", "revision", "step"):
        (path / name / "c/0").unlink()
    damage = dynamics.verify("mine", run=run, traces=collected / "traces", repair=True, reporter=Reporter())
    assert {d.step or d.variable: d.repaired for d in damage} == {
        1: False,
        2: True,
        **dict.fromkeys(("tokens", "revision", "step"), True),
    }
    assert "step 1 cannot be measured again, and stays as it is: step 1 was deleted" in capsys.readouterr().err
    after = snapshot(path)
    assert {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)} == {"weights/sketch/c/1/0"}


def test_a_trace_of_an_earlier_version_is_read_and_verify_says_what_it_lacks(
    collected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = collected / "traces/mine.zarr", run_of(collected / "series")
    unsealed(path)
    where: dict[str, Any] = {"run": run, "traces": collected / "traces"}
    assert dynamics.verify("mine", **where, reporter=Reporter()) == []
    assert "noted no digests" in capsys.readouterr().err
    assert dynamics.collect("mine", **where).already == [0, 1, 2, 3, 6, 12]
    shutil.rmtree(path / "induction_repeats/token_loss/c/3")
    (path / "induction_repeats/text/c/0").write_bytes(b"nonsense")
    found = dynamics.verify("mine", **where)
    assert {(d.step, d.variable) for d in found} == {
        (3, "induction_repeats/token_loss"),
        (None, "induction_repeats/text"),
    }
    with pytest.raises(UserError, match="verify mine --repair"):
        Trace(path).values("induction_repeats", "token_loss")
    assert all(d.repaired for d in dynamics.verify("mine", **where, repair=True))
    assert Trace(path).complete.all()


def unsealed(path: Path) -> None:
    """As an earlier version of this program wrote it: without a manifest."""
    import json

    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["format_version"] = 1
    for name in ("files", "digest"):
        del root["attributes"][name]
    for name, node in root["consolidated_metadata"]["metadata"].items():
        if node["node_type"] == "group" and "/" not in name and name != "results":
            node["attributes"].pop("asked")
            node["attributes"]["coordinates"] = node["attributes"]["coordinates"].replace(f" {MANIFEST}", "")
            own = {key: value for key, value in node.items() if key != "consolidated_metadata"}
            (path / name / "zarr.json").write_text(json.dumps(own))
            shutil.rmtree(path / name / MANIFEST)
    root["attributes"]["coordinates"] = root["attributes"]["coordinates"].replace(f" {MANIFEST}", "")
    listed = root["consolidated_metadata"]["metadata"]
    for name in [n for n in listed if n.endswith(MANIFEST) or n.startswith("results")]:
        del listed[name]
    (path / "zarr.json").write_text(json.dumps(root))
    shutil.rmtree(path / MANIFEST)
