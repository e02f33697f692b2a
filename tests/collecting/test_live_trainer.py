"""Collecting from a Trainer, and what is said before training begins."""

from __future__ import annotations

import ast
import inspect
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
from checkpoints import UserError
from checkpoints.organism import build_tokenizer
from dynamics.collecting.arguments import in_arguments
from dynamics.collecting.callback import DynamicsCallback
from dynamics.collecting.live import LiveCollector, log_steps
from dynamics.runs.config import ProbeEntry, Run
from dynamics.store import Trace
from tests.collecting.trainings import fresh, probes

ROOT = Path(__file__).parents[2]


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
