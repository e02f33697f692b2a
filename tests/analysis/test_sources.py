"""What a stored result depends on is derived from imports: a change anywhere below an analysis makes it anew."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dynamics.analysis.sources import code_digest, imported_files

ROOT = Path(__file__).parents[2]


def test_everything_that_a_built_in_analysis_imports_is_among_its_files() -> None:
    found = imported_files(["analyses.feature_census", "dynamics.analyser"])
    wanted = {
        "analyses.feature_census.census",
        "dynamics.emergence.lives",  # was left out when the list was kept by hand
        "dynamics.analysis.features",
        "dynamics.numerics.ranking",
        "dynamics.store.reader",
        "checkpoints.errors",
    }
    assert wanted <= found.keys()
    assert all(path.is_file() and path.is_relative_to(ROOT) for path in found.values())
    assert not any(name.startswith(("numpy", "analyses.addition", "dynamics.cli")) for name in found)


def test_no_import_is_overlooked() -> None:
    """Against the interpreter: what importing an analysis loads of this project is among its files."""
    import subprocess

    script = "import sys, analyses.addition; print(*{m.__name__ for m in sys.modules.values() if m.__name__.split('.')[0] in ('analyses', 'dynamics', 'checkpoints')})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(loaded.stdout.split()) <= imported_files(["analyses.addition"]).keys()


@pytest.mark.parametrize(
    "changed", ["mine_one/__init__.py", "mine_one/parts.py", "mine_one/deep/formula.py", "mine_shared.py"]
)
def test_a_change_in_any_module_below_an_analysis_changes_its_digest(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "mine_one/__init__.py": "from .parts import part\nimport json\n",
        "mine_one/parts.py": "def part():\n    from .deep import formula\n    import mine_shared\n",
        "mine_one/deep/__init__.py": "",
        "mine_one/deep/formula.py": "X = 1\n",
        "mine_one/unused.py": "Y = 1\n",
        "mine_shared.py": "Z = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_digest(["mine_one"])
    (tmp_path / "mine_one" / "unused.py").write_text("Y = 2\n", encoding="utf-8")
    assert code_digest(["mine_one"]) == before
    with (tmp_path / changed).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert code_digest(["mine_one"]) != before
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]
