"""What tests share: a cache of their own, what is made once for all of them, and an organism that trains in seconds.

Tests marked ``slow`` run in ``make test-all`` and where they are named: ``pytest tests/room/test_file.py::test_name``.
They must not depend on order, on the working folder, or on what other tests left: several processes share them out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from checkpoints.organism import OrganismConfig
from dynamics.analysis.fitting import FittingLayout
from dynamics.reporting import pictures
from tests import real

MadeOnce = Callable[[str, Callable[[Path], object]], Path]

TINY = OrganismConfig(steps=12, checkpoints=6, layers=2, d_model=32, heads=2, batch=8)
"""Two layers, twelve steps: it learns nothing, but it has everything that a series has."""


# A test's time says how busy the machine is, not whether the test holds.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Names under which a Chromium is installed; else the one that Playwright brought, or the tests skip."""

LAID_OUT, PNG = FittingLayout.execute, pictures.png_of


def pytest_configure(config: pytest.Config) -> None:
    """A test that is named on the command line runs, slow or not."""
    given = config.invocation_params.args
    if any("::" in argument for argument in given) and not any(argument.startswith("-m") for argument in given):
        config.option.markexpr = ""


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run that all of its processes see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(_shared: Path) -> Iterator[None]:
    """Nothing is read from or written to the user's cache, and no hub is ever asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMICS_CACHE", str(_shared / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def _plain_layout() -> Iterator[None]:
    """Figures are drawn once, without being laid out, which takes longer than all else, where no test looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FittingLayout, "execute", lambda self, fig: None)
        patch.setattr(pictures, "png_of", lambda figure: b"a picture")
        yield


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out and drawn as for a user."""
    monkeypatch.setattr(FittingLayout, "execute", LAID_OUT)
    monkeypatch.setattr(pictures, "png_of", PNG)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, and the weights' last bits depend on how many there are."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "1")  # for the processes that tests start
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # each would compile the project anew
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made_once(_shared: Path) -> MadeOnce:
    """``made_once(name, make)``: a folder that ``make(folder)`` filled, once for all processes of a test run. Read-only."""

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = _shared / name, _shared / f"{name}.made"
        with FileLock(_shared / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def tiny_series(made_once: MadeOnce) -> Path:
    """Folder of a trained tiny organism: steps 0 to 12, truth.json. Read-only: copy it before changing anything."""
    from checkpoints.organism import organism_folder, train

    made_once("tiny organism", lambda _: train("tiny", TINY))
    return organism_folder("tiny", TINY)


@pytest.fixture(scope="session")
def reported(tiny_series: Path, made_once: MadeOnce) -> Path:
    """Folder with ``traces`` and ``reports`` of a run ``mine`` of the tiny organism. Read-only."""
    import dynamics
    from dynamics.runs.config import Run

    def make(folder: Path) -> None:
        analyses = [{"name": "induction", "options": {"prompts": 8, "period": 4}}]
        series = {"kind": "folder", "path": str(tiny_series)}
        run = Run.model_validate({"description": "a <b>bold</b> run", "series": series, "analyses": analyses})
        dynamics.collect("mine", run=run, traces=folder / "traces")
        dynamics.report("mine", run=run, traces=folder / "traces")

    return made_once("reported", make)


@pytest.fixture(scope="session")
def real_model() -> Path:
    """Folder of a real language model, made once per user; skips where ``make real`` did not install it. Read-only."""
    if reason := real.why_not():
        pytest.skip(reason)
    return real.model_folder()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data of others, beside the checkout or named by CIRCUIT_DYNAMICS_DATA; skips where it is absent."""
    folder = Path(os.environ.get("CIRCUIT_DYNAMICS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data set is not here (set CIRCUIT_DYNAMICS_DATA)")
    return folder


def runs_file(folder: Path, series: Path, *, analyses: str = "[addition, shared_concepts, induction]") -> Path:
    """A runs file with one run, ``mine``, on a local series."""
    file = folder / "runs.yaml"
    file.write_text(f"mine:\n  series: {{kind: folder, path: {series}}}\n  analyses: {analyses}\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser, without network of its own."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = next(filter(None, map(shutil.which, CHROMIUM)), own if Path(own).is_file() else None)
        if path is None:
            pytest.skip("no Chromium is installed")
        # In containers, where tests run as root, Chromium's sandbox cannot start.
        flags = {"args": ["--no-sandbox", "--disable-gpu"], "ignore_default_args": ["--hide-scrollbars"]}
        browser = playwright.chromium.launch(executable_path=path, **flags)
        yield browser
        browser.close()
