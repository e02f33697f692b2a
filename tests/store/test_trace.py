"""The trace: what is declared is what is stored, what is stored is what is read, and nothing else is accepted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

import dynamics
from checkpoints.errors import UserError
from checkpoints.series import Checkpoint
from dynamics.measurements import Variable
from dynamics.store import (
    FORMAT_VERSION,
    Group,
    Trace,
    TraceDeclaration,
    TraceWriter,
    open_trace,
    read_result,
    write_result,
    writer_lock,
)
from dynamics.store.declaration import chunk_shape

CHECKPOINTS = (
    Checkpoint(0, "step0", None, ""),
    Checkpoint(10, "step10", 1000, "warm-up"),
    Checkpoint(200, "a/βranch", 20_000, "训练"),
)
TEXT = ("plain", 'quote " and <b>', "ünïcode 数学 🙂", "")


def declare(**changes: Any) -> TraceDeclaration:
    """One probe with every kind of variable."""
    variables = (
        Variable(
            "resid_post",
            ("prompt", "position", "layer", "d_model"),
            (4, 2, 3, 5),
            "activation",
            "activations",
            coords={"position": ("last", "größe")},
        ),
        Variable("pattern", ("prompt", "layer", "head", "key"), (4, 3, 2, 6), "activation", "pattern", padded=True),
        Variable("answer_logprob", ("prompt",), (4,), "float", "log-probability", "nat"),
        Variable("predicted", ("prompt",), (4,), "int", "token id"),
    )
    group = Group("mine", "a probe", {"text": TEXT, "number": (1, 2, 3, 4), "share": (0.5, 1.0, 2.0, 4.0)}, variables)
    other = Group(
        "other", "", {"text": ("x",)}, (Variable("token_loss", ("prompt", "token"), (1, 7), "float", "loss", "nat"),)
    )
    content: dict[str, Any] = {
        "checkpoints": CHECKPOINTS,
        "groups": (group, other),
        "attributes": {"dtype": "float32", "tokenizer_digest": "t", "model_config": {"layers": 3}, "run": "r"},
    }
    return TraceDeclaration(**(content | changes))


def values(declaration: TraceDeclaration, index: int) -> dict[str, dict[str, np.ndarray]]:
    """Other numbers for every checkpoint, group and variable."""
    rng = np.random.default_rng(index)
    return {
        g.name: {
            v.name: rng.integers(0, 1000, v.shape) if v.kind == "int" else rng.normal(size=v.shape).astype(np.float32)
            for v in g.variables
        }
        for g in declaration.groups
    }


def fill(path: Path, declaration: TraceDeclaration, indices: tuple[int, ...] = (0, 2)) -> TraceWriter:
    """A trace with the checkpoints of these indices complete."""
    writer = TraceWriter(path, declaration)
    for index in indices:
        counts = [writer.write(index, group, content) for group, content in values(declaration, index).items()]
        writer.commit(
            index,
            digest=f"digest{index}",
            stored_dtype="float32",
            nonfinite=sum(c[0] for c in counts),
            overflowed=sum(c[1] for c in counts),
        )
    return writer


@pytest.mark.parametrize("layout", ["local", "sharded"])
@pytest.mark.parametrize(("trace_dtype", "bfloat16"), [("float32", False), ("float16", False), ("float32", True)])
def test_what_is_written_is_what_is_read(tmp_path: Path, layout: Any, trace_dtype: Any, bfloat16: bool) -> None:
    declaration = declare(layout=layout, trace_dtype=trace_dtype, bfloat16=bfloat16)
    fill(tmp_path / "t.zarr", declaration)
    trace = Trace(tmp_path / "t.zarr")
    assert trace.status == ["complete", "pending", "complete"]
    assert trace.steps.tolist() == [0, 10, 200]
    assert np.array_equal(trace.tokens, [np.nan, 1000, 20_000], equal_nan=True)
    for index in (0, 2):
        for group, content in values(declaration, index).items():
            for name, expected in content.items():
                stored = trace.probe(group)[name]
                kind = {v.name: v.kind for g in declaration.groups for v in g.variables}[name]
                dtype = {"activation": trace_dtype, "float": "float32", "int": "int32"}[kind]
                assert stored.dtype == dtype
                assert np.array_equal(stored[index].values, expected.astype(dtype)), name
                assert np.array_equal(trace.values(group, name)[index], expected.astype(dtype)), name


def test_text_of_any_language_survives_in_coordinates_and_series(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    tree = open_trace(tmp_path / "t.zarr")
    assert tree["mine"]["text"].values.tolist() == list(TEXT)
    assert tree["mine"]["position"].values.tolist() == ["last", "größe"]
    assert tree["stage"].values.tolist() == ["", "warm-up", "训练"]
    assert tree["revision"].values.tolist() == ["step0", "step10", "a/βranch"]
    assert tree["weights_digest"].values.tolist() == ["digest0", "", "digest2"]
    assert tree["mine"]["number"].dtype == np.int64 and tree["mine"]["share"].dtype == np.float64


def codecs(array: Any) -> list[type]:
    """Types of the byte-to-byte codecs, outermost shard or not."""
    return [type(c) for c in array.compressors]


def test_each_kind_of_variable_has_its_codec(tmp_path: Path) -> None:
    for name, changes in (("f32", {}), ("bf16", {"bfloat16": True}), ("sharded", {"layout": "sharded"})):
        fill(tmp_path / name, declare(**changes))
        group: Any = zarr.open_group(tmp_path / name, mode="r")["mine"]
        blosc = name == "bf16"
        assert codecs(group["resid_post"]) == ([BloscCodec, Crc32cCodec] if blosc else [Crc32cCodec])
        assert codecs(group["answer_logprob"]) == [Crc32cCodec]
        assert codecs(group["predicted"]) == [ZstdCodec, Crc32cCodec]
        if not blosc:
            assert codecs(group["pattern"]) == [ZstdCodec, Crc32cCodec]


def test_activation_chunks_are_one_checkpoint_one_layer_and_about_one_mebibyte(tmp_path: Path) -> None:
    big = Variable("resid_post", ("prompt", "position", "layer", "d_model"), (900, 2, 24, 1024), "activation", "")
    for itemsize in (2, 4):
        chunk = chunk_shape(big, itemsize)
        assert chunk[2] == 1 and chunk[3] == 1024
        assert 2**19 < np.prod(chunk) * itemsize <= 2**20
    # one prompt that is larger than a chunk is split by position, never by feature
    wide = Variable("z", ("prompt", "position", "layer", "head", "d_head"), (3, 40, 2, 64, 256), "activation", "")
    chunk = chunk_shape(wide, 4)
    assert chunk[0] == 1 and chunk[2:] == (1, 64, 256) and 1 <= chunk[1] <= 16
    fill(tmp_path / "t.zarr", declare())
    root: Any = zarr.open_group(tmp_path / "t.zarr", mode="r")
    assert root["mine/resid_post"].chunks == (1, 4, 2, 1, 5)
    assert root["mine/answer_logprob"].chunks == (1, 4)
    assert root["mine/text"].chunks == (4,)


def test_flags_have_one_chunk_per_checkpoint_so_that_writers_cannot_lose_each_others(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    root: Any = zarr.open_group(tmp_path / "t.zarr", mode="r")
    for name in ("status", "reason", "weights_digest", "stored_dtype", "nonfinite", "overflowed"):
        assert root[name].chunks == (1,), name
    assert root["step"].chunks == (1024,)  # one chunk, with room to grow


@pytest.mark.parametrize(("layout", "files"), [("local", 3), ("sharded", 1)])
@pytest.mark.parametrize("constant", [0.0, np.nan])
def test_a_slab_of_the_fill_value_or_zero_is_still_stored(
    tmp_path: Path, layout: Any, files: int, constant: float
) -> None:
    declaration = declare(layout=layout)
    writer = TraceWriter(tmp_path / "t.zarr", declaration)
    content = values(declaration, 0)["mine"]
    writer.write(1, "mine", {k: np.full_like(v, -1 if v.dtype.kind == "i" else constant) for k, v in content.items()})
    for name, expected in (("resid_post", files), ("answer_logprob", 1), ("predicted", 1)):
        chunks = [p for p in (tmp_path / "t.zarr/mine" / name / "c/1").rglob("*") if p.is_file()]
        assert len(chunks) == expected, name


def test_stock_xarray_and_open_trace_give_the_same_labelled_data(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    stock, ours = xr.open_datatree(tmp_path / "t.zarr"), open_trace(tmp_path / "t.zarr")
    assert stock.groups == ours.groups == ("/", "/mine", "/other")
    for name in stock.groups:
        one, other = stock[name].to_dataset(), ours[name].to_dataset()
        assert set(one.variables) == set(other.variables)
        assert set(one.coords) == set(other.coords)
        for variable in one.variables:
            assert one[variable].dims == other[variable].dims and one[variable].attrs == other[variable].attrs
            np.testing.assert_array_equal(one[variable].values, other[variable].values)
        assert "step" in one.coords and one["step"].values.tolist() == [0, 10, 200]
    assert dynamics.open_trace is open_trace


def test_every_group_on_disk_has_the_step_coordinate(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    for group in ("", "mine", "other"):
        alone = xr.open_dataset(tmp_path / "t.zarr", engine="zarr", group=group or None, consolidated=False)
        assert alone["step"].values.tolist() == [0, 10, 200]
        assert alone["step"].dims == ("checkpoint",)


def test_selecting_by_step_works_in_every_group(tmp_path: Path) -> None:
    declaration = declare()
    fill(tmp_path / "t.zarr", declaration)
    tree = open_trace(tmp_path / "t.zarr")
    chosen = tree["mine"]["resid_post"].sel(step=200, position="größe", layer=1)
    assert np.array_equal(chosen.values, values(declaration, 2)["mine"]["resid_post"][:, 1, 1])
    with pytest.raises(KeyError):
        tree["mine"]["resid_post"].sel(step=11)


def test_nothing_is_loaded_until_it_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    for chunk in (tmp_path / "t.zarr/mine/resid_post/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"not a chunk")
    for tree in (
        xr.open_datatree(tmp_path / "t.zarr"),
        open_trace(tmp_path / "t.zarr"),
        Trace(tmp_path / "t.zarr").tree,
    ):
        assert not tree["mine"]["resid_post"].variable._in_memory
        part = tree["mine"]["resid_post"].isel(prompt=0)
        assert np.isfinite(tree["mine"]["answer_logprob"][0].values).all()
        with pytest.raises(ValueError, match="checksum"):
            part.load()
    assert open_trace(tmp_path / "t.zarr", chunks={})["mine"]["resid_post"].chunks is not None


def test_what_was_not_measured_is_missing(tmp_path: Path) -> None:
    declaration = declare()
    writer = fill(tmp_path / "t.zarr", declaration, (0,))
    for group, content in values(declaration, 1).items():  # written, but never committed: the process died here
        writer.write(1, group, content)
    trace = Trace(tmp_path / "t.zarr")
    for variable in ("resid_post", "answer_logprob"):
        assert np.isnan(trace.values("mine", variable)[1:]).all()
        assert np.isnan(open_trace(tmp_path / "t.zarr")["mine"][variable][2].values).all()
    assert (trace.values("mine", "predicted")[1:] == -1).all()
    assert [index for index, _ in trace.each("mine", "resid_post")] == [0]
    assert trace.tree["nonfinite"].values.tolist() == [0, -1, -1]


def test_metadata_are_consolidated_and_nobody_is_warned(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    content = json.loads((tmp_path / "t.zarr/zarr.json").read_text())
    assert {"mine", "mine/resid_post", "other/token_loss"} <= content["consolidated_metadata"]["metadata"].keys()
    for name, array in content["consolidated_metadata"]["metadata"].items():
        if array["node_type"] == "array":
            assert array["dimension_names"], name
    code = (
        f"import xarray as xr\nt = xr.open_datatree({str(tmp_path / 't.zarr')!r})\nt.load()\n"
        f"import dynamics\ndynamics.open_trace({str(tmp_path / 't.zarr')!r})"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_the_trace_explains_itself(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    attributes = open_trace(tmp_path / "t.zarr").attrs
    assert attributes["format"] == "circuit-dynamics-trace" and attributes["format_version"] == FORMAT_VERSION
    assert attributes["run"] == "r" and attributes["model_config"] == {"layers": 3}
    variable = open_trace(tmp_path / "t.zarr")["mine"]["answer_logprob"]
    assert variable.attrs["units"] == "nat" and variable.attrs["long_name"] == "log-probability"


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


def test_a_newer_format_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    declaration = declare()
    fill(tmp_path / "t.zarr", declaration)
    zarr.open_group(tmp_path / "t.zarr", mode="r+").attrs["format_version"] = FORMAT_VERSION + 1
    for attempt in (open_trace, Trace, lambda path: TraceWriter(path, declaration)):
        with pytest.raises(UserError, match=rf"version {FORMAT_VERSION + 1}(.|\n)*version {FORMAT_VERSION} or older"):
            attempt(tmp_path / "t.zarr")


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "file", "another zarr", "broken json"])
def test_what_is_no_trace_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.zarr"
    if kind == "file":
        path.write_text("hello")
    elif kind == "another zarr":
        zarr.open_group(path, mode="w").create_array("x", shape=(2,), dtype="int8")
    elif kind != "nothing":
        path.mkdir()
        if kind == "broken json":
            (path / "zarr.json").write_text('{"zarr_format": 3, ')
    attempts = [open_trace, Trace]
    if kind != "nothing":
        attempts.append(lambda path: TraceWriter(path, declare()))
    for attempt in attempts:
        with pytest.raises(UserError, match="is not a trace"):
            attempt(path)


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
        TraceWriter(tmp_path / "t.zarr", changed)
    assert snapshot(tmp_path) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
    raw = {k: v for k, v in snapshot(path).items() if k != "zarr.json"}
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


def test_unknown_probes_and_variables_suggest_the_nearest(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    trace = Trace(tmp_path / "t.zarr")
    with pytest.raises(UserError, match="did you mean 'mine'"):
        trace.probe("mime")
    with pytest.raises(UserError, match="did you mean 'resid_post'"):
        trace.values("mine", "resid_pots")


_LABELS = st.one_of(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=3, max_size=3),
    st.lists(st.integers(-(2**70), 2**70), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.lists(st.floats(allow_nan=False), min_size=3, max_size=3),
    st.lists(st.one_of(st.booleans(), st.text("ab", max_size=2), st.integers(0, 5)), min_size=3, max_size=3),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    labels=_LABELS,
    steps=st.sets(st.integers(0, 10**12), min_size=1, max_size=4),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    trace_dtype=st.sampled_from(["float16", "float32"]),
    layout=st.sampled_from(["local", "sharded"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_declaration_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    labels: list[Any],
    steps: set[int],
    sizes: tuple[int, int],
    trace_dtype: Any,
    layout: Any,
    seed: int,
) -> None:
    variables = (
        Variable("resid_post", ("prompt", "layer", "d_model"), (3, *sizes), "activation", ""),
        Variable("predicted", ("prompt",), (3,), "int", ""),
    )
    declaration = TraceDeclaration(
        tuple(Checkpoint(s, f"step{s}") for s in sorted(steps)),
        (Group("p", "", {"text": ("a", "b", "c"), "label": tuple(labels)}, variables),),
        trace_dtype=trace_dtype,
        layout=layout,
    )
    path = tmp_path_factory.mktemp("trace") / "t.zarr"
    rng = np.random.default_rng(seed)
    content = {
        "resid_post": rng.normal(size=(3, *sizes)).astype(trace_dtype),
        "predicted": rng.integers(0, 2**31 - 1, size=3),
    }
    last = len(steps) - 1
    writer = TraceWriter(path, declaration)
    writer.write(last, "p", content)
    writer.commit(last, digest="d", stored_dtype="float32", nonfinite=0, overflowed=0)
    trace = Trace(path)
    assert trace.steps.tolist() == sorted(steps)
    assert np.array_equal(trace.probe("p")["resid_post"][last].values, content["resid_post"])
    assert np.array_equal(trace.values("p", "predicted")[last], content["predicted"])
    stored = trace.label("p", "label").tolist()
    kinds = {type(v) for v in labels}
    exact = kinds in ({bool}, {float}) or (kinds == {int} and all(-(2**63) <= v < 2**63 for v in labels))
    assert stored == (labels if exact else [str(v) for v in labels])
    assert TraceWriter(path, declaration).status()[last] == "complete"
