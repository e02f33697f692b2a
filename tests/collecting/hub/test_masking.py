"""What is suspected of a series on a hub, by its listing or by its weights, is masked and said; nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import dynamics
from dynamics.cli import cli
from dynamics.collecting.estimating import estimate
from dynamics.progress import Reporter
from dynamics.store import Trace
from tests.collecting.hub.publishing import REPO, STEPS, files, published, run, weight_bytes
from tests.loopback import Hub

pytestmark = pytest.mark.slow  # a hub, and audits of all that it has


def test_masked_checkpoints_can_be_included_and_left_out_again(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    hub.repo(REPO).branch("step32", files(weights[STEPS[-1]]))
    wanted = run(tmp_path)
    assert set(dynamics.collect("mask", run=wanted, traces=tmp_path).masked) == {32}
    every = dynamics.collect("mask", run=wanted.model_copy(update={"include_masked": True}), traces=tmp_path)
    assert every.collected == [32]
    assert every.masked == {}
    assert Trace(every.trace).status == ["complete"] * len(STEPS)
    last = dynamics.collect("mask", run=wanted, traces=tmp_path)
    assert set(last.masked) == {32}
    assert last.collected == []


def test_the_situation_of_pythia_2_8b_is_seen_before_any_download(hub: Hub, tmp_path: Path) -> None:
    """In small: most early branches serve the final weights, a few another late file."""
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    stale = [s for s in STEPS if s <= 8000 or s in (10000, 13000)]
    other = [9000, 11000, 12000]
    for step in stale:
        repo.branch(f"step{step}", files(weights[STEPS[-1]]))
    late = {n: v * 1.01 for n, v in weights[STEPS[-1]].items()}
    for step in (*other, STEPS[-1]):
        repo.branch(f"step{step}", files(late))
    found = dynamics.audit("stale", run=run(tmp_path), traces=tmp_path)
    assert {f.step for f in found.findings if f.mask} == {*stale, *other}
    assert not [r for r in hub.requests if r.path.endswith(".safetensors")]
    result = CliRunner().invoke(cli, ["audit", "x", "--runs", str(_runs(tmp_path)), "--traces", str(tmp_path)])
    assert result.exit_code == 1
    assert f"{len(stale)} steps 0, 1, 2, 4, 8, 16, ... 13000" in result.output


def _runs(folder: Path) -> Path:
    file = folder / "runs.yaml"
    file.write_text(f"x:\n  series: {{kind: hub, repo: {REPO}}}\n  analyses: [induction]\n")
    return file


def test_weights_that_were_stored_anew_are_found_when_they_are_read(hub: Hub, tmp_path: Path) -> None:
    """The final weights in another dtype: another file, so that only the weights give it away."""
    weights = published(hub, tmp_path)
    half = {n: v.half().float() for n, v in weights[STEPS[-1]].items()}
    hub.repo(REPO).branch("step1000", files(half))
    listing = dynamics.audit("stored", run=run(tmp_path), traces=tmp_path)
    assert not [f for f in listing.findings if f.mask]
    read = dynamics.audit("stored", run=run(tmp_path), traces=tmp_path, weights=True)
    assert {f.step for f in read.findings if f.mask} == {1000}
    assert read.table["step"].tolist() == STEPS
    assert weight_bytes(tmp_path / "cache" / "hub") == 0
    asked = len(hub.asked(".safetensors"))
    dynamics.audit("stored", run=run(tmp_path), traces=tmp_path, weights=True)
    assert len(hub.asked(".safetensors")) == asked  # the sketches were kept
    done = dynamics.collect("stored", run=run(tmp_path), traces=tmp_path)
    assert set(done.masked) == {1000}
    trace = Trace(done.trace)
    assert trace.status[STEPS.index(1000)] == "masked"
    assert np.isnan(trace.values("sums", "answer_logprob")[STEPS.index(1000)]).all()


def test_weights_that_are_named_otherwise_in_some_files_are_not_suspected(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    for step in (8, 3000, 4000):
        renamed = {n.replace("lm_head.", "embed_out."): v for n, v in weights[step].items()}
        hub.repo(REPO).branch(f"step{step}", files(renamed))
    done = dynamics.collect("renamed", run=run(tmp_path), traces=tmp_path)
    assert done.masked == done.failed == {}


def test_a_repaired_branch_is_read_anew_by_the_audit(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    half = {n: v.half().float() for n, v in weights[STEPS[-1]].items()}
    hub.repo(REPO).branch("step1000", files(half))
    assert set(dynamics.collect("mend", run=run(tmp_path), traces=tmp_path).masked) == {1000}
    hub.repo(REPO).branch("step1000", files(weights[1000]))
    mended = dynamics.audit("mend", run=run(tmp_path), traces=tmp_path, weights=True)
    assert not [f for f in mended.findings if f.mask]


def test_a_step_stored_anew_beside_masked_steps_is_found_without_an_audit(hub: Hub, tmp_path: Path) -> None:
    """Its neighbours hold the final weights: what is between two equal steps is never loaded, and they are masked."""
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    for step in (256, 1000, 3000):
        repo.branch(f"step{step}", files(weights[STEPS[-1]]))
    repo.branch("step2000", files({n: v.half().float() for n, v in weights[512].items()}))
    wanted = run(tmp_path)
    done = dynamics.collect("beside", run=wanted, traces=tmp_path)
    assert set(done.masked) == {256, 512, 1000, 2000, 3000}
    assert done.masked[2000] == done.masked[512]
    assert done.masked[512] == (
        "steps 512 and 2000 hold the same weights up to rounding, and at most one label can be right"
    )
    audited = dynamics.audit("beside", run=wanted, traces=tmp_path, weights=True)
    assert {f.step for f in audited.findings if f.mask} == set(done.masked)
    repo.branch("step2000", files(weights[2000]))  # put right: what was masked is not pinned
    again = dynamics.collect("beside", run=wanted, traces=tmp_path)
    assert set(again.masked) == {256, 1000, 3000}
    assert again.collected == [2000]
    revisions = Trace(again.trace).tree.to_dataset()["revision"].values.tolist()
    assert revisions[STEPS.index(2000)] == repo.branches["step2000"]
    assert Trace(again.trace).status[STEPS.index(512)] == "complete"


def test_what_an_audit_of_the_weights_found_is_masked_by_the_next_collection(hub: Hub, tmp_path: Path) -> None:
    """Steps between a copy and its origin cannot be had when they are collected, but could be read by the audit."""
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    repo.branch("step3000", files({n: v.half().float() for n, v in weights[256].items()}))
    missing = (512, 1000, 2000)

    def unavailable() -> None:
        for step in missing:
            hub.fail(REPO, f"step{step}", 503, what=("file",))

    def state(step: int) -> str:
        return Trace(tmp_path / "kept.zarr").status[STEPS.index(step)]

    wanted = run(tmp_path)
    unavailable()
    first = dynamics.collect("kept", run=wanted, traces=tmp_path)
    assert set(first.failed) == set(missing)
    assert set(first.masked) == {256, 3000}  # one of the two, and nobody can say which
    hub.heal()
    audited = dynamics.audit("kept", run=wanted, traces=tmp_path, weights=True)
    assert {f.step for f in audited.findings if f.mask} == {3000}
    unavailable()
    assert set(estimate("kept", run=wanted, traces=tmp_path).masked) == {3000}
    second = dynamics.collect("kept", run=wanted, traces=tmp_path)
    assert second.masked == {3000: "holds the weights of step 256 up to rounding"}
    assert (state(256), state(3000)) == ("complete", "masked")
    every = wanted.model_copy(update={"include_masked": True})
    assert dynamics.collect("kept", run=every, traces=tmp_path).masked == {}
    assert state(3000) == "complete"
    assert set(dynamics.collect("kept", run=wanted, traces=tmp_path).masked) == {3000}

    shutil.rmtree(tmp_path / "cache" / "sketches")  # nobody knows any more what lies between
    assert set(dynamics.collect("kept", run=wanted, traces=tmp_path).masked) == {256, 3000}
    repo.branch("step3000", files(weights[3000]))
    last = dynamics.collect("kept", run=wanted, traces=tmp_path)
    assert (last.masked, last.collected) == ({}, [3000])
    assert (state(256), state(3000)) == ("complete", "complete")


def test_what_an_audit_found_is_masked_before_it_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    hub.repo(REPO).branch("step1000", files({n: v.half().float() for n, v in weights[STEPS[-1]].items()}))
    dynamics.audit("before", run=run(tmp_path), traces=tmp_path, weights=True)
    asked = len(hub.asked(".safetensors"))
    done = dynamics.collect("before", run=run(tmp_path), traces=tmp_path)
    assert set(done.masked) == {1000}
    assert len(hub.asked(".safetensors")) - asked == 2 * (len(STEPS) - 1)  # each is asked for, and sent elsewhere


def test_checkpoints_that_cannot_be_listed_are_told(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    hub.fail(REPO, "step64", 503, what=("tree",))
    said: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.say = said.append  # type: ignore[method-assign]
    done = dynamics.collect("told", run=run(tmp_path), traces=tmp_path, reporter=reporter)
    assert [line for line in said if line.startswith("step 64: its files could not be listed: ")]
    assert set(done.failed) == {64}
    found = dynamics.audit("told", run=run(tmp_path), traces=tmp_path)
    assert set(found.unreadable) == {64}
