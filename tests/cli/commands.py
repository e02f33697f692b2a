"""The command line as tests call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from dynamics.cli import main


class Said(NamedTuple):
    """What one command did."""

    code: int
    out: str
    err: str


Dynamics = Callable[..., Said]


def command_line(capsys: pytest.CaptureFixture[str]) -> Dynamics:
    """``call(*arguments)``, whose output is what this command said."""

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capsys.readouterr())

    return call
