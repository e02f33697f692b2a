"""What holds of every layout: found, listed, read, refused when damaged or malicious; and which layout a folder is in."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader

from checkpoints import CheckpointError, FolderSeries, UserError
from checkpoints.configs import read_config
from checkpoints.files.pickles import Inert
from checkpoints.files.tensors import TensorInfo
from checkpoints.files.torchfile import contents
from checkpoints.layouts import LAYOUTS
from checkpoints.loading import ResidentModel
from tests.checkpoints.foreign import (
    LISTS,
    LIT_LLAMA,
    NanoGPT,
    as_litgpt,
    drawn,
    installed,
    llama,
    logits_of,
    opened,
    read,
    rewritten,
    save,
    save_litgpt,
    save_nanogpt,
    save_torchtitan,
    toy,
)


def save_transformers(folder: Path, seed: int) -> Path:
    drawn(llama(), seed).save_pretrained(folder)
    state = drawn(llama(), seed).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def saved(root: Path, layout: str, steps: tuple[int, ...] = (1, 2)) -> list[Path]:
    """A series; and the file of each checkpoint that is a pickle."""
    make: dict[str, Callable[[int], Path]] = {
        "transformers": lambda i: save_transformers(root / f"step{i}", i),
        "nanogpt": lambda i: save_nanogpt(root / f"ckpt_{i}.pt", drawn(NanoGPT(), i), i),
        "litgpt": lambda i: save_litgpt(root / f"step-{i:08d}", as_litgpt(drawn(llama(), i)), LIT_LLAMA),
        "torchtitan": lambda i: save_torchtitan(root / f"step-{i}", drawn(llama(), i)),
        "state-dicts": lambda i: save(root / f"step{i}.pt", toy(i)),
    }
    return [make[layout](step) for step in steps]


def series_of(root: Path, layout: str) -> FolderSeries:
    config = root.parent / "config"
    llama().config.save_pretrained(config)
    return opened(root, **({"config": config} if layout == "torchtitan" else {}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_series_is_found_listed_and_read_in_every_layout(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "series"
    root.mkdir()
    files = saved(root, layout)
    series = series_of(root, layout)
    assert series.layout == layout
    assert [c.step for c in series.checkpoints] == [1, 2]
    assert (series.name, series.origin) == ("series", str(root))
    for checkpoint, file in zip(series.checkpoints, files, strict=True):
        assert file.name in {f.name for f in series.weight_files(checkpoint)}
        for listed in series.weight_files(checkpoint):
            assert listed.size == (file.parent / listed.name).stat().st_size
            assert listed.sha256 is None
        prepared = series.read(series.fetch(checkpoint))
        sizes = sum(math.prod(info.shape) for info in series.header(checkpoint).values())
        stored = {id(t): t.numel() for t in prepared.tensors.values()}
        assert sum(stored.values()) <= sizes + 2 * 16 * 13 + 16  # biases of zeros
        assert {info.dtype for info in series.header(checkpoint).values()} == {"float32"}
        series.release(checkpoint)
        assert file.is_file()
    assert read(series, 0).digest != read(series, 1).digest
    if layout != "torchtitan":
        assert read(series, 0).digest == hashlib.sha256(files[0].read_bytes()).hexdigest()
    if layout != "state-dicts":
        resident = ResidentModel()
        for i in (0, 1, 0):
            resident.install(read(series, i))
        assert (resident.rebuilt, resident.in_place) == (1, 2)
        assert read_config(series.config_folder).hidden_size in (16, 32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_can_be_named(tmp_path: Path, layout: str) -> None:
    saved(tmp_path / "series", layout)
    llama().config.save_pretrained(tmp_path / "config")
    more = {"config": tmp_path / "config"} if layout == "torchtitan" else {}
    assert opened(tmp_path / "series", layout=layout, **more).layout == layout
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"is not a series in the layout '{layout}'") as refused:
        opened(tmp_path / "empty", layout=layout)
    assert LAYOUTS[layout].EXPECTED in str(refused.value)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_checkpoint_is_named_and_the_others_are_fine(tmp_path: Path, layout: str, kept: int) -> None:
    root = tmp_path / "series"
    root.mkdir()
    files = saved(root, layout)
    files[1].write_bytes(files[1].read_bytes()[:kept])
    series = series_of(root, layout)
    assert [c.step for c in series.checkpoints] == [1, 2]
    for attempt in (lambda: series.header(series.checkpoints[1]), lambda: read(series, 1)):
        with pytest.raises(CheckpointError, match="cannot be read as weights") as refused:
            attempt()
        assert str(files[1]) in str(refused.value)
    assert series.header(series.checkpoints[0])
    assert read(series, 0).tensors


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pickle_that_would_run_a_command_is_refused_named_and_not_run(
    tmp_path: Path, layout: str, zipped: bool
) -> None:
    root, mark = tmp_path / "series", tmp_path / "executed"
    root.mkdir()
    files = saved(root, layout)
    if layout == "torchtitan":
        metadata = FileSystemReader(files[1].parent).read_metadata()
        metadata.planner_data = Malicious(mark)
        files[1].write_bytes(pickle.dumps(metadata, protocol=4 if zipped else 2))
    else:
        content = torch.load(files[1], weights_only=True)
        torch.save({**content, "extra": Malicious(mark)}, files[1], _use_new_zipfile_serialization=zipped)
    series = series_of(root, layout)
    for attempt in (lambda: series.header(series.checkpoints[1]), lambda: read(series, 1)):
        with pytest.raises(
            CheckpointError, match="was refused: it is a pickle that holds more than tensors"
        ) as refused:
            attempt()
        assert str(files[1]) in str(refused.value)
        assert "posix.system" in str(refused.value)
    assert not mark.exists()
    assert read(series, 0).tensors


@pytest.mark.parametrize("layout", ["nanogpt", "litgpt", "state-dicts"])
def test_a_series_that_is_nothing_but_such_pickles_is_refused_by_name(tmp_path: Path, layout: str) -> None:
    root, mark = tmp_path / "series", tmp_path / "executed"
    root.mkdir()
    for file in saved(root, layout):
        torch.save({"model": toy(), "extra": Malicious(mark)}, file)
    with pytest.raises(CheckpointError, match=r"was refused: .*posix.system"):
        # where folders say the steps, the series is listed
        (lambda series: series.header(series.checkpoints[0]))(opened(root))
    assert not mark.exists()


def test_a_command_in_the_place_of_a_tensor_of_a_distributed_checkpoint_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    file = saved(tmp_path / "series", "torchtitan", (1,))[0]
    save(tmp_path / "bad", Malicious(mark))
    data = file.with_name("__0_0.distcp")
    data.write_bytes((tmp_path / "bad").read_bytes())

    def point(metadata: Any) -> None:
        for info in metadata.storage_data.values():
            info.offset, info.length = 0, data.stat().st_size

    rewritten(file, point)
    with pytest.raises(CheckpointError, match=r"distcp was refused: .*posix.system"):
        read(series_of(tmp_path / "series", "torchtitan"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"nonsense", b"PK\x03\x04nonsense", pickle.dumps({"a": 1}), pickle.dumps(0x1950A86A20F9469CFC6C)]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nonsense_is_a_clear_error(tmp_path: Path, layout: str, damage: bytes) -> None:
    root = tmp_path / "series"
    root.mkdir()
    files = saved(root, layout)
    files[0].write_bytes(damage)
    series = series_of(root, layout)
    for attempt in (lambda: series.header(series.checkpoints[0]), lambda: read(series)):
        with pytest.raises(CheckpointError, match=r"cannot be read as weights|was refused") as refused:
            attempt()
        assert str(files[0]) in str(refused.value)


def test_any_damage_to_a_pickle_is_a_clear_error_or_none(tmp_path: Path) -> None:
    """Bytes changed at random: whatever the damaged program does, it raises nothing else."""
    random = np.random.default_rng(0)
    file = saved(tmp_path / "series", "torchtitan", (1,))[0]
    series = series_of(tmp_path / "series", "torchtitan")
    torch.save({"model": toy()}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    sources = {
        file: lambda: series.header(series.checkpoints[0]),
        tmp_path / "legacy.pt": lambda: contents(tmp_path / "legacy.pt"),
    }
    for damaged, attempt in sources.items():
        whole = damaged.read_bytes()
        for _ in range(80):
            data = bytearray(whole)
            for place in random.integers(len(data), size=3):
                data[place] = random.integers(256)
            damaged.write_bytes(data)
            with contextlib.suppress(CheckpointError):
                attempt()


def test_a_pickle_cannot_change_what_its_names_stand_for(tmp_path: Path) -> None:
    """The instruction BUILD sets attributes of whatever is there, also of functions and classes."""
    for name in ("torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict", "argparse\nNamespace"):
        program = b"\x80\x02c" + name.encode() + b"\nN}X\x07\x00\x00\x00made_ofK\x01s\x86b."
        header = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
        (tmp_path / "x.pt").write_bytes(header + program)
        with contextlib.suppress(CheckpointError):
            contents(tmp_path / "x.pt")
    assert Inert().made_of == ()
    save(tmp_path / "y.pt", toy())
    assert contents(tmp_path / "y.pt")["out.bias"] == TensorInfo((3,), "float32")


def test_every_dtype_is_listed_as_torch_calls_it(tmp_path: Path) -> None:
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
    kinds += [torch.uint16, torch.float8_e4m3fn]
    state = {str(kind): torch.zeros(2, 3, dtype=kind) for kind in kinds} | {"p": nn.Parameter(torch.ones(1))}
    series = opened(save(tmp_path / "step1.pt", state))
    stored = series.header(series.checkpoints[0])
    assert {n: i for n, i in stored.items() if n != "p"} == {
        str(k): TensorInfo((2, 3), str(k).removeprefix("torch.")) for k in kinds
    }
    assert stored["p"] == TensorInfo((1,), "float32")
    assert all(
        torch.equal(value.float(), state[name].float())
        for name, value in read(series).tensors.items()
        if "complex" not in name
    )


def test_listing_a_series_imports_no_torch(tmp_path: Path) -> None:
    llama().config.save_pretrained(tmp_path / "config")
    for layout in LAYOUTS:
        saved(tmp_path / layout, layout)
    save(tmp_path / "run.pth", LISTS["by step"])
    script = f"""
import sys
from pathlib import Path
from checkpoints.local import FolderConfig, FolderSeries
root = Path({str(tmp_path)!r})
for name in {[*LAYOUTS, "run.pth"]}:
    config = root / "config" if name == "torchtitan" else None
    series = FolderSeries(FolderConfig(path=root / name, config=config))
    for checkpoint in series.checkpoints:
        assert series.weight_files(checkpoint)
        assert name == "transformers" or series.header(checkpoint)
assert not {{"torch", "transformers"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_a_folder_in_two_layouts_must_say_which(tmp_path: Path) -> None:
    saved(tmp_path / "series", "transformers")
    saved(tmp_path / "series", "litgpt", (3, 4))
    with pytest.raises(
        UserError, match=r"in several layouts \(transformers: step1; litgpt: step-00000003\)"
    ) as refused:
        opened(tmp_path / "series")
    assert "transformers or litgpt" in str(refused.value)
    assert opened(tmp_path / "series", layout="litgpt").layout == "litgpt"


def test_nanogpts_files_can_be_read_as_plain_state_dicts(tmp_path: Path) -> None:
    saved(tmp_path, "nanogpt")
    series = opened(tmp_path, layout="state-dicts")
    assert [c.step for c in series.checkpoints] == [1, 2]
    assert (read(series).config, "transformer.wte.weight" in read(series).tensors) == (None, True)


def test_a_damaged_file_that_does_not_say_its_step_stops_the_series(tmp_path: Path) -> None:
    save_nanogpt(tmp_path / "a" / "ckpt.pt", NanoGPT(), 1)
    save_nanogpt(tmp_path / "step-5" / "ckpt.pt", NanoGPT(), 5).write_bytes(b"")
    assert [c.step for c in opened(tmp_path).checkpoints] == [1, 5]
    save(tmp_path / "b" / "ckpt.pt", {"model": toy()})
    with pytest.raises(CheckpointError, match="is not a checkpoint of nanoGPT") as refused:
        opened(tmp_path)
    assert "move it away" in str(refused.value)


def test_nothing_lists_the_layouts_and_what_was_seen(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    save(tmp_path / "grokking.pth", [toy()])
    with pytest.raises(UserError, match=r"no sub-folder at all; files: grokking.pth, notes.txt") as refused:
        opened(tmp_path)
    for layout in LAYOUTS.values():
        assert layout.EXPECTED in str(refused.value)
    assert "the one file that holds them all" in str(refused.value)


def test_a_folder_of_weights_without_a_config_is_read_with_the_given_one(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path / "series" / "step-3")
    shutil.move(tmp_path / "series" / "step-3" / "config.json", tmp_path / "config.json")
    with pytest.raises(UserError, match="is not a series"):
        opened(tmp_path / "series")
    series = opened(tmp_path / "series", config=tmp_path)
    prepared = read(series)
    assert (series.layout, prepared.native, series.config_folder) == ("transformers", False, tmp_path)
    torch.testing.assert_close(installed(prepared), logits_of(model), atol=1e-5, rtol=0)


def test_a_missing_config_is_a_clear_error(tmp_path: Path) -> None:
    saved(tmp_path, "transformers")
    with pytest.raises(UserError, match="there is no config") as refused:
        opened(tmp_path, config=tmp_path / "nowhere")
    assert "series.config" in str(refused.value)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be used"):
        read(opened(tmp_path, config=tmp_path / "bad.json"))
