"""A training of several stages has one axis: steps go on, stages are named, and what does not fit together is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from checkpoints import UserError
from checkpoints.sources import open_series
from checkpoints.staged import StagedConfig, StagedSeries
from dynamics.collecting.rounds import collect
from dynamics.runs.config import Run, load_run
from dynamics.store import Trace
from tests.checkpoints.test_local import put


def folder(root: Path, name: str, *steps: int, tokenizer: str = "{}") -> Path:
    for step in steps:
        put(root / name, f"step{step}")
    (root / name / "tokenizer.json").write_text(tokenizer)
    return root / name


def opened(root: Path, *parts: dict[str, object], **more: object) -> StagedSeries:
    config = StagedConfig.model_validate({"parts": parts, **more}).anchored(root)
    series = open_series("mine", config)
    assert isinstance(series, StagedSeries)
    return series


def part(stage: str, /, **more: object) -> dict[str, object]:
    series = {"kind": "folder", "path": stage} | {k: v for k, v in more.items() if k != "starts"}
    return {"stage": stage, "series": series} | {k: v for k, v in more.items() if k == "starts"}


def test_steps_go_on_and_stages_are_named(tmp_path: Path) -> None:
    folder(tmp_path, "base", 0, 1000)
    folder(tmp_path, "sft", 0, 100, 200)
    folder(tmp_path, "dpo", 50)
    series = opened(tmp_path, part("base"), part("sft"), part("dpo"))
    found = [(c.step, c.stage, c.label, c.revision) for c in series.checkpoints]
    assert found == [
        (0, "base", "base 0", "step0"),
        (1000, "base", "base 1000", "step1000"),
        (1100, "sft", "sft 100", "step100"),
        (1200, "sft", "sft 200", "step200"),
        (1250, "dpo", "dpo 50", "step50"),
    ]
    assert series.left_out == {"sft: step0": "it is where stage base ends"}
    assert [series.fetch(c) for c in series.checkpoints][-1] == tmp_path / "dpo" / "step50"
    assert series.tokenizer_folder == tmp_path / "dpo" and series.local and not series.pinned
    assert list(series.all_files()) == list(series.checkpoints)


def test_a_part_may_say_where_it_starts(tmp_path: Path) -> None:
    folder(tmp_path, "base", 0, 1000)
    folder(tmp_path, "sft", 0, 100)
    series = opened(tmp_path, part("base"), part("sft", starts=2000))
    assert [c.step for c in series.checkpoints] == [0, 1000, 2000, 2100] and not series.left_out
    with pytest.raises(UserError, match=r"a checkpoint at step 500, and stage 'base' ends at 1000(.|\n)*`starts`"):
        opened(tmp_path, part("base"), part("sft", starts=500))


def test_tokens_are_added_up_where_all_are_known(tmp_path: Path) -> None:
    folder(tmp_path, "base", 0, 10)
    folder(tmp_path, "sft", 5)
    both = opened(tmp_path, part("base", tokens_per_step=100), part("sft", tokens_per_step=8))
    assert [c.tokens for c in both.checkpoints] == [0, 1000, 1040]
    one = opened(tmp_path, part("base"), part("sft", tokens_per_step=8))
    assert [c.tokens for c in one.checkpoints] == [None, None, None]
    apart = opened(tmp_path, part("base", tokens_per_step=100), part("sft", tokens_per_step=8, starts=20))
    assert [c.tokens for c in apart.checkpoints] == [0, 1000, None]


def test_stages_with_other_tokenizers_need_one_that_is_named(tmp_path: Path) -> None:
    folder(tmp_path, "base", 0, tokenizer='{"model": {"vocab": {"a": 0}}}')
    folder(tmp_path, "sft", 5, tokenizer='{"model": {"vocab": {"b": 0}}}')
    with pytest.raises(
        UserError, match=r"stage 'base' of mine has another tokenizer than stage 'sft'(.|\n)*series.tokenizer"
    ):
        opened(tmp_path, part("base"), part("sft"))
    assert opened(tmp_path, part("base"), part("sft"), tokenizer="base").tokenizer_folder == tmp_path / "base"


def test_the_runs_file_says_the_parts(tmp_path: Path) -> None:
    def load(text: str) -> Run:
        (tmp_path / "runs.yaml").write_text(f"mine:\n  analyses: [induction]\n  series:\n{text}")
        return load_run("mine", tmp_path / "runs.yaml")

    run = load(
        "    kind: staged\n    parts:\n      - {stage: base, series: pythia-70m}\n"
        "      - {stage: sft, series: {kind: folder, path: sft}, starts: 200000}\n"
    )
    assert isinstance(run.series, StagedConfig) and run.series.parts[1].series.path == tmp_path / "sft"  # type: ignore[union-attr]
    assert Run.model_validate_json(run.model_dump_json()) == run  # as a trace records it
    for text, said in (
        ("    {kind: staged, parts: []}", "at least 1 item"),
        ("    {kind: staged, parts: [{stage: a, series: pythia-70}]}", "did you mean 'pythia-70m'"),
        ("    {kind: staged, parts: [{stage: a, series: {kind: organism}}]}", "expected one of folder, hub"),
        ("    {kind: staged, parts: [{stage: a, series: {path: x}}]}", "has no `kind`: folder, hub"),
        ("    {kind: staged, parts: [{stag: a, series: {kind: folder, path: x}}]}", "did you mean 'stage'"),
        ("    {kind: staged, parts: [{stage: a, series: {kind: folder, pth: x}}]}", "did you mean 'path'"),
        (
            "    {kind: staged, parts: [{stage: a, series: {kind: folder, path: x}}, {stage: a, series: {kind: folder, path: y}}]}",
            "two parts are of stage 'a'",
        ),
    ):
        with pytest.raises(UserError) as refused:
            load(text)
        assert said in str(refused.value), refused.value


@pytest.mark.slow
def test_a_series_in_parts_is_collected_as_the_whole_is(tmp_path: Path, tiny_series: Path) -> None:
    """The tiny organism's later checkpoints as a stage of their own, which counts from 0."""
    steps = sorted(int(p.name.removeprefix("step")) for p in tiny_series.glob("step*") if p.is_dir())
    early, late = [s for s in steps if s <= steps[2]], [s for s in steps if s >= steps[2]]
    for stage, own in (("base", {s: s for s in early}), ("sft", {s: s - steps[2] for s in late})):
        for step, renamed in own.items():
            shutil.copytree(tiny_series / f"step{step}", tmp_path / stage / f"step{renamed}")
        for file in tiny_series.glob("tokenizer*"):
            shutil.copy(file, tmp_path / stage)
    parts = [part(stage) | {"series": {"kind": "folder", "path": str(tmp_path / stage)}} for stage in ("base", "sft")]
    runs = {
        "whole": {"kind": "folder", "path": str(tiny_series)},
        "staged": {"kind": "staged", "parts": parts},
    }
    found = {}
    for name, series in runs.items():
        run = Run.model_validate({"series": series, "analyses": ["induction"], "device": "cpu"})
        done = collect(name, run=run, traces=tmp_path)
        assert not done.failed and not done.masked and len(done.collected) == len(steps), done
        found[name] = Trace(done.trace)
    assert [c.step for c in found["staged"].checkpoints()] == steps
    assert [c.stage for c in found["staged"].checkpoints()] == ["base"] * len(early) + ["sft"] * (len(late) - 1)
    for name in ("induction_repeats",):
        group = found["whole"].probe(name)
        for variable in group.data_vars:
            np.testing.assert_array_equal(group[variable].values, found["staged"].probe(name)[variable].values)
    assert found["staged"].digests == found["whole"].digests
    again = collect(
        "staged",
        run=Run.model_validate({"series": runs["staged"], "analyses": ["induction"], "device": "cpu"}),
        traces=tmp_path,
    )
    assert not again.collected and len(again.already) == len(steps)
