"""Sweeps: a run that stands for many, each with a name of its own; mistakes are named with their place in the sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dynamics
from checkpoints import UserError
from checkpoints.errors import StoppedError
from checkpoints.organism import OrganismConfig
from dynamics.cli import main
from dynamics.listing import each_cell
from dynamics.runs import config
from dynamics.runs.config import load_cells, load_run, load_runs, run_names
from dynamics.runs.sweeps import cell_names, one_cell

TEXT = """
mine:
  series: {kind: organism, steps: 6, checkpoints: 3, layers: 2, d_model: 32, heads: 2, batch: 8}
  analyses: [{name: induction, options: {prompts: 8, period: 4}}]
  sweep:
    series.seed: [0, 1]
    series.curriculum.addition.share: [0.17, 0.34]
plain:
  series: {kind: folder, path: weights}
  analyses: [induction]
"""
CELLS = [f"mine@seed={seed},addition.share={share}" for seed in (0, 1) for share in (0.17, 0.34)]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.yaml").write_text(TEXT, encoding="utf-8")
    return tmp_path / "runs.yaml"


def test_a_sweep_is_every_combination_and_changes_nothing_else(file: Path) -> None:
    cells = load_cells("mine")
    assert list(cells) == CELLS == dynamics.find_cells("mine")
    for (name, run), (seed, share) in zip(cells.items(), [(0, 0.17), (0, 0.34), (1, 0.17), (1, 0.34)], strict=True):
        assert isinstance(run.series, OrganismConfig) and run.series.seed == seed
        assert run.series.curriculum["addition"].share == share and run.sweep == {}
        assert run.series.curriculum["german"].share == 0.2 and run.series.layers == 2  # what was not swept stays
        assert load_run(name) == run == dynamics.find_run(name)[1]
    assert set(load_runs()) == {"mine", "plain"} and set(run_names()) == {"mine", "plain", *CELLS}
    assert dynamics.find_cells("plain") == ["plain"] and dynamics.find_cells(CELLS[0]) == [CELLS[0]]


def test_a_function_of_one_run_says_which_cells_a_sweep_has(file: Path) -> None:
    with pytest.raises(UserError, match="is a sweep") as caught:
        dynamics.collect("mine")
    assert CELLS[0] in caught.value.expected and "find_cells('mine')" in caught.value.remedy


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"series.sede": [1]}, ("wrong at series.sede: 1", "unknown key 'series.sede'", "did you mean 'seed'")),
        ({"sreies.seed": [1]}, ("wrong at sreies.seed: 1", "unknown key 'sreies'", "did you mean 'series'")),
        ({"series.seed": [0, -1]}, ("wrong at series.seed: -1",)),
        ({"series.curriculum.adition.share": [0.1]}, ("wrong at series.curriculum.adition.share: 0.1", "'addition'")),
        ({"series.seed.x": [1]}, ("wrong at series.seed.x", "'series.seed' holds no keys")),
        ({"analyses.induction": [1]}, ("wrong at analyses.induction", "whole entry")),
        ({"analyses.inductoin.options.prompts": [9]}, ("holds no keys",)),
        ({"series.seed": 3}, ("wrong at series.seed", "no list of values")),
        ({"series.seed": []}, ("no list of values",)),
        ({"series.seed": [1, 1]}, ("a value is there twice",)),
        ({"series.seed": list(range(40)), "series.steps": list(range(1, 41))}, ("1600 cells",)),
        ({}, ("is {}",)),
        ([1], ("is [1]",)),
    ],
)
def test_mistakes_say_where_in_the_sweep_they_are(file: Path, sweep: Any, said: tuple[str, ...]) -> None:
    text = TEXT.partition("  sweep:")[0] + f"  sweep: {json.dumps(sweep)}\n"
    file.write_text(text, encoding="utf-8")
    for ask in (lambda: load_cells("mine"), load_runs):
        with pytest.raises(UserError) as caught:
            ask()
        assert all(part in str(caught.value) for part in ("run 'mine'", *said)), str(caught.value)


def test_options_of_an_analysis_can_be_swept_by_its_name(file: Path) -> None:
    file.write_text(TEXT.partition("  sweep:")[0] + "  sweep: {analyses.induction.options.prompts: [8, 16]}\n")
    prompts = [run.analyses[0].options["prompts"] for run in load_cells("mine").values()]
    assert prompts == [8, 16] and dynamics.find_cells("mine")[1] == "mine@options.prompts=16"


def test_names_are_safe_for_files_and_differ() -> None:
    names = cell_names("a", {"sweep": {"x.path": ["./b c/../d", "./b-c/../d", [1, 2], {"k": 1}, True, None]}})
    assert len(set(names)) == 6
    assert not any(sign in name for name in names for sign in "/\\ :")
    numbers = cell_names("a", {"sweep": {"x.shift": [-1, 1, -0.5]}})
    assert numbers == ["a@shift=-1", "a@shift=1", "a@shift=-0.5"]
    cased = cell_names("a", {"sweep": {"x.path": ["Big", "big", "other"]}})
    assert len({name.casefold() for name in cased}) == 3
    assert cell_names("a", {"sweep": 3}) == cell_names("a", 3) == cell_names("a", {}) == []


def test_the_command_line_takes_a_sweep_and_adds_up_what_it_costs(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["collect", "mine", "--dry-run"])
    said = capsys.readouterr().out
    assert "together: 12 checkpoints still to do in 4 runs" in said and "24 optimizer steps" in said
    main(["status", "mine"])
    said = capsys.readouterr().out
    assert all(f"{cell}, {number} of 4" in said for number, cell in enumerate(CELLS, 1)) and "not started" in said


def test_one_cell_is_read_without_the_others(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def parse(name: str, body: Any, where: Path) -> Any:
        seen.append(name)
        return config._parse(name, body, where)

    body = config._read(file)[1]["mine"]
    found = one_cell(CELLS[3], "mine", body, file, parse)
    assert seen == ["mine", CELLS[3]] and found == load_cells("mine")[CELLS[3]]
    assert one_cell("mine@seed=9", "mine", body, file, parse) is None
    with pytest.raises(UserError, match="no run 'mine@seed=9'"):
        load_run("mine@seed=9")


def test_a_mistake_in_one_cell_does_not_keep_the_others_from_their_turn(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "traces" / f"{CELLS[1]}.zarr").mkdir(parents=True)
    (file.parent / "traces" / f"{CELLS[1]}.zarr" / "zarr.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        main(["status", "mine"])
    said = capsys.readouterr()
    assert ended.value.code == 2 and f"error: {CELLS[1]}: " in said.err and "expected:" in said.err
    assert all(f"{cell}: not started" in said.out for cell in CELLS if cell != CELLS[1])


def test_a_full_disk_stops_all_cells(file: Path) -> None:
    asked: list[str] = []

    @each_cell
    def verb(run: str, runs: Path | None) -> None:
        asked.append(run)
        raise StoppedError("the disk is full", expected="room", remedy="make room")

    with pytest.raises(StoppedError):
        verb("mine", runs=None)
    assert asked == CELLS[:1]


@pytest.mark.slow
def test_a_sweep_is_collected_resumed_reported_and_compared(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["collect", CELLS[2]])  # one cell alone, as after a kill: the others are still to do
    before = (file.parent / f"traces/{CELLS[2]}.zarr/zarr.json").stat().st_mtime_ns
    main(["collect", "mine"])
    assert sorted(p.name for p in (file.parent / "traces").glob("*.zarr")) == sorted(f"{c}.zarr" for c in CELLS)
    assert (file.parent / f"traces/{CELLS[2]}.zarr/zarr.json").stat().st_mtime_ns == before
    main(["report", "mine"])
    assert len(list((file.parent / "reports").glob("mine@*/report.json"))) == 4
    capsys.readouterr()
    main(["compare", "mine"])
    said = capsys.readouterr().out
    content = json.loads((file.parent / "reports/compare-mine/compare.json").read_text())
    assert [f["label"] for f in content["factors"]] == ["addition.share"] and len(content["groups"]) == 2
    assert said.startswith("what differs")  # four runs still stand side by side
