"""Slow tests are left out by default, run where they are named, and run in CI."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import pytest_configure

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "tier"),
    [
        ((), "not slow"),
        (("tests/collecting", "-x"), "not slow"),
        (("tests/collecting/test_kill.py::test_killed",), ""),
        (("tests/collecting/test_kill.py::test_killed", "-mnot slow"), "not slow"),
    ],
)
def test_slow_tests_are_left_out_unless_they_are_named(given: tuple[str, ...], tier: str) -> None:
    config: Any = SimpleNamespace(
        invocation_params=SimpleNamespace(args=given), option=SimpleNamespace(markexpr="not slow")
    )
    pytest_configure(config)
    assert config.option.markexpr == tier


def test_ci_runs_the_checks_and_every_test(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("addopts")[-2:] == ["-m", "not slow"]
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-2:] == [
        "make -j2 check docs # each takes one core",
        "make test-all",
    ]
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert '\ntest-all: $(READY) ## run every test, those that are marked slow too\n\t$(PYTEST) -m ""\n' in make
