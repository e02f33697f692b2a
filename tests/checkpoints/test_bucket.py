"""Series in an object store: listed, fetched, held against what was listed, and deleted behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dynamics
from checkpoints import objects
from checkpoints.bucket import BucketConfig, BucketSeries
from checkpoints.errors import CheckpointError, UserError
from checkpoints.local import FolderSeries
from checkpoints.objects import Bucket
from dynamics.runs.config import Run
from dynamics.store import Trace

pytest.importorskip("obstore", reason="the extra `s3` is not installed")


@pytest.fixture
def bucket(tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The tiny organism as objects, and an empty cache."""
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "cache"))
    objects.store_of.cache_clear()
    bucket = Bucket("memory://b/tiny")
    for file in tiny_series.rglob("*"):
        if file.is_file():
            bucket.put(file.relative_to(tiny_series).as_posix(), file.read_bytes())
    return bucket


def opened(**more: object) -> BucketSeries:
    return BucketSeries(BucketConfig.model_validate({"url": "memory://b/tiny", **more}))


def test_checkpoints_are_those_of_the_folder(bucket: Bucket, tiny_series: Path) -> None:
    series, folder = opened(), FolderSeries(tiny_series)
    assert [c.step for c in series.checkpoints] == [c.step for c in folder.checkpoints]
    for mine, other in zip(series.checkpoints, folder.checkpoints, strict=True):
        assert series.weight_files(mine) == folder.weight_files(other)
    first = series.checkpoints[0]
    assert series.header(first) is None and series.download_bytes(first) > 0
    fetched = series.fetch(first)
    assert series.download_bytes(first) == 0 and series.header(first) == folder.header(folder.checkpoints[0])
    assert series.read(fetched).digest == folder.read(folder.fetch(folder.checkpoints[0])).digest
    series.release(first)
    assert not fetched.exists()


def test_what_is_to_be_kept_is_kept_and_what_a_killed_run_left_is_swept(bucket: Bucket) -> None:
    kept, other = opened(keep=True), opened()
    first, second = kept.checkpoints[:2]
    folder = kept.fetch(first)
    kept.release(first)
    left = other.fetch(second)
    other._objects.cache._uses.clear()  # it was killed
    opened().sweep()
    assert folder.is_dir() and not left.exists()


def test_an_object_that_was_written_again_fails_its_checkpoint(bucket: Bucket) -> None:
    series = opened()
    first = series.checkpoints[0]
    key = f"{first.revision}/{series.weight_files(first)[0].name}"
    content = bucket.get(key)
    assert content is not None
    bucket.put(key, content[0][::-1])
    with pytest.raises(CheckpointError, match="is another than was listed"):
        series.fetch(first)
    bucket.delete([key])
    with pytest.raises(CheckpointError, match=r"step0 at memory://b/tiny holds no weights"):
        opened().fetch(first)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "memory://b/none"}, "there is no checkpoint at memory://b/none"),
        ({"url": "traces"}, "is no URL of an object store"),
        ({"pattern": "s"}, "has no group named step"),
    ],
)
def test_what_is_no_series_is_refused(bucket: Bucket, changes: dict[str, str], said: str) -> None:
    with pytest.raises((UserError, ValueError), match=said):
        opened(**changes)


def test_a_run_of_it_measures_what_a_run_of_the_folder_does(bucket: Bucket, reported: Path, tmp_path: Path) -> None:
    analyses = [{"name": "induction", "options": {"prompts": 8, "period": 4}}]
    run = Run.model_validate({"series": {"kind": "bucket", "url": bucket.url}, "analyses": analyses})
    dynamics.collect("mine", run=run, traces=tmp_path)
    mine, other = Trace(tmp_path / "mine.zarr"), Trace(reported / "traces" / "mine.zarr")
    assert mine.digests == other.digests and mine.complete.all()
    for probe in mine.probes:
        for name in mine.probe(probe).data_vars:
            got, wanted = mine.values(probe, str(name)), other.values(probe, str(name))
            assert np.array_equal(got, wanted, equal_nan=wanted.dtype.kind == "f"), name
    assert not [*(tmp_path / "cache").rglob("*.safetensors")]
