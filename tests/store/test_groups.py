"""Traces of version 1, and groups that come and go: whatever kills a writer, a reader finds the old trace or the new one."""

from __future__ import annotations

import itertools
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from benchmarks.fault_writes import Died, dying, watched
from checkpoints.errors import UserError
from checkpoints.series import Checkpoint
from dynamics.store import FORMAT_VERSION, Group, Trace, TraceDeclaration, TraceWriter, Variable, open_trace
from dynamics.store.damage import trace_damage
from dynamics.store.groups import SHELF, records_of, root_records, shelved
from dynamics.store.manifest import consolidated, rewrite
from tests.store.declared import CHECKPOINTS, declare, fill, snapshot, values

ARCHIVE = Path(__file__).parent / "archives/version-1.zip"
"""What version 1 wrote of ``fill(path, declare())``, with the checkpoint between them failed."""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    path = tmp_path / "first.zarr"
    zipfile.ZipFile(ARCHIVE).extractall(path)
    return path


def more(text: str = "y") -> TraceDeclaration:
    """With one group more."""
    group = Group("third", "", {"text": (text,)}, (Variable("entropy", ("prompt",), (1,), "float", "entropy"),))
    return declare(groups=(*declare().groups, group))


def measured(writer: TraceWriter, declaration: TraceDeclaration, index: int, name: str) -> None:
    writer.write(index, name, values(declaration, index)[name])
    writer.note(index, name, digest=writer.digest(index), stored_dtype="float32")


def same_data(one: Path, other: Path) -> None:
    with open_trace(one) as a, open_trace(other) as b:
        assert a.groups == b.groups
        for name in a.groups:
            xr.testing.assert_identical(
                a[name].to_dataset().drop_vars("manifest").drop_attrs(deep=False),
                b[name].to_dataset().drop_vars("manifest", errors="ignore").drop_attrs(deep=False),
            )


def test_a_trace_of_version_1_is_read_held_against_what_was_noted_and_goes_on(first: Path, tmp_path: Path) -> None:
    assert Trace(first).attributes["format_version"] == 1 and trace_damage(first) == []
    assert Trace(first).status == ["complete", "failed", "complete"]
    np.testing.assert_array_equal(
        Trace(first).values("mine", "predicted")[2], values(declare(), 2)["mine"]["predicted"]
    )
    files = snapshot(first)
    fill(tmp_path / "now.zarr", declare()).mark(1, "failed", "bad file")
    TraceWriter(first, declare())
    assert Trace(first).attributes["format_version"] == FORMAT_VERSION == 2
    assert snapshot(first) == snapshot(tmp_path / "now.zarr")
    slabs = {name for name in files if name.count("/") > 3}
    assert slabs and all(snapshot(first)[name] == files[name] for name in slabs)
    assert trace_damage(first) == []


def test_a_trace_of_version_1_gains_groups_and_keeps_those_that_changed(first: Path) -> None:
    mine, other = declare().groups
    changed = Group("mine", "", {**mine.prompts, "number": (1, 2, 3, 5)}, mine.variables)
    declaration = declare(groups=(changed, other, more().groups[2]))
    writer = TraceWriter(first, declaration)
    assert writer.growing == ["mine", "third"] and writer.exchange() == []
    assert Trace(first).probes == ["mine", "other"] and trace_damage(first) == []
    for index in (0, 2):
        assert writer.lacking(index, writer.digest(index)) == ["mine", "third"]
        for name in writer.growing:
            measured(writer, declaration, index, name)
    assert writer.exchange() == ["mine", "third"] and writer.growing == []
    assert Trace(first).probes == ["mine", "other", "third"] and trace_damage(first) == []
    assert [p.name.split(".")[0] for p in shelved(first)] == ["mine"]
    assert sorted(records_of(shelved(first)[0])) == [0, 2]


def test_counts_that_are_not_known_of_one_group_leave_those_of_the_checkpoint(first: Path) -> None:
    """Of a checkpoint with values that are not finite, version 1 noted how many there are in all groups together."""
    writer = TraceWriter(first, declare())
    array = zarr.open_array(first / "mine/manifest", mode="r+")
    record = json.loads(str(array[0]))
    array[0] = json.dumps(record | {"nonfinite": None})
    zarr.open_array(first / "nonfinite", mode="r+")[0] = 3
    writer.mark(0, "pending")
    assert writer.commit(0, digest="digest0", stored_dtype="float32") == 0
    root = Trace(first).tree.to_dataset()
    assert root["status"].values[0] == "complete" and root["nonfinite"].values[0] == 3


def test_a_group_that_took_the_place_of_the_one_that_was_opened_is_not_read_as_that_one(tmp_path: Path) -> None:
    mine, other = declare().groups
    after = declare(groups=(Group("mine", "", {**mine.prompts, "number": (4, 3, 2, 1)}, mine.variables), other))
    path = tmp_path / "t.zarr"
    fill(path, declare(), (0, 1, 2))
    begun, untouched, late = Trace(path), Trace(path), Trace(path)
    before = begun.values("mine", "predicted")
    assert not begun.changed
    writer = TraceWriter(path, after)
    for index in range(3):
        writer.write(index, "mine", {name: value[::-1] for name, value in values(after, index)["mine"].items()})
        writer.note(index, "mine", digest=f"digest{index}", stored_dtype="float32")
    np.testing.assert_array_equal(begun.values("mine", "predicted"), before)
    assert writer.exchange() == ["mine"] and begun.changed
    np.testing.assert_array_equal(begun.values("mine", "predicted"), before)  # it was read then
    for trace, variable in ((begun, "answer_logprob"), (untouched, "predicted")):
        with pytest.raises(UserError, match="changed while it was read") as error:
            trace.values("mine", variable)
        assert error.value.remedy == "open the trace again" and error.value.expected
    with pytest.raises(UserError, match="changed while it was read"):
        late.label("mine", "number")
    np.testing.assert_array_equal(late.values("other", "token_loss"), Trace(path).values("other", "token_loss"))
    np.testing.assert_array_equal(Trace(path).values("mine", "predicted"), before[:, ::-1])
    TraceWriter(path, declare(groups=(other,)))
    with pytest.raises(UserError, match="not listed any more"):
        list(begun.each("mine", "pattern"))


def test_a_group_that_is_missing_because_an_exchange_was_interrupted_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    fill(path, declare(), (0, 2))
    attributes = {"exchange": {"leaving": ["mine"], "entering": {}, "attributes": {}, "without": []}}
    rest = {name: node for name, node in consolidated(path).items() if not name.startswith("mine")}
    rewrite(path, attributes=attributes, metadata=rest, dropped=["mine"])
    with pytest.raises(UserError, match="exchange of its probes was interrupted") as error:
        Trace(path).probe("mine")
    assert "dynamics collect t" in error.value.remedy


def test_a_checkpoint_gets_the_revision_that_its_groups_were_measured_on(tmp_path: Path) -> None:
    """Also where the source lists another when the trace is exchanged, and it becomes complete."""
    path = tmp_path / "t.zarr"
    fill(path, declare(), (0,))
    listed = Checkpoint(200, "first", 20_000, "训练"), Checkpoint(200, "second", 20_000, "训练")
    first, second = (replace(more(), checkpoints=(*CHECKPOINTS[:2], last)) for last in listed)
    writer = TraceWriter(path, first)
    for name, content in values(first, 2).items():
        writer.write(2, name, content)
    assert not writer.waits(2)
    writer.commit(2, digest="digest2", stored_dtype="float32")
    assert writer.waits(2) and writer.status()[2] == "pending"
    later = TraceWriter(path, second)
    assert later.waits(2) and not later.waits(1)
    measured(later, second, 0, "third")
    assert later.exchange() == ["third"] and later.status() == ["complete", "pending", "complete"]
    assert later.revisions()[2] == "first" and not later.waits(2) and trace_damage(path) == []


@pytest.mark.slow
def test_an_upgrade_that_dies_anywhere_is_done_by_the_next_writer(first: Path, tmp_path: Path) -> None:
    fill(tmp_path / "now.zarr", declare()).mark(1, "failed", "bad file")
    for at in itertools.count(1, 5):
        zipfile.ZipFile(ARCHIVE).extractall(path := tmp_path / f"{at}.zarr")
        try:
            with watched(dying(at, within=at % 2 == 0)):
                TraceWriter(path, declare())
            break
        except Died:
            assert Trace(path).status == ["complete", "failed", "complete"]
            TraceWriter(path, declare())
            assert snapshot(path) == snapshot(tmp_path / "now.zarr"), at
    assert at > 20


@pytest.mark.slow
def test_an_exchange_that_dies_anywhere_leaves_the_old_or_the_new_and_is_ended(tmp_path: Path) -> None:
    mine, _ = declare().groups
    after = declare(groups=(Group("mine", "reworded", mine.prompts, mine.variables), more().groups[2]))
    seen = set()
    for at in itertools.count(1):
        path = tmp_path / f"{at}.zarr"
        fill(path, declare(), (0, 1, 2))
        writer = TraceWriter(path, after)
        for index in range(3):
            for name in ("mine", "third"):
                writer.write(index, name, values(after, index)[name])
                writer.note(index, name, digest=f"digest{index}", stored_dtype="float32")
        try:
            with watched(dying(at, within=at % 2 == 0)):
                writer.exchange()
            break
        except Died:
            trace = Trace(path)
            found = tuple(trace.probes)
            seen.add(found)
            for name in found:
                assert np.isfinite(
                    trace.values(name, {"third": "entropy"}.get(name, "predicted" if name == "mine" else "token_loss"))
                ).all()
            # whichever declaration comes next
            TraceWriter(path, declare() if at % 3 == 0 and found != ("mine", "other") else after)
            TraceWriter(path, after)
        finally:
            pass
        assert Trace(path).probes == ["mine", "third"] and trace_damage(path) == []
    assert (
        seen <= {("mine", "other"), (), ("mine", "third")} and ("mine", "other") in seen and ("mine", "third") in seen
    )


def test_a_group_that_was_never_measured_leaves_nothing_and_one_that_was_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    fill(path, declare(), (0,))
    before = snapshot(path)
    TraceWriter(path, more())
    assert Trace(path).attributes["growing"].keys() == {"third"}
    TraceWriter(path, declare())
    assert {k: v for k, v in snapshot(path).items() if not k.startswith(SHELF)} == before
    writer = TraceWriter(path, more())
    measured(writer, more(), 0, "third")
    assert writer.exchange() == ["third"]
    TraceWriter(path, declare())
    assert Trace(path).probes == ["mine", "other"] and [p.name.split(".")[0] for p in shelved(path)] == ["third"]
    assert TraceWriter(path, more()).growing == [] and Trace(path).probes == ["mine", "other", "third"]


@pytest.mark.parametrize("what", ["a record", "all records", "the metadata", "a variable's metadata", "nothing"])
def test_a_group_that_leaves_with_its_notes_damaged_keeps_its_slabs(tmp_path: Path, what: str) -> None:
    path = tmp_path / "t.zarr"
    fill(path, more(), (0,))
    notes, entropy = path / "third/manifest", path / "third/entropy"
    if what == "a record":
        (notes / "c/0").write_bytes(b"x")
    elif what == "all records":
        shutil.rmtree(notes / "c")
    elif what == "the metadata":
        (notes / "zarr.json").unlink()
    elif what == "a variable's metadata":
        shutil.rmtree(notes / "c")
        (entropy / "zarr.json").write_text("x")
    before = snapshot(entropy / "c")
    TraceWriter(path, declare())
    assert Trace(path).probes == ["mine", "other"]
    (left,) = shelved(path)
    assert before and snapshot(left / "entropy/c") == before
    TraceWriter(path, declare())
    assert snapshot(left / "entropy/c") == before


def test_notes_without_metadata_are_damage_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    fill(path, more(), (0, 2))
    (path / "third/manifest/zarr.json").unlink()
    with pytest.raises(UserError, match=r"the array third/manifest of .* is damaged") as refused:
        records_of(path / "third")
    assert "dynamics verify t --repair" in refused.value.remedy
    TraceWriter(path, declare())
    (left,) = shelved(path)
    with pytest.raises(UserError, match=f"the array {SHELF}/{left.name}/manifest of .*t.zarr is damaged"):
        records_of(left)
    assert [(d.step, d.variable) for d in trace_damage(path)] == [(None, f"{SHELF}/{left.name}/manifest")]
    (path / "manifest/zarr.json").unlink()
    with pytest.raises(UserError, match=r"the array manifest of .* is damaged"):
        root_records(path)


def test_damage_on_the_shelf_is_seen_and_a_damaged_group_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    fill(path, more(), (0, 2))
    TraceWriter(path, declare())
    (file,) = (path / SHELF).rglob("entropy/c/2/0")
    file.unlink()
    assert [(d.step, d.variable.split("/")[-1]) for d in trace_damage(path)] == [(200, "entropy")]
    (note,) = (path / SHELF).rglob("manifest/c/2")
    note.write_bytes(b"another")
    assert [(d.step, d.variable.split("/")[-1]) for d in trace_damage(path)] == [(200, "manifest")]


def test_a_trace_without_a_manifest_gains_nothing(tmp_path: Path) -> None:
    from tests.collecting.test_repair import unsealed

    path = tmp_path / "t.zarr"
    fill(path, declare(), (0, 2))
    unsealed(path)
    TraceWriter(path, declare())
    with pytest.raises(UserError, match="probe third"):
        TraceWriter(path, more())
