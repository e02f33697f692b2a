"""What others put where this program writes beside a trace, or in it: nothing waits, nothing of theirs is overwritten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from checkpoints.errors import UserError
from dynamics.store import Group, Trace, TraceWriter, Variable, read_result, write_result, writer_lock
from dynamics.store.damage import trace_damage
from dynamics.store.derived import aside
from dynamics.store.journal import journal_file, read_journal, write_journal
from dynamics.store.lock import doing_now, is_locked, say_doing
from tests.store.declared import declare, fill

Kind = Callable[[Path], object]

KINDS: dict[str, Kind] = {
    "an empty folder": lambda p: p.mkdir(),
    "a folder": lambda p: ((p / "x").mkdir(parents=True), (p / "x/y").write_text("theirs")),
    "a link to nothing": lambda p: p.symlink_to("nowhere/x"),
    "a link to itself": lambda p: p.symlink_to(p.name),
    "a link to a file": lambda p: p.symlink_to(p.parent / "theirs"),
    "a link to a folder": lambda p: p.symlink_to(p.parent / "their folder"),
    "a link to a device": lambda p: p.symlink_to("/dev/null"),
    "a pipe": lambda p: os.mkfifo(p),
    "an empty file": lambda p: p.write_bytes(b""),
    "a number": lambda p: p.write_bytes(b"5"),
    "no text": lambda p: p.write_bytes(b"\xff\0"),
}
FILES = ("an empty file", "a number", "no text", "a pipe")

each = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a trace would be, beside a file and a folder of somebody else's."""
    path = tmp_path / "r.zarr"
    path.mkdir()
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "their folder").mkdir()
    (tmp_path / "their folder/x").write_text("theirs")
    return path


@pytest.fixture
def trace(place: Path) -> Path:
    """A trace there."""
    place.rmdir()
    fill(place, declare(), (0,))
    return place


def untouched(trace: Path) -> None:
    assert (trace.parent / "theirs").read_text() == "theirs"
    assert [p.read_text() for p in (trace.parent / "their folder").iterdir()] == ["theirs"]


def write(trace: Path) -> None:
    with writer_lock(trace):
        write_result(trace, "a", xr.Dataset({"x": ("n", [1.0])}), {"summary": {}})


@each
def test_an_owner_file_of_another_kind_gives_way_and_nothing_waits_for_it(place: Path, kind: str) -> None:
    owner = place.with_name("r.zarr.owner")
    KINDS[kind](owner)
    assert doing_now(place) == ""
    say_doing(place, "something")
    assert doing_now(place) == ("" if "folder" in kind and "link" not in kind else "something")
    with writer_lock(place):
        pass
    untouched(place)


@each
def test_a_lock_file_of_another_kind_is_said_to_be_one(place: Path, kind: str) -> None:
    lock = place.with_name("r.zarr.lock")
    lock.unlink(missing_ok=True)
    KINDS[kind](lock)
    assert not is_locked(place)
    if kind in FILES and kind != "a pipe":
        with writer_lock(place):
            assert is_locked(place)
    else:
        with (
            pytest.raises(UserError, match=r"r\.zarr\.lock is not the file that is locked") as refused,
            writer_lock(place),
        ):
            pass
        assert "delete or rename it" in refused.value.remedy
    untouched(place)


@each
def test_a_journal_of_another_kind_is_no_journal(place: Path, kind: str) -> None:
    journal = journal_file(place)
    journal.unlink(missing_ok=True)
    KINDS[kind](journal)
    assert read_journal(place) == []
    if journal.exists() and not journal.is_file():
        with pytest.raises(OSError, match="not a journal"):
            write_journal(place, "round")
    if not os.path.islink(journal):
        untouched(place)


@each
def test_what_has_the_name_of_what_is_written_aside_gives_way(trace: Path, kind: str) -> None:
    KINDS[kind](aside(trace))
    write(trace)
    assert read_result(trace, "a") is not None and not os.path.lexists(aside(trace))
    untouched(trace)


@each
def test_a_trace_that_gains_a_group_makes_way_for_itself(trace: Path, kind: str) -> None:
    KINDS[kind](aside(trace))
    variable = Variable("entropy", ("prompt",), (1,), "float", "entropy")
    more = declare(groups=(*declare().groups, Group("third", "", {"text": ("y",)}, (variable,))))
    assert TraceWriter(trace, more).growing == ["third"] and not os.path.lexists(aside(trace))
    untouched(trace)


def test_what_a_killed_writer_took_out_is_put_back_also_where_a_group_is_gained(trace: Path) -> None:
    write(trace)
    (aside(trace) / "old/results").mkdir(parents=True)
    os.replace(trace / "results/a", aside(trace) / "old/results/a")
    variable = Variable("entropy", ("prompt",), (1,), "float", "entropy")
    TraceWriter(trace, declare(groups=(*declare().groups, Group("third", "", {"text": ("y",)}, (variable,)))))
    assert read_result(trace, "a") is not None and not os.path.lexists(aside(trace))


@each
def test_results_that_are_no_folder_are_damage_and_refused(trace: Path, kind: str) -> None:
    shutil.rmtree(trace / "results", ignore_errors=True)
    KINDS[kind](trace / "results")
    if (trace / "results").is_dir():
        return
    Trace(trace)
    assert read_result(trace, "a") is None
    assert [d.variable for d in trace_damage(trace)] == ["results"]
    with pytest.raises(UserError, match="results is a file, or a link to nothing") as refused:
        write(trace)
    assert refused.value.remedy
    (trace / "results").unlink()
    write(trace)
    assert read_result(trace, "a") is not None and trace_damage(trace) == []


def test_asking_who_writes_neither_writes_nor_stops_a_writer(trace: Path) -> None:
    def state() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in trace.parent.iterdir() if p.is_file()}

    write(trace)
    before = state()
    assert not is_locked(trace) and state() == before
    with writer_lock(trace):
        assert is_locked(trace)
    assert not is_locked(trace)
    trace.with_name("r.zarr.lock").unlink(missing_ok=True)
    trace.with_name("r.zarr.owner").write_text(
        '{"pid": 1}'
    )  # a killed process left it, and the folder cannot be written
    assert not is_locked(trace) and not trace.with_name("r.zarr.lock").exists()
