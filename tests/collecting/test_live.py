"""Collecting while a model trains: the same trace as from stored checkpoints, and training that does not notice."""

from __future__ import annotations

import builtins
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import dynamics
from checkpoints import FolderConfig, UserError
from checkpoints.organism import build_tokenizer
from checkpoints.tokenizing import word_tokenizer
from dynamics.collecting.live import LiveCollector, log_steps
from dynamics.collecting.upkeep import RunStatus
from dynamics.runs.config import AnalysisEntry, LiveConfig, Run
from dynamics.store import Trace, writer_lock
from tests.collecting.trainings import STEPS, fresh, probes, train


def test_live_and_stored_checkpoints_give_the_same_numbers(tmp_path: Path) -> None:
    model, tokenizer = fresh(), build_tokenizer()
    few = AnalysisEntry(name="induction", options={"prompts": 8, "period": 4, "pairs": 20})
    asked = {"probes": probes(tmp_path), "settings": {"analyses": [few]}}
    with LiveCollector("live", model, tokenizer, steps=STEPS, traces=tmp_path, **asked) as live:

        def both(step: int) -> None:
            live.step(step)
            if step in STEPS:
                model.save_pretrained(tmp_path / "run" / f"step{step}")

        train(model, both)
    assert live.failed == {}
    tokenizer.save_pretrained(tmp_path / "run")
    stored = Run(
        series=FolderConfig(path=tmp_path / "run"),
        probes=probes(tmp_path),
        analyses=(few,),
    )
    dynamics.collect("stored", run=stored, traces=tmp_path)
    one, other = Trace(tmp_path / "live.zarr"), Trace(tmp_path / "stored.zarr")
    assert one.steps.tolist() == other.steps.tolist() == STEPS
    assert one.status == other.status == ["complete"] * 4
    for probe in other.probes:
        for variable in other.probe(probe).data_vars:
            np.testing.assert_array_equal(one.values(probe, str(variable)), other.values(probe, str(variable)))


def test_inside_a_checkpoint_that_takes_long_it_is_said_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamics.measurements.forward.SAID", 0.0)
    monkeypatch.setattr("dynamics.collecting.live.EVERY", 0.0)
    said: list[str] = []
    states: list[RunStatus] = []
    run = Run(series=LiveConfig(), probes=probes(tmp_path))

    def say(text: str) -> None:
        said.append(text)
        states.append(dynamics.status("live", run=run, traces=tmp_path))

    live = LiveCollector("live", fresh(), build_tokenizer(), steps=STEPS, probes=probes(tmp_path), traces=tmp_path, say=say)  # fmt: skip
    live.step(STEPS[0])
    assert said and all(text.startswith(f"dynamics: step {STEPS[0]}, sums (probe 1 of 1): ") for text in said)
    assert states[-1].collecting and said[-1] == f"dynamics: {states[-1].doing}"
    between = dynamics.status("live", run=run, traces=tmp_path)
    assert between.collecting and between.doing == ""
    live.close()


def test_training_does_not_notice(tmp_path: Path) -> None:
    alone = train(fresh(), lambda step: None)
    model = fresh()
    with LiveCollector("live", model, build_tokenizer(), steps=STEPS, probes=probes(tmp_path), traces=tmp_path) as live:
        train(model, live.step)
    assert live.collected == STEPS
    assert model.training
    assert model.config._attn_implementation == alone.config._attn_implementation != "eager"
    for name, value in alone.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_after_the_last_planned_step_others_may_write_beside_the_trace(tmp_path: Path) -> None:
    said: list[str] = []
    options: dict[str, Any] = {"steps": [0, 2], "probes": probes(tmp_path), "traces": tmp_path, "say": said.append}
    live = LiveCollector("live", fresh(), build_tokenizer(), **options)
    live.step(0)
    live.step("one")  # type: ignore[arg-type]
    assert "`step` is 'one'" in said[-1] and "training goes on" in said[-1] and live.failed == {}
    with pytest.raises(UserError), writer_lock(tmp_path / "live.zarr"):
        pass
    live.step(3)  # the last one was missed, and no later one is due
    with writer_lock(tmp_path / "live.zarr"):
        pass
    live.step(2)
    assert live.collected == [0]


def test_without_a_plan_the_trace_grows(tmp_path: Path) -> None:
    with LiveCollector("grows", fresh(), build_tokenizer(), probes=probes(tmp_path), traces=tmp_path) as live:
        for step, tokens in ((0, 0), (5, 640), (7, 896)):
            live.step(step, tokens)
            trace = Trace(tmp_path / "grows.zarr")  # readable at any time
            assert trace.steps[-1] == step
            assert trace.complete.all()
    assert trace.tokens.tolist() == [0, 640, 896]
    assert live.failed == {}
    live.step(9)  # closed
    assert Trace(tmp_path / "grows.zarr").steps.tolist() == [0, 5, 7]


def test_a_failing_collection_is_said_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    model = fresh()
    live = LiveCollector(
        "sick", model, build_tokenizer(), steps=STEPS, probes=probes(tmp_path), traces=tmp_path, say=said.append
    )
    import dynamics.collecting.live as module

    real = module.write_checkpoint

    def fails(*args: Any, **kwargs: Any) -> int:
        if len(live.collected) == 1:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "write_checkpoint", fails)
    trained = train(model, live.step)
    live.close()
    assert trained.training
    assert live.collected == [0]
    assert set(live.failed) == {1, 3, 6}
    assert "No space left" in said[0] and "training goes on" in said[0]
    trace = Trace(tmp_path / "sick.zarr")
    assert trace.status == ["complete", "failed", "failed", "failed"]
    assert "No space left" in trace.reasons[1]


def test_another_training_does_not_write_into_the_trace(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": STEPS, "probes": probes(tmp_path), "traces": tmp_path}
    with LiveCollector("one", fresh(), build_tokenizer(), **options) as live:
        live.step(0)
    with pytest.raises(UserError, match="of an earlier training"):
        LiveCollector("one", fresh(), build_tokenizer(), **options)
    with LiveCollector("one", fresh(), build_tokenizer(), resume=True, **options) as live:
        assert live.collected == [0]
        live.step(0)
        live.step(1)
    assert Trace(tmp_path / "one.zarr").status == ["complete", "complete", "pending", "pending"]


def test_a_module_without_a_config_needs_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a Linear cannot be measured as it is"):
        LiveCollector("plain", torch.nn.Linear(2, 2), probes=probes(tmp_path), traces=tmp_path)


def test_wrappers_of_training_are_looked_through(tmp_path: Path) -> None:
    inner = fresh()
    wrapped = torch.nn.DataParallel(inner)
    with LiveCollector("wrapped", wrapped, build_tokenizer(), probes=probes(tmp_path), traces=tmp_path) as live:
        live.step(0)
    assert live.failed == {}


def test_steps_are_even_in_log_and_keep_both_ends() -> None:
    steps = log_steps(10_000, 9)
    assert steps[0] == 0 and steps[-1] == 10_000
    ratios = np.diff(np.log10(np.array(steps) + 1.0))
    assert ratios.max() < 1.5 * ratios.mean()
    assert log_steps(0) == [0]
    assert log_steps(3, 50) == [0, 1, 2, 3]


def test_a_training_that_stands_still_keeps_all_its_checkpoints(tmp_path: Path) -> None:
    """Equal weights contradict a published label, but not what was seen."""
    said: list[str] = []
    model = fresh()
    with LiveCollector(
        "still", model, build_tokenizer(), probes=probes(tmp_path), traces=tmp_path, say=said.append
    ) as live:
        for step in range(5):
            live.step(step)
    assert Trace(tmp_path / "still.zarr").status == ["complete"] * 5


def test_a_resumed_training_collects_the_later_steps_anew(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": STEPS, "probes": probes(tmp_path), "traces": tmp_path}
    model = fresh()
    with LiveCollector("again", model, build_tokenizer(), **options) as live:
        train(model, lambda step: [live.step(step), step == 1 and model.save_pretrained(tmp_path / "one")])  # type: ignore[func-returns-value,arg-type]
    before = Trace(tmp_path / "again.zarr").digests
    resumed = hf.GPTNeoXForCausalLM.from_pretrained(tmp_path / "one")
    said: list[str] = []
    with LiveCollector("again", resumed, build_tokenizer(), resume=True, say=said.append, **options) as live:
        live.step(1)
        live.step(3)
    assert any("2 later checkpoints are collected anew" in text for text in said)
    after = Trace(tmp_path / "again.zarr").digests
    assert after[:2] == before[:2] and after[2] != before[2]


def test_a_resumed_training_cannot_gain_probes_and_says_why(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": STEPS, "traces": tmp_path}
    with LiveCollector("again", fresh(), build_tokenizer(), probes=probes(tmp_path), **options) as live:
        live.step(0)
    files = {p: p.read_bytes() for p in (tmp_path / "again.zarr").rglob("*") if p.is_file()}
    more = probes(tmp_path) | {"others": probes(tmp_path)["sums"]}
    with pytest.raises(UserError, match=r"others: new, 2 prompts(.|\n)*cannot go back(.|\n)*choose another name"):
        LiveCollector("again", fresh(), build_tokenizer(), probes=more, resume=True, **options)
    assert {p: p.read_bytes() for p in (tmp_path / "again.zarr").rglob("*") if p.is_file()} == files


def test_a_resumed_training_names_the_analyses_that_do_not_fit_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": [0, 5], "traces": tmp_path, "analyses": ["induction"]}
    unfit = AnalysisEntry(name="ioi", optional=True)  # its names are none of this tokenizer's tokens
    settings = {"analyses": (AnalysisEntry(name="induction"), unfit)}
    with LiveCollector("again", fresh(), build_tokenizer(), settings=settings, say=[].append, **options) as live:
        live.step(0)
    said: list[str] = []
    with LiveCollector("again", fresh(), build_tokenizer(), settings=settings, resume=True, say=said.append, **options):
        pass
    assert len([text for text in said if "left out" in text]) == 1


def test_a_resumed_training_of_other_weights_leaves_the_trace_alone(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": STEPS, "probes": probes(tmp_path), "traces": tmp_path}
    with LiveCollector("mine", fresh(), build_tokenizer(), **options) as live:
        live.step(0)
        live.step(1)
    before = Trace(tmp_path / "mine.zarr")
    other = fresh()
    torch.nn.init.normal_(other.lm_head.weight)
    said: list[str] = []
    with LiveCollector("mine", other, build_tokenizer(), resume=True, say=said.append, **options) as live:
        live.step(1)
        with writer_lock(tmp_path / "mine.zarr"):  # others may write in it
            live.step(3)
    assert "other weights" in said[0]
    after = Trace(tmp_path / "mine.zarr")
    assert (after.digests, after.status, after.reasons) == (before.digests, before.status, before.reasons)


def test_a_trace_in_which_nothing_was_measured_does_not_stand_in_the_way_of_a_changed_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"probes": probes(tmp_path), "traces": tmp_path}
    LiveCollector("mine", fresh(), build_tokenizer(), steps=[0, 5], **options).close()
    with LiveCollector("mine", fresh(), build_tokenizer(), steps=[0, 7], **options) as live:
        live.step(0)
    assert Trace(tmp_path / "mine.zarr").steps.tolist() == [0, 7]
    with pytest.raises(UserError, match="`resume` is 'yes'"):
        LiveCollector("mine", fresh(), build_tokenizer(), steps=[0, 7], resume="yes", **options)


def test_what_is_cached_in_a_first_forward_pass_can_still_be_trained_through(tmp_path: Path) -> None:
    """Tensors made in inference mode could not be saved for the backward pass."""
    model = fresh()
    base = model.gpt_neox
    real = type(base.embed_in).forward

    class Lazy(torch.nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            if not hasattr(self, "scale"):
                self.scale = torch.ones(self.weight.shape[1]) * 1.0
            scaled: torch.Tensor = real(self, ids) * self.scale
            return scaled

    base.embed_in.__class__ = Lazy
    with LiveCollector("lazy", model, build_tokenizer(), steps=STEPS, probes=probes(tmp_path), traces=tmp_path) as live:
        train(model, live.step)
    assert live.failed == {}
    assert live.collected == STEPS


def test_analyses_that_do_not_fit_are_told_together(tmp_path: Path) -> None:
    words = word_tokenizer(["a", "b", "c"])
    with pytest.raises(UserError, match="2 things are wrong") as refused:
        LiveCollector("x", fresh(), words, analyses=["induction", "addition"], traces=tmp_path)
    text = str(refused.value)
    assert "in analysis 'induction'" in text and "in analysis 'addition'" in text and text.count("remedy: ") == 2
    assert "{name: induction, options: {period: 8}}" in text


def test_mistakes_before_training_are_told_and_leave_no_lock(tmp_path: Path) -> None:
    options: dict[str, Any] = {"probes": probes(tmp_path), "traces": tmp_path}
    with pytest.raises(UserError, match="there is no tokenizer"):
        LiveCollector("x", fresh(), **options)
    with pytest.raises(UserError, match="a str is no fast tokenizer"):
        LiveCollector("x", fresh(), "gpt2", **options)
    with pytest.raises(UserError, match="settings of live run 'x' are wrong: unknown key 'batch_token': did"):
        LiveCollector("x", fresh(), build_tokenizer(), settings={"batch_token": 3}, **options)
    with pytest.raises(UserError, match="cannot name a run"):
        LiveCollector("../x", fresh(), build_tokenizer(), **options)
    with LiveCollector("x", fresh(), build_tokenizer(), steps=[0], **options) as live:
        live.step(0)
    with pytest.raises(UserError, match="of an earlier training") as refused:
        LiveCollector("x", fresh(), build_tokenizer(), steps=[0], **options)
    LiveCollector("x", fresh(), build_tokenizer(), steps=[0], resume=True, **options).close()
    assert refused.value is not None  # still alive, as in a notebook: it must not hold the lock


def test_the_tenth_step_of_a_training_without_a_plan_costs_what_the_third_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are opened, folders that are listed, files that are replaced: a trace that grew was once read through."""
    calls: list[str] = []

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: calls.append(name) or real(*a, **k))

    with LiveCollector("grows", fresh(), build_tokenizer(), probes=probes(tmp_path), traces=tmp_path) as live:
        for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "scandir"), (os, "replace")):
            counted(module, name)
        costs, sizes = [], []
        for step in range(11):
            calls.clear()
            live.step(step)
            costs.append(len(calls))
            sizes.append((tmp_path / "grows.zarr/zarr.json").stat().st_size)
    assert not live.failed and costs[10] == costs[3] > 10
    assert sizes[8] - sizes[3] < 5 * 40  # bytes of the root's metadata, which name every step
