"""Files that somebody else wrote, of every kind: changed at random, or as editors write them, they are read or refused clearly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.fault_boundaries import BOUNDARIES, Boundary
from benchmarks.fault_inputs import outcomes

COSTLY = {"runs file", "model config", "safetensors", "trainer state", "journal"}
OURS = {"safetensors", "corpus", "journal", "training of a dictionary"}
"""Files that hold no settings of a person's, or whose first characters are text."""

each = pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda boundary: boundary.what)


@each
def test_a_changed_file_is_read_or_refused_with_what_was_seen_what_is_expected_and_what_to_do(
    boundary: Boundary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 of each kind: ``python benchmarks/faults.py inputs``."""
    monkeypatch.chdir(tmp_path)
    few = boundary.what in COSTLY or "metadata" in boundary.what
    found, failures = outcomes(boundary, 6 if few else 25, tmp_path)
    assert found.total() == found["read"] + found["refused"], failures


@each
def test_a_byte_order_mark_is_passed_over(boundary: Boundary, tmp_path: Path) -> None:
    if boundary.what in OURS or "metadata" in boundary.what:
        return
    file = boundary.made(tmp_path / "x")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    boundary.read(tmp_path / "x")
    file.write_bytes(file.read_bytes().decode("utf-8-sig").encode("utf-16"))
    if boundary.what != "trainer state":  # what it would have said is unknown then
        with pytest.raises(Exception, match="not UTF-8"):
            boundary.read(tmp_path / "x")
    shutil.rmtree(tmp_path / "x")
