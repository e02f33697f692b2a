"""What a source of checkpoints has to say itself, and what holds for it otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from checkpoints.errors import CheckpointError
from checkpoints.files.tensors import TensorInfo
from checkpoints.loading import Prepared
from checkpoints.series import Checkpoint, Series, WeightFile


class Least(Series):
    """A source with the abstract members only."""

    def __init__(self, root: Path, steps: tuple[int, ...]) -> None:
        self.root, self.name, self.origin = root, "least", str(root)
        self.checkpoints = tuple(Checkpoint(step, f"{step}.bin") for step in steps)

    @property
    def tokenizer_folder(self) -> Path:
        return self.root

    @property
    def config_folder(self) -> Path:
        return self.root

    def weight_files(self, checkpoint: Checkpoint) -> tuple[WeightFile, ...]:
        if checkpoint.step == 13:
            raise CheckpointError("step 13 is nowhere", expected="it", remedy="none")
        return (WeightFile(checkpoint.revision, self.fetch(checkpoint).stat().st_size),)

    def fetch(self, checkpoint: Checkpoint) -> Path:
        return self.root / checkpoint.revision

    def read(self, fetched: Path) -> Prepared:
        raise NotImplementedError

    def header(self, checkpoint: Checkpoint) -> dict[str, TensorInfo] | None:
        return None


@pytest.fixture
def least(tmp_path: Path) -> Least:
    for step in (1, 2):
        (tmp_path / f"{step}.bin").write_bytes(b"weights")
    return Least(tmp_path, (1, 2, 3, 13))


def test_a_source_that_says_no_more_is_one_of_files_on_this_disk_that_may_change(least: Least) -> None:
    assert least.local and not least.pinned
    assert least.repository == "" and least.step_counts == "optimizer steps" and least.entry is None
    assert least.moved == least.vanished == () and dict(least.unlisted) == {}
    one = least.checkpoints[0]
    assert least.download_bytes(one) == 0 and least.main_files() == ()
    least.sweep()
    least.release(one)
    assert least.fetch(one).is_file()


def test_what_cannot_be_listed_has_its_reason_and_does_not_stop_the_rest(least: Least) -> None:
    seen: list[tuple[int, int]] = []
    found = least.all_files(progress=lambda done, of: seen.append((done, of)))
    one, two, gone, bad = least.checkpoints
    assert list(found) == [one, two]
    assert least.unlisted[bad].observed == "step 13 is nowhere"
    assert least.unlisted[gone].observed == "its files cannot be listed: No such file or directory"
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert list(least.all_files([two])) == [two] and dict(least.unlisted) == {}


def test_the_state_of_files_changes_when_they_do(least: Least) -> None:
    one = least.checkpoints[0]
    before = least.state(one)
    assert before is not None and before == least.state(one, least.weight_files(one))
    os.utime(least.fetch(one), ns=(1, 1))
    assert least.state(one) not in (None, before)
    assert least.state(least.checkpoints[2]) is None  # it is not there
    assert least.state(one, ()) is None


def test_a_source_must_say_where_its_weights_are() -> None:
    class Nothing(Series):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()  # type: ignore[abstract]
