"""Which files a result depends on: the module that made it, and everything of ours and of its own that it imports."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

__all__ = ["code_digest", "imported_files"]

_OURS = ("analyses", "checkpoints", "dynamics")


def code_digest(modules: Iterable[str]) -> str:
    """Digest of the modules with these names and of all that they import, however far down."""
    files = imported_files(modules)
    content = b"".join(name.encode() + b"\0" + files[name].read_bytes() for name in sorted(files))
    return hashlib.sha256(content).hexdigest()[:16]


def imported_files(modules: Iterable[str]) -> Mapping[str, Path]:
    """Name to file of these modules and of every module that they import, also inside functions.

    Followed are this project's own packages and what lies in the folder (or the package) of one of the modules asked for;
    of anything else the version says what it is.
    """
    todo, looked = list(modules), _Looked()
    own = {name.partition(".")[0] for name in todo}
    tops = [file for name in own if (file := looked.file(name)) is not None]
    folders = {file.parent.parent if file.name == "__init__.py" else file.parent for file in tops}
    followed: dict[str, bool] = dict.fromkeys((*own, *_OURS), True)
    found: dict[str, Path] = {}
    while todo:
        name = todo.pop()
        if name in found:
            continue
        top = name.partition(".")[0]
        if top not in followed:
            followed[top] = _beside(top, folders)
        file = looked.file(name) if followed[top] else None
        if file is not None:
            found[name] = file
            package = name.rpartition(".")[0]
            names = _imports(file.read_bytes(), name if file.name == "__init__.py" else package)
            todo += [*names, package or name]  # a package is run before what is in it
    return found


def _beside(top: str, folders: Iterable[Path]) -> bool:
    return any((folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file() for folder in folders)


class _Looked:
    """Where modules are. Packages are looked into, and not imported, as ``find_spec`` would do: what an analysis imports only
    while it plans may need torch."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Path | None, tuple[Path, ...]]] = {}

    def file(self, name: str) -> Path | None:
        """The source of a module; None where there is no such module, or no source."""
        return self._at(name)[0]

    def _at(self, name: str) -> tuple[Path | None, tuple[Path, ...]]:
        """Its source, and the folders of what is in it."""
        if name not in self._known:
            package, _, last = name.rpartition(".")
            self._known[name] = _inside(self._at(package)[1], last) if package else _top(name)
        return self._known[name]


def _top(name: str) -> tuple[Path | None, tuple[Path, ...]]:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None, ()
    if spec is None:
        return None, ()
    file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    return file, tuple(Path(folder) for folder in spec.submodule_search_locations or ())


def _inside(folders: tuple[Path, ...], name: str) -> tuple[Path | None, tuple[Path, ...]]:
    for folder in folders:
        inside = folder / name
        if (file := inside / "__init__.py").is_file():
            return file, (inside,)
        if (file := folder / f"{name}.py").is_file():
            return file, ()
    return None, tuple(inside for folder in folders if (inside := folder / name).is_dir())


@lru_cache(maxsize=1024)
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Names that a module of this package imports when it runs; of ``from a import b`` both a and a.b, as b may be a module.

    Kept, because analyses share most of what they import, and parsing it takes longer than a small summary.
    """
    names: list[str] = []
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo += node.orelse
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = resolve_name("." * node.level + base, package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            todo += [
                child
                for child in ast.iter_child_nodes(node)
                if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case)
            ]
    return tuple(names)
