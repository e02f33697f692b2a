"""The order of the rooms: each imports only what stands before it in one list; and reading a trace costs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from rlcompleter import Completer

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("analyses", "checkpoints", "dynamics")
ORDER = [
    "checkpoints.errors",
    "checkpoints.foreign",
    "checkpoints.paths",
    "checkpoints.objects",
    "checkpoints.files",
    "checkpoints.catalogue",
    "checkpoints.configs",
    "checkpoints.tokenizing",
    "checkpoints.loading",
    "checkpoints.wrappers",
    "checkpoints.series",
    "checkpoints.layouts",
    "checkpoints.local",
    "checkpoints.ahead",
    "checkpoints.audit",
    "checkpoints.hub",
    "checkpoints.bucket",
    "checkpoints.staged",
    "checkpoints.organism",
    "checkpoints.sources",
    "checkpoints",
    "dynamics.names",
    "dynamics.wording",
    "dynamics.progress",
    "dynamics.notebook",
    "dynamics.charting",
    "dynamics.numerics",
    "dynamics.emergence",
    "dynamics.probes",
    "dynamics.models",
    "dynamics.store",
    "dynamics.circuits",
    "dynamics.describing",
    "dynamics.measurements",
    "dynamics.analysis",
    "analyses",
    "dynamics.runs",
    "dynamics.analyser",
    "dynamics.auditing",
    "dynamics.collecting",
    "dynamics.reporting",
    "dynamics.learning",
    "dynamics.comparing",
    "dynamics.validating",
    "dynamics.explaining",
    "dynamics.serving",
    "dynamics.listing",
    "dynamics.cli",
    "dynamics.__main__",
    "dynamics",
]
"""The rooms from the bottom up (``docs/design.md``, section 3); a module or package that is not named here is an error."""
FILES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def dotted(file: Path) -> str:
    """The name under which a file is imported."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(file): file for file in FILES}


@cache  # every test here reads all of them
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(module: str) -> set[str]:
    """Absolute names of every module that this module imports anywhere, also inside functions and for types."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(parsed(file)):
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


def room(module: str) -> str:
    """The room that a module is in: a package or module right under ``checkpoints`` or ``dynamics``, or ``analyses``."""
    parts = module.split(".")
    return parts[0] if parts[0] == "analyses" else ".".join(parts[:2])


def imported_modules(module: str) -> set[str]:
    """The modules of this project that a module imports; a name that a package only hands on counts as its module's."""

    def home(name: str) -> str:
        while name not in MODULES:
            package, _, what = name.rpartition(".")
            handed = {n.rpartition(".")[2]: n for n in imports(package) if n.rpartition(".")[0] in MODULES}
            if MODULES[package].name != "__init__.py" or what not in handed:
                return package
            name = handed[what]
        return name

    mine = {n for n in imports(module) if n in MODULES or n.rpartition(".")[0] in MODULES}
    named = {n.rpartition(".")[0] for n in mine}  # `from a import b` names a as well
    return {home(n) for n in mine - named} - {module}


def test_the_walk_sees_what_there_is_to_see() -> None:
    assert len(MODULES) > 50
    found = imports("dynamics.collecting.opening")
    assert {"checkpoints.errors", "dynamics.runs.config.Run"} <= found
    assert "checkpoints.loading" in found  # inside a function
    assert "dynamics.store.declaration.FORMAT" in imports("dynamics.store.format")
    assert "dynamics.store.reader" in imported_modules("dynamics.analyser")  # through what the package hands on


def test_every_room_stands_in_the_order_once() -> None:
    assert sorted(ORDER) == sorted({room(module) for module in MODULES})


def test_rooms_import_only_what_stands_before_them() -> None:
    wrong = [
        f"{MODULES[module]} imports {MODULES[other]}, which is above it"
        for module in MODULES
        for other in sorted(imported_modules(module))
        if ORDER.index(room(other)) > ORDER.index(room(module))
    ]
    assert wrong == []


def test_an_import_that_runs_back_up_is_found_with_both_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    low = tmp_path / "low.py"
    low.write_text("def f():\n    from ..reporting import report\n    return report\n")
    monkeypatch.setitem(MODULES, "dynamics.numerics.low", low)
    with pytest.raises(AssertionError, match=r"low\.py imports .*dynamics/reporting/build\.py, which is above it"):
        test_rooms_import_only_what_stands_before_them()


def test_no_files_import_each_other_in_a_circle() -> None:
    below: dict[str, set[str]] = {module: imported_modules(module) for module in MODULES}
    while free := [module for module, others in below.items() if not others & below.keys()]:
        for module in free:
            del below[module]
    assert below == {}


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
            code = parsed(file)
            docs = {id(n.body[0].value) for n in ast.walk(code) if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef) and n.body and isinstance(n.body[0], ast.Expr)}  # fmt: skip
            for node in ast.walk(code):
                if isinstance(node, ast.Constant) and node.value in names and id(node) not in docs:
                    pytest.fail(f"{module} line {node.lineno} names the analysis {node.value!r}")


def test_the_engine_asks_a_series_what_it_can_do_and_never_of_which_kind_it_is() -> None:
    asked = [
        f"{module} line {node.lineno}"
        for module, file in MODULES.items()
        if module.startswith("dynamics")
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance" and "Series" in ast.unparse(node)
    ]
    assert asked == []


def test_numerics_know_neither_labels_nor_plots_nor_torch() -> None:
    for module in MODULES:
        if module.startswith(("dynamics.numerics", "dynamics.emergence")):
            for name in imports(module):
                assert name.split(".")[0] not in ("xarray", "zarr", "matplotlib", "torch", "transformers"), module


def test_every_module_declares_its_public_names_correctly() -> None:
    for module in MODULES:
        check_public_names(module)


def check_public_names(module: str) -> None:
    loaded = import_module(module) if not module.endswith("__main__") else None
    tree = parsed(MODULES[module])
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


def test_modules_stay_under_four_hundred_lines_and_say_what_they_are_for() -> None:
    for module, file in MODULES.items():
        text = file.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 400, module
        assert ast.get_docstring(parsed(file)), module
        assert "from __future__ import annotations" in text or not text.count("def "), module


def test_no_two_classes_share_a_name() -> None:
    """Except ``Options``, the name by which every analysis declares the options that it takes."""
    homes: dict[str, list[str]] = {}
    for module, file in MODULES.items():
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.ClassDef) and not (module.startswith("analyses.") and node.name == "Options"):
                homes.setdefault(node.name, []).append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_few_modules_lie_at_the_root_of_the_engine() -> None:
    assert len(list((ROOT / "dynamics").glob("*.py"))) <= 8


READ = """
import sys, pathlib
import numpy as np
from checkpoints.series import Checkpoint
from dynamics.store import Group, TraceDeclaration, TraceWriter, Variable

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


def test_every_package_lists_its_public_names_for_tab_completion() -> None:
    """Of a module that was made anew from its file, because what was loaded once is listed anyway."""
    for name in (name for name, file in MODULES.items() if file.name == "__init__.py"):
        spec = find_spec(name)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        public = set(getattr(module, "__all__", ()))
        assert not public - set(dir(module)), name
        completed = Completer({"module": module}).attr_matches("module.")
        assert not public - {match.removeprefix("module.").split("(")[0] for match in completed}, name


def test_what_was_published_before_the_rooms_is_importable() -> None:
    from dynamics.sites import SiteTable, Where  # an alias: the room of models has it

    from dynamics.models import sites
    from dynamics.store import FeatureTable, open_trace  # noqa: F401

    assert (SiteTable, Where) == (sites.SiteTable, sites.Where)


def test_public_names_of_the_engine_are_there_and_unknown_ones_list_them() -> None:
    import dynamics

    for name in dynamics.__all__:
        assert callable(getattr(dynamics, name))
        assert getattr(dynamics, name).__doc__
    with pytest.raises(AttributeError, match=r"has no attribute 'colect'; it has: .*Trace, analyse, audit, collect"):
        dynamics.colect  # noqa: B018
