"""What was read stays what it was, whatever happens to its files afterwards; what changes while it is read is refused."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from checkpoints import CheckpointError, FolderSeries
from checkpoints.files.owned import read_header, read_safetensors
from checkpoints.files.weights import weights_digest
from checkpoints.layouts import LAYOUTS
from tests.checkpoints.foreign import drawn, llama, read, save, toy
from tests.checkpoints.test_layouts import saved, series_of

KINDS = [*LAYOUTS, "safetensors", "shards", "legacy", "list"]


def two(root: Path, kind: str) -> Any:
    """A series with two checkpoints of one kind."""
    root.mkdir()
    if kind in ("safetensors", "shards"):
        size = "8KB" if kind == "shards" else "1GB"
        for step in (1, 2):
            drawn(llama(), step).save_pretrained(root / f"step{step}", max_shard_size=size)
    elif kind == "legacy":
        for step in (1, 2):
            torch.save(toy(step), root / f"step{step}.pt", _use_new_zipfile_serialization=False)
    elif kind == "list":
        save(root / "all.pt", {1: toy(1), 2: toy(2)})
        return series_of(root / "all.pt", "state-dicts")
    else:
        saved(root, kind)
    return series_of(root, kind if kind in LAYOUTS else "transformers")


def files_of(series: Any, index: int) -> list[Path]:
    where = series.fetch(series.checkpoints[index])
    folder = where if where.is_dir() else where.parent
    return [folder / file.name for file in series.weight_files(series.checkpoints[index])]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_stays_when_its_files_are_overwritten_or_cut_short(tmp_path: Path, kind: str) -> None:
    series = two(tmp_path / "s", kind)
    prepared = read(series)
    before = {name: tensor.clone() for name, tensor in prepared.tensors.items()}
    for file in files_of(series, 0):
        with file.open("r+b") as stream:
            stream.write(bytes(range(256)) * (file.stat().st_size // 256))
    assert all(torch.equal(before[name], tensor) for name, tensor in prepared.tensors.items())
    for file in files_of(series, 0):
        os.truncate(file, 0)  # a mapped one would end the process here
    assert all(torch.equal(before[name], tensor) for name, tensor in prepared.tensors.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_while_it_is_read_fails_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    first = two(tmp_path / "s", kind)
    file, layout = files_of(first, 0)[-1], LAYOUTS[first.layout]
    whole = layout.read

    def replaced() -> None:
        shutil.copy2(file, tmp_path / "new")
        os.replace(tmp_path / "new", file)

    def overwritten() -> None:
        with file.open("r+b") as stream:
            first = stream.read(1)
            stream.seek(0)
            stream.write(first)

    def overwritten_with_its_old_time() -> None:
        times = file.stat()
        overwritten()
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    for change in (replaced, overwritten, overwritten_with_its_old_time):

        def reading(path: Path, options: Any, change: Any = change) -> Any:
            found = whole(path, options)
            change()
            return found

        time.sleep(0.02)  # clocks of files go by ticks
        series = FolderSeries(first._config)
        monkeypatch.setattr(layout, "read", reading)
        with pytest.raises(CheckpointError, match="was written again since reading it began"):
            read(series)


def test_the_digest_is_of_the_bytes_that_were_read(tmp_path: Path) -> None:
    for kind in ("safetensors", "shards"):
        series = two(tmp_path / kind, kind)
        assert read(series).digest == weights_digest(series.fetch(series.checkpoints[0]))


# --- safetensors


KINDS_OF_NUMBERS = [torch.float64, torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int16, torch.bool, torch.complex64]  # fmt: skip


def test_every_dtype_and_shape_is_read_as_the_formats_own_library_reads_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shapes: list[tuple[int, ...]] = [(), (0, 4), (3,), (2, 3, 5)]
    tensors = {f"{kind} {shape}": (torch.rand(shape) * 9).to(kind) for kind in KINDS_OF_NUMBERS for shape in shapes}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found, _ = read_safetensors(tmp_path / "x.safetensors")
    expected = load_file(tmp_path / "x.safetensors")
    assert found.keys() == expected.keys() == read_header(tmp_path / "x.safetensors").keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}}  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from([(), ("a",), ("a", "dtype"), ("a", "shape"), ("b", "shape", 0), ("b", "data_offsets", 1)]),
    value=ANYTHING | st.sampled_from(["F16", "F4", [8, 16], [0, 8], [-8, 0], 1 << 62, [[2]], "__metadata__"]),
    cut=st.integers(-4, 4),
)
def test_a_header_that_is_not_whole_is_a_clear_error(tmp_path: Path, place: Any, value: Any, cut: int) -> None:
    content: Any = json.loads(json.dumps(GOOD))
    if place:
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
    else:
        content = value
    text = json.dumps(content).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(range(11))
    (tmp_path / "x.safetensors").write_bytes(data[:cut] if cut < 0 else data + bytes(cut))
    for call in (read_header, read_safetensors):
        try:
            found = call(tmp_path / "x.safetensors")
        except CheckpointError:  # and no other
            continue
        assert cut == 0 and found
        assert content == GOOD or content["a"]["dtype"] != "F32" or content == {}


def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    for length in (2**63, 10**8, 50):
        file.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(CheckpointError, match="too short for the header"):
            read_safetensors(file)
    nested = b'{"a":' * 50_000
    file.write_bytes(len(nested).to_bytes(8, "little") + nested)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_header(file)
