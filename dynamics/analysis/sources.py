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
    todo = list(modules)
    own = {name.partition(".")[0] for name in todo}
    tops = [file for name in own if (file := _file(name)) is not None]
    folders = {file.parent.parent if file.name == "__init__.py" else file.parent for file in tops}
    found: dict[str, Path] = {}
    while todo:
        name = todo.pop()
        if name in found:
            continue
        top = name.partition(".")[0]
        file = _file(name) if top in own or top in _OURS or _beside(top, folders) else None
        if file is not None:
            found[name] = file
            package = name.rpartition(".")[0]
            names = _imports(file.read_bytes(), name if file.name == "__init__.py" else package)
            todo += [*names, package or name]  # a package is run before what is in it
    return found


def _beside(top: str, folders: Iterable[Path]) -> bool:
    return any((folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file() for folder in folders)


def _file(name: str) -> Path | None:
    """The source of a module; None where there is no such module, or no source."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


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
