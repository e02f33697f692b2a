"""Two runs of one configuration share their weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints.organism import OrganismConfig, is_trained, open_organism, organism_folder, train

SMALL = OrganismConfig(steps=2, checkpoints=3, layers=1, d_model=16, heads=2, batch=2)


def test_a_second_run_of_one_configuration_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path))
    assert not is_trained("first", SMALL)
    train("first", SMALL)
    assert is_trained("second", SMALL)
    assert not is_trained("second", SMALL.model_copy(update={"seed": 1}))

    def never(*_arguments: object) -> None:
        pytest.fail("it was trained again")

    opened = open_organism("second", SMALL, progress=never)
    assert opened.origin == str(organism_folder("first", SMALL)) and opened.name == "second"
    assert not organism_folder("second", SMALL).exists()
    (organism_folder("first", SMALL) / "truth.json").unlink()  # not whole
    assert not is_trained("second", SMALL)
