"""Figures are drawn where they or what they show are new, and kept where nothing changed."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from dynamics.analysis.figures import heat_maps
from dynamics.progress import Reporter
from dynamics.reporting import measuring
from dynamics.reporting.pictures import Pictures

MODULE = "dynamics.wording"
pytestmark = pytest.mark.usefixtures("laid_out")


def lines(*names: str, slope: float = 1.0) -> Callable[[], Mapping[str, Figure]]:
    def draw() -> Mapping[str, Figure]:
        made = {}
        for name in names:
            made[name] = Figure(figsize=(1, 1))
            made[name].subplots().plot([0, 1], [0, slope])
        return made

    return draw


def never() -> Mapping[str, Figure]:
    pytest.fail("drawn again")


def shown(value: float = 1.0) -> tuple[Any, xr.Dataset]:
    return {"key": "k", "values": [0.5, float("nan")]}, xr.Dataset({"a": (("step",), np.array([value, np.nan]))})


def made(folder: Path, *, last: float = 1.0) -> dict[str, Any]:
    pictures = Pictures(folder, Reporter(quiet=True))
    found = pictures.of("", shown(), MODULE, lines("timeline"))
    found |= pictures.of("mine", shown(last), MODULE, lines("one", "two", slope=last))
    pictures.finish()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    made(tmp_path / "figures")
    return tmp_path / "figures"


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.parent.rglob("*") if file.is_file()}


def test_what_did_not_change_is_not_drawn_again(folder: Path) -> None:
    before = content(folder)
    assert sorted(before) == sorted(
        ["figures.json", *(f"{n}.{kind}" for n in ("timeline", "mine-one", "mine-two") for kind in ("svg", "png"))]
    )
    pictures = Pictures(folder, Reporter(quiet=True))
    kept = pictures.of("", shown(), MODULE, never) | pictures.of("mine", shown(), MODULE, never)
    pictures.finish()
    assert content(folder) == before
    assert kept == made(folder)
    assert [picture.name for picture in kept.values()] == ["timeline", "mine-one", "mine-two"]


def test_what_changed_is_drawn_again_and_only_that(folder: Path) -> None:
    before = content(folder)
    made(folder, last=2.0)
    changed = {name for name, data in content(folder).items() if data != before[name]}
    assert changed == {"figures.json", "mine-one.svg", "mine-one.png", "mine-two.svg", "mine-two.png"}


def test_other_code_draws_again(folder: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        Pictures(folder, Reporter(quiet=True)).of("", shown(), "dynamics.validating", never)


@pytest.mark.parametrize("name", ["figures.json", "timeline.svg", "mine-one.png", "mine-two.svg"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"[1, {}]")])
def test_what_is_damaged_is_drawn_again_to_the_same_bytes(folder: Path, name: str, damage: Any) -> None:
    before = content(folder)
    damage(next(folder.parent.rglob(name)))
    made(folder)
    assert content(folder) == before


@pytest.mark.parametrize("said", ['{"": 1}', '{"": {"key": "k"}}', '{"mine": {"figures": [1]}}', "null"])
def test_whatever_is_said_of_earlier_drawings_the_figures_are_right(folder: Path, said: str) -> None:
    before = content(folder)
    (folder.parent / "figures.json").write_text(said)
    made(folder)
    assert content(folder) == before


def test_what_is_known_of_a_figure_is_made_again_where_somebody_changed_it(folder: Path) -> None:
    known = folder.parent / "figures.json"
    before, said = made(folder), json.loads(known.read_text())
    assert before["one"].panels is None and before["one"].caption == ""
    said["mine"]["figures"]["one"]["about"]["panels"] = [{"lines": [{"key": "other"}]}]
    known.write_text(json.dumps(said))
    assert made(folder) == before


def test_figures_that_a_report_no_longer_has_are_removed(folder: Path) -> None:
    (folder / "mine-one.svg.partial").write_text("cut off")
    (folder / "notes.txt").write_text("of the user")
    pictures = Pictures(folder, Reporter(quiet=True))
    pictures.of("", shown(), MODULE, never)
    pictures.finish()
    assert sorted(content(folder)) == ["figures.json", "notes.txt", "timeline.png", "timeline.svg"]


def test_a_figure_is_what_matplotlib_saves(folder: Path) -> None:
    def drawn() -> Figure:
        table = np.arange(12.0).reshape(3, 4)
        return heat_maps(
            [("a", table), ("b", -table)], [0, 1, 10, 100], rows=list("xyz"), row_title="r", value_title="v"
        )

    data = Pictures(folder, Reporter(quiet=True)).of("", shown(7.0), MODULE, lambda: {"map": drawn()})["map"].data
    figure = drawn()
    expected = {kind: io.BytesIO() for kind in ("svg", "png")}
    with mpl.rc_context({"svg.hashsalt": "dynamics"}):
        figure.savefig(expected["svg"], format="svg", metadata={"Date": None, "Creator": "circuit-dynamics"})
        figure.set_layout_engine("none")
        figure.savefig(expected["png"], format="png", dpi=160, pil_kwargs={"compress_level": 3})
    for kind, buffer in expected.items():
        assert (folder / f"map.{kind}").read_bytes() == buffer.getvalue()
    assert base64.b64decode(data.split(",")[1]) == expected["svg"].getvalue()


def test_what_is_kept_while_a_figure_is_drawn_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw() -> dict[str, Figure]:
        maps = [(f"a title that is too long for its axes {i}", np.arange(12.0).reshape(3, 4) * i) for i in (1, 2)]
        figure = heat_maps(
            maps, [0, 1, 10, 100], rows=["a", "b", "c"], row_title="row", value_title="value", alike=False
        )
        figure.axes[0].legend(figure.axes[0].plot([0, 1], [2, 2]), ["a line"])
        twice = Figure(figsize=(4, 2), layout="constrained")
        for axes, scale in zip(twice.subplots(1, 2), ("log", "symlog"), strict=True):
            axes.plot([1, 10, 1e5], [1e-7, 2e-7, 3e-7], label="$x^2$")
            axes.set_xscale(scale)
            axes.set(xlabel="step", ylabel="two\nlines", title=scale)
            axes.tick_params("x", rotation=40)
        return {"maps": figure, "twice": twice}

    def files(name: str) -> dict[str, bytes]:
        (tmp_path / name / "figures").mkdir(parents=True)
        Pictures(tmp_path / name / "figures", Reporter(quiet=True)).of("", shown(), MODULE, draw)
        return {file.name: file.read_bytes() for file in (tmp_path / name / "figures").iterdir()}

    kept = files("kept")
    monkeypatch.setattr(measuring, "_text", lambda *_: None)
    monkeypatch.setattr(measuring, "_shown", lambda *_: None)
    assert files("asked") == kept

    def elsewhere(*_: Any) -> None:
        raise AttributeError("another matplotlib")

    monkeypatch.setattr(measuring, "_text", elsewhere)
    monkeypatch.setattr(measuring, "_shown", elsewhere)
    assert files("another matplotlib") == kept
