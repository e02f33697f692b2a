"""What looks like a checkpoint is taken, or said to be left out with the reason, or refused: never passed over in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from checkpoints import CheckpointError, FolderConfig, UserError
from checkpoints.layouts import LAYOUTS
from checkpoints.layouts.names import file_step, folder_step
from checkpoints.series import LAST_STEP, Checkpoint, ordered
from tests.checkpoints.foreign import LIT_LLAMA, NanoGPT, as_litgpt, llama, opened, save, save_litgpt, save_nanogpt, toy
from tests.checkpoints.state_folders import model, states, steps
from tests.checkpoints.test_layouts import saved, series_of
from tests.checkpoints.test_local import put


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("Step3", 3),
        ("STEP-3", 3),
        ("step_3", 3),
        ("ckpt-003", 3),
        ("ckpt3", 3),
        ("Checkpoint-3", 3),
        ("iteration_3", 3),
    ],
)
def test_folders_are_found_however_their_names_are_written(tmp_path: Path, name: str, step: int) -> None:
    put(tmp_path, name)
    put(tmp_path, "step7")
    assert steps(opened(tmp_path)) == [step, 7] and folder_step(name) == step


@pytest.mark.parametrize("name", ["checkpoint_e001000.pt", "Model_Ep1000.pth", "ckpt-it1000.ckpt", "EPOCH=1000.pt"])
def test_files_are_found_by_abbreviations_too(name: str) -> None:
    assert (file_step(name) or (0, False))[0] == 1000


BESIDE = {
    "step91": lambda path: path.mkdir(),  # an empty folder
    "step92": lambda path: path.symlink_to("nowhere"),
    "step93.pt": lambda path: path.symlink_to("nowhere"),
    "step94k": lambda path: put(path.parent, path.name),
    "tmp-checkpoint-95": lambda path: put(path.parent, path.name),
    "step96.partial": lambda path: put(path.parent, path.name),
    "step97-tokens4B": lambda path: put(path.parent, path.name),
    "epoch-98": lambda path: put(path.parent, path.name),
    "mystep99": lambda path: put(path.parent, path.name),
    "run-step90": lambda path: put(path.parent, path.name, weights="notes.txt"),
    "run_step89_seed1.pt": lambda path: save(path, toy()),
    "ema_88.pt": lambda path: save(path, {"model": toy(), "step": 88}),
    "step87.safetensors": lambda path: path.write_bytes(b""),
    "epoch=1-step=86.ckpt": lambda path: path.write_bytes(b""),
    "step85.tar.gz": lambda path: path.write_bytes(b""),
    "step84": lambda path: path.write_bytes(b""),
    "another": lambda path: put(path, "step83"),
    "snapshot.pt": lambda path: save(path, {"model": toy(), "iter": 82}),
    "weights.pkl": lambda path: path.write_bytes(b""),
    "model.gguf": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_looks_like_a_checkpoint_and_is_not_taken_is_said_in_every_layout(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "series"
    root.mkdir()
    saved(root, layout)
    assert not series_of(root, layout).left_out
    for name, make in BESIDE.items():
        make(root / name)
    series = series_of(root, layout)
    assert (series.layout, steps(series)) == (layout, [1, 2])
    assert series.left_out.keys() == BESIDE.keys() and all(series.left_out.values())


NO_CHECKPOINTS = [
    "runs",
    "logs",
    "tokenizer",
    "wandb",
    "data/train.bin",
    "optimizer.pt",
    "rng_state_0.pth",
    "notes9.txt",
    "data_9.zip",
    "step9.log",
    ".step9",
    "training_args.bin",
    "scheduler.pt",
    "steps.json",
]


def test_what_is_no_checkpoint_is_not_spoken_of(tmp_path: Path) -> None:
    put(tmp_path, "step1")
    for name in NO_CHECKPOINTS:
        file = tmp_path / (name if "." in name[1:] else f"{name}/x.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    assert not opened(tmp_path).left_out


def test_the_final_model_beside_the_checkpoints_of_a_trainer_is_said_once(tmp_path: Path) -> None:
    put(tmp_path, "checkpoint-5")
    for name in ("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert opened(tmp_path).left_out == {
        "model-00001-of-00002.safetensors and 1 more": "beside the checkpoints, and nothing says its step"
    }


COPIES = (
    "ema_model.safetensors",
    "ema.pt",
    "consolidated.00.pth",
    "model.gguf",
    "tf_model.h5",
    "ema/model.safetensors",
)


def test_copies_of_the_model_in_a_checkpoint_are_said_whatever_their_format(tmp_path: Path) -> None:
    for step in (1, 2):
        put(tmp_path, f"step{step}")
    for name in (
        *COPIES,
        "optimizer.pt",
        "adapter_notes.txt",
        "training_args.bin",
        "random_states_0.pkl",
        "logs/x.json",
    ):
        (tmp_path / "step2" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "step2" / name).write_bytes(b"")
    reason = "the weights are read from model.safetensors"
    assert opened(tmp_path).left_out == {f"step2/{name}": reason for name in COPIES}


def test_a_second_copy_of_the_model_in_a_file_is_said(tmp_path: Path) -> None:
    states(tmp_path, step1=model(ema=toy(5)), step2=model(ema=toy(6), optimizer_state_dict={"state": {}}))
    assert opened(tmp_path).left_out == {
        "`ema` in step1.pt (and in 1 more)": "it is a second copy of the model's tensors"
    }


def test_a_file_that_says_its_step_and_is_overwritten_while_it_is_listed_is_not_read_as_that_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from checkpoints.layouts import statedicts

    states(tmp_path, step1=model(step=1), final=model(step=5))
    whole = statedicts.contents

    def listing(path: Path) -> Any:
        found = whole(path)
        if path.name == "final.pt":
            monkeypatch.setattr(statedicts, "contents", whole)
            save(path, model(step=6))
        return found

    monkeypatch.setattr(statedicts, "contents", listing)
    series = opened(tmp_path)
    assert steps(series) == [1, 5]
    with pytest.raises(CheckpointError, match="it may be of another step by now"):
        series.read(series.fetch(series.checkpoints[1]))


def test_a_folder_that_cannot_be_listed_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "step1")

    def gone(_self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "iterdir", gone)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["checkpoint_final", "final", "model_last", "best", "checkpoint"])
def test_a_last_state_dict_is_taken_by_the_step_inside(tmp_path: Path, name: str) -> None:
    states(tmp_path, step1=model(), step2=model(step=2), **{name: model(step=50)})
    assert steps(opened(tmp_path)) == [1, 2, 50]


def test_epochs_inside_count_where_names_count_epochs_and_only_there(tmp_path: Path) -> None:
    states(tmp_path / "epochs", ckpt_10=model(epoch=10), ckpt_20=model(epoch=20), ckpt_final=model(epoch=50))
    assert steps(opened(tmp_path / "epochs")) == [10, 20, 50]
    states(tmp_path / "steps", ckpt_1000=model(epoch=1), ckpt_2000=model(epoch=2), ckpt_final=model(epoch=5))
    series = opened(tmp_path / "steps")
    assert steps(series) == [1000, 2000]
    assert series.left_out == {"ckpt_final.pt": "it says epoch 5, where others count steps"}
    states(tmp_path / "said", a_final=model(), model_last=model(epoch=5), model_best=model(step=700))
    assert steps(opened(tmp_path / "said")) == [700]
    states(
        tmp_path / "both", epoch_1=model(), epoch_2=model(epoch=2), last=model(epoch=4, iter=400), best=model(step=9)
    )
    series = opened(tmp_path / "both")
    assert steps(series) == [1, 2, 4]
    assert series.left_out == {"best.pt": "it says step 9, where others count epochs"}


@pytest.mark.parametrize("content", [{"model": toy(), "step": 2}, {"model": toy()}, toy(), [1, 2]])
def test_a_last_one_that_is_a_copy_or_says_nothing_is_left_out_and_said(tmp_path: Path, content: Any) -> None:
    states(tmp_path, step1=model(), step2=model(), final=content)
    series = opened(tmp_path)
    assert steps(series) == [1, 2]
    [(name, reason)] = series.left_out.items()
    assert name == "final.pt" and "says" in reason


def test_a_last_folder_is_taken_by_the_step_that_lies_in_it(tmp_path: Path) -> None:
    state = put(tmp_path / "hf", "final") / "trainer_state.json"
    state.write_text('{"global_step": 70}')
    put(tmp_path / "hf", "checkpoint-50")
    assert steps(opened(tmp_path / "hf")) == [50, 70]
    state.write_text('{"global_step": 50}')
    assert opened(tmp_path / "hf").left_out == {"final": "it says step 50, as checkpoint-50 does"}
    state.unlink()
    assert "final" in opened(tmp_path / "hf").left_out
    save_litgpt(tmp_path / "lit" / "step-00000010", as_litgpt(llama()), LIT_LLAMA)
    file = save_litgpt(tmp_path / "lit" / "final", as_litgpt(llama()), LIT_LLAMA)
    save(file, {"model": as_litgpt(llama()), "step_count": 25, "iter_num": 100})
    assert steps(opened(tmp_path / "lit")) == [10, 25]
    for name, number in (("ckpt_10", 10), ("ckpt", 10), ("ckpt_final", 30)):
        save_nanogpt(tmp_path / "nano" / f"{name}.pt", NanoGPT(), number)
    series = opened(tmp_path / "nano")
    assert steps(series) == [10, 30] and series.left_out == {"ckpt.pt": "it says step 10, as ckpt_10.pt does"}


def test_a_last_one_in_another_layout_does_not_hide_the_series(tmp_path: Path) -> None:
    saved(tmp_path, "transformers")
    save(tmp_path / "final.pt", model(step=9))
    series = opened(tmp_path)
    assert (series.layout, steps(series), list(series.left_out)) == ("transformers", [1, 2], ["final.pt"])


def test_a_pattern_says_which_names_are_checkpoints_and_wins_over_what_is_inside(tmp_path: Path) -> None:
    root = states(tmp_path / "files", run1_s10=model(step=777), run1_s20=model(), run2_s30=model(), step5=model())
    series = opened(root, pattern=r"run1_s(?P<step>\d+)\.pt")
    assert steps(series) == [10, 20]
    assert set(series.left_out.values()) == {"its name does not match `series.pattern`"}
    for name in ("epoch-3", "epoch-4", "step9"):
        put(tmp_path / "folders", name)
    assert steps(opened(tmp_path / "folders", pattern=r"epoch-(?P<step>\d+)")) == [3, 4]
    for number in (7, 8):
        save_nanogpt(tmp_path / "nano" / f"run_{number}" / "ckpt.pt", NanoGPT(), 1000 * number)
    assert steps(opened(tmp_path / "nano", pattern=r"run_(?P<step>\d+)")) == [7, 8]


@pytest.mark.parametrize("pattern", ["step(", r"step(\d+)", r"(?P<step>\d+)(?P<unit>k)"])
def test_a_pattern_that_says_no_step_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"regular expression|no group named step|mean nothing here"):
        FolderConfig(path=tmp_path, pattern=pattern)


def test_a_pattern_that_does_not_fit_is_a_clear_error(tmp_path: Path) -> None:
    put(tmp_path, "step7k")
    with pytest.raises(UserError, match=r"what is there for the step is no number"):
        opened(tmp_path, pattern=r"step(?P<step>\w+)")
    with pytest.raises(UserError, match="is not a series") as refused:
        opened(tmp_path, pattern=r"epoch(?P<step>\d+)")
    assert "series.pattern" in str(refused.value)
    with pytest.raises(UserError, match="one file"):
        opened(save(tmp_path / "all.pt", [toy()]), pattern=r"(?P<step>\d+)", every=1)


@settings(max_examples=25)
@given(step=st.integers(max_value=-1) | st.integers(min_value=LAST_STEP + 1))
def test_a_step_that_does_not_fit_is_refused_wherever_it_comes_from(step: int) -> None:
    with pytest.raises(UserError, match=f"has a checkpoint of step {step}") as refused:
        ordered([Checkpoint(3, "step3"), Checkpoint(step, "here")], where="x")
    assert "'here'" in str(refused.value)
    assert ordered([Checkpoint(LAST_STEP, "last"), Checkpoint(0, "first")], where="x")[0].step == 0


@pytest.mark.parametrize("number", [-1, LAST_STEP + 1, 10**30])
def test_every_source_of_a_step_refuses_one_that_does_not_fit(tmp_path: Path, number: int) -> None:
    def refused(path: Path, **more: Any) -> None:
        with pytest.raises(UserError, match=f"of step {number}"):
            opened(path, **more)

    if number > 0:
        put(tmp_path / "name", f"step{number}")
        refused(tmp_path / "name")
        refused(tmp_path / "name", pattern=r"step(?P<step>\d+)")
    refused(states(tmp_path / "inside", step1=model(), step2=model(step=number)))
    refused(states(tmp_path / "last", step1=model(), final=model(step=number)))
    refused(save(tmp_path / "list.pt", {"checkpoints": [toy(), toy()], "steps": [0, number]}))
    refused(save(tmp_path / "keys.pt", {0: toy(), number: toy()}))
    refused(save_nanogpt(tmp_path / "nano" / "ckpt.pt", NanoGPT(), number))
    put(tmp_path / "state", "step1")
    (put(tmp_path / "state", "final") / "trainer_state.json").write_text(json.dumps({"global_step": number}))
    refused(tmp_path / "state")
    for setting in ({"steps": [0, number]}, {"every": number}):
        with pytest.raises(ValidationError):
            FolderConfig.model_validate({"path": tmp_path, **setting})
    with pytest.raises(UserError, match=f"of step {2 * LAST_STEP}"):
        opened(save(tmp_path / "every.pt", [toy(), toy(), toy()]), every=LAST_STEP)


@pytest.mark.parametrize("seen", [-5, 10**30, 10**400, "many", True, None, 1.5])
def test_tokens_that_are_no_number_of_tokens_are_unknown(tmp_path: Path, seen: Any) -> None:
    (put(tmp_path, "step5") / "trainer_state.json").write_text(json.dumps({"num_input_tokens_seen": seen}))
    assert [c.tokens for c in opened(tmp_path).checkpoints] == [None]
