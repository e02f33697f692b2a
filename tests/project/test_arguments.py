"""What callers give to public functions: any path will do, and what is of a wrong type is said to be wrong."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import dynamics
from checkpoints import FolderSeries, UserError
from checkpoints.paths import as_path, replace_text
from tests.store.declared import declare, fill

PUBLIC = {name: getattr(dynamics, name) for name in dynamics.__all__} | {"FolderSeries": FolderSeries}
KINDS = ("StrPath", "str", "Sequence[str]", "bool", "int", "float", "Collection[int]", "tuple[int, ...]", "Mapping")
GIVEN: dict[str, Any] = {
    "file": "x.jsonl",
    "summaries": (),
    "name": "mine",
    "names": ["mine", "other"],
    "prompt": "a",
    "model": object(),
    "path": "x.zarr",
    "config": "x",
    "last": 9,
}
"""Good values for the parameters that a call must have."""


def kind_of(annotation: str) -> str | None:
    parts = [name for part in annotation.split(" | ") for name in (part, part.partition("[")[0])]
    return next((name for name in parts if name in KINDS), None)


CASES = [
    (function, parameter.name, kind, "None" in str(parameter.annotation))
    for function, call in PUBLIC.items()
    for parameter in inspect.signature(call).parameters.values()
    if (kind := kind_of(str(parameter.annotation))) is not None
]


def test_no_public_function_takes_a_path_object_only() -> None:
    annotations = [
        (name, parameter.name)
        for name, call in PUBLIC.items()
        for parameter in inspect.signature(call).parameters.values()
        if "Path" in str(parameter.annotation).replace("StrPath", "")
    ]
    assert annotations == []
    assert {("collect", "traces"), ("explain", "reports"), ("Trace", "path"), ("watch", "folder")} <= {
        c[:2] for c in CASES
    }


@pytest.mark.parametrize(("function", "parameter", "kind", "optional"), CASES)
def test_a_value_of_a_wrong_type_is_named_with_what_was_expected(
    function: str, parameter: str, kind: str, optional: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if (function, parameter) == ("FolderSeries", "name"):  # for messages; empty by default
        return
    wrong: list[Any] = [b"x", object(), *([] if kind in ("int", "float") else [3]), *([] if optional else [None])]
    wrong += ["x", [3]] if kind == "Sequence[str]" else [["x"]]
    needed = {
        p.name: GIVEN[p.name]
        for p in inspect.signature(PUBLIC[function]).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    if function == "watch" and parameter not in ("name", "folder"):  # it needs one of the two
        needed["name"] = "mine"
    for value in wrong:
        with pytest.raises(UserError, match=f"`{parameter}` is ") as caught:
            PUBLIC[function](**{**needed, parameter: value})
        assert caught.value.observed and caught.value.expected and caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_be_text_or_anything_that_is_like_a_path(tmp_path: Path) -> None:
    class Like:
        def __fspath__(self) -> str:
            return "x"

    class Bytes:
        def __fspath__(self) -> bytes:
            return b"x"

    assert as_path("x", "a") == as_path(Path("x"), "a") == as_path(Like(), "a") == Path("x")
    with pytest.raises(UserError, match="`a` is"):
        as_path(Bytes(), "a")
    with pytest.raises(UserError, match="there is no folder"):
        FolderSeries(str(tmp_path / "nowhere"))


def test_what_is_no_run_is_refused_with_the_way_to_change_one() -> None:
    with pytest.raises(UserError, match=r"`run` is .*, of type dict") as caught:
        dynamics.collect("mine", run={})  # type: ignore[arg-type]
    assert "dynamics.find_run(name)" in caught.value.remedy


@pytest.mark.parametrize(
    ("function", "given"),
    [
        ("explain", {"name": "mine", "prompt": "a", "share": "x"}),
        ("explain", {"name": "mine", "prompt": "a", "checkpoints": "x"}),
        ("explain", {"name": "mine", "prompt": "a", "figure_step": "x"}),
        ("explain", {"name": "mine", "prompt": "a", "seed": -1}),
        ("watch", {"name": "mine", "poll": -1.0}),
        ("watch", {"name": "mine", "poll": 0}),
        ("watch", {"name": "mine", "poll": "x"}),
        ("watch", {"name": "mine", "until": "x"}),
        ("watch", {"name": "mine", "patience": "x"}),
        ("validate", {"curves": 0}),
        ("validate", {"organisms": "x"}),
        ("validate", {"scenarios": 3}),
        ("validate", {"scenarios": ["x"]}),
        ("log_steps", {"last": None}),
        ("log_steps", {"last": 10, "count": 2.5}),
    ],
)
def test_what_is_no_number_is_named_with_what_was_expected(
    function: str, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"`{list(given)[-1]}` is ") as caught:
        PUBLIC[function](**given)
    assert caught.value.observed and caught.value.expected and caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_trace_is_asked_by_names(tmp_path: Path) -> None:
    fill(tmp_path / "t.zarr", declare())
    trace = dynamics.Trace(tmp_path / "t.zarr")
    for ask in (lambda: trace.probe(3), lambda: trace.values("mine", None), lambda: trace.label("mine", ["a"])):  # type: ignore
        with pytest.raises(UserError, match="expected: a text"):
            ask()


def test_what_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match=r"a\.txt"):
        replace_text(tmp_path / "a.txt", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
