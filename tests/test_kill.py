"""A collection that was killed and resumed is the same, byte for byte, as one that never was.

The suite kills a few times; ``python benchmarks/kill_resume.py --kills 20`` (or ``DYNAMICS_KILLS=20``) kills more often.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kill_resume.py"
KILLS = int(os.environ.get("DYNAMICS_KILLS", "6"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_random_moments_and_resumed_every_file_is_that_of_an_uninterrupted_collection() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", str(KILLS), "--seed", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 10 * KILLS, check=False)
    assert done.returncode == 0, done.stderr[-2000:] or done.stdout[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["differences"] == []
    assert len(result["kills"]) == KILLS
    # it did kill in the middle: some work was there, and some was not
    assert any(kill["complete"] or kill["half_written"] for kill in result["kills"])
    assert any(kill["complete"] < 6 for kill in result["kills"])
