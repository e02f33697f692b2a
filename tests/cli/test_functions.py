"""Every verb of the command line is a Python function of the same name and meaning."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import dynamics
from checkpoints import UserError
from dynamics.cli import cli
from dynamics.runs.config import Run
from tests.cli.conftest import files

PRINT_ONLY = {"runs", "series", "sites"}
"""Verbs that say what is declared, published or known, and do nothing."""

TURNS_TO = {
    ("collect", "dry_run"): "estimate",
    ("explain", "prompts"): "explain_prompts",
    **{("collect", o): "watch" for o in ("watch", "poll", "until", "patience")},
}
"""Options of a verb that stand for another function."""

CALLED = {("collect", "watch"): "folder", ("explain", "prompts"): "file"}
"""Options whose parameter has another name there."""

CHANGES_THE_RUN = {"device", "schedule", "include_masked"}
"""Options that change what the run says: in Python a changed ``run=``."""

KEEPS_WHAT_IS_PRINTED = {("validate", "output")}
"""Files that hold what the command prints."""

VERBS = sorted(cli.commands.keys() - PRINT_ONLY)


def parameters(function: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(dynamics, function)).parameters)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_a_function_and_its_options_are_parameters_with_the_same_defaults(verb: str) -> None:
    assert verb in dynamics.__all__
    for parameter in cli.commands[verb].params:
        option = str(parameter.name)
        if (verb, option) in KEEPS_WHAT_IS_PRINTED:
            continue
        function = TURNS_TO.get((verb, option), verb)
        assert function in dynamics.__all__
        known = parameters(function)
        if option in CHANGES_THE_RUN:
            assert option in Run.model_fields and "run" in known
        elif isinstance(parameter, click.Argument):
            assert ("name" if option == "run" else option) in known, f"{function} lacks {option}"
        elif option != "dry_run":
            name = CALLED.get((verb, option), option)
            assert name in known, f"{function} lacks {name}"
            assert known[name].kind is inspect.Parameter.KEYWORD_ONLY
            if name == "file" or isinstance(getattr(parameter, "flag_value", None), str):
                continue  # is needed there; one of several flags for one parameter
            default = parameter.get_default(click.Context(cli.commands[verb]))
            given = default and "UNSET" not in str(default)  # newer versions of click have a word for "no default"
            assert str(default) == str(known[name].default) if given else not known[name].default, name


@pytest.mark.parametrize("function", [*VERBS, "estimate", "watch"])
def test_a_function_of_a_run_takes_its_name_or_the_run_itself(function: str) -> None:
    known = parameters(function)
    if function in ("validate", "mcp", "compare", "submit"):  # of its own runs, of all, of several, of a runs file's
        return
    assert {"name", "runs", "traces", "run"} <= known.keys()
    assert known["runs"].default is None and known["run"].default is None and str(known["traces"].default) == "traces"


def test_verify_mends_a_damaged_trace_by_itself(collected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(collected)
    whole = files(collected / "traces")
    slab = next(p for p in Path("traces/mine.zarr/induction_repeats/token_loss/c/1").rglob("*") if p.is_file())
    slab.write_bytes(slab.read_bytes()[:-1])
    (damage,) = dynamics.verify("mine")
    assert damage.step == 1 and not damage.repaired
    (damage,) = dynamics.verify("mine", repair=True)
    assert damage.step == 1 and damage.repaired
    assert dynamics.verify("mine") == []
    again = files(collected / "traces")
    assert {n: c for n, c in again.items() if "/c/" in n} == {n: c for n, c in whole.items() if "/c/" in n}


def test_a_repair_that_cannot_be_made_deletes_nothing(collected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(collected)
    slab = next(p for p in Path("traces/mine.zarr/induction_repeats/token_loss/c/1").rglob("*") if p.is_file())
    slab.write_bytes(slab.read_bytes()[:-1])
    (collected / "runs.yaml").write_text(
        "mine: {series: {kind: folder, path: nowhere, colour: red}, analyses: [induction]}\n"
    )
    before = files(collected)
    with pytest.raises(UserError, match="colour"):
        dynamics.verify("mine", repair=True)
    assert files(collected) == before


def test_watching_needs_a_run_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nothing to watch"):
        dynamics.watch()
    seen: list[Any] = []

    def once(name: str, run: Run, *_rest: Any, **_more: Any) -> bool:
        seen.append((name, run))
        return False

    monkeypatch.setattr("dynamics.collecting.watching._look", once)
    sleep: Callable[[float], None] = lambda _seconds: None  # noqa: E731
    with pytest.raises(UserError, match="no checkpoint was saved"):
        dynamics.watch(folder="job", patience=0, analyses=["induction"], sleep=sleep)
    ((name, run),) = seen
    assert name == "job" and run.series.path == tmp_path / "job" and (tmp_path / "job").is_dir()
    assert [entry.name for entry in run.analyses] == ["induction"]
    with pytest.raises(UserError, match="no checkpoint was saved"):
        dynamics.watch("mine", run=run, folder="elsewhere", patience=0, sleep=sleep)
    assert seen[1][0] == "mine" and seen[1][1].series.path == tmp_path / "elsewhere"
