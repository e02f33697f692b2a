"""What a first collection is refused for, a dry run is refused for; and a refused one leaves room for the corrected run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import UserError
from dynamics.collecting.estimating import estimate
from dynamics.models.sites import FAMILIES, Where
from dynamics.runs.config import Run
from dynamics.store import Trace, TraceWriter
from dynamics.store.journal import journal_file, read_journal, write_journal
from dynamics.store.unused import discard_unused
from tests.collecting.local.tiny import STEPS, make_run, poison, run_collect, same_files
from tests.store.declared import declare, fill

FEW = {"exclude": STEPS[2:]}


def asking(folder: Path, series: Path, *sites: str, **changes: Any) -> Run:
    probes = {"sums": {"file": str(folder / "sums.jsonl"), "sites": [*sites]}}
    return make_run(folder, series, probes=probes, **(FEW | changes))


def test_a_refused_first_collection_names_who_asked_and_the_corrected_run_is_collected(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = FAMILIES["gpt_neox"]
    wrong = replace(table, in_block={**table.in_block, "mlp_out": Where("mlp.downwards")})
    monkeypatch.setitem(FAMILIES, "gpt_neox", wrong)
    with pytest.raises(UserError, match=r"no module(.|\n)*on probe 'sums', which `probes` of run 'mine' asked for"):
        run_collect(tmp_path, asking(tmp_path, tiny_series, "resid_post", "mlp_out", analyses=[]))
    with pytest.raises(UserError, match="downwards"):
        estimate("mine", run=asking(tmp_path, tiny_series, "mlp_out", analyses=[]), traces=tmp_path / "none")
    run = asking(tmp_path, tiny_series, "resid_post", analyses=[])
    assert estimate("mine", run=run, traces=tmp_path / "traces").todo == 2
    assert run_collect(tmp_path, run).collected == STEPS[:2]
    run_collect(tmp_path, run, "reference")
    same_files(tmp_path / "reference", tmp_path / "traces")


def test_a_site_that_the_family_lacks_is_refused_with_who_asks_for_it_before_anything_is_written(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in (run_collect, lambda folder, run: estimate("mine", run=run, traces=folder / "traces")):
        with pytest.raises(UserError, match=r"no site 'resid_mid', which probe 'sums'"):
            function(tmp_path, asking(tmp_path, tiny_series, "resid_mid"))
    table = FAMILIES["gpt_neox"]
    without = {site: where for site, where in table.in_block.items() if site != "pattern"}
    monkeypatch.setitem(FAMILIES, "gpt_neox", replace(table, in_block=without))
    with pytest.raises(UserError, match=r"no site 'pattern'(.|\n)*in analysis 'induction'"):
        run_collect(tmp_path, asking(tmp_path, tiny_series, "resid_post"))
    assert not list((tmp_path / "traces").glob("*"))


def lacks_a_tensor(folder: Path, series: Path) -> Run:
    poison(series, 6, lambda tensors: tensors.pop("gpt_neox.layers.1.mlp.dense_h_to_4h.bias"))
    return make_run(folder, series)


def has_other_weights(folder: Path, series: Path) -> Run:
    run_collect(folder, make_run(folder, series, **FEW))
    shutil.copy(series / "step6/model.safetensors", series / "step0/model.safetensors")
    return make_run(folder, series)


def has_no_room(folder: Path, series: Path) -> Run:
    return make_run(folder, series)


@pytest.mark.parametrize("case", [lacks_a_tensor, has_other_weights, has_no_room])
def test_a_dry_run_refuses_what_collecting_refuses(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Callable[[Path, Path], Run]
) -> None:
    run = case(tmp_path, series)
    if case is has_no_room:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(UserError) as refused:
        run_collect(tmp_path, run)
    with pytest.raises(UserError) as dry:
        estimate("mine", run=run, traces=tmp_path / "traces")
    assert str(dry.value) == str(refused.value)
    if case is lacks_a_tensor:
        assert estimate("mine", run=run, traces=tmp_path / "traces", keep_going=True).todo == 5


def test_only_a_trace_in_which_nothing_was_measured_is_declared_anew(tmp_path: Path) -> None:
    other = declare(trace_dtype="float16")
    TraceWriter(tmp_path / "t.zarr", declare()).mark(1, "failed", "bad")
    discard_unused(tmp_path / "t.zarr", other)
    assert not list(tmp_path.iterdir())
    fill(tmp_path / "t.zarr", other, (0,))
    for declaration in (other, declare()):
        discard_unused(tmp_path / "t.zarr", declaration)
    assert Trace(tmp_path / "t.zarr").status == ["complete", "pending", "pending"]


def test_an_event_after_one_that_was_cut_off_has_a_line_of_its_own(tmp_path: Path) -> None:
    trace = tmp_path / "t.zarr"
    write_journal(trace, "start", todo=1)
    with journal_file(trace).open("a") as stream:
        stream.write('{"event": "comp')
    write_journal(trace, "complete", step=1, seconds=1.0)
    assert [event["event"] for event in read_journal(trace)] == ["start", "complete"]
