"""Writing a trace: only what was declared, only to the same declaration; results are replaced, and slabs left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from checkpoints.errors import UserError
from checkpoints.series import Checkpoint
from dynamics.store import (
    Group,
    Trace,
    TraceDeclaration,
    TraceWriter,
    open_trace,
    read_result,
    write_result,
    writer_lock,
)
from dynamics.store.format import TOGETHER, whole_column
from dynamics.store.manifest import ROOT_COPY
from dynamics.store.variable import Variable
from tests.store.declared import CHECKPOINTS, declare, fill, snapshot, values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("predicted"), "declared"),
        (lambda v: v.update(extra=np.zeros(4)), "extra"),
        (lambda v: v.update(answer_logprob=np.zeros(5)), r"shape \(5,\), declared \(4,\)"),
        (lambda v: v.update(answer_logprob=np.zeros((4, 1))), r"shape \(4, 1\)"),
    ],
)
def test_the_writer_refuses_what_was_not_declared(tmp_path: Path, change: Any, message: str) -> None:
    declaration = declare()
    writer = TraceWriter(tmp_path / "t.zarr", declaration)
    content = values(declaration, 0)["mine"]
    change(content)
    with pytest.raises(ValueError, match=message):
        writer.write(0, "mine", content)
    assert writer.status() == ["pending"] * 3


def test_non_finite_and_overflowing_values_are_kept_and_counted(tmp_path: Path) -> None:
    declaration = declare(trace_dtype="float16")
    content = values(declaration, 0)["mine"]
    content["resid_post"][0, 0, 0, :3] = [1e6, -1e6, 65504.0]
    content["resid_post"][0, 0, 0, 3:] = [np.nan, np.inf]
    content["answer_logprob"][0] = -np.inf
    content["pattern"][0] = np.nan  # padding is no broken model
    nonfinite, overflowed = TraceWriter(tmp_path / "t.zarr", declaration).write(0, "mine", content)
    assert (nonfinite, overflowed) == (3, 2)
    stored = open_trace(tmp_path / "t.zarr")["mine"]["resid_post"][0, 0, 0, 0].values
    assert np.array_equal(stored, [np.inf, -np.inf, 65504, np.nan, np.inf], equal_nan=True)


def _with(group: Group, **changes: Any) -> Group:
    return Group(**({f: getattr(group, f) for f in ("name", "description", "prompts", "variables")} | changes))


def _changed() -> dict[str, tuple[TraceDeclaration, str]]:
    base = declare()
    mine, other = base.groups
    return {
        "checkpoints": (declare(checkpoints=CHECKPOINTS[:2]), "step 200: the trace has .*, the run now asks for none"),
        "steps": (declare(checkpoints=(*CHECKPOINTS[:2], Checkpoint(201, "x", 20_000, "训练"))), "201"),
        "tokens": (declare(checkpoints=(*CHECKPOINTS[:2], Checkpoint(200, "x", 7, "训练"))), "step 200: .*tokens 20000.*tokens 7"),
        "trace_dtype": (declare(trace_dtype="float16"), 'trace_dtype: the trace has "float32"'),
        "bfloat16": (declare(bfloat16=True), "bfloat16"),
        "dtype": (declare(attributes={**base.attributes, "dtype": "bfloat16"}), 'asks for "bfloat16"'),
        "tokenizer": (declare(attributes={**base.attributes, "tokenizer_digest": "u"}), "tokenizer_digest"),
        "model": (declare(attributes={**base.attributes, "model_config": {"layers": 4}}), "model_config"),
        "probe gone": (declare(groups=(mine,)), "probe other"),
        "prompts": (declare(groups=(mine, _with(other, prompts={"text": ("y",)}))), "probe other.*prompts"),
        "variable gone": (declare(groups=(_with(mine, variables=mine.variables[:3]), other)), "predicted"),
        "variable added": (
            declare(
                groups=(_with(mine, variables=(*mine.variables, Variable("entropy", ("prompt",), (4,), "float", ""))), other)
            ),
            "entropy",
        ),
        "shape": (
            declare(groups=(mine, _with(other, variables=(Variable("token_loss", ("prompt", "token"), (1, 8), "float", ""),)))),
            "token_loss",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("what", _changed())
def test_another_declaration_is_refused_and_the_message_says_what_differs(tmp_path: Path, what: str) -> None:
    TraceWriter(tmp_path / "t.zarr", declare())
    before = snapshot(tmp_path)
    changed, message = _changed()[what]
    with pytest.raises(UserError, match=message):
        TraceWriter(
            tmp_path / "t.zarr", changed, gains=what in ("checkpoints", "steps", "tokens", "tokenizer", "model")
        )
    assert snapshot(tmp_path) == before


def test_the_same_declaration_goes_on_and_changes_nothing(tmp_path: Path) -> None:
    writer = fill(tmp_path / "t.zarr", declare())
    orphan = tmp_path / "t.zarr/mine/resid_post/c/1/0.abc.partial"
    orphan.parent.mkdir()
    orphan.write_bytes(b"half")
    before = snapshot(tmp_path)
    again = TraceWriter(tmp_path / "t.zarr", declare())
    assert again.status() == writer.status() == ["complete", "pending", "complete"]
    after = snapshot(tmp_path)
    assert before.keys() - after.keys() == {str(orphan.relative_to(tmp_path))}
    assert {k: v for k, v in before.items() if k in after} == after


def test_a_failed_checkpoint_that_succeeds_later_loses_its_reason(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "t.zarr", declare())
    writer.mark(0, "failed", "truncated")
    assert Trace(tmp_path / "t.zarr").reasons[0] == "truncated"
    fill(tmp_path / "t.zarr", declare(), (0,))
    trace = Trace(tmp_path / "t.zarr")
    assert trace.status[0] == "complete" and trace.reasons[0] == ""


@pytest.mark.parametrize("name", ["status", "step", "results", "reason"])
def test_a_probe_cannot_take_a_name_that_the_trace_uses(name: str) -> None:
    with pytest.raises(UserError, match=name):
        Group(name, "", {"text": ("x",)}, (Variable("entropy", ("prompt",), (1,), "float", ""),))


def test_a_label_cannot_take_the_name_of_a_variable() -> None:
    with pytest.raises(UserError, match="entropy"):
        Group("p", "", {"text": ("x",), "entropy": (1,)}, (Variable("entropy", ("prompt",), (1,), "float", ""),))


def test_two_measurements_cannot_write_one_variable() -> None:
    variable = Variable("entropy", ("prompt",), (1,), "float", "")
    with pytest.raises(UserError, match="both write 'entropy'"):
        Group("p", "", {"text": ("x",)}, (variable, variable))


def _result(scale: float) -> xr.Dataset:
    return xr.Dataset(
        {
            "curve": ("checkpoint", np.array([scale, np.nan, 3.0])),
            "map": (("checkpoint", "layer"), np.full((3, 2), scale)),
        },
        coords={"step": ("checkpoint", [0, 10, 200]), "layer": [0, 1], "kind": ("layer", ["a", "ü"])},
    )


def test_results_are_written_replaced_and_read_back_beside_untouched_slabs(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    fill(path, declare())
    raw = {k: v for k, v in snapshot(path).items() if k not in ("zarr.json", ROOT_COPY)}
    assert read_result(path, "addition") is None
    with writer_lock(path):
        write_result(path, "addition", _result(1.0), {"text": "first ü"})
        write_result(path, "induction", _result(7.0), {})
        write_result(path, "addition", _result(2.0).drop_vars("map"), {"text": "second"})
    stored = read_result(path, "addition")
    assert stored is not None
    dataset, summary = stored
    assert summary == {"text": "second"} and set(dataset.data_vars) == {"curve"}
    assert dataset.sel(step=200)["curve"].item() == 3.0 and dataset["curve"][0].item() == 2.0
    assert dataset["kind"].values.tolist() == ["a", "ü"]
    for tree in (xr.open_datatree(path), open_trace(path)):
        assert {"/results/addition", "/results/induction"} <= set(tree.groups)
        assert float(tree["results/induction/map"][0, 0]) == 7.0
        assert tree["results/addition"]["step"].values.tolist() == [0, 10, 200]
    assert {k: v for k, v in snapshot(path).items() if k in raw} == raw
    assert Trace(path).probes == ["mine", "other"]
    assert TraceWriter(path, declare()).status()[0] == "complete"


def test_a_result_that_was_cut_off_while_writing_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    fill(path, declare())
    write_result(path, "addition", _result(1.0), {})
    file = path / "results/addition/zarr.json"
    content = json.loads(file.read_text())
    del content["attributes"]["summary"]
    file.write_text(json.dumps(content))
    assert read_result(path, "addition") is None


@pytest.mark.parametrize("checkpoints", [0, 1, 256, 700])
def test_a_small_array_of_many_checkpoints_is_read_some_at_a_time(checkpoints: int) -> None:
    """Whatever their number, zarr is asked for no more chunks at once."""
    values, asked = np.arange(checkpoints), []

    class Column:
        shape = (checkpoints,)

        def __getitem__(self, part: slice) -> np.ndarray:
            asked.append(part.stop - part.start)
            return values[part]

    assert np.array_equal(whole_column(Column()), values)  # type: ignore[arg-type]
    assert max(asked) <= TOGETHER
