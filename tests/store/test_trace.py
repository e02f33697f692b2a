"""The trace: what is declared is what is stored, what is stored is what is read, and what is no trace is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
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
from dynamics.store import FORMAT_VERSION, Group, Trace, TraceDeclaration, TraceWriter, open_trace
from dynamics.store.create import put_attributes
from dynamics.store.declaration import chunk_shape
from dynamics.store.variable import Variable
from tests.store.declared import TEXT, declare, fill, values


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


@pytest.mark.parametrize("prompts", [1, 227, 228, 240, 454, 455, 900, 1024, 5000])
@pytest.mark.parametrize("width", [64, 576, 1024, 8192])
def test_chunks_share_the_prompts_out_evenly(prompts: int, width: int) -> None:
    variable = Variable("r", ("prompt", "position", "layer", "d_model"), (prompts, 2, 24, width), "activation", "")
    rows = chunk_shape(variable, 4)[0]
    parts = -(-prompts // rows)
    assert rows * width * 2 * 4 <= 2**20 or rows == 1
    assert rows * parts - prompts < parts  # fewer empty rows than chunks
    assert parts == -(-prompts // max(1, 2**20 // (width * 2 * 4)))  # and no more chunks than their size asks for


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


def test_a_newer_format_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    declaration = declare()
    fill(tmp_path / "t.zarr", declaration)
    put_attributes(tmp_path / "t.zarr", {"format_version": FORMAT_VERSION + 1})
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
        with pytest.raises(UserError, match="is not a trace") as refused:
            attempt(path)
        assert refused.value.expected and refused.value.remedy


def test_a_folder_of_traces_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(UserError, match=r"is a folder of traces: mine\.zarr") as refused:
        open_trace(tmp_path)
    assert refused.value.remedy.endswith("mine.zarr")


@pytest.mark.parametrize("step", [-1, 2**63, 10**30])
def test_a_step_that_its_coordinate_cannot_hold_is_refused(step: int) -> None:
    with pytest.raises(UserError, match=r"of 'final' is .*(.|\n)*2\^63"):
        declare(checkpoints=(Checkpoint(0, "a"), Checkpoint(step, "b", label="final")))


@pytest.mark.parametrize(
    "changed",
    [
        *({"run_config": 5}, {"run_config": {"analyses": "x"}}, {"run_config": {"analyses": [{"name": 5}]}}),
        *({"declared": []}, {"declared": {"checkpoints": 5}}, {"model_config": "x"}, {"fingerprint": None}),
        *({"run_config": {"checkpoints": -1}}, {"run_config": {"series": {"kind": "organism", "curriculum": [1]}}}),
    ],
    ids=str,
)
def test_attributes_of_another_form_are_refused_where_a_trace_is_opened(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    fill(tmp_path / "t.zarr", declare())
    put_attributes(tmp_path / "t.zarr", changed)
    for attempt in (open_trace, Trace, lambda path: TraceWriter(path, declare())):
        with pytest.raises(UserError, match=f"is damaged: {next(iter(changed))}") as refused:
            attempt(tmp_path / "t.zarr")
        assert refused.value.expected and refused.value.remedy


def test_unknown_probes_and_variables_suggest_the_nearest(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    trace = Trace(tmp_path / "t.zarr")
    with pytest.raises(UserError, match="did you mean 'mine'"):
        trace.probe("mime")
    with pytest.raises(UserError, match="did you mean 'resid_post'"):
        trace.values("mine", "resid_pots")
    with pytest.raises(UserError, match=r"'mine' in .* has no label 'txt'[\s\S]*did you mean 'text'"):
        trace.label("mine", "txt")
    with pytest.raises(
        UserError, match=r"resid_post in .* is not stored at the position 'lst'[\s\S]*did you mean 'last'"
    ):
        next(trace.each("mine", "resid_post", position="lst"))


_LABELS = st.one_of(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda text: not text.endswith("\0")),
        min_size=3,
        max_size=3,
    ),
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
    writer.commit(last, digest="d", stored_dtype="float32")
    trace = Trace(path)
    assert trace.steps.tolist() == sorted(steps)
    assert np.array_equal(trace.probe("p")["resid_post"][last].values, content["resid_post"])
    assert np.array_equal(trace.values("p", "predicted")[last], content["predicted"])
    stored = trace.label("p", "label").tolist()
    kinds = {type(v) for v in labels}
    exact = kinds in ({bool}, {float}) or (kinds == {int} and all(-(2**63) <= v < 2**63 for v in labels))
    assert stored == (labels if exact else [str(v) for v in labels])
    assert TraceWriter(path, declaration).status()[last] == "complete"


@pytest.mark.parametrize(
    "second",
    [
        Variable("b", ("source",), (2,), "float", "", coords={"source": ("input", "mlp")}),
        Variable("b", ("source",), (3,), "float", "", coords={"source": ("input", "mlp", "head")}),
    ],
    ids=["other values", "another length"],
)
def test_two_measurements_that_disagree_about_an_axis_are_an_error_that_names_both(second: Variable) -> None:
    first = Variable("a", ("source",), (2,), "float", "", coords={"source": ("input", "head")})
    with pytest.raises(UserError, match=r"(?s)'a' and 'b' have different .*source.*probe of its own"):
        Group("p", "", {"text": ("x",)}, (first, second))
    Group("p", "", {"text": ("x",)}, (first, replace(first, name="b")))


def test_a_text_that_an_array_would_cut_short_is_refused() -> None:
    with pytest.raises(UserError, match="'label' ends with a NUL"):
        Group("p", "", {"text": ("x",), "label": ("a\0",)}, ())
