"""Errors say what was observed, what is expected and what to do: every place that makes one is read, none has to be reached."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path

import pytest

from checkpoints import errors

ROOT = Path(__file__).parents[2]
PACKAGES = ("checkpoints", "dynamics", "analyses")
INTERNAL = {
    "ChangedError": "a conditional write of an object; who writes says what was changed by whom",
    "PassingError": "a request that is made again",
    "GaveUpError": "a request that was made often enough; the client of the hub says which",
    "RefusedError": "an answer of a hub; its client says to what",
    "RefusedName": "a name in a pickle; the reader of the file says which file",
    "UnknownNameError": "a UserError; a KeyError too, as mappings raise",
    "_Enough": "ends a forward pass at the site that is read",
}
"""Exceptions that are no ``UserError``, and who catches them: none leaves the module or package that it is raised in."""
PARTS = ("expected", "remedy")

TREES = {
    file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
}


@cache
def classes() -> dict[str, set[str]]:
    """Every class of the packages, and the names of what it is derived from."""
    return {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


@cache
def told() -> frozenset[str]:
    """``UserError`` and all classes that are derived from it."""
    known, found = classes(), {"UserError"}
    while more := {name for name, bases in known.items() if bases & found} - found:
        found |= more
    return frozenset(found)


def made(tree: ast.AST, names: Set[str]) -> Iterator[ast.Call]:
    """The calls that make an exception of one of these classes, whatever expression chooses the class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            callee = node.func
            choices = [callee.body, callee.orelse] if isinstance(callee, ast.IfExp) else [callee]
            if any(
                ast.unparse(c).rpartition(".")[2] in names for c in choices if isinstance(c, ast.Name | ast.Attribute)
            ):
                yield node


def blank(value: ast.expr) -> bool:
    """Whether an expression is an empty text, or may choose one."""
    if isinstance(value, ast.Constant):
        return not (isinstance(value.value, str) and value.value.strip())
    if isinstance(value, ast.IfExp):
        return blank(value.body) or blank(value.orelse)
    if isinstance(value, ast.BoolOp):
        return any(map(blank, value.values))
    return isinstance(value, ast.JoinedStr) and not value.values


def problems(source: str, tree: ast.AST, names: Set[str]) -> list[str]:
    found = []
    for call in made(tree, names):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        lacking = [part for part in PARTS if part not in given or blank(given[part])]
        if lacking or not call.args or blank(call.args[0]):
            found.append(f"{source}:{call.lineno}: {', '.join(lacking) or 'observed'}")
    for node in ast.walk(tree):  # those that pass a part on
        if isinstance(node, ast.FunctionDef):
            given_by_name = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            given_by_place = zip(reversed(node.args.args), reversed(node.args.defaults), strict=False)
            with_default = [*given_by_name, *given_by_place]
            found += [
                f"{source}:{node.lineno}: {node.name} has an empty {argument.arg} by default"
                for argument, default in with_default
                if argument.arg in PARTS and default is not None and blank(default)
            ]
    return found


def test_every_error_that_a_user_can_meet_is_made_with_all_three_parts() -> None:
    names = told()
    assert {"UserError", "CheckpointError", "StoppedError", "UnreachableError"} <= names
    assert sum(1 for tree in TREES.values() for _ in made(tree, names)) > 350
    assert [problem for source, tree in TREES.items() for problem in problems(source, tree, names)] == []


def test_exceptions_of_other_kinds_are_few_and_caught_where_they_are_raised() -> None:
    known = classes()
    builtin = {
        "Exception",
        "BaseException",
        "UnpicklingError",
        "ValueError",
        "RuntimeError",
        "OSError",
        "KeyError",
        "TypeError",
    }
    own = {name for name, bases in known.items() if bases & builtin}
    assert own == {"UserError", *INTERNAL}
    handlers = [
        n.type for tree in TREES.values() for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.type
    ]
    caught = " ".join(map(ast.unparse, handlers))
    assert [name for name in INTERNAL if name not in caught and "UserError" not in known[name]] == []


@pytest.mark.parametrize(
    "text",
    [
        'UserError("a")',
        'UserError("a", expected="b")',
        'UserError("a", expected="b", remedy="")',
        'UserError("a", expected="b" if c else "", remedy="d")',
        'UserError("a", expected=b or "", remedy="d")',
        'UserError("", expected="b", remedy="d")',
        'errors.CheckpointError("a", expected="b")',
        '(StoppedError if x else UserError)("a", remedy="b")',
        'def f(a, *, remedy=""): ...',
        'def f(a, remedy=""): ...',
    ],
)  # fmt: skip
def test_the_reader_of_errors_sees_what_is_lacking(text: str) -> None:
    assert problems("x", ast.parse(text), told()) != []
    assert problems("x", ast.parse('UserError(a, expected=f"{b}", remedy=nearest(a, b))'), told()) == []


@pytest.mark.parametrize("word", ["x", "addition", ""])
@pytest.mark.parametrize("count", [0, 1, 30, 31, 500])
def test_what_is_said_of_a_mistyped_word_is_never_nothing(word: str, count: int) -> None:
    assert errors.nearest(word, [f"name{i}" for i in range(count)]).strip()


def test_an_error_cannot_be_made_with_less() -> None:
    with pytest.raises(TypeError, match="expected"):
        errors.UserError("a", remedy="b")  # type: ignore[call-arg]
    assert str(errors.UserError("a", expected="b", remedy="c")) == "a\n  expected: b\n  remedy:   c"
