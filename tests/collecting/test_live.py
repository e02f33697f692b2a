"""Collecting while a model trains: the same trace as from stored checkpoints, and training that does not notice."""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import dynamics
from checkpoints import FolderConfig, UserError
from checkpoints.organism import build_tokenizer
from checkpoints.tokenizing import word_tokenizer
from dynamics.collecting.arguments import in_arguments
from dynamics.collecting.callback import DynamicsCallback
from dynamics.collecting.live import LiveCollector, log_steps
from dynamics.collecting.upkeep import RunStatus
from dynamics.runs.config import AnalysisEntry, LiveConfig, ProbeEntry, Run
from dynamics.store import Trace, writer_lock

STEPS = [0, 1, 3, 6]
ROOT = Path(__file__).parents[2]


def fresh() -> hf.GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = hf.GPTNeoXConfig(
        vocab_size=len(build_tokenizer()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        hidden_dropout=0.1,
        bos_token_id=0,
        eos_token_id=0,
    )
    return hf.GPTNeoXForCausalLM(config)


def train(model: Any, at: Callable[[int], None], steps: int = 6) -> Any:
    """A plain loop with dropout, which draws random numbers."""
    ids = torch.tensor([build_tokenizer()("36+59=095")["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    torch.manual_seed(1)
    for step in range(steps + 1):
        at(step)
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return model


def probes(folder: Path) -> dict[str, ProbeEntry]:
    file = folder / "prompts.jsonl"
    file.write_text('{"text": "36+59=", "answer": "0"}\n{"text": "12+34=", "answer": "0"}\n')
    return {"sums": ProbeEntry(file=file, sites=("resid_post", "pattern"))}


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


class _Texts(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self) -> None:
        self.ids = torch.tensor(build_tokenizer()("36+59=095")["input_ids"])

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids, "labels": self.ids}


def trainer(folder: Path, callbacks: list[Any], **options: Any) -> Any:
    arguments = hf.TrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=6,
        per_device_train_batch_size=4,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=True,
        seed=3,
        **options,
    )
    return hf.Trainer(
        model=fresh(),
        args=arguments,
        train_dataset=_Texts(),
        callbacks=callbacks,
        processing_class=build_tokenizer(),
    )


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_is_collected_from(tmp_path: Path) -> None:
    plain = trainer(tmp_path, [])
    plain.train()
    callback = DynamicsCallback("trained", probes=probes(tmp_path), traces=tmp_path, checkpoints=4)
    watched = trainer(tmp_path, [callback])
    watched.train()
    trace = Trace(tmp_path / "trained.zarr")
    assert trace.steps.tolist() == log_steps(6, 4)
    assert trace.complete.all()
    assert len(set(trace.digests)) == len(trace.steps)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, watched.model.state_dict()[name]), name
    report = dynamics.open_trace(tmp_path / "trained.zarr")["sums"].to_dataset()
    assert report.resid_post.dims == ("checkpoint", "prompt", "position", "layer", "d_model")


BEFORE: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "a probe file that is not there": (
        lambda at: {"probes": {"p": ProbeEntry(file=at / "missing.jsonl")}},
        "missing.jsonl cannot be read",
    ),
    "no tokenizer": (lambda at: {"tokenizer": "gpt2"}, "a str is no fast tokenizer"),
    "a setting that there is none of": (lambda at: {"settings": {"batch_token": 3}}, "settings of live run 'x'"),
    "probes that have no names": (
        lambda at: {"probes": [ProbeEntry(file=at / "p.jsonl")]},
        r"`probes` is \[(.|\n)*a dict as",
    ),
    "settings that are none": (lambda at: {"settings": 3}, "`settings` is 3, of type int"),
    "steps that are none": (lambda at: {"steps": "0, 10"}, "`steps` is '0, 10'"),
    "sites of no table": (lambda at: {"settings": {"sites": "math:pi"}}, "`sites: math:pi` is a float"),
    "an option that there is none of": (
        lambda at: {"settings": {"analyses": [{"name": "induction", "options": {"periods": 3}}]}},
        "has no option 'periods'",
    ),
    "a trace of another training": (lambda at: {"name": "earlier"}, "of an earlier training"),
}


@pytest.mark.parametrize("what", BEFORE)
def test_a_callback_that_is_wrong_is_told_so_before_the_first_step(what: str, tmp_path: Path) -> None:
    make, message = BEFORE[what]
    options = {"name": "x", "probes": probes(tmp_path), "traces": tmp_path, "steps": [0], **make(tmp_path)}
    name = options.pop("name")
    if name == "earlier":
        begin(DynamicsCallback(name, **options)).close()
    with pytest.raises(UserError, match=message) as caught:
        begin(DynamicsCallback(name, **options))
    _names_only_what_there_is(str(caught.value))


def begin(callback: DynamicsCallback) -> LiveCollector:
    """As the Trainer begins to train."""
    state = SimpleNamespace(max_steps=6, global_step=0)
    callback.on_train_begin(None, state, None, model=fresh(), processing_class=build_tokenizer())
    assert callback.live is not None
    return callback.live


def _names_only_what_there_is(message: str) -> None:
    """Arguments that a message names are arguments of both ways to collect, or fields of a run."""
    assert "runs file" not in message and "--" not in message
    for call in (LiveCollector, DynamicsCallback):
        known = {*inspect.signature(call).parameters, *Run.model_fields}
        assert set(re.findall(r"\b([a-z_]+)=(?=True|\{|\[)", message)) <= known


def test_whatever_a_message_says_of_the_runs_file_is_said_in_arguments() -> None:
    """Every text of an error in the code that both ways share, also those that no test provokes."""
    said = []
    for folder in ("analyses", "dynamics/analysis", "dynamics/measurements", "dynamics/models", "dynamics/probes", "dynamics/runs/plan.py", "dynamics/store"):  # fmt: skip
        for file in [f] if (f := ROOT / folder).is_file() else f.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
                    parts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                    said += [part for part in parts if isinstance(part, str) and re.search("runs file|--[a-z]", part)]
    assert len(said) > 5
    assert [text for text in map(in_arguments, said) if re.search("runs file|--[a-z]", text)] == []


def test_both_ways_to_collect_take_the_same_arguments() -> None:
    one, other = (set(inspect.signature(call).parameters) for call in (LiveCollector, DynamicsCallback))
    assert one - other == {"model"} and other - one == {"checkpoints"}


@pytest.mark.filterwarnings("ignore")
def test_a_fault_of_collecting_lets_the_trainer_go_on_and_the_end_says_where_the_trace_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("dynamics.collecting.live.write_checkpoint", lambda *_, **__: int("a fault of collecting"))
    callback = DynamicsCallback("sick", probes=probes(tmp_path), traces=tmp_path, steps=[0, 2], say=said.append)
    done = trainer(tmp_path, [callback])
    done.train()
    assert done.state.global_step == 6
    assert [("training goes on" in text) for text in said] == [True, True, False]
    assert said[-1] == f"dynamics: 0 of 2 planned checkpoints are in {tmp_path / 'sick.zarr'}, 2 failed"


def test_a_misspelt_analysis_is_refused_before_training() -> None:
    with pytest.raises(UserError, match="there is no analysis 'inductoin'"):
        DynamicsCallback("x", analyses=["inductoin"])


@pytest.mark.filterwarnings("ignore")
def test_mixed_precision_of_the_trainer_does_not_reach_the_measurements(tmp_path: Path) -> None:
    """Its autocast wraps the model's own forward; the trace says float32 and means it."""
    callback = DynamicsCallback("mixed", probes=probes(tmp_path), traces=tmp_path, steps=[0])
    mixed = trainer(tmp_path, [callback], bf16=True)
    mixed.train()
    with LiveCollector(
        "plain", fresh(), build_tokenizer(), steps=[0], probes=probes(tmp_path), traces=tmp_path
    ) as live:
        live.step(0)
    one, other = Trace(tmp_path / "mixed.zarr"), Trace(tmp_path / "plain.zarr")
    assert one.digests == other.digests
    np.testing.assert_array_equal(one.values("sums", "resid_post"), other.values("sums", "resid_post"))


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
