"""A trace gains what its run gains: what is there is neither measured again nor changed, and the end is that of the last file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dynamics
from checkpoints.errors import UserError
from dynamics.analysis.base import Analysis
from dynamics.listing import print_collected
from dynamics.measurements import Answers, Circuit, Direction, HeadWeights, Selectivity, SourceEffects
from dynamics.progress import Reporter
from dynamics.runs.config import Run
from dynamics.runs.plan import ProbePlan, Request, merge
from dynamics.store import Trace
from dynamics.store.damage import trace_damage
from dynamics.store.groups import SHELF, shelved
from tests.collecting.grown import STEPS, SUMS, collect, contents, counted, run_of, same


@pytest.fixture(autouse=True)
def _one_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamics.runs.resolve.provenance", lambda: {"versions": {}, "commit": None, "dirty": None})


def test_a_probe_is_added_at_every_checkpoint_for_the_passes_of_its_own_prompts(few: Path, tmp_path: Path) -> None:
    before = {"a": {"prompts": 4, "sites": ["resid_post"]}}
    collect(tmp_path, run_of(few, tmp_path, before))
    path = tmp_path / "traces/t.zarr"
    files = contents(path)
    after = run_of(few, tmp_path, before | {"b": {"prompts": 2}})
    with counted() as tokens:
        done = collect(tmp_path, after)
    assert done.gained == STEPS and done.collected == done.already == done.waiting == []
    trace = Trace(path)
    bare = len(STEPS) * sum(last + 1 for last in trace.probe("b").attrs["positions"]["last"])
    assert bare <= sum(tokens) <= 1.2 * bare
    changed = {name for name, content in files.items() if contents(path)[name] != content}
    assert changed == {"zarr.json", "manifest/root.json"}
    collect(tmp_path, after, "fresh")
    with xr.open_datatree(path) as tree, xr.open_datatree(tmp_path / "traces/fresh.zarr") as fresh:
        assert set(tree.groups) == {"/", "/weights", "/a", "/b"} == set(fresh.groups)
        xr.testing.assert_equal(tree["b"].to_dataset().load(), fresh["b"].to_dataset().load())
    assert trace_damage(path) == []
    with counted() as tokens:
        assert collect(tmp_path, after).already == STEPS
    assert tokens == []


def test_two_runs_files_in_turn_measure_nothing_after_the_first_time(few: Path, tmp_path: Path) -> None:
    files = [
        run_of(few, tmp_path, {"a": {"prompts": 3}}),
        run_of(few, tmp_path, {"a": {"prompts": 2, "shift": 3}, "b": {"prompts": 1}}),
    ]
    for run in files:
        collect(tmp_path, run)
    for run in files * 2:
        with counted() as tokens:
            assert collect(tmp_path, run).waiting == []
        assert tokens == [] and Trace(tmp_path / "traces/t.zarr").complete.all()


def test_what_changes_is_said_with_its_cost_before_it_is_measured(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {"a": {"prompts": 3, "labels": ["parity"]}, "b": {"prompts": 2}}
    turned = {"d": {"prompts": 1, "sites": ["attn_out", "mlp_out"]}}
    first |= {"d": {"prompts": 1, "sites": ["mlp_out", "attn_out"]}}
    collect(tmp_path, run_of(few, tmp_path, first))
    path = tmp_path / "traces/t.zarr"
    files = contents(path)
    after = run_of(
        few, tmp_path, {"a": {"prompts": 5, "sites": ["mlp_out"], "labels": ["long"]}, "c": {"prompts": 4}} | turned
    )
    guess = dynamics.estimate("t", run=after, traces=tmp_path / "traces")
    assert guess.gains == (
        "probe a: 2 more prompts; new label long; without label parity; "
        "new measurement Activations(site='mlp_out', positions=('last',))",
        "probe c: new, 4 prompts",
        "probe d: the same prompts and measurements, in another order or as another version of this program describes them",
        "probe b: not asked for any more; what was measured is kept unlisted",
    )
    assert (guess.todo, guess.revisited) == (0, 3) and guess.seconds
    assert contents(path) == files
    collect(tmp_path, after, reporter=Reporter())
    said = capsys.readouterr().err
    assert all(
        line in said.replace("\n", " ")
        for line in ("t.zarr changes, probe c: new, 4 prompts", "has probes a, c, d now")
    )
    labelled = run_of(
        few,
        tmp_path,
        {"a": {"prompts": 5, "sites": ["mlp_out"], "labels": ["long", "parity"]}, "c": {"prompts": 4}} | turned,
    )
    guess = dynamics.estimate("t", run=labelled, traces=tmp_path / "traces")
    assert guess.gains == ("probe a: new label parity",) and guess.revisited == 0
    assert dynamics.status("t", run=labelled, traces=tmp_path / "traces").unlisted == (
        "a, no longer asked for: at 3 checkpoints, kept unlisted (`dynamics verify --prune` deletes it)",
        "b, no longer asked for: at 3 checkpoints, kept unlisted (`dynamics verify --prune` deletes it)",
        "d, no longer asked for: at 3 checkpoints, kept unlisted (`dynamics verify --prune` deletes it)",
    )
    assert dynamics.verify("t", traces=tmp_path / "traces", prune=True) == []
    assert not (path / SHELF).exists() and Trace(path).probes == ["a", "c", "d"]


def test_a_checkpoint_whose_weights_are_others_or_gone_is_not_mixed_in_and_can_be_left_out(
    few: Path, tmp_path: Path
) -> None:
    series = Path(shutil.copytree(few, tmp_path / "series"))
    collect(tmp_path, run_of(series, tmp_path, {"a": {"prompts": 3}}))
    path = tmp_path / "traces/t.zarr"
    files = contents(path)
    shutil.copy(series / "step0/model.safetensors", series / "step3/model.safetensors")
    probes = {"a": {"prompts": 2, "shift": 3}, "b": {"prompts": 2}}
    done = collect(tmp_path, run_of(series, tmp_path, probes, include_masked=True))
    assert done.gained == [0, 12] and done.waiting == ["a", "b"]
    assert done.failed.keys() == {3} and "others by now" in done.failed[3]
    changed = {name for name, content in contents(path).items() if files.get(name) != content}
    assert changed == {"zarr.json", "manifest/root.json"}  # what the trace is to gain
    trace = Trace(path)
    assert trace.complete.all() and trace.probes == ["a"] and trace_damage(path) == []
    assert len(dynamics.status("t", run=run_of(series, tmp_path, probes), traces=tmp_path / "traces").unlisted) == 2
    assert (
        "lacking step 3"
        in dynamics.status("t", run=run_of(series, tmp_path, probes), traces=tmp_path / "traces").unlisted[0]
    )
    assert dynamics.verify("t", traces=tmp_path / "traces", prune=True) == []  # what is asked for is not pruned
    assert len(shelved(path)) == 2
    with counted() as tokens:
        done = collect(tmp_path, run_of(series, tmp_path, probes, exclude=[3], include_masked=True))
    assert tokens == [] and done.failed == {} and done.masked.keys() == {3}
    trace = Trace(path)
    assert trace.status == ["complete", "masked", "complete"] and trace.probes == ["a", "b"]
    assert trace_damage(path) == []
    # weights that it was measured with, given back
    shutil.copy(few / "step3/model.safetensors", series / "step3/model.safetensors")
    assert collect(tmp_path, run_of(series, tmp_path, probes, include_masked=True)).collected == [3]
    collect(tmp_path / "other", run_of(series, tmp_path, probes, include_masked=True))
    (path / "reason/c/1").unlink()  # that there is none any more
    same(path, tmp_path / "other/traces/t.zarr")


def test_measurements_of_another_trace_of_the_same_weights_are_taken_over_if_the_run_says_so(
    few: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(few, tmp_path / "moved"))
    collect(tmp_path, run_of(few, tmp_path, {"a": {"prompts": 4, "sites": ["resid_post"]}}), "one")
    probes = {"a": {"prompts": 6, "sites": ["resid_post"]}, "b": {"prompts": 2}}
    with pytest.raises(UserError, match="three"):
        collect(tmp_path, run_of(moved, tmp_path, probes, reuse=["three"]), "two")
    with counted() as tokens:
        done = collect(tmp_path, run_of(moved, tmp_path, probes, reuse=["one"]), "two")
    assert done.collected == STEPS and done.taken == {"one": STEPS}
    assert len(tokens) == len(STEPS) * (2 + 2)
    alone = run_of(moved, tmp_path, probes)
    collect(tmp_path / "other", alone, "two")
    one, other = (Trace(p / "traces/two.zarr") for p in (tmp_path, tmp_path / "other"))
    for name in ("answer_logprob", "resid_post", "predicted", "candidate_logprob"):
        np.testing.assert_array_equal(one.values("a", name), other.values("a", name))
    # other weights under the same steps are not taken
    shutil.copy(moved / "step0/model.safetensors", moved / "step3/model.safetensors")
    with counted() as tokens:
        run = run_of(moved, tmp_path, probes, reuse=[str(tmp_path / "traces/two.zarr")], include_masked=True)
        done = collect(tmp_path, run, "third")
    assert done.taken == {"two": [0, 3, 12]} and tokens == []  # step 3 has the weights of step 0 by now
    np.testing.assert_array_equal(
        Trace(tmp_path / "traces/third.zarr").values("a", "resid_post")[1], one.values("a", "resid_post")[0]
    )


@pytest.mark.slow
def test_prompts_are_added_to_measurements_of_all_prompts_together(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their variables have prompts behind other dimensions, or none at all."""
    together = {
        "a": (
            Answers(),
            Circuit(steps=1, points=2),
            Selectivity("parity", by="side", permutations=2),
            SourceEffects(steps=1),
        ),
        "b": (
            Answers(),
            HeadWeights(),
            Direction("even", held_out="asked", shuffled=1, random=1, steered_shuffled=1, steered_random=1),
        ),
    }

    def merged(requests: Sequence[Request]) -> list[ProbePlan]:
        return [ProbePlan(plan.probe, together[plan.probe.name]) for plan in merge(requests)]

    monkeypatch.setattr("dynamics.runs.resolve.merge", merged)

    def asked(prompts: int) -> Run:
        file = tmp_path / f"pairs-{prompts}.jsonl"
        rows = []
        for i, (text, answer, parity) in enumerate((*SUMS, *SUMS)[:prompts]):
            labels = {"parity": parity, "side": ("left", "right")[i // 2 % 2], "even": i % 2, "asked": i // 2 % 2}
            foil = next(other for _, other, _ in SUMS if other != answer)
            twin = f"{(int(text[0]) + 3) % 10}{text[1:]}"
            rows.append({"text": text, "answer": answer, "foil": foil, "corrupted": twin, "labels": labels})
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        series = {"kind": "folder", "path": str(few)}
        return Run.model_validate(
            {"series": series, "probes": {name: {"file": str(file)} for name in "ab"}, "device": "cpu"}
        )

    collect(tmp_path, asked(8))
    done = collect(tmp_path, asked(10))
    assert (done.gained, done.waiting, done.failed) == (STEPS, [], {})
    collect(tmp_path / "other", asked(10))
    one, other = tmp_path / "traces/t.zarr", tmp_path / "other/traces/t.zarr"
    assert contents(one).keys() == contents(other).keys()
    for probe in "ab":  # prompts that are added are computed in batches of their own, whose last digits may be others
        mine, alone = Trace(one).probe(probe).load(), Trace(other).probe(probe).load()
        xr.testing.assert_allclose(mine, alone, rtol=1e-4, atol=1e-5)


def test_new_checkpoints_wait_without_being_read_again_and_are_counted_as_pending(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = Path(shutil.copytree(few, tmp_path / "series"))
    first = {"a": {"prompts": 3}}
    collect(tmp_path, run_of(series, tmp_path, first, exclude=[12], include_masked=True))
    shutil.copy(series / "step0/model.safetensors", tmp_path / "kept")
    shutil.copy(series / "step3/model.safetensors", series / "step0/model.safetensors")  # it cannot be measured
    run = run_of(series, tmp_path, first | {"b": {"prompts": 2}}, include_masked=True)
    for collected in ([12], []):
        with counted() as tokens:
            done = collect(tmp_path, run)
        assert (done.collected, done.pending, done.waiting) == (collected, [12], ["b"])
        assert done.failed.keys() == {0} and bool(tokens) == bool(collected)
        print_collected(done)
        said = capsys.readouterr().out
        assert Trace(tmp_path / "traces/t.zarr").status == ["complete", "complete", "pending"]
        assert "1 checkpoints complete (0 now" in said and "1 failed" in said  # step 0, which stays as it was
        assert "step 12: measured, and pending until then" in said
    shutil.copy(tmp_path / "kept", series / "step0/model.safetensors")
    done = collect(tmp_path, run)
    assert (done.gained, done.collected, done.pending, done.waiting) == ([0], [12], [], [])
    (tmp_path / "traces/t.zarr/reason/c/2").unlink()  # that there is none any more: it was left out at first
    collect(tmp_path / "other", run)
    same(tmp_path / "traces/t.zarr", tmp_path / "other/traces/t.zarr")


def test_results_of_an_analysis_that_went_on_over_an_exchange_are_not_stored(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(few, tmp_path, {"a": {"prompts": 3}})
    collect(tmp_path, run)
    summary = Analysis.summary

    def exchanged(self: Analysis, trace: Trace, options: Any) -> Any:
        found = summary(self, trace, options)
        collect(tmp_path, run_of(few, tmp_path, {"a": {"prompts": 2, "shift": 3}}))
        return found

    monkeypatch.setattr(Analysis, "summary", exchanged)
    path = tmp_path / "traces/t.zarr"
    assert dynamics.analyse("t", run=run, traces=tmp_path / "traces", reporter=Reporter())
    assert "changed while it was analysed" in capsys.readouterr().err.replace("\n", " ")
    assert not (path / "results/own_probes").exists()
    dynamics.analyse("t", run=run, traces=tmp_path / "traces")
    assert (path / "results/own_probes").exists()
