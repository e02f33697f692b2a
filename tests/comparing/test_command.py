"""The verb ``compare``: what it writes and prints, from traces and from reports, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import dynamics
from checkpoints import UserError
from dynamics.cli import main
from dynamics.comparing.configs import design_of
from dynamics.comparing.content import compare_content
from dynamics.comparing.page import comparison_page
from dynamics.validating.designs import PlantedDesign, plant


@pytest.fixture
def folder(reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``mine`` with its trace; ``late`` with its report alone, of another learning rate, whose onsets lie later."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(reported / "reports", tmp_path / "reports")
    shutil.copytree(reported / "traces", tmp_path / "traces")
    content = json.loads((tmp_path / "reports/mine/report.json").read_text())
    content["run"] = "late"
    content["run_config"]["series"] |= {"kind": "organism", "learning_rate": 0.001}
    for finding in content["analyses"][0]["findings"]:
        finding["emergence"] |= {"state": "emerged", "onset": {"after": 3, "by": 6}}
    (tmp_path / "reports/late").mkdir()
    (tmp_path / "reports/late/report.json").write_text(json.dumps(content))
    return tmp_path


def test_it_writes_a_page_and_json_and_prints_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", "mine", "late"])
    said = capsys.readouterr()
    content = json.loads((folder / "reports/compare-mine-late/compare.json").read_text())
    assert content["format"] == 1 and [run["run"] for run in content["runs"]] == ["mine", "late"]
    assert "late: from its report" in said.err
    assert "series.learning_rate" in said.out and "(3, 6]" in said.out
    assert "reports/compare-mine-late/index.html" in said.out
    assert all(circuit["title"] in said.out for circuit in content["circuits"])
    assert any("prompts are not known" in remark for remark in content["remarks"])
    assert (folder / "reports/compare-mine-late/index.html").read_text() == comparison_page(content)


def test_a_trace_compared_with_its_copy_differs_in_nothing(folder: Path) -> None:
    shutil.copytree(folder / "traces/mine.zarr", folder / "traces/copy.zarr")
    found = dynamics.compare(["mine", "copy"])
    assert found.content["differences"] == [] and found.content["effects"] == []
    frame = found.onsets
    assert set(frame["run"]) == {"mine", "copy"} and not (frame["verdict"].isin(["later", "earlier"])).any()
    known = [s for c in found.content["circuits"] for s in c["shifts"]]
    assert known and all(s["later"] == pytest.approx(s["earlier"]) for s in known)
    assert "do not differ" in found.content["story"][0] and found.content["groups"][0]["runs"] == ["mine", "copy"]


def test_a_misspelt_key_of_repeats_is_a_mistake(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "mine", "late", "--repeats", "series.pth"])
    assert ended.value.code == 2 and "did you mean 'series.path'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["mine"], "1 run to compare"),
        (["mine", "mine"], "'mine' is named twice"),
        (["mine", "nothing"], "run 'nothing' has no trace"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder: Path, names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        dynamics.compare(names)


def test_a_damaged_report_is_refused_with_the_remedy(folder: Path) -> None:
    (folder / "reports/late/report.json").write_text("{")
    with pytest.raises(UserError) as caught:
        dynamics.compare(["mine", "late"])
    assert "cannot be read" in caught.value.observed and caught.value.remedy == "dynamics report late"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "line", "circle", "path", "rect", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "path", "rect"):
            assert self.open.pop() == tag


def test_the_page_is_one_file_in_which_nothing_that_a_run_says_is_markup() -> None:
    circuits = {"<script>x</script>": (0.9, 0.0), "b": (0.0, 0.0)}
    runs = plant(PlantedDesign(circuits=circuits, seeds=2), np.random.default_rng(0))
    runs = [replace(run, name=f"<img src=x onerror=y>{n}") for n, run in enumerate(runs)]
    for chosen in (runs, [runs[0], runs[7]]):
        page = comparison_page(compare_content(chosen, design_of(chosen)))
        tags = Tags()
        tags.feed(page)
        assert tags.open == [] and not {"script", "img", "link", "iframe"} & tags.seen
        assert not {"src", "href", "onerror"} & tags.attributes
        assert "http" not in page
        for circuit in ("&lt;script&gt;x", "&lt;img src=x"):
            assert circuit in page


def test_names_of_many_runs_make_a_short_folder(folder: Path) -> None:
    names = [f"{n}-{'a-long-name-of-a-run' * 2}" for n in range(3)]
    for name in names:
        shutil.copytree(folder / "traces/mine.zarr", folder / f"traces/{name}.zarr")
    found = dynamics.compare(names)
    assert found.folder.name.startswith(f"compare-{names[0][:40]}-3-") and len(found.folder.name) < 80


def test_comparing_needs_no_torch() -> None:
    code = "import sys, dynamics.comparing.content, dynamics.comparing.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
