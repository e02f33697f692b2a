"""Collecting: the trace holds what plain ``transformers`` computes, of the checkpoints that were asked for, broken or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.errors import UserError
from checkpoints.local import FolderSeries
from dynamics import Trace, analyse, report, status
from dynamics.collecting.estimating import estimate
from dynamics.runs.config import Run
from dynamics.runs.schedule import scheduled
from dynamics.store.manifest import slab_files
from tests.collecting.local.tiny import PROMPTS, STEPS, files, make_run, poison, run_collect, same_files


def _keep(seen: dict[int, Any], layer: int) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        seen[layer] = output[0] if isinstance(output, tuple) else output

    return hook


def test_a_trace_holds_what_plain_transformers_computes_one_prompt_at_a_time(tiny_series: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run_collect(tmp_path, make_run(tmp_path, tiny_series))
    trace = Trace(tmp_path / "traces/mine.zarr")
    assert trace.steps.tolist() == STEPS and trace.status == ["complete"] * 6
    logprob, predicted = trace.values("sums", "answer_logprob"), trace.values("sums", "predicted")
    resid = trace.values("sums", "resid_post")
    assert resid.shape == (6, len(PROMPTS), 1, 2, 32) and len({len(t) for t, _ in PROMPTS}) > 1
    for index, step in enumerate(STEPS):
        folder = tiny_series / f"step{step}"
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        seen: dict[int, Any] = {}
        for layer, block in enumerate(model.gpt_neox.layers):
            block.register_forward_hook(_keep(seen, layer))
        for row, (text, answer) in enumerate(PROMPTS):
            with torch.no_grad():
                logits = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
            (answer_id,) = tokenizer(answer, add_special_tokens=False)["input_ids"]
            expected = float(torch.log_softmax(logits, -1)[answer_id])
            assert logprob[index, row] == pytest.approx(expected, abs=1e-5)
            assert predicted[index, row] == int(logits.argmax())
            for layer in (0, 1):
                np.testing.assert_allclose(resid[index, row, 0, layer], seen[layer][0, -1].numpy(), atol=1e-5)
    digests = trace.tree["weights_digest"].values.tolist()
    assert len(set(digests)) == 6 and all(len(d) == 64 for d in digests)
    assert trace.tree["stored_dtype"].values.tolist() == ["float32"] * 6
    assert trace.tree["nonfinite"].values.tolist() == trace.tree["overflowed"].values.tolist() == [0] * 6


def test_collecting_twice_does_nothing_the_second_time(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, tiny_series)
    first = run_collect(tmp_path, run)
    assert (first.collected, first.already) == (STEPS, [])
    before = files(tmp_path / "traces")
    monkeypatch.setattr(FolderSeries, "read", lambda self, path: pytest.fail("weights were read again"))
    second = run_collect(tmp_path, run)
    assert (second.collected, second.already, second.failed) == ([], STEPS, {})
    assert files(tmp_path / "traces") == before


def test_two_collections_of_the_same_weights_are_the_same_bytes(tiny_series: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny_series)
    run_collect(tmp_path, run, "one")
    run_collect(tmp_path, run, "other")
    same_files(tmp_path / "one", tmp_path / "other")
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.owner"))


@pytest.mark.parametrize("changes", [pytest.param({"batch_tokens": 1}, marks=pytest.mark.slow), {"layout": "sharded"}])
def test_neither_batching_nor_layout_changes_what_is_measured(
    tiny_series: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    exclude = {"exclude": STEPS[1:-1]}
    run_collect(tmp_path, make_run(tmp_path, tiny_series, **exclude), "one")
    run_collect(tmp_path, make_run(tmp_path, tiny_series, **exclude, **changes), "other")
    one, other = (Trace(tmp_path / name / "mine.zarr") for name in ("one", "other"))
    for probe in one.probes:
        for variable in one.probe(probe).data_vars:
            first, second = one.values(probe, str(variable)), other.values(probe, str(variable))
            np.testing.assert_allclose(first, second, atol=1e-5, err_msg=f"{probe}/{variable}")


def test_an_excluded_checkpoint_is_masked_with_its_reason_and_read_as_missing(
    tiny_series: Path, tmp_path: Path
) -> None:
    done = run_collect(tmp_path, make_run(tmp_path, tiny_series, exclude=[2, 3]))
    assert done.masked.keys() == {2, 3} and done.collected == [0, 1, 6, 12]
    trace = Trace(tmp_path / "traces/mine.zarr")
    assert trace.status == ["complete", "complete", "masked", "masked", "complete", "complete"]
    assert trace.reasons[2] == "excluded in the runs file"
    assert np.isnan(trace.values("sums", "answer_logprob")[2:4]).all()
    # taken back in later, it is measured like any other
    assert run_collect(tmp_path, make_run(tmp_path, tiny_series)).collected == [2, 3]
    assert Trace(tmp_path / "traces/mine.zarr").reasons == [""] * 6
    # left out after it was measured, its numbers are not read, and not lost
    run_collect(tmp_path, make_run(tmp_path, tiny_series, exclude=[12]))
    trace = Trace(tmp_path / "traces/mine.zarr")
    assert trace.status[-1] == "masked" and np.isnan(trace.values("sums", "resid_post")[-1]).all()
    assert np.isfinite(trace.probe("sums")["resid_post"][-1].values).all()


def test_excluding_a_step_that_does_not_exist_is_refused(tiny_series: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="excludes step 5"):
        run_collect(tmp_path, make_run(tmp_path, tiny_series, exclude=[5]))
    assert not (tmp_path / "traces/mine.zarr").exists()


def test_a_log_schedule_visits_some_and_a_dense_one_completes_the_rest(tiny_series: Path, tmp_path: Path) -> None:
    sparse = make_run(tmp_path, tiny_series, schedule="log", checkpoints=3)
    done = run_collect(tmp_path, sparse)
    assert done.collected == [0, 3, 12]
    state = status("mine", run=sparse, traces=tmp_path / "traces")
    assert state.steps == {"complete": [0, 3, 12], "not scheduled": [1, 2, 6]}
    assert np.isnan(Trace(tmp_path / "traces/mine.zarr").values("sums", "answer_logprob")[[1, 2, 4]]).all()
    dense = make_run(tmp_path, tiny_series)
    assert status("mine", run=dense, traces=tmp_path / "traces").steps["pending"] == [1, 2, 6]
    assert run_collect(tmp_path, dense).collected == [1, 2, 6]
    run_collect(tmp_path, dense, "reference")
    first, second = files(tmp_path / "reference"), files(tmp_path / "traces")
    assert first == second  # the trace names the schedule that completed it


@settings(deadline=None, max_examples=50)
@given(steps=st.sets(st.integers(0, 10**9), min_size=2, max_size=60), count=st.integers(2, 70))
def test_a_schedule_has_the_first_and_the_last_checkpoint_and_none_twice(steps: set[int], count: int) -> None:
    ordered = sorted(steps)
    assert scheduled(ordered, "dense", count) == list(range(len(ordered)))
    chosen = scheduled(ordered, "log", count)
    assert chosen == sorted(set(chosen)) and len(chosen) <= max(count, 2)
    assert chosen[0] == 0 and chosen[-1] == len(ordered) - 1
    if count >= len(ordered):
        assert len(chosen) == len(ordered)


def test_a_schedule_has_a_number_of_its_own_where_none_is_said() -> None:
    steps = [0, *(round(1.08**k) for k in range(9, 162))]
    adaptive, log, dense = (scheduled(steps, schedule) for schedule in ("adaptive", "log", "dense"))
    assert 2 < len(adaptive) <= 8 < len(log) <= 20 and len(dense) == 154
    assert len(scheduled(steps, "adaptive", 30)) > 20


@pytest.mark.slow
def test_broken_weights_are_complete_counted_reported_and_never_a_plausible_number(
    series: Path, tmp_path: Path
) -> None:
    def break_everything(tensors: dict[str, torch.Tensor]) -> None:
        tensors["gpt_neox.layers.0.attention.query_key_value.weight"][:] = float("nan")

    poison(series, 3, break_everything)
    analyses = [
        {"name": "addition", "options": {"per_context": 20, "permutations": 19}},
        "shared_concepts",
        {"name": "induction", "options": {"prompts": 8, "period": 4, "pairs": 20}},
    ]
    run = make_run(tmp_path, series, analyses=analyses, exclude=[1, 2, 6])
    done = run_collect(tmp_path, run)
    assert done.collected == [0, 3, 12] and done.failed == {}
    trace = Trace(tmp_path / "traces/mine.zarr")
    assert trace.status[3] == "complete"
    nonfinite = trace.tree["nonfinite"].values
    assert nonfinite[3] > 0 and nonfinite[0] == nonfinite[5] == 0
    assert np.isnan(trace.values("sums", "answer_logprob")[3]).all()
    assert (trace.values("sums", "predicted")[3] == -1).all()
    written = report("mine", run=run, traces=tmp_path / "traces", reports=tmp_path / "reports")
    findings = [f for a in written.content["analyses"] for f in a["findings"]]
    assert len(findings) > 20
    plausible = {f["key"]: f["values"] for f in findings if f["values"][3] is not None or f["values"][1] is not None}
    assert plausible == {}
    for f in findings:
        assert f["low"][3] is None and f["high"][3] is None and f["null_mean"][3] is None, f["key"]
    for summary in analyse("mine", run=run, traces=tmp_path / "traces", fresh=False).values():
        for name, array in summary.data.data_vars.items():
            if "checkpoint" not in array.dims:  # the final circuit, say
                continue
            assert np.isnan(array.isel(checkpoint=3)).all(), name
            assert np.isnan(array.isel(checkpoint=1)).all(), name
    problems = [p for p in written.content["problems"] if p["status"] == "complete"]
    assert [p["step"] for p in problems] == [3] and f"{nonfinite[3]} values" in problems[0]["reason"]
    assert problems[0]["reason"] in (tmp_path / "reports/mine/index.html").read_text()


def test_activations_too_large_for_float16_are_counted_and_said(series: Path, tmp_path: Path) -> None:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        tensors["gpt_neox.embed_in.weight"][:, 0] = 1e6

    poison(series, 12, enlarge)
    run = make_run(tmp_path, series, trace_dtype="float16", exclude=STEPS[1:-1])
    run_collect(tmp_path, run)
    trace = Trace(tmp_path / "traces/mine.zarr")
    overflowed = trace.tree["overflowed"].values
    assert overflowed[0] == 0 and overflowed[-1] == 2 * (len(PROMPTS) + 20)
    assert trace.tree["nonfinite"].values[-1] == 0
    assert np.isinf(trace.values("sums", "resid_post")[-1, :, 0, :, 0]).all()
    assert trace.probe("sums")["resid_post"].dtype == np.float16
    run_collect(tmp_path, make_run(tmp_path, series, exclude=STEPS[1:-1]), "exact")
    exact = Trace(tmp_path / "exact/mine.zarr")
    assert exact.tree["overflowed"].values[-1] == 0 and np.nanmax(exact.values("sums", "resid_post")) < np.inf


def test_an_estimate_writes_nothing_and_is_right_about_sizes(tiny_series: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, tiny_series, schedule="log", checkpoints=3)
    before = sorted(tmp_path.rglob("*"))
    guess = estimate("mine", run=run)
    assert sorted(tmp_path.rglob("*")) == before
    assert (guess.checkpoints, guess.of, guess.to_train) == (3, 6, 0)
    assert guess.prompts == len(PROMPTS) + 2 * 8 + 20 and guess.seconds is not None and guess.seconds > 0
    run_collect(tmp_path, run)
    trace = Trace(tmp_path / "traces/mine.zarr")
    groups = [trace.tree[name].to_dataset() for name in (*trace.probes, "weights")]
    stored = sum(group[v].isel(checkpoint=0).nbytes for group in groups for v in group.data_vars)
    assert guess.trace_bytes == 3 * stored
    slabs = [(trace.path / name, v) for name in (*trace.probes, "weights") for v in trace.tree[name].data_vars]
    written = sum(file.stat().st_size for group, v in slabs for file in slab_files(group / str(v), 0))
    assert 0.9 * stored < written < 1.1 * stored  # with checksums and what chunks are padded with, less what compresses


def test_an_estimate_of_an_untrained_organism_says_what_has_to_be_trained(tmp_path: Path) -> None:
    run = Run.model_validate({"series": {"kind": "organism", "seed": 77}, "analyses": ["induction"]})
    guess = estimate("never", run=run)
    assert guess.to_train == 1400 and guess.checkpoints == 40
    assert guess.seconds is not None and "random weights" in guess.basis


def test_only_the_named_steps_are_visited(tiny_series: Path, tmp_path: Path) -> None:
    done = run_collect(tmp_path, make_run(tmp_path, tiny_series), only=[2, 6])
    assert done.collected == [2, 6]
