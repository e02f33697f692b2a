"""The wheel holds the three packages with their data, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (file,) = folder.glob("*.whl")
    assert file.name.startswith("circuit_dynamics-") and file.name.endswith("-py3-none-any.whl")
    return zipfile.ZipFile(file)


def test_it_holds_every_module_of_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {n for n in wheel.namelist() if ".dist-info/" not in n}
    assert {n.split("/")[0] for n in names} == {"analyses", "checkpoints", "dynamics"}
    for package in ("analyses", "checkpoints", "dynamics"):
        assert f"{package}/py.typed" in names
        modules = {str(p.relative_to(ROOT)) for p in (ROOT / package).rglob("*.py")}
        assert modules == {n for n in names if n.startswith(package + "/") and n.endswith(".py")}
    assert "dynamics/reporting/templates/report.html.j2" in names
    data = {str(p.relative_to(ROOT)) for p in (ROOT / "checkpoints/catalogue/data").glob("*.yaml")}
    assert len(data) > 10 and data <= names
    page = {str(p.relative_to(ROOT)) for p in (ROOT / "dynamics/explaining/templates").iterdir()}
    assert len(page) > 5 and page <= names
    assert not [n for n in names if "test" in n.lower() or "__pycache__" in n]


def test_it_installs_the_command_and_names_its_extras_and_licence(wheel: zipfile.ZipFile) -> None:
    (info,) = {n.split("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
    assert "dynamics = dynamics.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["Name"] == "circuit-dynamics"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0" and metadata.get_all("License-File") == ["LICENSE"]
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert "dev" in metadata.get_all("Provides-Extra", [])
    required = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    for package in ("torch", "transformers", "zarr", "xarray", "click", "numpy"):
        assert any(r.startswith(package) for r in required), package
    assert not any(r.startswith(("pytest", "mypy", "ruff")) for r in required)
