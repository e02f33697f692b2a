"""What an audit keeps of weights it has read, and what collection makes of it: on series on this disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import dynamics
from checkpoints.audit import Sketch
from checkpoints.local import FolderConfig, FolderSeries
from checkpoints.organism import build_tokenizer
from dynamics.auditing.sketches import Known, compare, keep, kept_file, kept_sketches, load_kept
from dynamics.collecting.estimating import estimate
from dynamics.runs.config import ProbeEntry, Run
from dynamics.store import Trace
from tests.collecting.hub.publishing import config, trained

STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of checkpoints whose weights walk, and an empty cache."""
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "series"
    build_tokenizer().save_pretrained(folder)
    for step, tensors in trained().items():
        if step in STEPS:
            place = folder / f"step{step}"
            place.mkdir()
            (place / "config.json").write_text(config().to_json_string())
            (place / "model.safetensors").write_bytes(save(tensors))
    return folder


def run(folder: Path, **more: object) -> Run:
    prompts = folder.parent / "prompts.jsonl"
    prompts.write_text('{"text": "36+59=", "answer": "0"}\n')
    return Run.model_validate(
        {"series": FolderConfig(path=folder), "probes": {"sums": ProbeEntry(file=prompts)}, **more}
    )


def put(folder: Path, step: int, tensors: dict[str, torch.Tensor]) -> None:
    (folder / f"step{step}" / "model.safetensors").write_bytes(save(tensors))


def test_what_an_audit_of_the_weights_found_is_masked_until_it_is_put_right(series: Path, tmp_path: Path) -> None:
    """Step 512 is step 8 in another dtype, and what is between cannot be collected, but be read."""
    weights = trained()
    put(series, 512, {n: v.half() for n, v in weights[8].items()})
    apart = run(series, schedule="log", checkpoints=4)  # visits little
    only = (0, 8, 512, 1000)

    def collected(wanted: Run = apart) -> dict[int, str]:
        return dynamics.collect("local", run=wanted, traces=tmp_path, only=only).masked

    assert collected() == {}  # nothing between them was looked at
    assert estimate("local", run=apart, traces=tmp_path).masked == {}
    audited = dynamics.audit("local", run=apart, traces=tmp_path, weights=True)
    assert {f.step for f in audited.findings if f.mask} == {512}
    assert set(estimate("local", run=apart, traces=tmp_path).masked) == {512}
    assert collected() == {512: "holds the weights of step 8 up to rounding"}
    assert Trace(tmp_path / "local.zarr").status[STEPS.index(512)] == "masked"
    assert collected(apart.model_copy(update={"include_masked": True})) == {}
    assert set(collected()) == {512}

    put(series, 512, weights[512])
    mended = dynamics.audit("local", run=apart, traces=tmp_path, weights=True)
    assert [f for f in mended.findings if f.mask] == []  # the files, not what the trace remembers of them
    again = dynamics.collect("local", run=apart, traces=tmp_path, only=only)
    assert (again.masked, again.collected) == ({}, [512])


def test_a_step_stored_anew_around_failed_checkpoints_is_masked(series: Path, tmp_path: Path) -> None:
    weights = trained()
    put(series, 128, {n: v.half() for n, v in weights[32].items()})
    for step in (16, 64, 256):
        (series / f"step{step}" / "model.safetensors").write_bytes(b"cut off")
    done = dynamics.collect("failed", run=run(series), traces=tmp_path, keep_going=True)
    assert set(done.failed) == {16, 64, 256}
    assert set(done.masked) == {32, 128}
    assert "up to rounding, and at most one label can be right" in done.masked[128]


def test_a_clean_series_that_was_audited_is_collected_whole(series: Path, tmp_path: Path) -> None:
    assert dynamics.audit("clean", run=run(series), traces=tmp_path, weights=True).weights == len(STEPS)
    done = dynamics.collect("clean", run=run(series), traces=tmp_path)
    assert (done.collected, done.masked) == (STEPS, {})


def test_sketches_are_found_again_by_the_files_they_were_made_of(series: Path) -> None:
    opened = FolderSeries(FolderConfig(path=series))
    listed = {c: opened.weight_files(c) for c in opened.checkpoints}
    known = Known(Sketch(np.arange(3, dtype=np.float32), 2.5, 1), "digest")
    checkpoint = opened.checkpoints[3]
    file = kept_file(opened, checkpoint, listed[checkpoint])
    assert load_kept(file) is None
    keep(file, known)
    (found,) = kept_sketches(opened, listed).items()
    assert found[0] == checkpoint.step
    assert found[1].sketch.values.tolist() == [0, 1, 2]
    assert (found[1].sketch.norm, found[1].sketch.nonfinite, found[1].digest) == (2.5, 1, "digest")
    weights = series / checkpoint.revision / "model.safetensors"
    os.utime(weights, ns=(1, 1))  # written again
    assert kept_sketches(opened, listed) == {}
    assert file is not None
    file.write_bytes(b"damaged")
    assert load_kept(file) is None
    weights.unlink()
    assert kept_file(opened, checkpoint, listed[checkpoint]) is None


def test_steps_on_both_sides_of_one_without_weights_are_no_neighbours() -> None:
    walk = np.cumsum(np.random.default_rng(0).normal(size=(6, 500)), axis=0).astype(np.float32)
    walk[3] = walk[2]
    known = {s: Known(Sketch(row, float(np.linalg.norm(row)), 0), f"d{s}") for s, row in zip((0, 1, 2, 4, 5, 6), walk, strict=True)}  # fmt: skip
    beside = compare(known)
    assert [(f.step, f.mask) for f in beside] == [(2, False), (4, False)]
    assert "training stood still" in beside[0].reason
    apart = compare(known, [3])
    assert [(f.step, f.mask) for f in apart] == [(2, True), (4, True)]
    assert compare({}, [3]) == []
