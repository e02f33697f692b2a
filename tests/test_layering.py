"""The direction of the code: analyses -> dynamics -> checkpoints, one way; and reading a trace costs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("analyses", "checkpoints", "dynamics")
FILES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def dotted(file: Path) -> str:
    """The name under which a file is imported."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(file): file for file in FILES}


def imports(module: str) -> set[str]:
    """Absolute names of every module that this module imports anywhere, also inside functions and for types."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_the_walk_sees_what_there_is_to_see() -> None:
    assert len(MODULES) > 50
    assert "checkpoints.errors" in imports("dynamics.collecting.collector") and "dynamics.runs.config.Run" in imports(
        "dynamics.collecting.collector"
    )
    assert "checkpoints.loading" in imports("dynamics.collecting.collector")  # inside a function
    assert "dynamics.store.declaration.FORMAT" in imports("dynamics.store.writer")


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_against_the_direction(module: str) -> None:
    forbidden = {"checkpoints": ("dynamics", "analyses"), "dynamics": ("analyses",), "analyses": ()}
    for name in imports(module):
        for package in forbidden[module.split(".")[0]]:
            assert not within(name, package), f"{module} imports {name}"


def test_no_analysis_imports_another() -> None:
    for module in MODULES:
        parts = module.split(".")
        if parts[0] == "analyses":
            for name in imports(module):
                assert not within(name, "analyses") or name.split(".")[1:2] == parts[1:2], f"{module} imports {name}"


def test_the_engine_names_no_analysis() -> None:
    """The engine knows an analysis only through its name in a runs file."""
    names = {m.split(".")[1] for m in MODULES if m.startswith("analyses.")}
    assert {"addition", "induction", "shared_concepts"} <= names
    names -= {"faithfulness"}  # circuits have one too: a standard word for another thing
    for module, file in MODULES.items():
        if module.startswith("dynamics"):
            code = ast.parse(file.read_text(encoding="utf-8"))
            docs = {id(n.body[0].value) for n in ast.walk(code) if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef) and n.body and isinstance(n.body[0], ast.Expr)}  # fmt: skip
            for node in ast.walk(code):
                if isinstance(node, ast.Constant) and node.value in names and id(node) not in docs:
                    pytest.fail(f"{module} line {node.lineno} names the analysis {node.value!r}")


def test_numerics_know_neither_labels_nor_plots_nor_torch() -> None:
    for module in MODULES:
        if module.startswith(("dynamics.numerics", "dynamics.emergence")):
            for name in imports(module):
                assert name.split(".")[0] not in ("xarray", "zarr", "matplotlib", "torch", "transformers"), module


@pytest.mark.parametrize("module", MODULES)
def test_every_module_declares_its_public_names_correctly(module: str) -> None:
    loaded = import_module(module) if not module.endswith("__main__") else None
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    declared = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    docstring_only = all(isinstance(n, ast.Expr) for n in tree.body)
    if docstring_only or module.endswith("__main__"):
        return
    if not declared:  # a package that only exists to hold others may leave it out
        defined = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Assign)]
        assert not defined, f"{module} has no __all__"
        return
    (names,) = declared
    assert all(isinstance(n, str) and not n.startswith("_") for n in names), names
    assert len(set(names)) == len(names)
    assert [n for n in names if not hasattr(loaded, n)] == []


def test_what_other_modules_import_from_a_module_is_public_there() -> None:
    wrong = []
    for module in MODULES:
        for name in imports(module):
            home, _, what = name.rpartition(".")
            if home in MODULES and name not in MODULES and home != module:
                public = getattr(import_module(home), "__all__", [])
                if what not in public:
                    wrong.append(f"{module} imports {what}, which is not in {home}.__all__")
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_under_four_hundred_lines_and_say_what_they_are_for(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    assert ast.get_docstring(ast.parse(text))
    assert "from __future__ import annotations" in text or not text.count("def ")


READ = """
import sys, pathlib
import numpy as np
from checkpoints.series import Checkpoint
from dynamics.measurements import Variable
from dynamics.store import Group, TraceDeclaration, TraceWriter

path = pathlib.Path(sys.argv[1])
variable = Variable("entropy", ("prompt",), (2,), "float", "entropy")
declaration = TraceDeclaration((Checkpoint(0, "a"), Checkpoint(5, "b")), (Group("p", "", {"text": ("x", "y")}, (variable,)),))
TraceWriter(path, declaration).write(1, "p", {"entropy": np.array([1.0, 2.0])})

import dynamics

tree = dynamics.open_trace(path)
assert tree["p"]["entropy"].sel(step=5).values.tolist() == [1.0, 2.0]
assert dynamics.Trace(path).steps.tolist() == [0, 5]
for heavy in ("torch", "transformers", "matplotlib"):
    assert heavy not in sys.modules, heavy + " was imported to read a trace"
import analyses.addition, analyses.induction, analyses.shared_concepts
for heavy in ("torch", "transformers"):
    assert heavy not in sys.modules, heavy + " was imported by an analysis"
"""


def test_reading_a_trace_and_importing_analyses_needs_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", READ, str(tmp_path / "t.zarr")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_no_submodule_hides_a_verb() -> None:
    import dynamics

    modules = {path.stem for path in (ROOT / "dynamics").iterdir()}
    assert not modules & set(dynamics.__all__)
    assert all(callable(getattr(dynamics, name)) for name in dynamics.__all__)


def test_public_names_of_the_engine_are_there_and_unknown_ones_list_them() -> None:
    import dynamics

    for name in dynamics.__all__:
        assert callable(getattr(dynamics, name))
        assert getattr(dynamics, name).__doc__
    with pytest.raises(AttributeError, match=r"has no attribute 'colect'; it has: .*Trace, analyse, audit, collect"):
        dynamics.colect  # noqa: B018
